"""The disk of a simulated node: what survives the node's death, and the spools on it.

Invariant: what a :class:`MemoryDisk` holds was committed, or is a spool: bytes in the page cache outlive the program,
though not the machine.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred, fail, succeed

from cloudmytask.core.blobs import UPLOAD_PREFIX, blob_of
from cloudmytask.model.errors import StoreFailed
from cloudmytask.model.job import INLINE_MAX, Assignment, AttemptId, Blob, Content, Digest, Job, JobId, Resource

__all__ = ["UPLOAD_PREFIX", "MemoryDisk", "MemorySpool", "SpoolStore", "blob_of"]

T = TypeVar("T")


def disk_is_full() -> StoreFailed:
    """What a full disk says."""
    return StoreFailed("The disk is full.", resource=Resource.DISK)


@define(eq=False)
class MemoryDisk:
    """What survives the node. Its fields are open to tests and to the checkers of a simulation."""

    node_id: str
    jobs: dict[JobId, Job] = field(factory=dict)
    """The records of its own jobs."""
    held: dict[JobId, Job] = field(factory=dict)
    """Copies of other nodes' jobs, kept apart so that none is ever taken for an own one."""
    guests: dict[AttemptId, Assignment] = field(factory=dict)
    blobs: dict[Digest, bytes] = field(factory=dict)
    brought: dict[Digest, float] = field(factory=dict)
    """When the blobs came in that came ahead of a job, by the clock of the simulation."""
    spools: dict[str, bytearray] = field(factory=dict)
    directories: dict[str, dict[str, bytes]] = field(factory=dict)
    """Work directories: name → file name → bytes."""
    age: float = 0.0
    checkpoint_at: float | None = None
    boots: int = 0
    """Stores that were given this disk so far."""
    memory: dict[str, str] = field(factory=dict)
    full: bool = False
    """While true, every change fails."""
    corrupt: dict[Digest, None] = field(factory=dict)
    """Blobs whose bytes have rotted."""
    _cut_off: Callable[[bool], None] | None = field(default=None, init=False)

    def attach(self, cut_off: Callable[[bool], None]) -> None:
        """Give the disk to a new store. As at the start of a real node, work directories and half-finished uploads of
        an earlier life are gone.

        :param cut_off: called once, at the end of the store's life; what :meth:`crash` was told.
        """
        self.crash()
        self._cut_off = cut_off
        self.boots += 1
        self.directories.clear()
        for name in [name for name in self.spools if name.startswith(UPLOAD_PREFIX)]:
            del self.spools[name]

    def crash(self, *, flushed: bool = False) -> None:
        """Cut off the store that uses this disk.

        :param flushed: the commit that was under way has just reached the disk, though nobody was told.
        """
        cut_off, self._cut_off = self._cut_off, None
        if cut_off is not None:
            cut_off(flushed)


class SpoolStore(Protocol):
    """What a spool needs of the store that it belongs to."""

    def soon(self, function: Callable[[], T]) -> Deferred[T]:
        """Answer in a later turn."""

    def adopt(self, data: bytes) -> Deferred[Blob]:
        """Make ``data`` a durable blob."""


class MemorySpool:
    """Implements ``boundaries.Spool``."""

    def __init__(self, store: SpoolStore, disk: MemoryDisk, name: str) -> None:
        self._store = store
        self._disk = disk
        self._name = name
        self._data = disk.spools.get(name, bytearray())
        self._closed = False
        self._failure: StoreFailed | None = None

    @property
    def size(self) -> int:
        return len(self._data)

    @property
    def behind(self) -> bool:
        """Never: a disk in memory is quick."""
        return False

    @property
    def failure(self) -> StoreFailed | None:
        return self._failure

    def caught_up(self) -> Deferred[None]:
        return succeed(None) if self._failure is None else fail(self._failure)

    def append(self, data: bytes) -> None:
        if self._closed:
            raise RuntimeError("the spool was sealed or discarded")
        if self._failure is None and self._disk.full and data:
            self._failure = disk_is_full()
        if data and self._failure is None:
            self._disk.spools[self._name] = self._data
            self._data += data

    def read(self, offset: int, size: int) -> Deferred[bytes]:
        data = bytes(self._data[offset : offset + size])
        return self._store.soon(lambda: data)

    def seal(self) -> Deferred[Content | Blob | None]:
        self._closed = True
        return Deferred.fromCoroutine(self._seal(bytes(self._data)))

    async def _seal(self, data: bytes) -> Content | Blob | None:
        if len(data) > INLINE_MAX:
            return await self._store.adopt(data)
        if not data:
            return None
        return Content(blob_of(data), data)

    def discard(self) -> None:
        self._closed = True
        if self._disk.spools.get(self._name) is self._data:
            del self._disk.spools[self._name]
        self._data = bytearray()
