"""Bytes that a client sends: a script, or standard input, from memory or from a file.

Invariant: a source is never read whole into memory unless it is small; its digest is that of the bytes sent.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import BinaryIO

from attrs import frozen

from cloudmytask.model.job import Blob, Digest
from cloudmytask.wire.commands import INLINE_PART as INLINE_PART

_BLOCK = 1024 * 1024


@frozen(eq=False)
class Source:
    """``data`` if the bytes are in memory, ``path`` if they are in a file."""

    blob: Blob
    data: bytes | None = None
    path: Path | None = None

    @classmethod
    def of_bytes(cls, data: bytes) -> Source:
        """Bytes in memory."""
        return cls(Blob(Digest(hashlib.sha256(data).hexdigest()), len(data)), data=data)

    @classmethod
    def of_file(cls, path: Path, inline_max: int = INLINE_PART) -> Source:
        """A file, taken into memory only if it has at most ``inline_max`` bytes.

        :raises OSError: it cannot be read.
        """
        with path.open("rb") as file:
            head = file.read(inline_max + 1)
            if len(head) <= inline_max:
                return cls.of_bytes(head)
            sha, size = hashlib.sha256(head), len(head)
            while block := file.read(_BLOCK):
                sha.update(block)
                size += len(block)
        return cls(Blob(Digest(sha.hexdigest()), size), path=path)

    def open(self) -> BinaryIO:
        """The bytes of a file source."""
        assert self.path is not None
        return self.path.open("rb")
