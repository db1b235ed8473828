"""A job as its node tells of it by itself, and an output as it comes.

Invariant: an output has ended when its last piece is written; the first reason for another end stands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attrs import define, field, frozen
from twisted.internet import defer
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

from cloudmytask.boundaries import Clock, OutputEnd
from cloudmytask.codec.people import JobStatus
from cloudmytask.deferreds import Signal, patiently
from cloudmytask.model.errors import ConnectionInterrupted, WaitTimeout
from cloudmytask.model.job import StreamName

Write = Callable[[StreamName, bytes], Deferred[None] | None]
"""Takes a piece of output. A Deferred says when there is room for more: the node sends a window's worth until then."""
Changed = Callable[[JobStatus], None]


@define(eq=False)
class Watched:
    """A job, as the node tells of it.

    :ivar close: be told no more; idempotent.
    :ivar job: as it was told last; None before anything was.
    :ivar output: all that it has written, if it has its outcome and this was small enough to come along.
    :ivar lost: whether the connection ended before the job did, so that nothing more comes.
    """

    _clock: Clock
    number: int
    close: Callable[[], None]
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
            return await patiently(self._clock, timeout, reaching)
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
        self._told.fire()


@define(eq=False)
class Stream:
    """An output as it comes. Pieces that come before :meth:`read` are held, and not answered: a window's worth.

    :ivar close: be sent no more; idempotent.
    """

    number: int
    close: Callable[[], None]
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
