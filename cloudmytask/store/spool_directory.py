"""The spools on the disk: which files there are, what an earlier life left, and the names of new ones.

Invariant: it opens no file. A file is ``spool/<name>.<number>`` with a number never used before, so that deleting an
old spool late cannot hit a new one of the same name.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from attrs import define, frozen

from cloudmytask.core.blobs import UPLOAD_PREFIX
from cloudmytask.model.job import FIRST_EPOCH, StreamName
from cloudmytask.store.files import plain_name


@frozen
class Leftover:
    """A spool of an earlier life; ``size`` in bytes."""

    path: Path
    size: int


@define(eq=False)
class SpoolDirectory:
    """Knows the files of all spools."""

    _directory: Path
    _leftovers: dict[str, Leftover]
    _number: int

    @classmethod
    def survey(cls, directory: Path) -> tuple[SpoolDirectory, list[Path]]:
        """What is there, and which files of it are to be deleted: uploads, and those that have a newer namesake.

        :raises OSError: the directory cannot be read.
        """
        useless: list[Path] = []
        leftovers: dict[str, Leftover] = {}
        highest = 0
        for number, path in sorted((_number(path), path) for path in directory.iterdir()):
            highest = max(highest, number)
            name = _present_name(path.stem)
            if name in leftovers:
                useless.append(leftovers.pop(name).path)
            size = path.stat().st_size
            if name.startswith(UPLOAD_PREFIX) or not size:
                useless.append(path)
            else:
                leftovers[name] = Leftover(path, size)
        return cls(directory, leftovers, highest), useless

    def take_leftover(self, name: str) -> Leftover | None:
        """What an earlier life left under ``name``; from now on it is the caller's."""
        return self._leftovers.pop(name, None)

    def new_path(self, name: str) -> Path:
        """Where a new spool ``name`` is to lie.

        :raises InvalidArgument: no file can have that name.
        """
        self._number += 1
        return self._directory / plain_name(f"{name}.{self._number}")

    def of_others(self, job_ids: Collection[str]) -> list[Path]:
        """The leftovers of other jobs than these, which have their output already; they are nobody's from now on.

        A spool is named after its attempt: ``<job id>.<epoch>.<number>.<stream>``.
        """
        names = [name for name in self._leftovers if name.partition(".")[0] not in job_ids]
        return [self._leftovers.pop(name).path for name in names]

    def unclaimed(self) -> list[Path]:
        """The leftovers that nobody asked for; they are nobody's from now on."""
        paths = [leftover.path for leftover in self._leftovers.values()]
        self._leftovers.clear()
        return paths


def _present_name(name: str) -> str:
    """The name of a spool of version 1 of the store had no epoch: ``<job id>.<number>.<stream>``."""
    parts = name.split(".")
    if len(parts) == 3 and parts[2] in {*StreamName}:
        parts.insert(1, str(FIRST_EPOCH))
    return ".".join(parts)


def _number(path: Path) -> int:
    digits = path.suffix.removeprefix(".")
    return int(digits) if digits.isdecimal() else 0
