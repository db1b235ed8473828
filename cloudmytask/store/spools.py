"""The directory ``spool/``: which spools an earlier life of the node left, and names for the files of new ones.

Invariant: no path is used twice, in this life or over several of them; what a name was given out for is this life's.
"""

from __future__ import annotations

from pathlib import Path

from attrs import define, frozen

from cloudmytask.store.files import plain_name

UPLOAD_PREFIX = "upload-"
"""Begins the names of spools that are worth nothing after a restart."""


@frozen
class _Leftover:
    path: Path
    size: int


@define(eq=False)
class SpoolDirectory:
    """Bookkeeping only: knows the files, opens none."""

    _directory: Path
    _leftovers: dict[str, _Leftover]
    _number: int

    @classmethod
    def survey(cls, directory: Path) -> tuple[SpoolDirectory, list[Path]]:
        """What is there, and which files of it are to be deleted: uploads, and those that have a newer namesake.

        :raises OSError:
        """
        useless: list[Path] = []
        leftovers: dict[str, _Leftover] = {}
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
                leftovers[name] = _Leftover(path, size)
        return cls(directory, leftovers, highest), useless

    def claim(self, name: str) -> tuple[Path, int]:
        """Where the spool ``name`` lies, and its size: what an earlier life left, else a new file yet to be made.

        :raises InvalidArgument: no file can have that name.
        """
        leftover = self._leftovers.pop(name, None)
        if leftover is not None:
            return leftover.path, leftover.size
        self._number += 1
        return self._directory / plain_name(f"{name}.{self._number}"), 0

    def unclaimed(self) -> list[Path]:
        """The leftovers that nobody asked for; they are nobody's from now on."""
        paths = [leftover.path for leftover in self._leftovers.values()]
        self._leftovers.clear()
        return paths


def _number(path: Path) -> int:
    digits = path.suffix.removeprefix(".")
    return int(digits) if digits.isdecimal() else 0
