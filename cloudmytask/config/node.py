"""``NodeConfig``: every option of a node, with its default, limits and one sentence about it.

Invariant: every field carries what people must know about it as metadata; the TOML file, the command line and the
documentation are all made from that.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Literal

import attrs
from attrs import field, frozen

from cloudmytask.config.kinds import ADDRESSES, COUNT, DURATION, FRACTION, LOG, NAME, PATH, SIZE, choice
from cloudmytask.config.option import Option, about, option_of, valid
from cloudmytask.errors import ConfigurationError

SOCKET_PATH_MAX = 107
"""Bytes that ``sun_path`` holds before its terminating NUL; see unix(7)."""

_DAY = 86_400.0
_DECADE = 3650 * _DAY


def default_state(environ: Mapping[str, str] | None = None, *, root: bool | None = None) -> Path:
    """Where a node keeps its state unless told otherwise (XDG base directory specification)."""
    if os.geteuid() == 0 if root is None else root:
        return Path("/var/lib/cloudmytask")
    named = Path((os.environ if environ is None else environ).get("XDG_STATE_HOME", ""))
    # The specification has relative paths ignored.
    return (named if named.is_absolute() else Path.home() / ".local" / "state") / "cloudmytask"


def socket_path(state: Path) -> Path:
    """The unix socket of the node whose state directory is ``state``."""
    return state / "node.sock"


def _host_name() -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:64] or "node"


def _cores() -> int:
    return min(len(os.sched_getaffinity(0)), 4096)


@frozen(kw_only=True)
class NodeConfig:
    """All options of a node. Durations are seconds, sizes bytes.

    :raises ConfigurationError: a value is out of its range; the sentence names key, value and limit.
    """

    state: Path = field(
        factory=default_state,
        validator=valid,
        metadata=about(
            PATH,
            "Directory of all that the node keeps: socket, jobs, outputs, lock. It is made if need be, with mode 0700.",
            said="$XDG_STATE_HOME/cloudmytask, as a rule ~/.local/state/cloudmytask; for root /var/lib/cloudmytask",
            example='"/var/lib/cloudmytask"',
        ),
    )
    name: str = field(
        factory=_host_name,
        validator=valid,
        metadata=about(NAME, "The node's name, as people see it.", said="the host's name", example='"lab-7"'),
    )
    listen: tuple[str, ...] = field(
        default=(),
        validator=valid,
        metadata=about(
            ADDRESSES,
            "TCP addresses to listen on besides the unix socket; only loopback ones until a cluster key exists.",
            said="none",
            example='["127.0.0.1:7001"]',
        ),
    )
    slots: int = field(
        factory=_cores,
        validator=valid,
        metadata=about(
            COUNT,
            "How many scripts run at once.",
            said="the number of cores that the node may use",
            example="4",
            minimum=1,
            maximum=4096,
        ),
    )
    load_source: Literal["machine", "none"] = field(
        default="machine",
        validator=valid,
        metadata=about(
            choice("machine", "none"),
            'Where the load is measured; "none" where several nodes share a host.',
        ),
    )
    idle_threshold: float = field(
        default=0.5,
        validator=valid,
        metadata=about(
            FRACTION,
            "Jobs of class idle start only while the load caused by others is below this.",
            minimum=0,
            maximum=1,
        ),
    )
    queue_max: int = field(
        default=10_000,
        validator=valid,
        metadata=about(COUNT, "How many jobs may wait; a further one is refused.", minimum=1, maximum=10_000_000),
    )
    script_max: int = field(
        default=64 * 1024**2,
        validator=valid,
        metadata=about(SIZE, "The largest script accepted.", minimum=1),
    )
    output_max: int = field(
        default=1024**3,
        validator=valid,
        metadata=about(
            SIZE,
            "How much of each output stream is kept; what is beyond is thrown away, and the script runs on.",
            minimum=0,
        ),
    )
    retention: float = field(
        default=7 * _DAY,
        validator=valid,
        metadata=about(
            DURATION,
            "How long outcome and output of a job are kept after its end, unless the job says otherwise.",
            minimum=0,
            maximum=_DECADE,
        ),
    )
    retention_max: float = field(
        default=30 * _DAY,
        validator=valid,
        metadata=about(DURATION, "The longest retention that a job may ask for.", minimum=0, maximum=_DECADE),
    )
    tombstones: float = field(
        default=30 * _DAY,
        validator=valid,
        metadata=about(
            DURATION, "How long a job is still known as expired after its retention.", minimum=0, maximum=_DECADE
        ),
    )
    sweep_interval: float = field(
        default=30.0,
        validator=valid,
        metadata=about(DURATION, "How often expired jobs are looked for.", minimum=0.1, maximum=_DAY),
    )
    drain_timeout: float = field(
        default=30.0,
        validator=valid,
        metadata=about(
            DURATION,
            "How long a node that shuts down waits for running scripts; the rest start again with its next life.",
            minimum=0,
            maximum=_DAY,
        ),
    )
    kill_grace: float = field(
        default=10.0,
        validator=valid,
        metadata=about(
            DURATION,
            "How long a script that was asked to end (SIGTERM) may take before it is killed.",
            minimum=0,
            maximum=_DAY,
        ),
    )
    exit_grace: float = field(
        default=0.5,
        validator=valid,
        metadata=about(
            DURATION,
            "How long output is still awaited after a script's end while one of its children holds the stream open.",
            minimum=0,
            maximum=3600,
        ),
    )
    log: Path | Literal["-"] | None = field(
        default=None,
        validator=valid,
        metadata=about(
            LOG,
            "The log file, one JSON object per line.",
            said="node.log in the state directory for a daemon, standard error otherwise",
            example='"/var/log/cloudmytask.log"',
        ),
    )

    def __attrs_post_init__(self) -> None:
        """Check what concerns more than one value."""
        if self.retention > self.retention_max:
            shown = DURATION.show
            raise ConfigurationError(
                f"retention ({shown(self.retention)}) is longer than retention_max ({shown(self.retention_max)})."
            )
        size = len(os.fsencode(self.socket))
        if size > SOCKET_PATH_MAX:
            raise ConfigurationError(
                f"state: the socket's path {str(self.socket)!r} has {size} bytes, and a unix socket may have"
                f" {SOCKET_PATH_MAX} at most; choose a shorter state directory."
            )

    @property
    def socket(self) -> Path:
        """Path of the unix socket."""
        return socket_path(self.state)


@cache
def options() -> tuple[Option, ...]:
    """Every option, in the order of the documentation."""
    return tuple(option_of(attribute) for attribute in attrs.fields(NodeConfig))
