"""Sends an attempt's output to a client, piece after piece.

Invariant: at most ``WINDOW`` pieces are unanswered at a time, so a slow or silent client costs a bounded amount of
memory; the end is sent after the last piece, once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from cloudmytask.boundaries import OutputEnd, OutputPiece, OutputReader
from cloudmytask.errors import CloudMyTaskError
from cloudmytask.wire.commands import PIECE, WINDOW, OutputData, OutputEnded
from cloudmytask.wire.documents import end_to_document
from cloudmytask.wire.guard import GuardedAMP

_log = Logger(namespace="cloudmytask.net")

READ = 4 * PIECE
"""Bytes fetched at a time, so that one trip to the disk serves several pieces. The next are fetched while these are
sent."""


class OutputPush:
    """One stream of output to one client."""

    def __init__(self, protocol: GuardedAMP, watch: int, reader: OutputReader, ended: Callable[[], object]) -> None:
        self._protocol = protocol
        self._watch = watch
        self._reader = reader
        self._ended = ended
        self._unanswered = 0
        self._room: Deferred[None] | None = None
        self._closed = False

    def start(self) -> None:
        """Begin to send."""
        Deferred.fromCoroutine(self._run()).addErrback(self._broken)

    def close(self) -> None:
        """The client, or its interest, is gone. Idempotent."""
        self._closed = True
        self._reader.close()

    async def _run(self) -> None:
        coming = self._reader.next(READ)
        while not self._closed:
            try:
                found = await coming
            except CloudMyTaskError as problem:
                await self._finish({"error": str(problem)})
                return
            if isinstance(found, OutputEnd):
                await self._finish(end_to_document(found))
                return
            coming = self._reader.next(READ)
            await self._send(found)
        coming.addErrback(self._not_sent)

    async def _send(self, piece: OutputPiece) -> None:
        for start in range(0, len(piece.data), PIECE):
            if self._unanswered >= WINDOW:
                self._room = Deferred()
                await self._room
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

    async def _finish(self, end: dict[str, Any]) -> None:
        self._ended()
        if not self._closed:
            self._closed = True
            self._reader.close()
            await self._protocol.ask(OutputEnded, None, watch=self._watch, end=end)

    def _answered(self, _answer: object) -> None:
        self._unanswered -= 1
        if self._room is not None:
            room, self._room = self._room, None
            room.callback(None)

    def _refused(self, failure: Any) -> None:
        """A client that does not take a piece gets no further ones."""
        if not self._closed and self._protocol.alive:
            _log.warn("a client refused output: {problem}", problem=failure.getErrorMessage())
        self.close()
        self._answered(None)

    def _not_sent(self, failure: Any) -> None:
        """It was fetched for a client that left meanwhile."""
        failure.trap(CloudMyTaskError)

    def _broken(self, failure: Any) -> None:
        """The last word could not be delivered: of interest only while there is someone to hear it."""
        if self._protocol.alive:
            _log.failure("output stream broke", failure)
        self.close()
