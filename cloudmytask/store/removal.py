"""Deleting a tree that somebody else has filled: any depth, any modes, links everywhere, maybe still being written to.

Invariant: nothing outside the tree is touched. No path is ever walked twice: directories are opened by name relative
to an open one, without following links, so that a directory swapped for a link in between is not entered.

Subdirectories are not descended into but moved up to the level of the tree itself, under names of our own, and dealt
with there. So a tree of any depth needs two open descriptors, no recursion and no path longer than PATH_MAX.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

_PATIENCE = 100
"""How often a directory may turn out not to be empty after all before we give up."""


def remove_tree(parent: int, name: str, fresh_name: Callable[[], str]) -> None:
    """Delete ``name``, be it a file, a link or a directory, from the directory open as ``parent``.

    :param fresh_name: makes names that ``parent`` has no entry of.
    :raises OSError: something resists; what is left of the tree may lie under fresh names.
    """
    pending = [name]
    refusals = 0
    while pending:
        current = pending[-1]
        try:
            if not stat.S_ISDIR(os.stat(current, dir_fd=parent, follow_symlinks=False).st_mode):
                os.unlink(current, dir_fd=parent)
                pending.pop()
                continue
            moved = _clear(parent, current, fresh_name)
            os.rmdir(current, dir_fd=parent)
        except FileNotFoundError:
            pending.pop()
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or refusals == _PATIENCE:
                raise
            refusals += 1
            pending += moved
        else:
            pending.pop()
            pending += moved


def _clear(parent: int, name: str, fresh_name: Callable[[], str]) -> list[str]:
    """Unlink a directory's files and move its subdirectories into ``parent``; their names there."""
    _open_up(parent, name)
    moved = []
    descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        with os.scandir(descriptor) as entries:
            listed = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        for entry_name, is_directory in listed:
            if is_directory:
                # rename(2): moving a directory elsewhere needs the right to write to it, for its ".."
                _open_up(descriptor, entry_name)
                moved.append(fresh_name())
                os.rename(entry_name, moved[-1], src_dir_fd=descriptor, dst_dir_fd=parent)
            else:
                os.unlink(entry_name, dir_fd=descriptor)
    finally:
        os.close(descriptor)
    return moved


def _open_up(parent: int, name: str) -> None:
    """Give ourselves all rights to a directory of ours, whatever its mode."""
    # O_PATH needs no right to the directory itself; fchmod(2) refuses such a descriptor, its name in /proc does not
    descriptor = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        if stat.S_IMODE(os.fstat(descriptor).st_mode) & stat.S_IRWXU != stat.S_IRWXU:
            Path(f"/proc/self/fd/{descriptor}").chmod(stat.S_IRWXU)
    finally:
        os.close(descriptor)
