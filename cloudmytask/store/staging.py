"""The directories that scripts run in: ``work/<name>``, private, with verified copies of what the job needs.

Invariant: a directory that :meth:`Staging.stage` returns was made by that call, and holds the asked-for files and
nothing else. A directory on its way out bears a name with a leading dot, which no job's directory can have.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Generator, Mapping
from pathlib import Path

from cloudmytask.core.blobs import verified
from cloudmytask.model.errors import InvalidArgument
from cloudmytask.model.job import Blob, Content
from cloudmytask.store.blob_reader import BlobSource
from cloudmytask.store.files import plain_name, write_whole
from cloudmytask.store.removal import TreeRemoval, remove_tree

_FEW = 16
"""Entries that a directory may have to be deleted on the spot."""


class Staging:
    """Makes and removes work directories; each method blocks and belongs to a thread."""

    def __init__(self, directory: Path, remove_later: Callable[[str], object]) -> None:
        """Work below ``directory``, which exists.

        :param remove_later: sees to the :meth:`removal` of what :meth:`set_aside` returned.
        """
        self._directory = directory
        self._remove_later = remove_later
        self._number = itertools.count()

    def set_all_aside(self) -> list[str]:
        """What an earlier life of the node left, renamed out of the way. Before anything else.

        :raises OSError: the directory cannot be read, or a name in it not be changed.
        """
        names = sorted(entry.name for entry in self._directory.iterdir())
        # what was on its way out already may bear the very names that we are about to give
        taken = {int(digits) for name in names if (digits := name.removeprefix(".gone-")).isdecimal()}
        self._number = itertools.count(max(taken, default=-1) + 1)
        return [name if name.startswith(".gone-") else self._rename(name) for name in names]

    def stage(self, name: str, files: Mapping[str, Blob], known: Mapping[Blob, Content], source: BlobSource) -> str:
        """Make the directory ``name`` and fill it. An older one of that name is removed.

        :param known: blobs that need not be read from ``source``.
        :returns: the absolute path.
        :raises BlobMissing, BlobCorrupt, OSError: nothing was made.
        """
        self.discard(name)
        path = self._directory / name
        path.mkdir(mode=0o700)
        try:
            for file_name, blob in files.items():
                self._write(path / file_name, blob, known.get(blob), source)
        except BaseException:
            self.discard(name)
            raise
        return str(path)

    def _write(self, path: Path, blob: Blob, content: Content | None, source: BlobSource) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            if content is not None:
                write_whole(descriptor, verified(content))
            else:
                source.copy(blob, lambda data: write_whole(descriptor, data))
        finally:
            os.close(descriptor)

    def discard(self, name: str) -> None:
        """Rename the directory ``name``, if there is one, and have it removed later."""
        if (gone := self.set_aside(name)) is not None:
            self._remove_later(gone)

    def clear(self, name: str) -> str | None:
        """Delete the directory ``name`` at once if it is small and flat, as most are, and set it aside otherwise; what
        to give to :meth:`removal`, None if nothing is left.

        :raises OSError: it can be neither deleted nor renamed.
        """
        try:
            descriptor = os.open(self._directory / name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return self.set_aside(name)
        try:
            if _clear_flat(descriptor):
                (self._directory / name).rmdir()
                return None
        except OSError:
            # something of it resists, or is still being written to
            return self.set_aside(name)
        finally:
            os.close(descriptor)
        return self.set_aside(name)

    def set_aside(self, name: str) -> str | None:
        """Rename the directory ``name`` out of the way; what to give to :meth:`removal`, None if there is none.

        :raises OSError: it cannot be renamed.
        """
        try:
            return self._rename(name)
        except FileNotFoundError:
            return None

    def _rename(self, name: str) -> str:
        gone = self._fresh_name()
        (self._directory / name).rename(self._directory / gone)
        return gone

    def removal(self, gone: str) -> TreeRemoval:
        """The deletion of what was set aside, which follows no link."""
        return TreeRemoval(gone, self._remove(gone))

    def _remove(self, gone: str) -> Generator[bool]:
        descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield from remove_tree(descriptor, gone, self._fresh_name)
        finally:
            os.close(descriptor)

    def _fresh_name(self) -> str:
        # next() of a count is one step of the interpreter: two threads never get the same number
        return f".gone-{next(self._number)}"


def _clear_flat(descriptor: int) -> bool:
    """Unlink everything in a directory of a few entries, none of them a directory; whether it was one.

    :raises OSError: one of them resists.
    """
    with os.scandir(descriptor) as entries:
        names = [
            "" if entry.is_dir(follow_symlinks=False) else entry.name for entry in itertools.islice(entries, _FEW + 1)
        ]
    if len(names) > _FEW or "" in names:
        return False
    for name in names:
        os.unlink(name, dir_fd=descriptor)
    return True


def directory_name(name: str) -> str:
    """``name``, if a work directory can have it.

    :raises InvalidArgument: it cannot.
    """
    if name.startswith("."):
        raise InvalidArgument(f"{name!r} is not a name for a work directory.")
    return plain_name(name)
