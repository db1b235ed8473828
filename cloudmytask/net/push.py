"""Tells a client what it has subscribed to: changes of jobs, and output, piece after piece.

Invariant: a slow or silent client costs a bounded amount of memory. Of a stream at most ``WINDOW`` pieces are
unanswered at a time, of all streams of a connection at most ``OUTPUT_MAX`` bytes; of the changes that a job makes while
the client does not read or answer, only the last is kept. A stream ends with one last word, which is sent when
every piece was answered, unless the client has lost interest or is gone before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from cloudmytask.api.following import Riding
from cloudmytask.boundaries import OutputEnd, OutputPiece, OutputReader
from cloudmytask.codec import encode
from cloudmytask.codec.people import job_to_document
from cloudmytask.deferreds import Pace, Signal
from cloudmytask.model.errors import CloudMyTaskError
from cloudmytask.model.job import Job
from cloudmytask.wire.commands import PIECE, WINDOW, JobChanged, OutputData, OutputEnded
from cloudmytask.wire.guard import GuardedAMP

_log = Logger()

READ = 256 * 1024
"""Bytes fetched at a time: several pieces' worth, and as much as the store verifies at a time. The next are fetched
while these are sent."""
READ_MIN = 4 * 1024
"""Bytes fetched at a time for one of very many streams."""
OUTPUT_MAX = 1024 * 1024
"""Bytes of output that may be unanswered on one connection, and about as many that are fetched and not sent yet."""
CHANGES_MAX = 256
"""Changes of jobs that may be unanswered on one connection."""


@define(eq=False)
class JobChanges:
    """The changes of jobs that one client is told of, by the numbers of its watches."""

    _protocol: GuardedAMP
    _unanswered: int = field(init=False, default=0)
    _waiting: dict[int, Job] = field(init=False, factory=dict)

    def tell(self, watch: int, job: Job, output: Riding | None = None) -> None:
        """Tell the client; one that is behind is told of the last change only, and without the output."""
        if self._waiting or not self._ready:
            self._waiting[watch] = job
            if len(self._waiting) == 1:
                self._flush()
        else:
            self._send(watch, job, output)

    def forget(self, watch: int) -> None:
        """The client has lost interest."""
        self._waiting.pop(watch, None)

    @property
    def _ready(self) -> bool:
        return self._protocol.clear and self._unanswered < CHANGES_MAX

    def _flush(self, _cleared: object = None) -> None:
        while self._waiting and self._ready:
            watch = next(iter(self._waiting))
            self._send(watch, self._waiting.pop(watch), None)
        if self._waiting and self._protocol.alive and not self._protocol.clear:
            self._protocol.cleared().addCallback(self._flush)

    def _send(self, watch: int, job: Job, output: Riding | None) -> None:
        self._unanswered += 1
        told = self._protocol.ask(JobChanged, None, watch=watch, job=job_to_document(job), **riding(output))
        told.addErrback(self._refused).addBoth(self._answered)

    def _refused(self, failure: Any) -> None:
        """The client did not want to know; if the connection is gone there is nothing more to say."""
        if self._protocol.alive:
            _log.warn("a client refused news: {problem}", problem=failure.getErrorMessage())

    def _answered(self, _answer: object) -> None:
        self._unanswered -= 1
        self._flush()


@define(eq=False)
class OutputBudget:
    """What the streams of one connection may hold together."""

    streams: int = field(init=False, default=0)
    _unanswered: int = field(init=False, default=0)
    _answered: Signal = field(init=False, factory=Signal)

    @property
    def share(self) -> int:
        """Bytes that a stream may fetch at a time."""
        return max(READ_MIN, min(READ, OUTPUT_MAX // max(1, self.streams)))

    async def take(self, size: int) -> None:
        """Wait until ``size`` bytes may be sent."""
        while self._unanswered and self._unanswered + size > OUTPUT_MAX:
            await self._answered.wait()
        self._unanswered += size

    def release(self, size: int) -> None:
        """They were answered."""
        self._unanswered -= size
        self._answered.fire()


def riding(output: Riding | None) -> dict[str, bytes]:
    """An output as the arguments of a command that it rides with."""
    return {} if output is None else {stream.value: data for stream, data in output.items()}


class OutputPush:
    """One stream of output to one client."""

    def __init__(
        self,
        protocol: GuardedAMP,
        watch: int,
        reader: OutputReader,
        budget: OutputBudget,
        pace: Pace,
        ended: Callable[[], object],
    ) -> None:
        """Send nothing before it is started.

        :param pace: keeps a script that prints line after line from costing a message for each.
        :param ended: called before the last word is sent, so that the client can use the number again as soon as it
            has that; maybe called again.
        """
        self._protocol = protocol
        self._watch = watch
        self._reader = reader
        self._budget = budget
        self._pace = pace
        self._ended = ended
        self._unanswered = 0
        self._next_answer: Deferred[None] | None = None
        self._closed = False
        budget.streams += 1

    def start(self) -> None:
        """Begin to send."""
        Deferred.fromCoroutine(self._run()).addErrback(self._unheard)

    def close(self) -> None:
        """The client, or its interest, is gone. Idempotent."""
        if not self._closed:
            self._budget.streams -= 1
        self._closed = True
        self._reader.close()

    async def _run(self) -> None:
        try:
            end = await self._pieces()
        except CloudMyTaskError as problem:
            end = {"error": str(problem)}
        except Exception:  # noqa: BLE001 - for any reason, the client is not to wait for ever
            _log.failure("output stream broke")
            end = {"error": "the node failed, its log says how"}
        while self._unanswered:
            await self._answer()
        if not self._closed:
            self.close()
            self._ended()
            await self._protocol.ask(OutputEnded, None, watch=self._watch, end=end)

    async def _pieces(self) -> dict[str, Any]:
        """Send them all; what to say at the end."""
        coming = self._reader.next(self._budget.share)
        while not self._closed:
            found = await coming
            if isinstance(found, OutputEnd):
                return encode(found)
            if len(found.data) >= min(PIECE, self._budget.share):
                coming = self._reader.next(self._budget.share)
                await self._send(found)
            else:
                await self._send(found)
                await self._pace.part()  # line after line is not to be a message each
                coming = self._reader.next(self._budget.share)
        coming.addErrback(self._not_sent)
        return {}

    async def _send(self, piece: OutputPiece) -> None:
        for start in range(0, len(piece.data), PIECE):
            if self._unanswered >= WINDOW:
                await self._answer()
            data = piece.data[start : start + PIECE]
            await self._budget.take(len(data))
            if self._closed:
                self._budget.release(len(data))
                return
            self._unanswered += 1
            sent = self._protocol.ask(
                OutputData,
                None,
                watch=self._watch,
                stream=piece.stream.value,
                offset=piece.offset + start,
                data=data,
            )
            sent.addCallbacks(self._answered, self._refused).addCallback(self._given_back, len(data))

    async def _answer(self) -> None:
        """Wait for the answer to a piece."""
        self._next_answer = Deferred()
        await self._next_answer

    def _answered(self, _answer: object) -> None:
        self._unanswered -= 1
        if self._next_answer is not None:
            answer, self._next_answer = self._next_answer, None
            answer.callback(None)

    def _given_back(self, _answer: object, size: int) -> None:
        self._budget.release(size)

    def _refused(self, failure: Any) -> None:
        """A client that does not take a piece gets no further ones, nor a last word."""
        if not self._closed and self._protocol.alive:
            _log.warn("a client refused output: {problem}", problem=failure.getErrorMessage())
        self._ended()
        self.close()
        self._answered(None)

    def _not_sent(self, failure: Any) -> None:
        """It was fetched for a client that left meanwhile."""
        failure.trap(CloudMyTaskError)

    def _unheard(self, failure: Any) -> None:
        """The last word could not be delivered: of interest only while there is someone to hear it."""
        if not failure.check(CloudMyTaskError):
            _log.failure("output stream broke", failure)
        elif self._protocol.alive:
            _log.warn("a client refused the end of an output: {problem}", problem=failure.getErrorMessage())
