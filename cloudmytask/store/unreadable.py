"""Job records that cannot be read: rotten, or written by a program that knew more.

Invariant: such a record is left as it is, is reported once, and keeps no other record from being found.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from attrs import frozen
from twisted.logger import Logger

T = TypeVar("T")

_log = Logger()


@frozen
class Unreadable:
    """One of them."""

    job_id: str
    reason: str

    def __str__(self) -> str:
        return f"The record of job {self.job_id} cannot be read ({self.reason})."


@frozen
class Found(Generic[T]):
    """What a query found, and what it had to leave out."""

    value: T
    unreadable: tuple[Unreadable, ...] = ()


class UnreadableRecords:
    """Those that were reported already. From one thread only, the one that may log."""

    def __init__(self) -> None:
        self._reported: set[str] = set()

    def report(self, found: Found[T]) -> T:
        """What was found; the log gets what was left out, each record once."""
        for record in found.unreadable:
            if record.job_id not in self._reported:
                self._reported.add(record.job_id)
                _log.error("{record} It is skipped.", record=record)
        return found.value
