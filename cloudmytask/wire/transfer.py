"""Sends a blob over a connection, ahead of the command that refers to it.

Invariant: a window of pieces is unanswered at a time; an upload that does not come to its end is called off.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, DeferredList

from cloudmytask.codec import encode
from cloudmytask.model.errors import CloudMyTaskError, RequestTimeout
from cloudmytask.model.job import Blob
from cloudmytask.wire import commands
from cloudmytask.wire.guard import GuardedAMP


async def send_blob(
    protocol: GuardedAMP,
    number: int,
    blob: Blob,
    read: Callable[[int, int], Deferred[bytes]],
    patience: float | None = None,
) -> None:
    """Send the bytes of ``blob``, unless the other end has them.

    :param number: what to call the upload on this connection.
    :param read: gives up to so many bytes (the second argument) from an offset (the first) on; at least one.
    :param patience: seconds that the other end may take to make it durable; None for as long as the connection lasts.
    :raises CloudMyTaskError: the other end declined, or the connection ended, or the bytes cannot be read.
    """
    under_way: list[Deferred[dict[str, Any]]] = []
    complete = False
    try:
        try:
            complete = (await protocol.ask(commands.BeginUpload, upload=number, blob=encode(blob)))["present"]
        except CloudMyTaskError as problem:
            complete = not isinstance(problem, RequestTimeout)  # declined: there is nothing to call off
            raise
        if complete:
            return
        offset = 0
        while offset < blob.size:
            piece = await read(offset, min(commands.PIECE, blob.size - offset))
            if not piece:  # its file became shorter meanwhile: the other end will see that it does not match
                break
            if len(under_way) >= commands.WINDOW:
                await under_way.pop(0)
            under_way.append(protocol.ask(commands.UploadPiece, upload=number, offset=offset, data=piece))
            offset += len(piece)
        while under_way:
            await under_way.pop(0)
        complete = True
    finally:
        if not complete and protocol.alive:
            under_way.append(protocol.ask(commands.AbortUpload, upload=number))
        DeferredList(under_way, consumeErrors=True)
    await protocol.ask(commands.CommitUpload, patience, upload=number)
