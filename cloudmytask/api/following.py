"""Those who follow a job, or what happens: what each is told, and when it ends.

Invariant: nobody is told anything after the outcome of the job that it follows, nor after it has lost interest.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from cloudmytask.boundaries import BansChanged, Event, JobEvent, MemberChanged, Watch
from cloudmytask.model.job import Job, JobId, JobState, StreamName

_log = Logger()

Riding = Mapping[StreamName, bytes]
"""The whole output of a job."""
Told = Callable[[Job, Riding | None], None]
"""Takes a change of a job, and with its outcome the output, if that was asked for and is small enough to ride along."""

EventTold = Callable[[JobEvent | MemberChanged | BansChanged], None]
"""Takes what happens."""


@define(eq=False)
class JobFollowing:
    """The way from the changes of one job to who is told of them. Nobody is told anything after the outcome, or after
    :meth:`close`."""

    _riding: Callable[[Job], Awaitable[Riding | None]]
    _told: Told
    _every: bool
    _output: bool
    _watch: Watch | None = field(init=False, default=None)
    _over: bool = field(init=False, default=False)
    _closed: bool = field(init=False, default=False)

    def began(self, watch: Watch) -> None:
        """The job is watched; ``watch`` ends that."""
        self._watch = watch
        if self._closed:
            watch.close()

    def changed(self, job: Job) -> None:
        """The job has changed."""
        if self._over or self._closed:
            return
        self._over = job.state.terminal
        if self._over and self._output:
            Deferred.fromCoroutine(self._tell_with_output(job)).addErrback(
                lambda failure: _log.failure("a watch broke", failure=failure)
            )
        elif self._over or self._every:
            self._told(job, None)

    def close(self) -> None:
        """Nobody is interested any more. Idempotent."""
        self._closed = True
        if self._watch is not None:
            self._watch.close()

    async def _tell_with_output(self, job: Job) -> None:
        riding = await self._riding(job)
        if not self._closed:
            self._told(job, riding)


@define(eq=False)
class EventsTold:
    """The way from what happens to who follows it: changes of a job that leave it in its state are left out."""

    _told: EventTold
    _sequence: int = field(init=False, default=0)
    _last: dict[JobId, tuple[JobState, int]] = field(init=False, factory=dict)
    """Of jobs without outcome."""

    def happened(self, event: Event) -> None:
        """Something has happened."""
        if not isinstance(event, Job):
            self._told(event)
            return
        now = (event.state, 0 if event.attempt is None else event.attempt.number)
        if self._last.get(event.id) == now:
            return
        if event.state.terminal:
            self._last.pop(event.id, None)
        else:
            self._last[event.id] = now
        self._sequence += 1
        reason = None if event.outcome is None else event.outcome.reason
        self._told(JobEvent(self._sequence, event.id, event.client, *now, reason))
