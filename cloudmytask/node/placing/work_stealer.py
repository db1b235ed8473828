"""Asks other nodes for work while this one has a free slot: the other half of balancing the load.

Of two nodes that are known to have waiting jobs the one whose next job waits longer is asked; a job that waits
elsewhere goes before this node's if it is well ahead of them (overlay simulation: "age-aware pull"). What others have,
and whether they take jobs, it learns from their announcements.

Invariant: a bounded number of questions is open at a time, and a slot is kept free for an answer no longer than the
question is open. A node counts as one that takes jobs while it is alive, neither draining nor leaving nor short of
something, and has announced itself in its present boot.
"""

from __future__ import annotations

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from cloudmytask.boundaries import World
from cloudmytask.cluster.member import ClusterMember
from cloudmytask.core.membership import Member
from cloudmytask.core.placement import ELDER, Accounts, Peer, Policy
from cloudmytask.model.cluster import Announcement, Backlog, Capacity, NodeId, Role, Standing
from cloudmytask.model.errors import CloudMyTaskError
from cloudmytask.node.gate import Gate
from cloudmytask.node.placing.placer import Placer

_log = Logger()

QUESTIONS_MAX = 4
"""Open at a time."""
TRIES_MAX = 3
"""Nodes that are asked in a row, if the first ones turn out to have nothing."""


@define(eq=False)
class WorkStealer:
    """Asks for work when this node has room and others have not."""

    _world: World
    _policy: Policy
    _gate: Gate
    _placer: Placer
    _accounts: Accounts
    _others: ClusterMember
    _questions: int = field(init=False, default=0)

    def changed(self, member: Member) -> None:
        """An instance is new, was started again, or its standing is another: what it said before counts no more."""
        self._placer.lost(member.node_id)
        if member.standing in (Standing.LEFT, Standing.DEAD):
            self._placer.place()  # it may have been the last other node

    def heard(self, announcement: Announcement) -> None:
        """An instance said how it is."""
        if announcement.role is not Role.NODE:
            return
        node_id = announcement.node_id
        closed = announcement.short and not announcement.capacity.free  # while it is short it may have room for a trial
        if announcement.draining or announcement.leaving or closed or not announcement.address:
            self._placer.lost(node_id)
            return
        peer = self._accounts.peer(node_id)
        if peer is None or peer.address != announcement.address or peer.name != announcement.name:
            peer = Peer(node_id, announcement.name, announcement.address)
        self._placer.heard(peer, announcement.capacity, announcement.backlog)
        if announcement.backlog.waiting and not self._placer.waiting:
            # Jobs wait there. All nodes that have room hear it at once, so not all of them ask.
            rivals = len(self._accounts.open)
            if self._world.entropy.random.random() * (rivals + 1) < announcement.backlog.total:
                self.seek()

    def slot_freed(self) -> None:
        """A script has ended: waiting jobs get the slot, this node's or, if they wait longer, others'."""
        self.seek()
        self._placer.place()
        self.seek()

    def seek(self) -> None:
        """Ask, if there is room here and work elsewhere."""
        if not self._policy.accounts or self._gate.draining or self._questions >= QUESTIONS_MAX:
            return
        if self._placer.here().free <= self._placer.held + self._questions or not (target := self._target()):
            return
        before_own = self._placer.waiting > 0
        self._questions += 1
        self._placer.held += before_own
        asked = Deferred.fromCoroutine(self._ask(target))
        asked.addErrback(lambda failure: _log.failure("asking for work broke", failure))
        asked.addBoth(self._asked, before_own)

    def _asked(self, _: object, before_own: bool) -> None:
        self._questions -= 1
        self._placer.held -= before_own
        if before_own:
            self._placer.place()

    def _target(self) -> NodeId | None:
        """Of two nodes with waiting jobs the one whose next is oldest, if it is to go first."""
        backlogs, dice = list(self._placer.backlogs.items()), self._world.entropy.random
        if not backlogs:
            return None
        sample = backlogs if len(backlogs) <= 2 else dice.sample(backlogs, 2)
        node_id, backlog = max(sample, key=_age)
        if self._placer.waiting and backlog.head_age <= self._placer.head_age() + ELDER:
            return None
        return node_id

    async def _ask(self, target: NodeId) -> None:
        for _ in range(TRIES_MAX):
            capacity: Capacity = self._placer.here()
            if not capacity.free:
                return
            coming = 0
            try:
                link = await self._others.link(target)
                coming = await link.ask_for_work(capacity)
            except CloudMyTaskError as problem:
                _log.debug("{node} was asked for work: {problem}", node=target, problem=str(problem))
            if coming:
                return
            self._placer.exhausted(target)
            following = self._target()
            if following is None:
                return
            target = following


def _age(item: tuple[NodeId, Backlog]) -> float:
    return item[1].head_age
