"""``CsuConfig``: every option of a Central Supervisory Unit, with its default, limits and one sentence about it.

Invariant: as for :class:`~cloudmytask.config.node.NodeConfig`: file, command line and documentation are made from it.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from attrs import frozen

from cloudmytask.config.instance import InstanceConfig, in_order, state_option
from cloudmytask.config.kinds import DURATION
from cloudmytask.config.options import option
from cloudmytask.model.cluster import Role

_DAY = 86_400.0


@frozen(kw_only=True, field_transformer=in_order)
class CsuConfig(InstanceConfig):
    """All options of a CSU. Durations are seconds.

    :raises ConfigurationError: a value is out of its range; the sentence names key, value and limit.
    """

    ROLE: ClassVar[Role] = Role.CSU

    state: Path = state_option(
        "cloudmytask-csu",
        "Directory of all that the CSU keeps: socket, bans, load history. It is made if need be, with mode 0700.",
    )
    history: float = option(
        DURATION, "How long the load history is kept.", default=7 * _DAY, minimum=60, maximum=3650 * _DAY
    )
    history_interval: float = option(
        DURATION,
        "The interval between two entries of the load history, each node.",
        default=10.0,
        minimum=1,
        maximum=3600,
    )
