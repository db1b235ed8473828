"""What a node may run out of.

Invariant: a shortage is the node's, and never the fault of the job that met it.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping

from cloudmytask.model.words import Resource

_BY_NUMBER: Mapping[int, Resource] = {
    errno.ENOSPC: Resource.DISK,
    errno.EDQUOT: Resource.DISK,
    errno.EMFILE: Resource.DESCRIPTORS,
    errno.ENFILE: Resource.DESCRIPTORS,
    errno.EAGAIN: Resource.PROCESSES,
    errno.ENOMEM: Resource.MEMORY,
}
_BY_SQLITE_CODE: Mapping[int, Resource] = {7: Resource.MEMORY, 13: Resource.DISK, 4874: Resource.DISK}
"""SQLITE_NOMEM, SQLITE_FULL and SQLITE_IOERR_SHMSIZE (https://www.sqlite.org/rescode.html)."""


def resource_of(error: BaseException) -> Resource | None:
    """What the operating system or SQLite has too little of; None if ``error`` says something else."""
    if isinstance(error, OSError):
        return _BY_NUMBER.get(error.errno or 0)
    code = getattr(error, "sqlite_errorcode", None)
    return _BY_SQLITE_CODE.get(code) if isinstance(code, int) else None
