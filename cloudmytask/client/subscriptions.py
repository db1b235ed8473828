"""What a client is told by itself on one connection: the states of jobs, and output as it comes.

Invariant: whatever is subscribed to ends by itself, by its owner's loss of interest, or with the connection; the node
is told of the second, and pieces that were on their way then are let go. An output has ended when its last piece is
written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import count
from typing import Any

from attrs import define, field, frozen
from twisted.internet import defer
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
from cloudmytask.wire.commands import NodeCommand
from cloudmytask.wire.guard import GuardedAMP, Vocabulary

Write = Callable[[StreamName, bytes], Deferred[None] | None]
"""Takes a piece of output. A Deferred says when there is room for more: the node sends a window's worth until then."""
Changed = Callable[[JobStatus], None]
SUBMITTED_MAX = 500
"""Subscriptions of one connection beyond which a job is submitted without any: a node keeps a limited number."""


@define(eq=False)
class Subscription:
    """Something that the node tells of by itself, under a number."""

    number: int
    _connection: Subscriptions

    def close(self) -> None:
        """Be told no more. Idempotent."""
        self._connection.close(self.number)


@define(eq=False)
class Watched(Subscription):
    """A job, as the node tells of it.

    :ivar job: as it was told last; None before anything was.
    :ivar output: all that it has written, if it has its outcome and this was small enough to come along.
    :ivar lost: whether the connection ended before the job did, so that nothing more comes.
    """

    _changed: Changed = lambda _job: None
    job: JobStatus | None = field(init=False, default=None)
    output: Mapping[StreamName, bytes] | None = field(init=False, default=None)
    lost: bool = field(init=False, default=False)
    _told: Signal = field(init=False, factory=Signal)

    async def until(self, reached: Callable[[JobStatus], bool], timeout: float | None = None) -> JobStatus:
        """The job, once ``reached`` holds of it or it has its outcome.

        :param timeout: seconds.
        :raises ConnectionInterrupted: the connection ended first. :raises WaitTimeout: neither came in time.
        """

        async def reach() -> JobStatus:
            while (job := self.job) is None or not (job.state.terminal or reached(job)):
                if self.lost:
                    raise ConnectionInterrupted("the connection ended before the job did")
                await self._told.wait()
            return job

        reaching = Deferred.fromCoroutine(reach())
        if timeout is None:
            return await reaching
        try:
            return await patiently(self._connection.clock, timeout, reaching)
        except defer.TimeoutError:
            assert self.job is not None
            raise WaitTimeout(f"job {self.job.id} is {self.job.state.value} after {timeout:g} s") from None

    def began(self, answer: Mapping[str, Any]) -> JobStatus:
        """The node has answered with the job as it stands, unless it has told of it since."""
        if self.job is None:
            self._take(JobStatus.from_document(answer["job"]), answer.get("stdout"), answer.get("stderr"))
        assert self.job is not None
        return self.job

    @property
    def told(self) -> JobStatus | None:
        """The job as the node told it last, if that cannot be outdated."""
        return None if self.lost else self.job

    def tell(self, job: JobStatus, stdout: bytes | None, stderr: bytes | None) -> None:
        """The job has changed."""
        self._take(job, stdout, stderr)
        self._changed(job)

    def lose(self) -> None:
        """The connection is gone."""
        self.lost = True
        self._told.fire()

    def _take(self, job: JobStatus, stdout: bytes | None, stderr: bytes | None) -> None:
        self.job = job
        if stdout is not None and stderr is not None:
            self.output = {StreamName.STDOUT: stdout, StreamName.STDERR: stderr}
        if job.state.terminal:
            self._connection.ended(self.number)
        self._told.fire()


@define(eq=False)
class Stream(Subscription):
    """An output as it comes. Pieces that come before :meth:`read` are held, and not answered: a window's worth."""

    _write: Write | None = field(init=False, default=None)
    _held: list[tuple[str, bytes, Deferred[dict[str, Any]]]] = field(init=False, factory=list)
    _unwritten: int = field(init=False, default=0)
    _last_word: OutputEnd | None = field(init=False, default=None)
    _problem: Failure | None = field(init=False, default=None)
    _told: Signal = field(init=False, factory=Signal)

    async def read(self, write: Write) -> OutputEnd:
        """Have all pieces written; fails with what ``write`` fails with. Once only.

        :raises ConnectionInterrupted: the connection ended first. :raises InternalError: the node could not go on.
        """
        self._write = write
        held, self._held = self._held, []
        for stream, data, answer in held:
            self._written(stream, data).chainDeferred(answer)
        try:
            while not self._complete:
                if self._problem is not None:
                    self._problem.raiseException()
                await self._told.wait()
            assert self._last_word is not None
            return self._last_word
        finally:
            # If the caller lost interest or could not write, the node must not go on sending.
            self.close()

    def take(self, stream: str, data: bytes) -> Deferred[dict[str, Any]]:
        """Take a piece; fires with the answer to the node when it is written. A failure is the reader's to learn."""
        self._unwritten += 1
        if self._write is not None:
            return self._written(stream, data)
        answer: Deferred[dict[str, Any]] = Deferred()
        self._held.append((stream, data, answer))
        return answer

    def end(self, end: OutputEnd) -> None:
        """The node has sent all of it."""
        self._last_word = end
        self._told.fire()

    def fail(self, problem: BaseException) -> None:
        """It ends otherwise; the first reason stands."""
        if self._problem is None and not self._complete:
            self._problem = Failure(problem)
            self._told.fire()

    def lose(self) -> None:
        """The connection is gone."""
        self.fail(ConnectionInterrupted("the connection ended before the output did"))

    @property
    def _complete(self) -> bool:
        return self._last_word is not None and not self._unwritten

    def _written(self, stream: str, data: bytes) -> Deferred[dict[str, Any]]:
        write = self._write
        assert write is not None

        def done(result: object) -> dict[str, Any]:
            if isinstance(result, Failure):
                assert result.value is not None
                self.fail(result.value)
            self._unwritten -= 1
            self._told.fire()
            return {}

        return maybeDeferred(lambda: write(StreamName(stream), data)).addBoth(done)


@frozen
class Submitted:
    """A job that was submitted.

    :ivar watched: what the node tells of it; None if it does not.
    :ivar output: its first attempt's output, if that was asked for and the node tells it.
    """

    job: JobStatus
    watched: Watched | None = None
    output: Stream | None = None


class Subscriptions:
    """The client's end of watches and output streams, and the connection that they come on.

    :param numbers: names for what is begun on the connection.
    """

    def __init__(self, clock: Clock, numbers: count[int]) -> None:
        self.clock = clock
        self._numbers = numbers
        self._open: dict[int, Watched | Stream] = {}
        vocabulary = Vocabulary(
            {
                commands.JobChanged: self._job_changed,
                commands.OutputData: self._output_data,
                commands.OutputEnded: self._output_ended,
            }
        )
        self.protocol = GuardedAMP(vocabulary, clock, self._lost)

    async def submit(self, arguments: Mapping[str, Any], *, every: bool, output: bool, stream: bool) -> Submitted:
        """See ``NodeClient.submit_watched``; ``arguments`` of ``SubmitJob``."""
        if len(self._open) >= SUBMITTED_MAX:
            answer = await self.protocol.ask(commands.SubmitJob, **arguments)
            return Submitted(JobStatus.from_document(answer["job"]))
        watched, streamed = self._watched(), self._stream() if stream else None
        begun = (watched,) if streamed is None else (watched, streamed)
        numbers = {"watch": watched.number, "stream": None if streamed is None else streamed.number}
        answer = await self._begin(commands.SubmitJob, *begun, every=every, output=output, **numbers, **arguments)
        if answer["follows"]:
            return Submitted(watched.began(answer), watched, streamed)
        for each in begun:  # the node does not know how: it has to be asked
            self.ended(each.number)
        return Submitted(JobStatus.from_document(answer["job"]))

    async def watch(self, job_id: str, changed: Changed, every: bool) -> tuple[JobStatus, Watched]:
        """See ``NodeClient.watch``."""
        watched = self._watched(changed)
        answer = await self._begin(commands.WatchJob, watched, watch=watched.number, job=job_id, every=every)
        return watched.began(answer), watched

    async def wait(self, job_id: str, timeout: float | None) -> JobStatus:
        """See ``NodeClient.wait``."""
        _, watched = await self.watch(job_id, lambda _job: None, every=False)
        try:
            return await watched.until(lambda job: job.state.terminal, timeout)
        finally:
            watched.close()

    async def output(
        self, job_id: str, write: Write, attempt: int, offsets: Mapping[StreamName, int] | None, follow: bool
    ) -> OutputEnd:
        """See ``NodeClient.output``."""
        stream = self._stream()
        places = offsets if offsets is not None else dict.fromkeys(StreamName, 0)
        await self._begin(
            commands.StreamOutput,
            stream,
            watch=stream.number,
            job=job_id,
            attempt=attempt,
            offsets={name.value: offset for name, offset in places.items()},
            follow=follow,
        )
        return await stream.read(write)

    def close(self, number: int) -> None:
        """Be told no more of what has a number, if there is something."""
        if self._open.pop(number, None) is not None and self.protocol.alive:
            self.protocol.ask(commands.Unsubscribe, watch=number).addErrback(_gone)

    def ended(self, number: int) -> None:
        """Nothing more comes under a number."""
        self._open.pop(number, None)

    def _watched(self, changed: Changed = lambda _job: None) -> Watched:
        return Watched(next(self._numbers), self, changed)

    def _stream(self) -> Stream:
        return Stream(next(self._numbers), self)

    async def _begin(
        self, command: type[NodeCommand], *subscriptions: Watched | Stream, **arguments: Any
    ) -> dict[str, Any]:
        """Ask for what is told under these numbers; the answer."""
        self._open.update({each.number: each for each in subscriptions})
        try:
            return await self.protocol.ask(command, **arguments)
        except BaseException as problem:
            declined = isinstance(problem, CloudMyTaskError) and not isinstance(problem, RequestTimeout)
            for each in subscriptions:
                if declined:
                    self.ended(each.number)
                else:
                    each.close()
            raise

    def _job_changed(
        self, watch: int, job: Mapping[str, Any], stdout: bytes | None = None, stderr: bytes | None = None
    ) -> dict[str, Any]:
        watched = self._open.get(watch)
        if isinstance(watched, Watched):
            watched.tell(JobStatus.from_document(job), stdout, stderr)
        return {}

    def _output_data(
        self,
        watch: int,
        stream: str,
        offset: int,  # noqa: ARG002 - pieces come in order
        data: bytes,
    ) -> dict[str, Any] | Deferred[dict[str, Any]]:
        found = self._open.get(watch)
        # Otherwise it was on its way when the caller lost interest.
        return found.take(stream, data) if isinstance(found, Stream) else {}

    def _output_ended(self, watch: int, end: Mapping[str, Any]) -> dict[str, Any]:
        stream = self._open.get(watch)
        if not isinstance(stream, Stream):
            return {}
        self.ended(watch)
        if "error" in end:
            stream.fail(InternalError(f"the output could not be read to its end: {end['error']}"))
            return {}
        try:
            stream.end(decode(OutputEnd, end))
        except InvalidArgument as problem:
            stream.fail(InternalError(f"the node's last word on the output is malformed: {problem}"))
            raise
        return {}

    def _lost(self) -> None:
        subscriptions, self._open = self._open, {}
        for each in subscriptions.values():
            each.lose()


def _gone(failure: Any) -> None:
    """A subscription ends with its connection, so a connection that ends first has done what was asked."""
    failure.trap(ConnectionInterrupted, RequestTimeout)
