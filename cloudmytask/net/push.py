"""Sends an attempt's output to a client, piece after piece.

Invariant: at most ``WINDOW`` pieces are unanswered at a time, so a slow or silent client costs a bounded amount of
memory. A stream ends with one last word, which is sent when every piece was answered, unless the client has lost
interest or is gone before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from cloudmytask.boundaries import OutputEnd, OutputPiece, OutputReader
from cloudmytask.codec import encode
from cloudmytask.model.errors import CloudMyTaskError
from cloudmytask.wire.commands import PIECE, WINDOW, OutputData, OutputEnded
from cloudmytask.wire.guard import GuardedAMP

_log = Logger(namespace="cloudmytask.net")

READ = 256 * 1024
"""Bytes fetched at a time: several pieces' worth, and as much as the store verifies at a time. The next are fetched
while these are sent."""


class OutputPush:
    """One stream of output to one client."""

    def __init__(self, protocol: GuardedAMP, watch: int, reader: OutputReader, ended: Callable[[], object]) -> None:
        """
        :param ended: called before the last word is sent, so that the client can use the number again as soon as it
            has that; maybe called again.
        """
        self._protocol = protocol
        self._watch = watch
        self._reader = reader
        self._ended = ended
        self._unanswered = 0
        self._next_answer: Deferred[None] | None = None
        self._closed = False

    def start(self) -> None:
        """Begin to send."""
        Deferred.fromCoroutine(self._run()).addErrback(self._unheard)

    def close(self) -> None:
        """The client, or its interest, is gone. Idempotent."""
        self._closed = True
        self._reader.close()

    async def _run(self) -> None:
        try:
            end = await self._pieces()
        except CloudMyTaskError as problem:
            end = {"error": str(problem)}
        except Exception:  # noqa: BLE001 - whatever it was, the client is not to wait for ever
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
        coming = self._reader.next(READ)
        while not self._closed:
            found = await coming
            if isinstance(found, OutputEnd):
                return encode(found)
            coming = self._reader.next(READ)
            await self._send(found)
        coming.addErrback(self._not_sent)
        return {}

    async def _send(self, piece: OutputPiece) -> None:
        for start in range(0, len(piece.data), PIECE):
            if self._unanswered >= WINDOW:
                await self._answer()
            if self._closed:
                return
            self._unanswered += 1
            sent = self._protocol.ask(
                OutputData,
                None,
                watch=self._watch,
                stream=piece.stream.value,
                offset=piece.offset + start,
                data=piece.data[start : start + PIECE],
            )
            sent.addCallbacks(self._answered, self._refused)

    async def _answer(self) -> None:
        """Wait for the answer to a piece."""
        self._next_answer = Deferred()
        await self._next_answer

    def _answered(self, _answer: object) -> None:
        self._unanswered -= 1
        if self._next_answer is not None:
            answer, self._next_answer = self._next_answer, None
            answer.callback(None)

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
