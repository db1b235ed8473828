"""A client's line in the waiting queue: jobs of one class with one wish, oldest first.

Invariant: the order is that of ``(arrival, number)``, in any order of taking in and out; each step costs at most
the logarithm of what waits, on average.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from heapq import heapify, heappop, heappush

from attrs import define, field, frozen

from cloudmytask.model.job import ClientId, JobId, QoS

HEAD_START: Mapping[QoS, float] = {QoS.INTERACTIVE: 600.0, QoS.BATCH: 60.0, QoS.IDLE: 0.0}
"""Seconds by which a class counts as having arrived earlier (simulated; see docs/architecture.md)."""
_SLACK = 16
"""Places of jobs that are gone which a line may keep, beyond as many as wait."""


@frozen
class Entry:
    """A waiting job; ``arrival`` on the node's clock."""

    job_id: JobId
    client: ClientId
    qos: QoS
    arrival: float
    wish: Hashable = None
    """Where it wants to run, for ``pop``'s ``fits``; None: anywhere."""
    number: int = field(default=0, eq=False)
    """Given by the queue: of two that arrived at one moment, the smaller goes first."""
    turn: tuple[int, int] = field(default=(0, 0), eq=False)
    """Given by ``pop``: the place among clients that its client had until then."""

    @property
    def rank(self) -> float:
        """When it would have arrived without its class's head start; classes are ordered by it."""
        return self.arrival - HEAD_START[self.qos]


@define(eq=False)
class Line:
    """The jobs that wait, by arrival."""

    _heap: list[tuple[float, int, JobId]] = field(init=False, factory=list)
    """Places, those of jobs that have left the line included."""
    _waiting: dict[JobId, Entry] = field(init=False, factory=dict)

    def __len__(self) -> int:
        return len(self._waiting)

    def first(self) -> Entry:
        """The oldest; there must be one."""
        while (entry := self._waiting.get(self._heap[0][2])) is None or entry.number != self._heap[0][1]:
            heappop(self._heap)
        return entry

    def insert(self, entry: Entry) -> None:
        """Give a job its place by its arrival and number."""
        self._waiting[entry.job_id] = entry
        heappush(self._heap, _place(entry))

    def remove(self, entry: Entry) -> None:
        """Take a job out, wherever it stands."""
        del self._waiting[entry.job_id]
        if self._heap[0] == _place(entry):
            heappop(self._heap)
        elif len(self._heap) > 2 * len(self._waiting) + _SLACK:
            self._heap = [_place(each) for each in self._waiting.values()]
            heapify(self._heap)


def _place(entry: Entry) -> tuple[float, int, JobId]:
    return (entry.arrival, entry.number, entry.job_id)
