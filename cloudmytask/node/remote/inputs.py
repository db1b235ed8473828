"""Scripts and inputs on their way to this node and from it: what has to be on a node before it can take a job.

Invariant: bytes travel only to those who lack them; what is small rides along, what is large goes ahead. What comes in
becomes a blob only when its bytes match the announced digest and size; one that is abandoned leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define, field
from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from cloudmytask.boundaries import JobStore, Link, Spool, World
from cloudmytask.core.blobs import EMPTY, UPLOAD_PREFIX
from cloudmytask.model.errors import CloudMyTaskError, DiskShort, InvalidArgument, StoreFailed, UploadFailed
from cloudmytask.model.job import Blob, Content, JobSpec
from cloudmytask.model.words import Resource
from cloudmytask.node.gate import Gate

RIDES_MAX = 60 * 1024
"""Bytes of a blob that rides along; it has to fit into one AMP value."""
UPLOAD_MAX = 16 * 1024**3
"""Bytes in one blob, standard input included."""


def needed(spec: JobSpec) -> list[Blob]:
    """The blobs of a job that have any bytes."""
    return [blob for blob in (spec.script, spec.stdin) if blob is not None and blob.size]


async def missing(store: JobStore, spec: JobSpec, brought: Sequence[Content]) -> tuple[Blob, ...]:
    """What is neither here nor came along."""
    blobs = {content.blob for content in brought}
    return tuple([blob for blob in needed(spec) if blob not in blobs and not await store.has(blob)])


async def packed(store: JobStore, blobs: Sequence[Blob]) -> list[Content]:
    """Those that are small, with their bytes.

    :raises BlobMissing, BlobCorrupt: one is not here any more.
    """
    return [Content(blob, await store.read(blob, 0, blob.size)) for blob in blobs if blob.size <= RIDES_MAX]


async def brought(store: JobStore, link: Link, blobs: Sequence[Blob]) -> list[Content]:
    """Send the large ones ahead; the small ones, to ride along.

    :raises CloudMyTaskError: the other end declined, or one is not here any more.
    """
    for blob in blobs:
        if blob.size > RIDES_MAX:
            await _sent(store, link, blob)
    return await packed(store, blobs)


def _sent(store: JobStore, link: Link, blob: Blob) -> Deferred[None]:
    return link.send_blob(blob, lambda offset, size: store.read(blob, offset, size))


@define(eq=False)
class IncomingBlob:
    """One upload (``boundaries.Upload``). One that was refused for want of room hears nothing else."""

    _world: World
    _gate: Gate
    _blob: Blob
    _spool: Spool
    _next: int = field(init=False, default=0)
    """The offset of the next piece."""
    _refused: CloudMyTaskError | None = field(init=False, default=None)

    def append(self, offset: int, data: bytes) -> Deferred[None]:
        """The next piece; fires when another one may come."""
        self._check()
        if offset != self._next:
            raise UploadFailed(f"upload: a piece for offset {offset} came where {self._next} was next")
        if offset + len(data) > self._blob.size:
            raise UploadFailed(f"upload: more than the announced {self._blob.size} bytes came")
        self._spool.append(data)
        self._next += len(data)
        self._world.disk_taken(len(data))
        return self._spool.caught_up().addErrback(self._not_written) if self._spool.behind else succeed(None)

    def commit(self) -> Deferred[Blob]:
        """All pieces are here."""
        return Deferred.fromCoroutine(self._commit())

    def abort(self) -> None:
        """Forget it."""
        self._spool.discard()

    def _check(self) -> None:
        """Look at the disk.

        :raises CloudMyTaskError: there is no room; what came is forgotten.
        """
        if self._refused is None:
            try:
                if self._spool.failure is not None:
                    raise self._worded(self._spool.failure)
                self._gate.admit_bytes(0)
            except CloudMyTaskError as problem:
                self._refused = problem
                self._spool.discard()
        if self._refused is not None:
            raise self._refused

    def _not_written(self, failure: Failure) -> None:
        failure.trap(StoreFailed)
        self._check()

    def _worded(self, problem: StoreFailed) -> CloudMyTaskError:
        if problem.resource is not Resource.DISK:
            return problem
        return DiskShort(f"the disk of node {self._gate.node} was full after {self._next} of {self._blob.size} bytes")

    async def _commit(self) -> Blob:
        try:
            self._check()
            return await self._verified()
        except StoreFailed as problem:
            raise self._worded(problem) from None
        finally:
            self._spool.discard()

    async def _verified(self) -> Blob:
        sealed = await self._spool.seal()
        if self._spool.failure is not None:
            raise self._spool.failure
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


async def receive(world: World, gate: Gate, blob: Blob) -> IncomingBlob | None:
    """Start to receive ``blob``; None if it is here already.

    :raises InvalidArgument: it is larger than any blob may be. :raises DiskShort: there is no room for it.
    """
    if blob.size > UPLOAD_MAX:
        raise InvalidArgument(f"size: {blob.size} bytes are more than the limit, {UPLOAD_MAX} bytes")
    if await world.store.has(blob):
        return None
    gate.admit_bytes(blob.size)
    return IncomingBlob(world, gate, blob, world.store.spool(f"{UPLOAD_PREFIX}{world.entropy.token(12).hex()}"))
