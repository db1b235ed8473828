"""When an instance announces itself: at once where others decide by it, otherwise seldom, and all together within a
budget (overlay simulation, section 6.2).

Invariant: two announcements are never closer than the gap, and never further apart than the interval that the earlier
one promised; jitter only ever shortens.
"""

from __future__ import annotations

from attrs import define, field, frozen

from cloudmytask.model.cluster import Backlog, Capacity, Resource, TreePosition

GAP_MIN = 0.25
"""Seconds between two announcements at the least."""
HEARTBEAT_MIN, HEARTBEAT_MAX = 1.0, 20.0
"""Seconds between two announcements where nothing changes, as far as the budget allows it."""
SIZE = 262
"""Bytes of an announcement on the wire, headers of all layers counted."""
BUDGET = 4_000_000.0
"""Bits per second that all announcements of a group may take together."""


@frozen
class Condition:
    """What an instance says of itself, apart from who it is."""

    capacity: Capacity
    backlog: Backlog = field(factory=Backlog)
    tree: TreePosition | None = None
    draining: bool = False
    short: tuple[Resource, ...] = ()
    insecure: bool = False
    bans: str = ""


def worth_telling(told: Condition | None, now: Condition) -> bool:
    """Whether a change should not wait for the next heartbeat, because others decide by it."""
    return told is None or _decisive(told) != _decisive(now)


def _decisive(condition: Condition) -> tuple[object, ...]:
    return (
        condition.capacity.free > 0,
        condition.capacity.slots,
        condition.backlog.total > 0,
        condition.tree,
        condition.draining,
        condition.short,
        condition.bans,
    )


@define
class AnnouncementPace:
    """How often; ``budget`` in bits per second for the whole group."""

    budget: float = BUDGET
    least: float = HEARTBEAT_MIN
    """Seconds between two announcements where nothing changes, in a small group."""
    _sent: float | None = None
    _gap: float = GAP_MIN
    _next: float = 0.0

    def gap(self, instances: int) -> float:
        """Seconds between two announcements of one instance at the least, among so many, itself counted."""
        return max(GAP_MIN, instances * SIZE * 8 / self.budget)

    def heartbeat(self, instances: int) -> float:
        """Seconds between two announcements of one instance at the most."""
        gap = self.gap(instances)
        return max(gap, min(HEARTBEAT_MAX, max(self.least, 4 * gap)))

    def sent(self, now: float, instances: int, jitter: float) -> None:
        """An announcement went out.

        :param jitter: a random number in 0..1; takes up to a quarter from the time until the next.
        """
        self._sent, self._gap = now, self.gap(instances)
        self._next = now + max(self._gap, self.heartbeat(instances) * (1.0 - 0.25 * jitter))

    def due(self, now: float, *, urgent: bool, delay: float = 0.0) -> float:
        """When to send the next announcement; the time may have passed.

        :param urgent: there is something :func:`worth_telling`.
        :param delay: seconds that an urgent one may take all the same, so that not all answer one event at once.
        """
        if self._sent is None:
            return now
        return min(self._next, max(now + delay, self._sent + self._gap)) if urgent else self._next
