"""Sends a blob ahead of the job that refers to it.

Invariant: a window of pieces is unanswered at a time; an upload that does not come to its end is called off.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from twisted.internet.defer import Deferred, DeferredList

from cloudmytask.client.sources import Source
from cloudmytask.core.spec_document import blob_to_document
from cloudmytask.wire import commands
from cloudmytask.wire.guard import GuardedAMP


async def upload(protocol: GuardedAMP, number: int, source: Source) -> None:
    """Send the bytes of ``source``, unless the node has them.

    :param number: what to call the upload on this connection.
    :raises CloudMyTaskError: the node declined, or the connection ended.
    """
    announced = await protocol.ask(commands.BeginUpload, upload=number, blob=blob_to_document(source.blob))
    if announced["present"]:
        return
    under_way: list[Deferred[dict[str, Any]]] = []
    complete = False
    try:
        for offset, piece in _pieces(source):
            if len(under_way) >= commands.WINDOW:
                await under_way.pop(0)
            under_way.append(protocol.ask(commands.UploadPiece, upload=number, offset=offset, data=piece))
        while under_way:
            await under_way.pop(0)
        complete = True
    finally:
        if not complete and protocol.alive:
            under_way.append(protocol.ask(commands.AbortUpload, upload=number))
        DeferredList(under_way, consumeErrors=True)
    await protocol.ask(commands.CommitUpload, None, upload=number)


def _pieces(source: Source) -> Iterator[tuple[int, bytes]]:
    if source.data is not None:
        for offset in range(0, len(source.data), commands.PIECE):
            yield offset, source.data[offset : offset + commands.PIECE]
        return
    with source.open() as file:
        offset = 0
        while piece := file.read(commands.PIECE):
            yield offset, piece
            offset += len(piece)
