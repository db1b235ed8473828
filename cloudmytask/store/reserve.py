"""Room on the disk that is kept for what must be possible on a full one: to record outcomes, to delete, to start.

Invariant: the reserve is a file of ours that holds nothing. A running node gives up all of it but the last part, which
a start may need; it is taken again only when there is so much room that nobody lacks it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from cloudmytask.core.shortages import resource_of
from cloudmytask.model.words import Resource

T = TypeVar("T")

RESERVE_SIZE = 8 * 1024 * 1024
"""Bytes."""
FOR_A_START = 1024 * 1024
"""Bytes of it that only a start may use."""
NAME = "reserve"
"""The file in the state directory."""


class Reserve:
    """The reserve of one state directory. For any thread; each method blocks."""

    def __init__(self, directory: Path, size: int = RESERVE_SIZE) -> None:
        """Nothing is taken before :meth:`take`.

        :param size: bytes; 0: there is none.
        """
        self._path = directory / NAME
        self._size = size
        self._lock = threading.Lock()

    def give_up(self, keep: int = FOR_A_START) -> bool:
        """Make room, but for ``keep`` bytes; whether there was anything to give up."""
        with self._lock:
            try:
                if self._path.stat().st_size <= keep:
                    return False
                os.truncate(self._path, keep)
            except OSError:
                return False
            return True

    def take(self) -> bool:
        """Take the room, if as much again would be left; whether it is taken now."""
        with self._lock:
            try:
                held = self._path.stat().st_size if self._path.exists() else 0
                if held >= self._size:
                    return True
                found = os.statvfs(self._path.parent)
                if found.f_bavail * found.f_frsize < 2 * self._size - held:
                    return False
                return self._allocate(held)
            except OSError:
                return False

    def helping(self, work: Callable[[], T]) -> T:
        """What ``work`` returns; it is done once more with the room that was in reserve if the disk was full.

        :raises OSError: as ``work`` does.
        """
        try:
            return work()
        except OSError as error:
            if resource_of(error) is not Resource.DISK or not self.give_up():
                raise
            return work()

    def _allocate(self, held: int) -> bool:
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, self._size)
        except OSError:
            # somebody else was quicker, and needs it
            os.ftruncate(descriptor, held)
            return False
        finally:
            os.close(descriptor)
        return True
