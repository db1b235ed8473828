"""Bytes that a client sends: a script, or standard input, from memory or from a file.

Invariant: a source is never read whole into memory unless it is small; its digest is that of the bytes sent. A file is
open only while it is read.
"""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

from attrs import frozen
from twisted.internet.defer import succeed

from cloudmytask.model.errors import InvalidArgument
from cloudmytask.model.job import Blob, Digest
from cloudmytask.wire.commands import INLINE_PART as INLINE_PART
from cloudmytask.wire.guard import GuardedAMP
from cloudmytask.wire.transfer import send_blob

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

        :raises OSError: it cannot be read. :raises InvalidArgument: it is large and can be read only once.
        """
        with path.open("rb") as file:
            head = file.read(inline_max + 1)
            if len(head) <= inline_max:
                return cls.of_bytes(head)
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise InvalidArgument(
                    f"{path} is not a regular file, and has more than {inline_max} bytes: give the bytes"
                )
            sha, size = hashlib.sha256(head), len(head)
            while block := file.read(_BLOCK):
                sha.update(block)
                size += len(block)
        return cls(Blob(Digest(sha.hexdigest()), size), path=path)

    async def send(self, protocol: GuardedAMP, number: int) -> None:
        """Send the bytes ahead of the job that refers to them, unless the node has them.

        :param number: what to call the upload on this connection.
        :raises CloudMyTaskError: the node declined, or the connection ended. :raises OSError: the file is gone.
        """
        if (data := self.data) is not None:
            await send_blob(protocol, number, self.blob, lambda offset, size: succeed(data[offset : offset + size]))
            return
        assert self.path is not None
        with self.path.open("rb") as file:
            # pieces are asked for in order, so the file's own position is the offset
            await send_blob(protocol, number, self.blob, lambda _offset, size: succeed(file.read(size)))
