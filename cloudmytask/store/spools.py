"""The directory ``spool/``: which spools an earlier life of the node left, and names for the files of new ones.

Invariant: no path is used twice, and a leftover is given out once.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from attrs import define, frozen

from cloudmytask.core.blobs import UPLOAD_PREFIX
from cloudmytask.store.files import plain_name


@frozen
class Leftover:
    """A spool of an earlier life; ``size`` in bytes."""

    path: Path
    size: int


@define(eq=False)
class SpoolDirectory:
    """Bookkeeping only: knows the files, opens none."""

    _directory: Path
    _leftovers: dict[str, Leftover]
    _number: int

    @classmethod
    def survey(cls, directory: Path) -> tuple[SpoolDirectory, list[Path]]:
        """What is there, and which files of it are to be deleted: uploads, and those that have a newer namesake.

        :raises OSError:
        """
        useless: list[Path] = []
        leftovers: dict[str, Leftover] = {}
        highest = 0
        for number, path in sorted((_number(path), path) for path in directory.iterdir()):
            highest = max(highest, number)
            name = path.stem
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

        A spool is named after its job: ``<job id>.<attempt>.<stream>``.
        """
        names = [name for name in self._leftovers if name.partition(".")[0] not in job_ids]
        return [self._leftovers.pop(name).path for name in names]

    def unclaimed(self) -> list[Path]:
        """The leftovers that nobody asked for; they are nobody's from now on."""
        paths = [leftover.path for leftover in self._leftovers.values()]
        self._leftovers.clear()
        return paths


def _number(path: Path) -> int:
    digits = path.suffix.removeprefix(".")
    return int(digits) if digits.isdecimal() else 0
