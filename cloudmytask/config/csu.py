"""``CsuConfig``: every option of a Central Supervisory Unit, with its default, limits and one sentence about it.

Invariant: as for :class:`~cloudmytask.config.node.NodeConfig`: file, command line and documentation are made from it.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from attrs import field, frozen

from cloudmytask.config.instance import InstanceConfig, about_log, about_state, in_order
from cloudmytask.config.kinds import DURATION
from cloudmytask.config.option import about, valid
from cloudmytask.directories import default_state
from cloudmytask.model.cluster import Role

_DAY = 86_400.0


@frozen(kw_only=True, field_transformer=in_order)
class CsuConfig(InstanceConfig):
    """All options of a CSU. Durations are seconds.

    :raises ConfigurationError: a value is out of its range; the sentence names key, value and limit.
    """

    ROLE: ClassVar[Role] = Role.CSU

    state: Path = field(
        factory=lambda: default_state(directory="cloudmytask-csu"),
        validator=valid,
        metadata=about_state(
            "cloudmytask-csu",
            "Directory of all that the CSU keeps: socket, bans, load history. It is made if need be, with mode 0700.",
        ),
    )
    history: float = field(
        default=7 * _DAY,
        validator=valid,
        metadata=about(DURATION, "How long the load history is kept.", minimum=60, maximum=3650 * _DAY),
    )
    history_interval: float = field(
        default=10.0,
        validator=valid,
        metadata=about(
            DURATION, "The interval between two entries of the load history, each node.", minimum=1, maximum=3600
        ),
    )
    log: Path | Literal["-"] | None = field(default=None, validator=valid, metadata=about_log(Role.CSU))
