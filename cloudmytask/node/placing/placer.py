"""Gives waiting jobs a slot: here while this node is free, otherwise elsewhere, by the policy of its configuration.

What sets it off: a job that comes, a slot that is given back, news of a node with free slots, a node that asks for
work, and the clock, in case some news was lost.

Invariant: each job in its hands is in exactly one place, the queue or one offer; one that a target refused has its old
place in the queue again before anybody else can see the queue.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import cast

from attrs import define, evolve, field

from cloudmytask.boundaries import World
from cloudmytask.core.placement import (
    ANYWHERE,
    Accounts,
    Choice,
    Course,
    Peer,
    Policy,
    claim_chance,
)
from cloudmytask.core.queue import Entry, Fits, WaitingQueue
from cloudmytask.model.cluster import Backlog, Capacity, NodeId
from cloudmytask.model.job import ClientId, JobId
from cloudmytask.node.gate import Gate
from cloudmytask.node.placing.capacity_meter import CapacityMeter
from cloudmytask.node.placing.offering import Offering, Work

RUNNING_TOLD = 8
"""Clients whose running jobs are told to other nodes."""


@define(eq=False)
class Placer:
    """Holds the works that wait, and places them.

    :ivar name: this node's.
    :ivar changed: called when this node's capacity or backlog may have changed.
    :ivar may_join: whether a job during which a node has died so often may start here now.
    """

    _world: World
    _name: str
    _gate: Gate
    _meter: CapacityMeter
    _queue: WaitingQueue
    _accounts: Accounts
    _policy: Policy
    _changed: Callable[[], None]
    _may_join: Callable[[int], bool]
    held: int = field(init=False, default=0)
    """Free slots that are promised to jobs which wait elsewhere and were asked for."""
    _works: dict[JobId, Work] = field(init=False, factory=dict)
    _offering: Offering = field(init=False)
    backlogs: dict[NodeId, Backlog] = field(init=False, factory=dict)
    """Of the nodes with waiting jobs, as far as they said."""
    _running: dict[NodeId, tuple[tuple[ClientId, int], ...]] = field(init=False, factory=dict)
    """What each node said of its clients' running jobs, if of any."""

    def __attrs_post_init__(self) -> None:
        self._offering = Offering(
            self._world, self._policy, self._accounts, self._has_room, self._forget, self._refused, self._gone
        )

    # for the owners of jobs

    def enqueue(self, work: Work) -> None:
        """Place a job, or let it wait."""
        self._works[work.entry.job_id] = work
        self._queue.add(work.entry)
        self._placed(work)

    def resume(self, works: Sequence[Work]) -> None:
        """Like :meth:`enqueue`, for what an earlier life of the node left: all is there before any is placed."""
        for work in works:
            self._works[work.entry.job_id] = work
            self._queue.add(work.entry)
        for work in works:
            self._placed(work)

    def put_back(self, work: Work) -> None:
        """Like :meth:`enqueue`, for a job that had a slot before."""
        self._works[work.entry.job_id] = work
        self._queue.put_back(work.entry)
        self._placed(work)

    def withdraw(self, job_id: JobId) -> None:
        """It is not to be placed any more. Idempotent."""
        self._queue.remove(job_id)
        if job_id not in self._offering:
            self._works.pop(job_id, None)

    def returned(self, client: ClientId) -> None:
        """A job of ``client`` that was placed gave its slot back, here or elsewhere."""
        self._queue.ended(client)

    def learned(self, node_id: NodeId, capacity: Capacity) -> None:
        """A node said how busy it is."""
        self._accounts.update(node_id, capacity)
        peer = self._accounts.peer(node_id)
        if peer is not None and len(self._queue):
            self._give(peer, self._accounts.free(node_id), "it told us first that it has a free slot")

    @property
    def full(self) -> bool:
        """Whether no further job may wait here."""
        return self._queue.full

    def here(self) -> Capacity:
        """How busy this node is."""
        return self._meter.capacity

    def holds(self, job_id: JobId) -> str | None:
        """``queue`` or ``offer``, if the job is in its hands."""
        if job_id in self._queue:
            return "queue"
        return "offer" if job_id in self._offering else None

    def situation(self, work: Work) -> str:
        """Why a job waits, as far as other nodes are concerned; the end of a sentence, or empty."""
        peers = tuple(self._accounts.peers())
        wish = work.course.wish
        if wish is not None and wish.local:
            return "and it is to run on this node only"
        if not peers:
            return "and no other node is known"
        if not self._policy.may_hop(work.course.hops):
            return f"and it is not handed on (policy {self._policy.name}, {self._policy.max_hops} hops at most)"
        if wish is not None:
            peers = tuple(peer for peer in peers if wish.allows(peer.name))
            if wish.node == self._name:
                return "and it is to run on this node only"
            if not peers:
                return f"and {wish.node} is not there now" if wish.node else "and none of the other nodes may run it"
        shown = ", ".join(f"{p.name} {self._accounts.free(p.node_id)} free" for p in peers[:5])
        more = f" and {len(peers) - 5} more" if len(peers) > 5 else ""
        return f"and no other node is free ({shown}{more})"

    # what sets it off

    def place(self) -> None:
        """Give this node's free slots to waiting jobs."""
        while not self._gate.draining and self._has_room() and self._start_here():
            pass
        self._changed()

    def look_around(self) -> None:
        """Called by the clock: even if news was lost, a waiting job goes where there is room."""
        self.place()
        for peer in tuple(self._policy.pool(self._accounts)):
            if not len(self._queue):
                return
            self._claim(peer)

    def heard(self, peer: Peer, capacity: Capacity, backlog: Backlog) -> None:
        """A node that takes jobs announced itself."""
        node_id = peer.node_id
        self._accounts.learn(peer, capacity)
        self._meter.update()  # it may be the first other node
        if backlog.running != self._running.get(node_id, ()):
            self._running[node_id] = backlog.running
            self._queue.learn(node_id, dict(backlog.running))
        if backlog.total:
            self.backlogs[node_id] = backlog
        else:
            self.backlogs.pop(node_id, None)
        if len(self._queue):
            self._claim(peer)

    def lost(self, node_id: NodeId) -> None:
        """A node takes no jobs any more: it is dead, suspect, draining or gone."""
        self._forget(node_id)
        self._queue.forget_node(node_id)
        self.backlogs.pop(node_id, None)
        self._running.pop(node_id, None)

    def asked_for_work(self, node_id: NodeId, capacity: Capacity) -> int:
        """A node has free slots and knows that jobs wait here; how many it is going to be offered."""
        self._accounts.update(node_id, capacity)
        peer = self._accounts.peer(node_id)
        if peer is None or not self._policy.accounts:
            return 0
        return self._give(peer, self._accounts.free(node_id), "it asked for work")

    # for announcements and for those who ask others for work

    def backlog(self) -> Backlog:
        """What waits here."""
        if not len(self._queue):
            return Backlog(running=self._queue.top(RUNNING_TOLD))
        head = self._queue.head(self._world.clock.seconds())
        waiting = {qos: count for qos, count in self._queue.counts().items() if count}
        return Backlog(waiting, 0.0 if head is None else max(0.0, head[1]), self._queue.top(RUNNING_TOLD))

    @property
    def waiting(self) -> int:
        """Jobs in the queue."""
        return len(self._queue)

    def head_age(self) -> float:
        """By how much the next job here is ahead of one that arrives now; 0 if none waits."""
        head = self._queue.head(self._world.clock.seconds())
        return 0.0 if head is None else head[1]

    def exhausted(self, node_id: NodeId) -> None:
        """A node that was asked for work has none."""
        self.backlogs.pop(node_id, None)

    # how

    def _forget(self, node_id: NodeId) -> None:
        self._accounts.forget(node_id)
        self._meter.update()  # it may have been the last other node

    def _placed(self, work: Work) -> None:
        """A job has come: place it, or another one that goes first."""
        self.place()
        if not self._gate.draining:
            self._place_elsewhere()
        if work.entry.job_id in self._queue:
            work.left_waiting()
        self._changed()

    def _idle_allowed(self) -> bool:
        load = self._meter.capacity.load
        return load is None or load < self._policy.idle_threshold

    def _start_here(self) -> bool:
        entry = self._queue.pop(idle_allowed=self._idle_allowed(), fits=self._fits_here)
        if entry is None:
            return False
        self._works.pop(entry.job_id).start_here()
        return True

    def _fits_here(self, wish: Hashable) -> bool:
        course = _course(wish)
        if course.wish is not None and not course.wish.allows(self._name):
            return False
        if not course.died_on:
            return True
        others = (p for p in self._policy.pool(self._accounts) if p.name not in course.died_on)
        safer = self._name in course.died_on and any(self._policy.fits(self._accounts, p, course) for p in others)
        return not safer and self._may_join(len(course.died_on))

    def _place_elsewhere(self) -> None:
        """After a job has come: go by the rule, for as long as it finds somebody."""
        if not len(self._queue) or (self._policy.accounts and not self._accounts.open):
            return
        dice = self._world.entropy.random

        def fits(wish: Hashable) -> bool:
            return any(self._policy.fits(self._accounts, p, _course(wish)) for p in self._policy.pool(self._accounts))

        while len(self._queue):
            entry = self._queue.pop(idle_allowed=True, fits=fits)
            if entry is None:
                return
            choice = self._policy.choose(self._accounts, _course(entry.wish), dice)
            assert choice is not None, "it fits somewhere"
            self._hand_over(entry, choice)

    def _claim(self, peer: Peer) -> None:
        """Jobs wait here, and a node has free slots: go for them, though not all nodes with waiting jobs at once."""
        if not self._policy.accounts:
            self._place_elsewhere()
            return
        rivals = len(self.backlogs) - (peer.node_id in self.backlogs)
        chance, dice = claim_chance(rivals), self._world.entropy.random
        slots = sum(1 for _ in range(self._accounts.free(peer.node_id)) if dice.random() < chance)
        if slots:
            self._give(peer, slots, "its slot had become free")

    def _give(self, peer: Peer, slots: int, why: str) -> int:
        """Offer up to ``slots`` waiting jobs to a node; how many."""
        fits: Fits = lambda wish: self._policy.fits(self._accounts, peer, _course(wish))  # noqa: E731
        given = 0
        while given < slots and len(self._queue):
            entry = self._queue.pop(idle_allowed=True, fits=fits)
            if entry is None:
                break
            self._hand_over(entry, self._policy.note(self._accounts, peer, why))
            given += 1
        return given

    def _hand_over(self, entry: Entry, choice: Choice) -> None:
        self._offering.begin(entry, self._works[entry.job_id], choice)

    def _has_room(self) -> bool:
        return self._meter.capacity.free > self.held

    def _refused(self, entry: Entry, work: Work) -> None:
        """Nobody took an offered job."""
        shunning = work.entry.wish != entry.wish
        self._queue.restore(evolve(entry, wish=work.entry.wish))
        self._queue.ended(entry.client)
        self.place()
        if shunning and not self._gate.draining:
            self._place_elsewhere()  # others may go where this one may not
        if entry.job_id in self._queue:
            work.left_waiting()

    def _gone(self, entry: Entry, accepted: bool) -> None:
        """An offered job was taken, or is not to be placed any more."""
        work = self._works.pop(entry.job_id, None)
        if not accepted:
            self._queue.ended(entry.client)
            if work is not None:
                work.let_go()
        self._changed()


def _course(wish: Hashable) -> Course:
    return ANYWHERE if wish is None else cast(Course, wish)
