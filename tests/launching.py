"""Launches as tests want them, and sinks that keep what is written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import define, evolve
from twisted.internet.defer import Deferred

from cloudmytask.boundaries import Launch, Sinks, StreamTarget
from cloudmytask.model.job import AttemptId, ClientId, JobId, StreamName

Written = Callable[[StreamName, bytes], Deferred[None] | None]


def launch(job: str = "job", **changes: Any) -> Launch:
    """A launch of ``s.py``, to be stopped with an hour of grace."""
    attempt = AttemptId(JobId(job), 1, 1)
    streams = {stream: StreamTarget(f"{attempt}.{stream}", 1 << 40) for stream in StreamName}
    plain = Launch(
        id=attempt,
        client=ClientId("ann"),
        python="/venv/bin/python",
        files={},
        script_name="s.py",
        streams=streams,
        kill_grace=3600.0,
    )
    return evolve(plain, **changes)


@define
class Heard:
    """One stream of a script, told to a function."""

    told: Written
    stream: StreamName
    discarded: int = 0

    def write(self, data: bytes) -> Deferred[None] | None:
        """The next piece."""
        return self.told(self.stream, data)


def sinks(written: Written) -> Sinks:
    """Sinks that tell all that is written."""
    return lambda target: Heard(written, StreamName(target.spool.rpartition(".")[2]))
