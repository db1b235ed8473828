"""Verified bytes: a blob is checked in stretches ("leaves") of 256 KiB, and the last ones read are remembered.

Invariant: only bytes that matched their digest are ever in the cache.

A small blob is one leaf, whose digest is the blob's own. A reader that moves along a large blob in chunks of some
KiB so costs one read and one hash for each leaf, not for each chunk.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Collection

from attrs import frozen

from cloudmytask.model.job import Blob, Digest
from cloudmytask.store.files import read_whole

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

    def drop(self, digests: Collection[Digest]) -> None:
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
