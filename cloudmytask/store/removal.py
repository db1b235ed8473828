"""Deleting a tree that somebody else has filled: any depth, any modes, links everywhere, maybe still being written to.

Invariant: nothing outside the tree is touched. No path is ever walked twice: directories are opened by name relative
to an open one, without following links, so that a directory swapped for a link in between is not entered. A tree that
is large, or that somebody goes on writing to, holds a thread for a slice of time only.

Subdirectories are not descended into but moved up to the level of the tree itself, under fresh names, and dealt
with there. So a tree of any depth needs two open descriptors, no recursion and no path longer than PATH_MAX.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from pathlib import Path

SLICE = 0.1
"""Seconds that one tree may hold a thread at a go."""

PATIENCE = 10.0
"""Seconds of work that a tree is worth from the moment when somebody was found to be writing to it."""

LONGEST = 1800.0
"""Seconds of work that any tree is worth: a writer who only ever goes deeper is not found out."""

_REFUSALS = 100
"""How often a directory may turn out not to be empty after all before we give up."""

_RACES = (errno.ENOTEMPTY, errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ELOOP)
"""What it looks like if somebody else makes or replaces entries meanwhile."""


class TreeRemoval:
    """The removal of one tree, slice by slice. Each slice blocks; no two at a time."""

    def __init__(self, name: str, steps: Generator[bool], monotonic: Callable[[], float] = time.monotonic) -> None:
        """Nothing is deleted before :meth:`advance`.

        :param name: of the tree, for the sentence of a failure.
        :param steps: what :func:`remove_tree` returned.
        """
        self._name = name
        self._steps = steps
        self._monotonic = monotonic
        self._spent = 0.0
        self._worth = LONGEST
        self._disturbed = False

    def advance(self) -> bool:
        """Work for :data:`SLICE`; whether nothing of the tree is left.

        :raises OSError: something resists, or somebody writes to the tree faster than we can delete.
        """
        start = self._monotonic()
        for disturbed in self._steps:
            elapsed = self._monotonic() - start
            if disturbed and not self._disturbed:
                self._disturbed, self._worth = True, min(self._worth, self._spent + elapsed + PATIENCE)
            if self._spent + elapsed > self._worth:
                self._steps.close()
                raise OSError(errno.EBUSY, f"somebody goes on writing to {self._name}")
            if elapsed >= SLICE:
                self._spent += elapsed
                return False
        return True


def remove_tree(parent: int, name: str, fresh_name: Callable[[], str]) -> Generator[bool]:
    """Delete ``name``, be it a file, a link or a directory, from the directory open as ``parent``: about one entry for
    each step, which yields whether somebody has been found to be writing to the tree.

    :param fresh_name: makes names that ``parent`` has no entry of.
    :raises OSError: something resists; what is left of the tree may lie under fresh names.
    """
    pending = [name]
    refusals = 0
    while pending:
        current = pending[-1]
        moved: list[str] = []
        try:
            if stat.S_ISDIR(os.stat(current, dir_fd=parent, follow_symlinks=False).st_mode):
                for _ in _clear(parent, current, fresh_name, moved):
                    yield refusals > 0
                os.rmdir(current, dir_fd=parent)
            else:
                os.unlink(current, dir_fd=parent)
            pending.pop()
        except FileNotFoundError:
            pending.pop()
        except OSError as error:
            if error.errno not in _RACES or refusals == _REFUSALS:
                raise
            refusals += 1
        pending += moved
        yield refusals > 0


def _clear(parent: int, name: str, fresh_name: Callable[[], str], moved: list[str]) -> Iterator[None]:
    """Unlink a directory's files and move its subdirectories into ``parent``; their names there go to ``moved``."""
    _open_up(parent, name)
    descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        with os.scandir(descriptor) as entries:
            for entry in entries:
                # a program that writes to the tree may delete from it too
                with suppress(FileNotFoundError):
                    if entry.is_dir(follow_symlinks=False):
                        # rename(2): moving a directory elsewhere needs the right to write to it, for its ".."
                        _open_up(descriptor, entry.name)
                        fresh = fresh_name()
                        os.rename(entry.name, fresh, src_dir_fd=descriptor, dst_dir_fd=parent)
                        moved.append(fresh)
                    else:
                        os.unlink(entry.name, dir_fd=descriptor)
                yield
    finally:
        os.close(descriptor)


def _open_up(parent: int, name: str) -> None:
    """Take all rights to a directory of this user; its mode may be anything."""
    # O_PATH needs no right to the directory itself; fchmod(2) refuses such a descriptor, its name in /proc does not
    descriptor = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        if stat.S_IMODE(os.fstat(descriptor).st_mode) & stat.S_IRWXU != stat.S_IRWXU:
            Path(f"/proc/self/fd/{descriptor}").chmod(stat.S_IRWXU)
    finally:
        os.close(descriptor)
