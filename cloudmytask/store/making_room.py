"""Room for a start: what an earlier life of the node left is deleted before anything else, if the disk is short.

Invariant: it needs no database, no thread, and no room. With room enough nothing is deleted here: the open store does
that in the background, so that a start takes no longer.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

from twisted.logger import Logger

from cloudmytask.core.blobs import UPLOAD_PREFIX
from cloudmytask.store.files import reason
from cloudmytask.store.opened import StorePaths
from cloudmytask.store.removal import TreeRemoval, remove_tree
from cloudmytask.store.reserve import RESERVE_SIZE, Reserve

_log = Logger()

WANTED = RESERVE_SIZE
"""Bytes that a start likes to have."""
FILES_WANTED = 64
"""The same for files: a disk is full too if it can hold no further one."""


def make_room(directory: Path) -> None:
    """Make room below the state directory ``directory`` as far as it is needed and possible. What resists is logged.

    To be called by the one who holds the lock, when nothing of an earlier life runs any more. Blocks for as long as it
    takes to delete what fills the disk.
    """
    if has_room(directory):
        return
    paths = StorePaths(directory)
    for parent, name in (*_work(paths.work), *_files(paths)):
        try:
            _remove(parent, name)
        except OSError as error:
            _log.error("{path} cannot be deleted: {problem}", path=str(parent / name), problem=reason(error))
        if has_room(directory):
            return
    if Reserve(directory).give_up(keep=0):
        _log.warn("the disk is full: the start uses the reserve in {directory}", directory=str(directory))


def has_room(directory: Path) -> bool:
    """Whether a start has what it likes to have."""
    try:
        found = os.statvfs(directory)
    except OSError:
        return True  # nothing to go by; the start will tell
    # a file system without a fixed number of files has 0
    return found.f_bavail * found.f_frsize >= WANTED and (not found.f_files or found.f_favail >= FILES_WANTED)


def _work(directory: Path) -> Iterator[tuple[Path, str]]:
    """Directories of scripts that run no more."""
    return ((directory, name) for name in _names(directory))


def _files(paths: StorePaths) -> Iterator[tuple[Path, str]]:
    """Uploads that nobody will go on with, and large blobs that were deleted already."""
    yield from ((paths.spool, name) for name in _names(paths.spool) if name.startswith(UPLOAD_PREFIX))
    yield from ((paths.blobs, name) for name in _names(paths.blobs) if name.startswith("."))


def _names(directory: Path) -> list[str]:
    try:
        return sorted(path.name for path in directory.iterdir())
    except OSError:
        return []  # this start is the first one, or will tell


def _remove(parent: Path, name: str) -> None:
    descriptor = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # apart from the names that the store gives to what it sets aside
        fresh = (f".gone-start-{os.getpid()}-{number}" for number in itertools.count())
        removal = TreeRemoval(name, remove_tree(descriptor, name, fresh.__next__))
        while not removal.advance():
            pass
    finally:
        os.close(descriptor)
