"""Reading blobs, verified: in stretches ("leaves") of 256 KiB, of which the last ones read are remembered.

Invariant: only bytes that matched their digest leave this module or are ever in the cache.

A small blob is one leaf, whose digest is the blob's own. A reader that moves along a large blob in chunks of some
KiB so costs one read and one hash for each leaf, not for each chunk.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from attrs import frozen

from cloudmytask.core.blobs import digest_of
from cloudmytask.model.errors import BlobCorrupt, BlobMissing
from cloudmytask.model.job import Blob, Digest
from cloudmytask.store.files import file_of, read_whole

LEAF = 256 * 1024
"""Bytes."""

DIGEST_BYTES = 32

_CACHE_BYTES = 8 * 1024 * 1024
_ENTRY_OVERHEAD = 512


class LeafCache:
    """The leaves used last; for any thread."""

    def __init__(self, capacity: int = _CACHE_BYTES) -> None:
        self._lock = threading.Lock()
        self._leaves: OrderedDict[tuple[Digest, int], bytes] = OrderedDict()
        self._room = capacity

    def get(self, blob: Blob, index: int) -> bytes | None:
        """A leaf; None if it is not here, or if ``blob`` claims a size that the leaf does not fit."""
        key = (blob.digest, index)
        with self._lock:
            data = self._leaves.get(key)
            if data is None or len(data) != min(LEAF, blob.size - index * LEAF):
                return None
            self._leaves.move_to_end(key)
            return data

    def put(self, digest: Digest, index: int, data: bytes) -> None:
        with self._lock:
            if (digest, index) in self._leaves:
                return
            self._leaves[digest, index] = data
            self._room -= len(data) + _ENTRY_OVERHEAD
            while self._room < 0:
                _, oldest = self._leaves.popitem(last=False)
                self._room += len(oldest) + _ENTRY_OVERHEAD

    def forget(self, digests: Collection[Digest]) -> None:
        """Forget all leaves of these blobs."""
        with self._lock:
            for key in [key for key in self._leaves if key[0] in digests]:
                self._room += len(self._leaves.pop(key)) + _ENTRY_OVERHEAD


@frozen
class Measured:
    """A file's blob, and the sha256 of each leaf, one after the other."""

    blob: Blob
    leaves: bytes


def measure(descriptor: int, size: int) -> Measured:
    """Hash the first ``size`` bytes of a file.

    :raises OSError: it cannot be read, or is shorter.
    """
    whole = hashlib.sha256()
    leaves = bytearray()
    for offset in range(0, size, LEAF):
        wanted = min(LEAF, size - offset)
        data = read_whole(descriptor, wanted, offset)
        if len(data) != wanted:
            raise OSError(f"the file ended at {offset + len(data)} of {size} bytes")
        whole.update(data)
        leaves += hashlib.sha256(data).digest()
    return Measured(Blob(Digest(whole.hexdigest()), size), bytes(leaves))


@frozen
class _Row:
    data: bytes | None
    leaves: bytes


@frozen(eq=False)
class BlobSource:
    """Reads blobs through one connection, for the one thread that the connection belongs to."""

    connection: sqlite3.Connection
    directory: Path
    cache: LeafCache

    def has(self, blob: Blob) -> bool:
        """Whether the blob can be read. Small ones are verified, of large ones only the size is."""
        try:
            row = self._row(blob, 0, 0)
            if row.data is not None:
                self.leaf(blob, 0)
                return True
            return file_of(self.directory, blob.digest).stat().st_size == blob.size
        except (BlobMissing, BlobCorrupt, FileNotFoundError):
            return False

    def read(self, blob: Blob, offset: int, size: int) -> bytes:
        """Up to ``size`` verified bytes.

        :raises BlobMissing: it is not here, or has another size. :raises BlobCorrupt: its bytes have rotted.
        :raises OSError, sqlite3.Error: it cannot be read.
        """
        if offset >= blob.size:
            # no leaf will be looked at, but an unknown blob must not pass for one that has ended
            self._row(blob, 0, 0)
        first, last = leaf_range(blob, offset, size)
        data = b"".join(self.leaf(blob, index) for index in range(first, last))
        return data[offset - first * LEAF :][:size]

    def leaf(self, blob: Blob, index: int) -> bytes:
        """One verified leaf."""
        data = self.cache.get(blob, index)
        if data is None:
            row = self._row(blob, index, 1)
            if row.data is None:
                [data] = self._file_leaves(blob, index, row.leaves)
            elif len(row.data) == blob.size and digest_of(row.data) == blob.digest:
                data = row.data
            else:
                raise _corrupt(blob)
            self.cache.put(blob.digest, index, data)
        return data

    def copy(self, blob: Blob, write: Callable[[bytes], None]) -> None:
        """Write out all of a blob, each piece verified before. A large one leaves the cache alone."""
        if blob.size <= LEAF:
            write(self.read(blob, 0, blob.size))
            return
        leaves = self._row(blob, 0, (blob.size + LEAF - 1) // LEAF).leaves
        for data in self._file_leaves(blob, 0, leaves):
            write(data)

    def _row(self, blob: Blob, first: int, count: int) -> _Row:
        row = self.connection.execute(
            "SELECT size, data, substr(leaves, ?, ?) FROM blobs WHERE digest = ?",
            (first * DIGEST_BYTES + 1, count * DIGEST_BYTES, blob.digest),
        ).fetchone()
        if row is None or row[0] != blob.size:
            raise BlobMissing(f"The blob {blob.digest} of {blob.size} bytes is not on this node.")
        data, leaves = row[1], row[2] or b""
        if data is None and len(leaves) != count * DIGEST_BYTES:
            raise _corrupt(blob)
        return _Row(data, leaves)

    def _file_leaves(self, blob: Blob, first: int, leaves: bytes) -> Iterator[bytes]:
        """The leaves from ``first`` on, as many as there are digests in ``leaves``."""
        try:
            descriptor = os.open(file_of(self.directory, blob.digest), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError as error:
            raise BlobMissing(f"The file of blob {blob.digest} is gone.") from error
        try:
            for start in range(0, len(leaves), DIGEST_BYTES):
                offset = (first + start // DIGEST_BYTES) * LEAF
                data = read_whole(descriptor, min(LEAF, blob.size - offset), offset)
                if bytes.fromhex(digest_of(data)) != leaves[start : start + DIGEST_BYTES]:
                    raise _corrupt(blob)
                yield data
        finally:
            os.close(descriptor)


def leaf_range(blob: Blob, offset: int, size: int) -> tuple[int, int]:
    """First leaf, and the one after the last, that ``size`` bytes from ``offset`` on lie in."""
    end = min(offset + size, blob.size)
    if offset >= end:
        return (0, 0)
    return (offset // LEAF, (end + LEAF - 1) // LEAF)


def _corrupt(blob: Blob) -> BlobCorrupt:
    return BlobCorrupt(f"The stored bytes of blob {blob.digest} do not match it.")
