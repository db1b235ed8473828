"""``NodeConfig``: every option of a node, with its default, limits and one sentence about it.

Invariant: every field carries what people must know about it as metadata; the TOML file, the command line and the
documentation are all made from that.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar, Literal

from attrs import frozen

from cloudmytask.config.instance import InstanceConfig, in_order, state_option
from cloudmytask.config.kinds import COUNT, DURATION, FRACTION, SIZE, choice
from cloudmytask.config.options import option
from cloudmytask.model.cluster import Role
from cloudmytask.model.errors import ConfigurationError
from cloudmytask.model.words import POLICIES

_DAY = 86_400.0
_DECADE = 3650 * _DAY


def _cores() -> int:
    return min(len(os.sched_getaffinity(0)), 4096)


@frozen(kw_only=True, field_transformer=in_order)
class NodeConfig(InstanceConfig):
    """All options of a node. Durations are seconds, sizes bytes.

    :raises ConfigurationError: a value is out of its range; the sentence names key, value and limit.
    """

    ROLE: ClassVar[Role] = Role.NODE

    state: Path = state_option(
        "cloudmytask",
        "Directory of all that the node keeps: socket, jobs, outputs, lock. It is made if need be, with mode 0700.",
    )
    slots: int = option(
        COUNT,
        "How many scripts run at once.",
        said="the number of cores that the node may use",
        example="4",
        factory=_cores,
        minimum=1,
        maximum=4096,
    )
    load_source: Literal["machine", "none"] = option(
        choice("machine", "none"),
        'Where the load is measured; "none" where several nodes share a host.',
        default="machine",
    )
    threshold: float = option(
        FRACTION,
        "Scripts start only while the load caused by others is below this: with 0 none ever does here, with 1 only"
        " the slots count.",
        default=0.75,
        minimum=0,
        maximum=1,
    )
    idle_threshold: float = option(
        FRACTION,
        "Jobs of class idle start only while the load caused by others is below this.",
        default=0.5,
        minimum=0,
        maximum=1,
    )
    placement: Literal["reserve-pull", "paper", "local"] = option(
        choice(*POLICIES),
        'Where jobs go that cannot start here at once: "reserve-pull" sends them to a node that is free and waits'
        ' while none is, "paper" hands them on at random as the original did, "local" keeps them here.',
        default="reserve-pull",
    )
    max_hops: int = option(
        COUNT, "How often a job may be handed on from node to node.", default=8, minimum=1, maximum=64
    )
    request_rate: int = option(
        COUNT, "Requests per second that one client may make on average.", default=1000, minimum=1, maximum=1_000_000
    )
    request_burst: int = option(
        COUNT, "Requests that a client which was quiet may make at once.", default=5000, minimum=1, maximum=10_000_000
    )
    byte_rate: int = option(
        SIZE, "Bytes per second that one client may send on average.", default=256 * 1024**2, minimum=1024
    )
    queue_max: int = option(
        COUNT, "How many jobs may wait; a further one is refused.", default=10_000, minimum=1, maximum=10_000_000
    )
    script_max: int = option(SIZE, "The largest script accepted.", default=64 * 1024**2, minimum=1)
    output_max: int = option(
        SIZE,
        "How much of each output stream is kept; what is beyond is thrown away, and the script runs on.",
        default=1024**3,
        minimum=0,
    )
    retention: float = option(
        DURATION,
        "How long outcome and output of a job are kept after its end, unless the job says otherwise.",
        default=7 * _DAY,
        minimum=0,
        maximum=_DECADE,
    )
    retention_max: float = option(
        DURATION, "The longest retention that a job may ask for.", default=30 * _DAY, minimum=0, maximum=_DECADE
    )
    tombstones: float = option(
        DURATION,
        "How long a job is still known as expired after its retention.",
        default=30 * _DAY,
        minimum=0,
        maximum=_DECADE,
    )
    disk_min: int = option(
        SIZE,
        "How much room must be left on the disk of the state directory for the node to accept new work.",
        default=64 * 1024**2,
        minimum=0,
    )
    poison_max: int = option(
        COUNT,
        "After how many attempts during which its node died a job is given up as lost.",
        default=3,
        minimum=1,
        maximum=1000,
    )
    sweep_interval: float = option(
        DURATION, "How often expired jobs are looked for.", default=30.0, minimum=0.1, maximum=_DAY
    )
    drain_timeout: float = option(
        DURATION,
        "How long a node that shuts down waits for running scripts; the rest start again with its next life.",
        default=30.0,
        minimum=0,
        maximum=_DAY,
    )
    kill_grace: float = option(
        DURATION,
        "How long a script that was asked to end (SIGTERM) may take before it is killed.",
        default=10.0,
        minimum=0,
        maximum=_DAY,
    )
    orphan_grace: float = option(
        DURATION,
        "How long a script that runs for another node goes on after the link to that node is lost.",
        default=60.0,
        minimum=0,
        maximum=_DAY,
    )
    exit_grace: float = option(
        DURATION,
        "How long output is still awaited after a script's end while one of its children holds the stream open.",
        default=0.5,
        minimum=0,
        maximum=3600,
    )

    def __attrs_post_init__(self) -> None:
        """Check what concerns more than one value."""
        super().__attrs_post_init__()
        if self.retention > self.retention_max:
            shown = DURATION.show
            raise ConfigurationError(
                f"retention ({shown(self.retention)}) is longer than retention_max ({shown(self.retention_max)})."
            )
