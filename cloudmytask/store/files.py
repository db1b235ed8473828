"""Small pieces of dealing with files: names, whole reads and writes, and making a directory's change durable.

Invariant: a name that came from outside is checked to be one plain component before a path is made of it.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path

from cloudmytask.core.shortages import resource_of
from cloudmytask.model.errors import InvalidArgument, StartFailed, StoreFailed
from cloudmytask.model.job import Digest, Resource


def plain_name(name: str) -> str:
    """``name``, if it can be the name of a file that lies directly in a directory of ours.

    :raises InvalidArgument: it is empty, ``.`` or ``..``, has a slash or a NUL, is too long, or cannot be encoded.
    """
    try:
        encoded = os.fsencode(name)
    except UnicodeEncodeError:
        encoded = b""
    if encoded in (b"", b".", b"..") or b"/" in encoded or b"\0" in encoded or len(encoded) > 255:
        raise InvalidArgument(f"{name!r} is not a plain file name.")
    return name


def file_of(directory: Path, digest: Digest) -> Path:
    """Where the large blob ``digest`` lies. Only for digests that we computed."""
    return directory / digest[:2] / digest


def store_failed(path: Path, error: OSError | sqlite3.Error) -> StoreFailed:
    """The declared failure for what the operating system or SQLite said about ``path``."""
    return StoreFailed(f"The store at {path} failed: {reason(error)}.", resource=_resource_of(error))


def _resource_of(error: OSError | sqlite3.Error) -> Resource | None:
    """What the node is short of, if that is what an error says."""
    if isinstance(error, OSError):
        return resource_of(error)
    code = getattr(error, "sqlite_errorcode", 0)
    if code == sqlite3.SQLITE_IOERR_SHMSIZE:  # the file beside the log has no room
        return Resource.DISK
    primary = code & 0xFF  # an extended code keeps the primary one there
    return {sqlite3.SQLITE_FULL: Resource.DISK, sqlite3.SQLITE_NOMEM: Resource.MEMORY}.get(primary)


def reason(error: Exception) -> str:
    """The words of an error, without number and path."""
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)


def write_whole(descriptor: int, data: bytes) -> None:
    """Write all of ``data``, at the file's position.

    :raises OSError: as write(2) does; part of it may have been written.
    """
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def read_whole(descriptor: int, size: int, offset: int) -> bytes:
    """``size`` bytes from ``offset`` on, fewer where the file ends before.

    :raises OSError: as pread(2) does.
    """
    pieces: list[bytes] = []
    while size > 0:
        piece = os.pread(descriptor, size, offset)
        if not piece:
            break
        pieces.append(piece)
        size -= len(piece)
        offset += len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def sync(path: Path) -> None:
    """Make a file's bytes durable, or the names in a directory: fsync(2) says why a file's own fsync does not."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def rename_durably(fresh: Path, path: Path) -> None:
    """Give a whole new file its name, in the same directory: after a loss of power it is there whole, or not at all."""
    sync(fresh)
    fresh.rename(path)
    sync(path.parent)


def need_access(path: Path, mode: int) -> None:
    """Check that this process may use ``path`` in this ``mode`` (see access(2)).

    :raises PermissionError: it may not.
    """
    if not os.access(path, mode, effective_ids=True):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def own_directory(path: Path) -> None:
    """Make ``path`` a directory of ours with mode 0700, or accept one that is ours already.

    :raises StartFailed: it cannot be made or used, is not a directory, or belongs to somebody else.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = path.stat().st_uid
        if owner == os.geteuid():
            need_access(path, os.R_OK | os.W_OK | os.X_OK)
    except FileExistsError as error:
        raise StartFailed(f"The path {path} is not a directory.") from error
    except OSError as error:
        raise StartFailed(f"The directory {path} cannot be used: {reason(error)}.") from error
    if owner != os.geteuid():
        raise StartFailed(f"The directory {path} belongs to another user (uid {owner}).")
