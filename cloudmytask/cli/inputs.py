"""Input that is to travel with a job: a script, a file, or our own standard input read to its end.

Invariant: large input is never whole in memory; reading may be given up at any time; what was spooled goes
with the process, even with one that is killed.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from threading import Thread

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from cloudmytask.cli.failures import FileUnreadable
from cloudmytask.client.sources import INLINE_PART, Source
from cloudmytask.model.errors import CloudMyTaskError
from cloudmytask.model.job import Blob, Digest

_BLOCK = 256 * 1024
STDIN = 0


@define(eq=False)
class Inputs:
    """Gathers inputs in threads that end with the process; :meth:`close` deletes what they spooled."""

    _call_from_thread: Callable[..., object]
    _spools: list[int] = field(init=False, factory=list)

    def standard_input(self) -> Deferred[Source]:
        """Read our own standard input to its end.

        :raises FileUnreadable: it cannot be read.
        """
        return self._in_thread(lambda: self._spool(STDIN, "standard input"))

    def file(self, path: Path, missing: type[CloudMyTaskError], size_max: Callable[[int], None]) -> Deferred[Source]:
        """Gather a file; one that is no regular file (a pipe, ``/dev/fd/63``) is read to its end.

        :param missing: what to raise if there is none.
        :param size_max: called with the file's size before it is read; raises if that is too large.
        :raises FileUnreadable: it is a directory, or cannot be read.
        """
        return self._in_thread(lambda: self._file(path, missing, size_max))

    def close(self) -> None:
        """Delete what was spooled. Idempotent."""
        while self._spools:
            os.close(self._spools.pop())

    def _in_thread(self, work: Callable[[], Source]) -> Deferred[Source]:
        # Not one of the reactor's threads: it waits for those before it ends, and this one may read from a terminal.
        gathered: Deferred[Source] = Deferred()

        def run() -> None:
            try:
                result: Source | Failure = work()
            except Exception:  # noqa: BLE001 - handed on as it is
                result = Failure()
            self._call_from_thread(_fire, gathered, result)

        Thread(target=run, name="cmt input", daemon=True).start()
        return gathered

    def _file(self, path: Path, missing: type[CloudMyTaskError], size_max: Callable[[int], None]) -> Source:
        try:
            found = path.stat()
            if stat.S_ISDIR(found.st_mode):
                raise FileUnreadable(f"{path} is a directory; name a file")
            if stat.S_ISREG(found.st_mode):
                size_max(found.st_size)
                return Source.of_file(path)
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            raise missing(f"{path} is not there") from None
        except (OSError, ValueError) as error:
            raise FileUnreadable(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
        try:
            return self._spool(descriptor, str(path))
        finally:
            os.close(descriptor)

    def _spool(self, descriptor: int, name: str) -> Source:
        head = bytearray()
        try:
            while len(head) <= INLINE_PART:
                block = os.read(descriptor, _BLOCK)
                if not block:
                    return Source.of_bytes(bytes(head))
                head += block
            return self._spool_file(descriptor, bytes(head))
        except OSError as error:
            raise FileUnreadable(f"{name} cannot be read: {error.strerror}") from None

    def _spool_file(self, descriptor: int, head: bytes) -> Source:
        made, name = tempfile.mkstemp(prefix="cmt-input-")
        self._spools.append(made)
        # Without a name it goes with us, however we end; as long as we live it can be opened by its descriptor.
        Path(name).unlink()
        with os.fdopen(made, "wb", closefd=False) as file:
            file.write(head)
            sha, size = hashlib.sha256(head), len(head)
            while block := os.read(descriptor, _BLOCK):
                file.write(block)
                sha.update(block)
                size += len(block)
        return Source(Blob(Digest(sha.hexdigest()), size), path=Path(f"/proc/self/fd/{made}"))


def _fire(gathered: Deferred[Source], result: Source | Failure) -> None:
    if not gathered.called:
        gathered.callback(result)
