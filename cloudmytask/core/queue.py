"""The waiting queue: which job is next when a slot turns over.

Classes are ordered by ``arrival - head start``, so that interactive jobs go first and nothing starves; within a class
the client with the fewest running jobs in the whole cluster goes first, then the one served longest ago; within a
client the oldest job. Jobs of the ``idle`` class only come out where the load allows it, and those with a wish only
where it can be granted.

Invariant: a job is in the queue at most once; of one client's jobs of one class that could be placed now, ``pop`` takes
the oldest. A client that comes back stands behind those that wait longer than since the last turn and have no more
running: one that comes and goes does not pass those that stay.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from heapq import heapify, heappop, heappush, nsmallest

from attrs import Factory, define, evolve, field, frozen

from cloudmytask.model.cluster import NodeId
from cloudmytask.model.job import ClientId, JobId, QoS

HEAD_START: Mapping[QoS, float] = {QoS.INTERACTIVE: 600.0, QoS.BATCH: 60.0, QoS.IDLE: 0.0}
"""Seconds by which a class counts as having arrived earlier (simulated; see docs/architecture.md)."""
_SLACK = 16
"""Places of jobs that are gone which a line may keep, beyond as many as wait."""
Fits = Callable[[Hashable], bool]
"""Whether a job with that wish could be placed now; asked once for each wish."""


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
    """Jobs of one client, of one class and with one wish, oldest first by ``(arrival, number)``.

    Each step costs at most the logarithm of what waits, on average.
    """

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
        heappush(self._heap, (*_place(entry), entry.job_id))

    def remove(self, entry: Entry) -> None:
        """Take a job out, wherever it stands."""
        del self._waiting[entry.job_id]
        if self._heap[0][2] == entry.job_id and self._heap[0][1] == entry.number:
            heappop(self._heap)
        elif len(self._heap) > 2 * len(self._waiting) + _SLACK:
            self._heap = [(*_place(each), each.job_id) for each in self._waiting.values()]
            heapify(self._heap)


@define(eq=False)
class _Waiting:
    """A client's waiting jobs of one class, by their wish."""

    turn: tuple[int, int]
    """When it was last served, or came. Of two clients with as many running jobs the smaller goes first."""
    lines: dict[Hashable, Line] = field(init=False, factory=dict)

    def first(self) -> Entry:
        """The oldest."""
        return min(map(Line.first, self.lines.values()), key=_place)

    def granted(self, fits: Fits) -> Entry | None:
        """The oldest that fits."""
        firsts = (line.first() for wish, line in self.lines.items() if fits(wish))
        return min(firsts, default=None, key=_place)


@define
class WaitingQueue:
    """Bounded: ``capacity`` jobs may wait to be placed for the first time; what was accepted always fits back in."""

    capacity: int
    expected: int = 0
    """Jobs that were given a place here and are still on their way, to the disk; their acceptance counts them."""
    _classes: dict[QoS, dict[ClientId, _Waiting]] = Factory(lambda: {qos: {} for qos in QoS})
    _counts: dict[QoS, int] = Factory(lambda: dict.fromkeys(QoS, 0))
    _entries: dict[JobId, Entry] = Factory(dict)
    _running: dict[ClientId, int] = Factory(dict)
    _learned: dict[NodeId, dict[ClientId, int]] = Factory(dict)
    _elsewhere: dict[ClientId, int] = Factory(dict)
    _turns: int = 0
    _numbers: int = 0

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

    @property
    def running_elsewhere(self) -> Mapping[ClientId, int]:
        """Running jobs by client that other nodes are the origin of, as far as they say."""
        return self._elsewhere

    def counts(self) -> dict[QoS, int]:
        """Waiting jobs by class."""
        return dict(self._counts)

    def top(self, n: int) -> tuple[tuple[ClientId, int], ...]:
        """Up to ``n`` clients with the most running jobs of this origin, and how many."""
        return tuple(nsmallest(n, self._running.items(), key=lambda item: (-item[1], item[0])))

    def learn(self, node_id: NodeId, running: Mapping[ClientId, int]) -> None:
        """Another node is the origin of so many running jobs; replaces what it said before."""
        before = self._learned.get(node_id, {})
        if before == running:
            return
        self.forget_node(node_id)
        self._learned[node_id] = dict(running)
        for client, number in running.items():
            self._elsewhere[client] = self._elsewhere.get(client, 0) + number

    def forget_node(self, node_id: NodeId) -> None:
        """What that node said is no longer so."""
        for client, number in self._learned.pop(node_id, {}).items():
            left = self._elsewhere[client] - number
            if left:
                self._elsewhere[client] = left
            else:
                del self._elsewhere[client]

    def add(self, entry: Entry) -> None:
        """Take a job in by its arrival, behind those that arrived no later; one that is there already stays where it
        is."""
        if entry.job_id not in self._entries:
            self._numbers += 1
            self._insert(evolve(entry, number=self._numbers))

    def put_back(self, entry: Entry) -> None:
        """Take in a job that had a slot before: it goes first among its client's of that class."""
        waiting = self._classes[entry.qos].get(entry.client)
        arrival = entry.arrival if waiting is None else min(entry.arrival, waiting.first().arrival)
        self._numbers += 1
        self._insert(evolve(entry, arrival=arrival, number=-self._numbers))

    def restore(self, entry: Entry) -> None:
        """Take in again what :meth:`pop` gave and nobody took: it has exactly the place that it had, and its client
        the turn. The running job that was counted is given back by :meth:`ended`, as ever."""
        if entry.job_id not in self._entries:
            self._insert(entry)
            waiting = self._classes[entry.qos][entry.client]
            waiting.turn = min(waiting.turn, entry.turn)

    def remove(self, job_id: JobId) -> bool:
        """Take a job out, wherever it stands; whether it was there."""
        entry = self._entries.pop(job_id, None)
        if entry is None:
            return False
        clients = self._classes[entry.qos]
        lines = clients[entry.client].lines
        lines[entry.wish].remove(entry)
        self._counts[entry.qos] -= 1
        if not lines[entry.wish]:
            del lines[entry.wish]
        if not lines:
            del clients[entry.client]
        return True

    def pop(self, *, idle_allowed: bool, fits: Fits | None = None) -> Entry | None:
        """The next job to place, or None if none may be placed now.

        Its client has one running job more, until :meth:`ended` says otherwise.
        """
        best = self._next(idle_allowed, fits)
        if best is None:
            return None
        waiting = self._classes[best.qos][best.client]
        best = evolve(best, turn=waiting.turn)
        self._turns += 2
        waiting.turn = (self._turns, 0)
        self._running[best.client] = self._running.get(best.client, 0) + 1
        self.remove(best.job_id)
        return best

    def head(self, now: float, *, idle_allowed: bool = True, fits: Fits | None = None) -> tuple[Entry, float] | None:
        """What :meth:`pop` would take, and its priority age: the seconds by which it is ahead of a job that arrives
        now without any head start. None if nothing may be placed."""
        best = self._next(idle_allowed, fits)
        return None if best is None else (best, now - best.rank)

    def begun(self, client: ClientId) -> None:
        """A job of ``client`` has a slot that it did not get from here: an earlier life of the node gave it."""
        self._running[client] = self._running.get(client, 0) + 1

    def ended(self, client: ClientId) -> None:
        """A job of ``client`` gave its slot back."""
        left = self._running[client] - 1
        if left:
            self._running[client] = left
        else:
            del self._running[client]

    def position(self, job_id: JobId) -> int | None:
        """How many waiting jobs arrived before it by the ageing order, its own class's head start counted; None if
        it does not wait. An estimate: fairness between clients may change the order."""
        entry = self._entries.get(job_id)
        if entry is None:
            return None
        rank = entry.rank
        return sum(1 for other in self._entries.values() if other.rank < rank)

    def _insert(self, entry: Entry) -> None:
        self._entries[entry.job_id] = entry
        clients = self._classes[entry.qos]
        waiting = clients.get(entry.client)
        if waiting is None:
            waiting = clients[entry.client] = _Waiting((self._turns - 1, entry.number))
        waiting.lines.setdefault(entry.wish, Line()).insert(entry)
        self._counts[entry.qos] += 1

    def _next(self, idle_allowed: bool, fits: Fits | None) -> Entry | None:
        fits = None if fits is None else _asked_once(fits)
        heads = [
            head
            for qos, clients in self._classes.items()
            if clients and (idle_allowed or qos is not QoS.IDLE) and (head := self._fairest(clients, fits)) is not None
        ]
        return min(heads, default=None, key=lambda entry: entry.rank)

    def _fairest(self, clients: dict[ClientId, _Waiting], fits: Fits | None) -> Entry | None:
        """Of one class the job whose turn it is."""

        def turn(client: ClientId) -> tuple[int, tuple[int, int]]:
            return (self._running.get(client, 0) + self._elsewhere.get(client, 0), clients[client].turn)

        if fits is None:
            return clients[min(clients, key=turn)].first()
        # fits is asked for no more clients than need be: they may be many
        for client in sorted(clients, key=turn):
            if (entry := clients[client].granted(fits)) is not None:
                return entry
        return None


def _place(entry: Entry) -> tuple[float, int]:
    return (entry.arrival, entry.number)


def _asked_once(fits: Fits) -> Fits:
    answers: dict[Hashable, bool] = {}

    def answer(wish: Hashable) -> bool:
        found = answers.get(wish)
        if found is None:
            found = answers[wish] = fits(wish)
        return found

    return answer
