"""Blobs on their way in from clients.

Invariant: an upload becomes a blob only when its bytes match the announced digest and size; one that is abandoned
leaves nothing behind.
"""

from __future__ import annotations

from attrs import define
from twisted.internet.defer import Deferred, succeed

from cloudmytask.boundaries import Spool, World
from cloudmytask.core.blobs import EMPTY
from cloudmytask.model.errors import InvalidArgument, UploadFailed
from cloudmytask.model.job import Blob, Content

UPLOAD_MAX = 16 * 1024**3
"""Bytes in one blob, standard input included."""


@define(eq=False)
class IncomingBlob:
    """One upload (``boundaries.Upload``)."""

    _world: World
    _blob: Blob
    _spool: Spool

    def append(self, offset: int, data: bytes) -> Deferred[None]:
        """The next piece; fires when another one may come."""
        if offset != self._spool.size:
            raise UploadFailed(f"upload: a piece for offset {offset} came where {self._spool.size} was next")
        if offset + len(data) > self._blob.size:
            raise UploadFailed(f"upload: more than the announced {self._blob.size} bytes came")
        self._spool.append(data)
        return self._spool.caught_up() if self._spool.behind else succeed(None)

    def commit(self) -> Deferred[Blob]:
        """All pieces are here."""
        return Deferred.fromCoroutine(self._commit())

    def abort(self) -> None:
        """Forget it."""
        self._spool.discard()

    async def _commit(self) -> Blob:
        try:
            return await self._verified()
        finally:
            self._spool.discard()

    async def _verified(self) -> Blob:
        sealed = await self._spool.seal()
        found = sealed.blob if isinstance(sealed, Content) else sealed
        if found is None:
            found = EMPTY.blob
        if found != self._blob:
            raise UploadFailed(
                f"upload: {found.size} bytes with sha256 {found.digest} came, "
                f"but {self._blob.size} bytes with {self._blob.digest} were announced"
            )
        if isinstance(sealed, Content):
            await self._world.store.put(sealed)
        return found


async def begin(world: World, blob: Blob) -> IncomingBlob | None:
    """Start to receive ``blob``; None if it is here already.

    :raises InvalidArgument: it is larger than any blob may be.
    """
    if blob.size > UPLOAD_MAX:
        raise InvalidArgument(f"size: {blob.size} bytes are more than the limit, {UPLOAD_MAX} bytes")
    if await world.store.has(blob):
        return None
    return IncomingBlob(world, blob, world.store.spool(f"upload-{world.entropy.token(12).hex()}"))
