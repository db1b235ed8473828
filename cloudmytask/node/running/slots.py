"""The slots of one node, and who has a claim to one.

An attempt is given its slot when it is placed here, before its inputs are laid out, so that a placement is never
regretted. When that has taken :data:`SLOW_STAGING` it lends its slot: another job may run meanwhile. When it is
ready it takes a free slot, or the next one that is given back, ahead of all jobs that wait in the queue, in the order
in which such attempts became ready. At most as many attempts as there are slots have lent theirs, so that a queue of
slow ones does not move here at once, away from nodes that have room.

Invariant: no more slots are taken than there are. What is free for new work is the slots that are neither taken nor
claimed by an attempt that is ready.
"""

from __future__ import annotations

from collections import deque

from attrs import Factory, define, field
from twisted.internet.defer import Deferred

from cloudmytask.listeners import Listeners

SLOW_STAGING = 1.0
"""Seconds."""


@define(eq=False)
class Claim:
    """One attempt's claim to a slot."""

    _slots: SlotTable
    taken: bool = True
    """Whether it has one at this moment."""

    def lend(self) -> bool:
        """Give the slot to others until :meth:`take`; False if too many have done so."""
        return self._slots.lend(self)

    def take(self) -> Deferred[None]:
        """Fires when it has a slot. Cancelling it gives the claim up."""
        return self._slots.take(self)

    def release(self) -> None:
        """The attempt has ended."""
        self._slots.release(self)


@define(eq=False)
class SlotTable:
    """The slots of this node, and who has them.

    :ivar size: how many scripts may run at once.
    :ivar changes: told of each change, before anything else follows from it.
    """

    size: int
    changes: Listeners[[]] = Factory(Listeners)
    _taken: int = field(init=False, default=0)
    _lent: set[Claim] = field(init=False, factory=set)
    _ready: deque[tuple[Claim, Deferred[None]]] = Factory(deque)

    @property
    def taken(self) -> int:
        """Slots that attempts have now."""
        return self._taken

    @property
    def claimed(self) -> int:
        """Slots that are not free for new work; may be more than there are."""
        return self._taken + len(self._ready)

    def claim(self) -> Claim:
        """Take a slot for an attempt that was placed here."""
        self._taken += 1
        self.changes.tell()
        return Claim(self)

    def lend(self, claim: Claim) -> bool:
        """See :class:`Claim`."""
        if len(self._lent) >= self.size:
            return False
        self._lent.add(claim)
        self._give_back(claim)
        return True

    def take(self, claim: Claim) -> Deferred[None]:
        """See :class:`Claim`."""
        self._lent.discard(claim)
        granted: Deferred[None] = Deferred(lambda _: self._withdraw(claim))
        self._ready.append((claim, granted))
        self.changes.tell()
        self._grant()
        return granted

    def release(self, claim: Claim) -> None:
        """See :class:`Claim`."""
        self._lent.discard(claim)
        if claim.taken:
            self._give_back(claim)

    def _give_back(self, claim: Claim) -> None:
        claim.taken = False
        self._taken -= 1
        self.changes.tell()
        self._grant()

    def _grant(self) -> None:
        while self._ready and self._taken < self.size:
            claim, granted = self._ready.popleft()
            self._taken += 1
            claim.taken = True
            self.changes.tell()
            granted.callback(None)

    def _withdraw(self, claim: Claim) -> None:
        self._ready = deque(each for each in self._ready if each[0] is not claim)
        self.changes.tell()
