"""What a client has asked to be told of on one connection: the states of jobs, and output as it comes.

Invariant: whatever is subscribed to ends by itself, by its owner's loss of interest, or with the connection; the node
is told of the second, and pieces that were on their way then are let go. An output has ended when its last piece is
written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import count
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

from cloudmytask.boundaries import Clock, OutputEnd
from cloudmytask.codec import decode
from cloudmytask.codec.people import JobStatus
from cloudmytask.deferreds import Signal, patiently
from cloudmytask.model.errors import (
    CloudMyTaskError,
    ConnectionInterrupted,
    InternalError,
    InvalidArgument,
    RequestTimeout,
    WaitTimeout,
)
from cloudmytask.model.job import StreamName
from cloudmytask.wire import commands
from cloudmytask.wire.guard import GuardedAMP, Vocabulary

Write = Callable[[StreamName, bytes], Deferred[None] | None]
"""Takes a piece of output. A Deferred says when there is room for more: the node sends a window's worth until then."""
Changed = Callable[[JobStatus], None]
OUTCOMES_MAX = 500
"""Outcomes that are awaited on one connection: a node keeps a limited number of watches for each."""


@define(eq=False)
class _Stream:
    """An output as it comes; ``ended`` fires once."""

    write: Write
    ended: Deferred[OutputEnd] = field(factory=Deferred)
    last_word: OutputEnd | None = None
    _unwritten: int = 0

    def take(self, stream: str, data: bytes) -> Deferred[dict[str, Any]]:
        """Write a piece; fires with the answer to the node when that is done. A failure is the caller's to learn."""
        self._unwritten += 1
        return maybeDeferred(lambda: self.write(StreamName(stream), data)).addBoth(self._written)

    def end(self, end: OutputEnd) -> None:
        """The node has sent all of it."""
        self.last_word = end
        self._end()

    def fail(self, problem: Failure | Exception) -> None:
        """It ends otherwise; the first reason stands."""
        if not self.ended.called:
            self.ended.errback(problem)

    def _written(self, result: object) -> dict[str, Any]:
        self._unwritten -= 1
        if isinstance(result, Failure):
            self.fail(result)
        self._end()
        return {}

    def _end(self) -> None:
        if self.last_word is not None and not self._unwritten and not self.ended.called:
            self.ended.callback(self.last_word)


@define(eq=False)
class PushedOutcome:
    """The outcome of a job that was submitted on a connection: its node tells it by itself.

    :ivar job: the job with its outcome, once it has come.
    :ivar output: what it has written, if that is small and came along.
    """

    job: JobStatus | None = None
    output: Mapping[StreamName, bytes] | None = None
    _over: bool = field(init=False, default=False)
    _end: Signal = field(init=False, factory=Signal)

    async def wait(self, clock: Clock, timeout: float | None) -> JobStatus | None:
        """The job with its outcome; None if the connection ended before it came.

        :raises twisted.internet.defer.TimeoutError: neither happened within ``timeout`` seconds.
        """
        if not self._over:
            ending = self._end.wait()
            await (ending if timeout is None else patiently(clock, timeout, ending))
        return self.job

    def come(self, job: JobStatus, stdout: bytes | None, stderr: bytes | None) -> None:
        """It has."""
        self.job = job
        if stdout is not None and stderr is not None:
            self.output = {StreamName.STDOUT: stdout, StreamName.STDERR: stderr}
        self.end()

    def end(self) -> None:
        """Nothing more comes."""
        self._over = True
        self._end.fire()


class Subscriptions:
    """The client's end of watches and output streams, and the connection that they come on.

    :param numbers: names for what is begun on the connection.
    """

    def __init__(self, clock: Clock, numbers: count[int]) -> None:
        self._clock = clock
        self._numbers = numbers
        self._watches: dict[int, Changed] = {}
        self._streams: dict[int, _Stream] = {}
        self._waiting: dict[int, Deferred[JobStatus]] = {}
        self._outcomes: dict[int, PushedOutcome] = {}
        vocabulary = Vocabulary(
            {
                commands.JobChanged: self._job_changed,
                commands.OutputData: self._output_data,
                commands.OutputEnded: self._output_ended,
            }
        )
        self.protocol = GuardedAMP(vocabulary, clock, self._lost)

    async def submit(self, **arguments: Any) -> tuple[JobStatus, PushedOutcome | None]:
        """Submit a job, and have its outcome pushed, with a small output; None if too many are awaited already."""
        if len(self._outcomes) >= OUTCOMES_MAX:
            answer = await self.protocol.ask(commands.SubmitJob, **arguments)
            return JobStatus.from_document(answer["job"]), None
        number = next(self._numbers)
        outcome = self._outcomes[number] = PushedOutcome()
        try:
            answer = await self.protocol.ask(commands.SubmitJob, watch=number, output=True, **arguments)
        except CloudMyTaskError:
            self._outcomes.pop(number, None)
            raise
        job = JobStatus.from_document(answer["job"])
        if job.state.terminal and self._outcomes.pop(number, None) is not None:
            outcome.come(job, answer.get("stdout"), answer.get("stderr"))
        return job, outcome

    async def watch(self, job_id: str, changed: Changed, every: bool) -> tuple[JobStatus, Callable[[], None]]:
        """See ``NodeClient.watch``."""
        number = next(self._numbers)
        self._watches[number] = changed

        def end() -> None:
            if self._watches.pop(number, None) is not None:
                self._unsubscribe(number)

        try:
            answer = await self.protocol.ask(commands.WatchJob, watch=number, job=job_id, every=every)
        except CloudMyTaskError:
            self._watches.pop(number, None)
            raise
        job = JobStatus.from_document(answer["job"])
        if job.state.terminal:
            self._watches.pop(number, None)
        return job, end

    async def wait(self, job_id: str, timeout: float | None) -> JobStatus:
        """See ``NodeClient.wait``."""
        done: Deferred[JobStatus] = Deferred()
        number = next(self._numbers)
        self._waiting[number] = done

        def changed(job: JobStatus) -> None:
            if job.state.terminal and not done.called:
                done.callback(job)

        try:
            job, end = await self.watch(job_id, changed, every=False)
            if job.state.terminal:
                end()
                return job
            timer = None
            if timeout is not None:
                late = WaitTimeout(f"job {job.id} is {job.state.value} after {timeout:g} s")
                timer = self._clock.callLater(timeout, done.errback, late)
            try:
                return await done
            finally:
                if timer is not None and timer.active():
                    timer.cancel()
                end()
        finally:
            del self._waiting[number]

    async def output(
        self, job_id: str, write: Write, attempt: int, offsets: Mapping[StreamName, int] | None, follow: bool
    ) -> OutputEnd:
        """See ``NodeClient.output``."""
        number = next(self._numbers)
        stream = self._streams[number] = _Stream(write)
        places = offsets if offsets is not None else dict.fromkeys(StreamName, 0)
        try:
            await self.protocol.ask(
                commands.StreamOutput,
                watch=number,
                job=job_id,
                attempt=attempt,
                offsets={name.value: offset for name, offset in places.items()},
                follow=follow,
            )
            return await stream.ended
        finally:
            # Still there if the caller lost interest or could not write; the node must then not go on sending.
            if self._streams.pop(number, None) is not None:
                self._unsubscribe(number)

    def _job_changed(
        self, watch: int, job: Mapping[str, Any], stdout: bytes | None = None, stderr: bytes | None = None
    ) -> dict[str, Any]:
        status = JobStatus.from_document(job)
        if status.state.terminal and watch in self._outcomes:
            self._outcomes.pop(watch).come(status, stdout, stderr)
            return {}
        changed = self._watches.pop(watch, None) if status.state.terminal else self._watches.get(watch)
        if changed is not None:
            changed(status)
        return {}

    def _output_data(
        self,
        watch: int,
        stream: str,
        offset: int,  # noqa: ARG002 - pieces come in order
        data: bytes,
    ) -> dict[str, Any] | Deferred[dict[str, Any]]:
        if watch not in self._streams:  # it was on its way when the caller lost interest
            return {}
        return self._streams[watch].take(stream, data)

    def _output_ended(self, watch: int, end: Mapping[str, Any]) -> dict[str, Any]:
        stream = self._streams.pop(watch, None)
        if stream is None:
            return {}
        if "error" in end:
            stream.fail(InternalError(f"the output could not be read to its end: {end['error']}"))
            return {}
        try:
            stream.end(decode(OutputEnd, end))
        except InvalidArgument as problem:
            stream.fail(InternalError(f"the node's last word on the output is malformed: {problem}"))
            raise
        return {}

    def _unsubscribe(self, number: int) -> None:
        if self.protocol.alive:
            self.protocol.ask(commands.Unsubscribe, watch=number).addErrback(_gone)

    def _lost(self) -> None:
        outcomes, self._outcomes = self._outcomes, {}
        for outcome in outcomes.values():
            outcome.end()
        self._watches.clear()
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.fail(ConnectionInterrupted("the connection ended before the output did"))
        for done in list(self._waiting.values()):
            if not done.called:
                done.errback(ConnectionInterrupted("the connection ended before the job did"))


def _gone(failure: Any) -> None:
    """A watch ends with its connection, so a connection that ends first has done what was asked."""
    failure.trap(ConnectionInterrupted, RequestTimeout)
