"""Bytes that are still arriving, kept in files: they outlive the node, and after a seal a loss of power.

Invariant: a spool has no gaps. Once the disk has refused a byte, every later one is dropped; what came before
is kept and sealed. Bytes are in memory until they are in the file, so a reader sees what was appended; the thread that
writes takes all that has gathered of a spool at once. A small spool needs no file: what the disk refuses of it stays in
memory.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred, DeferredList, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from cloudmytask.core.blobs import blob_of
from cloudmytask.model.errors import StoreFailed
from cloudmytask.model.job import INLINE_MAX, Blob, Content
from cloudmytask.store.blob_reader import Measured, measure
from cloudmytask.store.files import read_whole, store_failed
from cloudmytask.store.threads import WorkThread

T = TypeVar("T")

_log = Logger()

BEHIND = 1024 * 1024
"""Bytes of one spool that may wait for the disk before it says that it is behind."""


class SpoolFile:
    """The file of one spool, opened when it is first needed. For any thread; each method blocks."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._descriptor: int | None = None

    def write(self, data: bytes, offset: int) -> tuple[int, OSError | None]:
        """Write ``data`` as far as the disk takes it: how many bytes, and why not all."""
        written = 0
        try:
            descriptor = self._open()
            while written < len(data):
                written += os.pwrite(descriptor, memoryview(data)[written:], offset + written)
        except OSError as error:
            return written, error
        return written, None

    def read(self, offset: int, size: int) -> bytes:
        """Up to ``size`` bytes from ``offset`` on.

        :raises OSError: as pread(2) does.
        """
        return read_whole(self._open(), size, offset)

    def make_durable(self, size: int) -> Measured:
        """Flush and hash the first ``size`` bytes.

        :raises OSError: it cannot be flushed or read, or is shorter.
        """
        descriptor = self._open()
        os.fsync(descriptor)
        return measure(descriptor, size)

    def remove(self) -> None:
        """Close and unlink; both take long for a large file.

        :raises OSError: the file stays.
        """
        try:
            if self._descriptor is not None:
                os.close(self._descriptor)
        finally:
            self.path.unlink(missing_ok=True)

    def _open(self) -> int:
        with self._lock:
            if self._descriptor is None:
                self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            return self._descriptor


@define(eq=False)
class SpoolSupport:
    """What the spools of a store share."""

    writing: WorkThread
    reading: WorkThread
    sealing: WorkThread
    removing: WorkThread
    adopt: Callable[[Path, Measured], Deferred[None]]
    """Make a durable file a blob of the store, durably."""
    busy: set[FileSpool] = field(factory=set)
    """Spools with bytes that are not in their files yet."""

    async def flush(self) -> None:
        """Wait until every spool has written what was appended to it, or could not."""
        while self.busy:
            await DeferredList([spool.caught_up() for spool in self.busy], consumeErrors=True)


class FileSpool:
    """Implements ``boundaries.Spool``. From the reactor thread only."""

    def __init__(self, path: Path, support: SpoolSupport, size: int = 0) -> None:
        """A spool at ``path``, new or one that goes on.

        :param size: bytes that the file holds already; 0: there is no file.
        """
        self._file = SpoolFile(path)
        self._exists = size > 0
        self._support = support
        self._size = self._written = self._base = size
        # the bytes from `_base` on: those that are not in the file yet, and all while they are few and known, so that
        # neither reading nor sealing has to touch the disk
        self._buffer = bytearray()
        self._users = 0
        self._waiting: list[Deferred[None]] = []
        self._failure: StoreFailed | None = None
        self._cut = False
        self._blob: Blob | None = None
        self._closed = False
        self._discarded = False

    @property
    def size(self) -> int:
        return self._size

    @property
    def failure(self) -> StoreFailed | None:
        return self._failure

    @property
    def behind(self) -> bool:
        return self._size - self._written > BEHIND

    def append(self, data: bytes) -> None:
        if self._closed:
            raise RuntimeError("the spool was sealed or discarded")
        if self._failure is not None:
            self._keep_in_memory(data)
        elif data:
            self._buffer += data
            self._size += len(data)
            if self not in self._support.busy:
                self._write()

    def caught_up(self) -> Deferred[None]:
        if self._failure is not None:
            return fail(self._failure)
        if self not in self._support.busy:
            return succeed(None)
        self._waiting.append(Deferred())
        return self._waiting[-1]

    def _write(self) -> None:
        self._support.busy.add(self)
        self._exists = True
        data = bytes(memoryview(self._buffer)[self._written - self._base :])
        written = self._with_file(self._support.writing, partial(self._file.write, data, self._written))
        written.addCallbacks(self._wrote, self._not_asked).addCallback(self._go_on)

    def _wrote(self, result: tuple[int, OSError | None]) -> None:
        count, error = result
        if error is not None:
            self._failure = store_failed(self._file.path, error)
        if self._discarded:
            return
        self._written += count
        if self._failure is not None:
            refused = bytes(self._buffer[self._written - self._base :])
            del self._buffer[self._written - self._base :]
            self._size = self._written
            self._keep_in_memory(refused)
        elif self._base or self._size > INLINE_MAX:
            del self._buffer[: self._written - self._base]
            self._base = self._written

    def _not_asked(self, failure: Failure) -> None:
        """The store is closed."""
        failure.trap(StoreFailed)
        self._failure = StoreFailed(failure.getErrorMessage())
        self._wrote((0, None))

    def _keep_in_memory(self, data: bytes) -> None:
        """Bytes that the disk does not take, as far as the whole of them is small."""
        kept = b"" if self._base or self._cut else data[: max(0, INLINE_MAX - self._size)]
        self._cut = self._cut or len(kept) < len(data)
        self._buffer += kept
        self._size += len(kept)

    def _go_on(self, _: None) -> None:
        if self._size > self._written and self._failure is None:
            self._write()
            return
        self._support.busy.discard(self)
        waiting, self._waiting = self._waiting, []
        for deferred in waiting:
            if self._failure is not None:
                deferred.errback(self._failure)
            else:
                deferred.callback(None)

    def read(self, offset: int, size: int) -> Deferred[bytes]:
        size = min(size, self._size - offset)
        if size <= 0:
            return succeed(b"")
        if offset >= self._base:
            start = offset - self._base
            return succeed(bytes(self._buffer[start : start + size]))
        read = partial(self._file.read, offset, min(size, self._base - offset))
        return self._with_file(self._support.reading, read)

    def seal(self) -> Deferred[Content | Blob | None]:
        self._closed = True
        if (sealed := self._sealed_in_memory()) is not None:
            return succeed(sealed)
        if self._blob is not None:
            return succeed(self._blob)
        if self._size == 0:
            return succeed(None)
        return Deferred.fromCoroutine(self._seal_file())

    def _sealed_in_memory(self) -> Content | None:
        small = self._base == 0 and 0 < self._size <= INLINE_MAX
        return _content(bytes(self._buffer)) if small else None

    async def _seal_file(self) -> Content | Blob | None:
        # one user more until the file has its second name, so that a discard does not take the first away too early
        self._users += 1
        try:
            size = self._size
            try:
                await self.caught_up()
            except StoreFailed:
                size = self._size
                if size == 0 or (sealed := self._sealed_in_memory()) is not None:
                    return sealed if size else None
            if size <= INLINE_MAX:
                return _content(await self._with_file(self._support.sealing, partial(self._file.read, 0, size)))
            measured = await self._with_file(self._support.sealing, partial(self._file.make_durable, size))
            await self._support.adopt(self._file.path, measured)
        finally:
            self._release()
        self._blob = measured.blob
        return measured.blob

    def discard(self) -> None:
        self._closed = self._discarded = True
        self._size = self._written = self._base = 0
        self._buffer.clear()
        self._tidy()

    def _with_file(self, thread: WorkThread, work: Callable[[], T]) -> Deferred[T]:
        """Do ``work`` on the file, which stays there meanwhile, also if the answer is not wanted any more: to cancel it
        does not end what the thread has begun."""
        answer: Deferred[T] = Deferred()

        def done(result: T | Failure) -> None:
            self._release()
            if not answer.called:
                answer.callback(result)  # a failure too

        self._users += 1
        thread.call(work).addBoth(done)
        return answer

    def _release(self) -> None:
        self._users -= 1
        self._tidy()

    def _tidy(self) -> None:
        """Remove the file once nobody wants the bytes any more."""
        if self._discarded and self._exists and not self._users:
            self._exists = False
            removal = self._support.removing.call(self._file.remove)
            removal.addErrback(lambda failure: _log.failure("spool file {path} stays", failure, path=self._file.path))


def _content(data: bytes) -> Content:
    return Content(blob_of(data), data)
