"""What a node asks of those who run scripts: what to start, where its output goes, how it ended.

Invariant: a launch and its record are values, which could be written down or sent to another process. Only a runner in
the node's own process uses sinks; they are found by what the launch names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from attrs import define, evolve, field, frozen
from twisted.internet.defer import Deferred

from cloudmytask.model.job import AttemptId, Blob, ClientId, Limits, Outcome, Reason, Resource, StreamName


@frozen
class StreamTarget:
    """Where one stream of a script's output goes."""

    spool: str
    """Name of its spool (:meth:`JobStore.spool`)."""
    limit: int
    """Bytes that are kept; what is beyond is counted and thrown away."""


class StreamSink(Protocol):
    """One stream as it is written, for a runner that hears its scripts itself."""

    @property
    def discarded(self) -> int:
        """Bytes beyond the limit, so far."""

    def write(self, data: bytes) -> Deferred[None] | None:
        """Take in the next piece. A Deferred: bring no more of this stream before it has fired or failed."""


Sinks = Callable[[StreamTarget], StreamSink]
"""Finds the sink that was opened for a target."""


@define(eq=False)
class OpenSinks:
    """The sinks of the attempts under way, by the names of their spools: the node opens them, its runner writes."""

    _open: dict[str, StreamSink] = field(factory=dict)

    def __call__(self, target: StreamTarget) -> StreamSink:
        """The sink of ``target``.

        :raises KeyError: the node has not opened it, or has given it up.
        """
        return self._open[target.spool]

    def open(self, target: StreamTarget, sink: StreamSink) -> None:
        """An attempt is about to write there."""
        self._open[target.spool] = sink

    def close(self, target: StreamTarget) -> None:
        """Nobody writes there any more. Idempotent."""
        self._open.pop(target.spool, None)


@frozen(kw_only=True)
class Launch:
    """All that is needed to get one attempt ready, to start it, and to end it in time: a value, nothing of the
    node's."""

    id: AttemptId
    client: ClientId
    """Whose job it is."""
    python: str
    """Absolute path of the interpreter; not resolved, for a venv is known by its path."""
    files: Mapping[str, Blob]
    """What is laid out in its directory before it starts: file name → blob."""
    script_name: str
    """File name inside its directory."""
    arguments: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(factory=dict)
    """What the job adds to the clean environment, ``CMT_*`` included."""
    limits: Limits = field(factory=Limits)
    stdin: str | None = None
    """Path, inside its directory, of the file to read standard input from; None is an empty input."""
    streams: Mapping[StreamName, StreamTarget]
    """Where its output goes, both streams."""
    deadline: float | None = None
    """Seconds from its start after which it is stopped for ``timeout``."""
    kill_grace: float
    """Seconds from SIGTERM to SIGKILL when it is stopped."""


@frozen
class ExitRecord:
    """How a launch ended."""

    died: Outcome
    """How its process ended: the reason is ``exit``, ``signal`` or ``launch``."""
    stopped_for: Reason | None = None
    """Why it was stopped, if it was; its process may have ended otherwise."""
    discarded: Mapping[StreamName, int] = field(factory=dict)
    """Bytes of output beyond its limits; a stream that is not in it has none."""
    short: Resource | None = None
    """What this node lacked, so that no process was started; the reason is ``launch`` then, and none of the job's."""

    @property
    def outcome(self) -> Outcome:
        """The attempt's: what it was stopped for counts."""
        return self.died if self.stopped_for is None else evolve(self.died, reason=self.stopped_for)


class Running(Protocol):
    """One script that was started."""

    @property
    def ended(self) -> Deferred[ExitRecord]:
        """Fires once, when the script has ended, its output has been delivered and its process group is gone."""

    @property
    def stopped_for(self) -> Reason | None:
        """Why it is being stopped; None if it is not."""

    def stop(self, reason: Reason) -> None:
        """SIGTERM to the whole process group, SIGKILL after ``Launch.kill_grace``. The first reason stands; late and
        repeated calls do nothing."""

    def kill(self) -> None:
        """SIGKILL to the whole process group. Late and repeated calls do nothing."""


class Runner(Protocol):
    """Starts scripts, and stops them when their time is over."""

    def start(self, launch: Launch, directory: str) -> Running:
        """Start it now. A launch that fails is a record (reason ``launch``), not an exception.

        :param directory: absolute path of the directory that holds ``launch.files``; the script's working directory.
        """

    def sweep(self) -> int:
        """Kill all that an earlier life of this node left running; how many processes there were. May block:
        called once, before anything is started."""
