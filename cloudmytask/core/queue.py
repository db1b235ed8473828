"""The waiting queue: which job is next when a slot turns over.

Classes are ordered by ``arrival - head start``, so that interactive jobs go first and nothing starves; within a class
the client with the fewest running jobs goes first, then the one served longest ago; within a client the oldest job.
Jobs of the ``idle`` class only come out where the load allows it.

Invariant: a job is in the queue at most once, and ``pop`` never reorders one client's jobs of one class.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from attrs import Factory, define, evolve, frozen

from cloudmytask.model import ClientId, JobId, QoS

HEAD_START: Mapping[QoS, float] = {QoS.INTERACTIVE: 600.0, QoS.BATCH: 60.0, QoS.IDLE: 0.0}
"""Seconds by which a class counts as having arrived earlier (simulated; see docs/architecture.md)."""


@frozen
class Entry:
    """A waiting job; ``arrival`` on the node's clock."""

    job_id: JobId
    client: ClientId
    qos: QoS
    arrival: float


@define
class WaitingQueue:
    """Bounded: ``capacity`` jobs may wait to be placed for the first time; what was accepted always fits back in."""

    capacity: int
    expected: int = 0
    """Jobs that were given a place here and are still on their way, to the disk; whoever gave it counts them."""
    _classes: dict[QoS, dict[ClientId, dict[JobId, Entry]]] = Factory(lambda: {qos: {} for qos in QoS})
    _entries: dict[JobId, Entry] = Factory(dict)
    _running: dict[ClientId, int] = Factory(dict)
    _served: dict[ClientId, int] = Factory(dict)
    _turn: int = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, job_id: JobId) -> bool:
        return job_id in self._entries

    @property
    def full(self) -> bool:
        """Whether a new submission must be refused."""
        return self.promised >= self.capacity

    @property
    def promised(self) -> int:
        """Places that are taken, by jobs that wait and by those that are expected."""
        return len(self._entries) + self.expected

    def counts(self) -> dict[QoS, int]:
        """Waiting jobs by class."""
        return {qos: sum(map(len, clients.values())) for qos, clients in self._classes.items()}

    def add(self, entry: Entry) -> None:
        """Append a job; one that is there already stays where it is."""
        if entry.job_id in self._entries:
            return
        self._entries[entry.job_id] = entry
        self._classes[entry.qos].setdefault(entry.client, {})[entry.job_id] = entry

    def put_back(self, entry: Entry) -> None:
        """Take in a job that had a slot before: it goes first among its client's of that class."""
        line = self._classes[entry.qos].get(entry.client, {})
        first = next(iter(line.values()), entry)
        if first.arrival < entry.arrival:
            entry = evolve(entry, arrival=first.arrival)
        self._entries[entry.job_id] = entry
        self._classes[entry.qos][entry.client] = {entry.job_id: entry, **line}

    def remove(self, job_id: JobId) -> bool:
        """Take a job out, wherever it stands; whether it was there."""
        entry = self._entries.pop(job_id, None)
        if entry is None:
            return False
        line = self._classes[entry.qos][entry.client]
        del line[job_id]
        if not line:
            del self._classes[entry.qos][entry.client]
        self._retire(entry.client)
        return True

    def pop(self, *, idle_allowed: bool) -> Entry | None:
        """The next job to place, or None if none may be placed now.

        Its client has one running job more, until :meth:`ended` says otherwise.
        """
        best = min(self._heads(idle_allowed), default=None, key=lambda e: e.arrival - HEAD_START[e.qos])
        if best is None:
            return None
        self._turn += 1
        self._served[best.client] = self._turn
        self._running[best.client] = self._running.get(best.client, 0) + 1
        self.remove(best.job_id)
        return best

    def ended(self, client: ClientId) -> None:
        """A job of ``client`` gave its slot back."""
        left = self._running[client] - 1
        if left:
            self._running[client] = left
        else:
            del self._running[client]
            self._retire(client)

    def position(self, job_id: JobId) -> int | None:
        """How many waiting jobs arrived before it by the ageing order, its own class's head start counted; None if
        it does not wait. An estimate: fairness between clients may change the order."""
        entry = self._entries.get(job_id)
        if entry is None:
            return None
        rank = entry.arrival - HEAD_START[entry.qos]
        return sum(1 for other in self._entries.values() if other.arrival - HEAD_START[other.qos] < rank)

    def _retire(self, client: ClientId) -> None:
        """Forget when ``client`` was served, once it has nothing waiting and nothing running."""
        if client not in self._running and not any(client in clients for clients in self._classes.values()):
            self._served.pop(client, None)

    def _heads(self, idle_allowed: bool) -> Iterator[Entry]:
        for qos, clients in self._classes.items():
            if clients and (idle_allowed or qos is not QoS.IDLE):
                client = min(clients, key=lambda c: (self._running.get(c, 0), self._served.get(c, 0)))
                yield next(iter(clients[client].values()))
