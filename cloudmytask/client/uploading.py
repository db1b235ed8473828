"""Sends a client's blob ahead of the job that refers to it.

Invariant: the file is open only while it is sent.
"""

from __future__ import annotations

from twisted.internet.defer import succeed

from cloudmytask.client.sources import Source
from cloudmytask.wire.guard import GuardedAMP
from cloudmytask.wire.transfer import send_blob


async def upload(protocol: GuardedAMP, number: int, source: Source) -> None:
    """Send the bytes of ``source``, unless the node has them.

    :param number: what to call the upload on this connection.
    :raises CloudMyTaskError: the node declined, or the connection ended.
    """
    if (data := source.data) is not None:
        await send_blob(protocol, number, source.blob, lambda offset, size: succeed(data[offset : offset + size]))
        return
    with source.open() as file:
        # pieces are asked for in order, so the file's own position is the offset
        await send_blob(protocol, number, source.blob, lambda _offset, size: succeed(file.read(size)))
