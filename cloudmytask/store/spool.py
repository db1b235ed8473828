"""Bytes that are still arriving, kept in the page cache: they outlive the node, and after :meth:`seal` a loss of power.

Invariant: a spool has no gaps. Once a piece could not be written, every later one is dropped and the seal fails.

The file is ``spool/<name>.<number>`` with a number never used before, so that deleting an old spool late cannot hit
a new one of the same name.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from attrs import frozen
from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger

from cloudmytask.core.blobs import blob_of
from cloudmytask.model.errors import StoreFailed
from cloudmytask.model.job import INLINE_MAX, Blob, Content
from cloudmytask.store.files import read_whole, store_failed, write_whole
from cloudmytask.store.leaves import Measured, measure
from cloudmytask.store.threads import WorkThread

T = TypeVar("T")
R = TypeVar("R")

_log = Logger()


@frozen(eq=False)
class SpoolSupport:
    """What spools need of the store that they belong to."""

    reading: WorkThread
    sealing: WorkThread
    removing: WorkThread
    adopt: Callable[[Path, Measured], Deferred[None]]
    """Make a durable file a blob of the store, durably."""


class FileSpool:
    """Implements ``boundaries.Spool``. From the reactor thread only."""

    def __init__(self, path: Path, support: SpoolSupport, size: int = 0) -> None:
        """
        :param size: bytes that the file holds already; 0: there is no file.
        """
        self._path = path
        self._support = support
        self._size = size
        self._descriptor: int | None = None
        self._exists = size > 0
        self._users = 0
        # all bytes, while they are few and known: then neither reading nor sealing touches the disk
        self._memory: bytearray | None = bytearray() if size == 0 else None
        self._broken: str | None = None
        self._blob: Blob | None = None
        self._closed = False
        self._discarded = False

    @property
    def size(self) -> int:
        return self._size

    def append(self, data: bytes) -> None:
        """Never fails: bytes that the disk has no room for are lost, and :meth:`seal` will say so."""
        if self._closed:
            raise RuntimeError("the spool was sealed or discarded")
        if self._broken is not None or not data:
            return
        try:
            write_whole(self._open(), data, self._size)
        except OSError as error:
            self._broken = str(store_failed(self._path, error))
            if self._descriptor is not None:
                # a later life must not take the half of a piece for the whole
                os.ftruncate(self._descriptor, self._size)
            return
        self._size += len(data)
        if self._memory is not None and self._size <= INLINE_MAX:
            self._memory += data
        else:
            self._memory = None

    def read(self, offset: int, size: int) -> Deferred[bytes]:
        size = min(size, self._size - offset)
        if size <= 0:
            return succeed(b"")
        if self._memory is not None:
            return succeed(bytes(self._memory[offset : offset + size]))
        return self._with_file(self._support.reading, partial(read_whole, size=size, offset=offset))

    def seal(self) -> Deferred[Content | Blob | None]:
        """May be repeated, after a failure for instance.

        :raises StoreFailed: a piece is missing, or the bytes could not be made durable.
        """
        self._closed = True
        if self._broken is not None:
            return fail(StoreFailed(self._broken))
        if self._size == 0:
            return succeed(None)
        if self._blob is not None:
            return succeed(self._blob)
        if self._memory is not None:
            return succeed(_content(bytes(self._memory)))
        return Deferred.fromCoroutine(self._seal_file(self._size))

    async def _seal_file(self, size: int) -> Content | Blob:
        if size <= INLINE_MAX:
            return _content(await self._with_file(self._support.sealing, partial(read_whole, size=size, offset=0)))
        # one user more until the file has its second name, so that a discard does not take the first away too early
        self._users += 1
        try:
            measured = await self._with_file(self._support.sealing, partial(_make_durable, size=size))
            await self._support.adopt(self._path, measured)
        finally:
            self._release()
        self._blob = measured.blob
        return measured.blob

    def discard(self) -> None:
        self._closed = self._discarded = True
        self._size = 0
        self._memory = None
        self._tidy()

    def _open(self) -> int:
        if self._descriptor is None:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._exists = True
        return self._descriptor

    def _with_file(self, thread: WorkThread, work: Callable[[int], T]) -> Deferred[T]:
        """Run ``work`` on the descriptor, which stays open meanwhile."""
        try:
            descriptor = self._open()
        except OSError as error:
            return fail(store_failed(self._path, error))

        def done(result: R) -> R:
            self._release()
            return result

        self._users += 1
        return thread.call(partial(work, descriptor)).addBoth(done)

    def _release(self) -> None:
        self._users -= 1
        self._tidy()

    def _tidy(self) -> None:
        """Close and unlink once nobody wants the bytes any more; both take long for a large file."""
        if not self._discarded or self._users or not self._exists:
            return
        self._exists = False
        removal = self._support.removing.call(partial(remove_file, self._path, self._descriptor))
        removal.addErrback(lambda failure: _log.failure("spool file {path} stays", failure, path=self._path))


def remove_file(path: Path, descriptor: int | None = None) -> None:
    """Close and unlink, whichever of both there still is to do.

    :raises OSError:
    """
    try:
        if descriptor is not None:
            os.close(descriptor)
    finally:
        path.unlink(missing_ok=True)


def _make_durable(descriptor: int, size: int) -> Measured:
    os.fsync(descriptor)
    return measure(descriptor, size)


def _content(data: bytes) -> Content:
    return Content(blob_of(data), data)
