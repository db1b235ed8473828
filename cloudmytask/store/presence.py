"""Whether the files that a store was opened with are still the ones that their names lead to.

Invariant: once one of them was found to be gone or replaced, the store is lost for good: what is written to a file
without a name is on no disk that anybody will ever read.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from cloudmytask.model.errors import StoreFailed

_Identity = tuple[int, int]


class Presence:
    """Remembers what lies at some paths. For any thread; looking blocks."""

    def __init__(self, paths: Sequence[Path], later: Sequence[Path] = ()) -> None:
        """Remember ``paths`` as they are now, and ``later`` ones as they are when they are first seen.

        :raises OSError: one of ``paths`` is not there.
        """
        self._known: dict[Path, _Identity] = {path: _identity(path) for path in paths}
        self._later = tuple(later)
        self._gone: str | None = None

    def check(self) -> None:
        """Look.

        :raises StoreFailed: one is gone, or something else has its name, now or at any earlier look.
        """
        if self._gone is None:
            self._gone = self._look()
        if self._gone is not None:
            raise StoreFailed(self._gone)

    def _look(self) -> str | None:
        for path, known in self._known.items():
            try:
                found = _identity(path)
            except FileNotFoundError:
                return f"{path} was removed while it was in use: nothing can be stored any more."
            except NotADirectoryError:
                return f"{path} was replaced while it was in use: nothing can be stored any more."
            except OSError:
                continue  # no proof; a disk that fails tells so by itself
            if found != known:
                return f"{path} was replaced while it was in use: nothing can be stored any more."
        for path in self._later:
            if path not in self._known and path.exists():
                self._known[path] = _identity(path)
        return None


def _identity(path: Path) -> _Identity:
    found = os.stat(path)  # noqa: PTH116 - at each commit, and half the time
    return found.st_dev, found.st_ino
