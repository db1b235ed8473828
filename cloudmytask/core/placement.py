"""Where a job goes: the paper's rule (3.2.1 step 5), and the same rule made robust (design section 4.3).

Every policy runs a job where it was accepted while that node is free. Otherwise:

``paper``         a node chosen at random among all whose load, as announced, is below the threshold. A target that is
                  full by then takes the job all the same and decides again, up to the hop limit. Nothing else.
``reserve-pull``  the same rule, but a node's load is what it announced *plus what was sent to it since*; a full target
                  refuses and the job keeps its place in the queue; nodes that become free ask for work.
``local``         no other node.

Invariant: nothing here chooses a node that the job has visited, that it must avoid, or, once ``max_hops`` is reached,
any node at all.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Protocol, TypeVar

from attrs import Factory, define, field, frozen

from cloudmytask.model.cluster import Capacity, NodeId
from cloudmytask.model.job import JobSpec, QoS
from cloudmytask.model.words import LOCAL, PAPER, RESERVE_PULL

T = TypeVar("T")

TRIES_MAX = 3
"""Targets that one job is offered to in a row; then it waits for news."""
ELDER = 2.0
"""Seconds by which a job that waits elsewhere must be ahead of this node's for a free slot to be given to it."""


class Dice(Protocol):
    """The part of ``random.Random`` that is used."""

    def random(self) -> float: ...
    def choice(self, seq: Sequence[T], /) -> T: ...


@frozen
class Wish:
    """Where a job may run, by the names of nodes."""

    node: str | None = None
    avoid: tuple[str, ...] = ()
    local: bool = False
    idle: bool = False
    """It is of class idle: only where the load is low."""

    @classmethod
    def of(cls, spec: JobSpec) -> Wish | None:
        """None for a job that may run anywhere."""
        wish = cls(spec.node, spec.avoid, spec.local, spec.qos is QoS.IDLE)
        return None if wish == _ANYWHERE else wish

    def allows(self, name: str) -> bool:
        """Whether a node of that name will do."""
        return self.node in (None, name) and name not in self.avoid


_ANYWHERE = Wish()


@frozen
class Course:
    """What decides where a waiting job may go: its wish, and where it has been."""

    wish: Wish | None = None
    visited: tuple[NodeId, ...] = ()
    hops: int = 0
    """How often it was handed on before it came here."""
    died_on: tuple[str, ...] = ()
    """Names of the nodes that died during an attempt of it, one for each time: others come first."""


ANYWHERE = Course()


@frozen
class Peer:
    """Another node that takes jobs: alive, not draining, and not without room for want of something."""

    node_id: NodeId
    name: str
    address: str


@define
class Accounts:
    """What other nodes have free, as far as this one knows: their last word, less what was sent to them since.

    ``open``: the peers that have something free, in the order in which that became known.
    """

    _peers: dict[NodeId, Peer] = Factory(dict)
    _known: dict[NodeId, Capacity] = Factory(dict)
    _sent: dict[NodeId, int] = Factory(dict)
    open: dict[NodeId, Peer] = Factory(dict)

    def peer(self, node_id: NodeId) -> Peer | None:
        """A node that may be sent jobs."""
        return self._peers.get(node_id)

    def peers(self) -> Collection[Peer]:
        """All of them."""
        return self._peers.values()

    def capacity(self, node_id: NodeId) -> Capacity | None:
        """A node's last word."""
        return self._known.get(node_id)

    def learn(self, peer: Peer, capacity: Capacity) -> None:
        """A node's picture of itself; an older one than is known changes nothing. Of another boot: forget first."""
        self._peers[peer.node_id] = peer
        self.update(peer.node_id, capacity)

    def update(self, node_id: NodeId, capacity: Capacity) -> None:
        """Like :meth:`learn`, of a node that is known; another one is ignored."""
        known = self._known.get(node_id)
        if node_id in self._peers and (known is None or capacity.stamp >= known.stamp):
            self._known[node_id] = capacity
            self._settle(node_id)

    def forget(self, node_id: NodeId) -> None:
        """A node takes no jobs any more; what is on its way to it stays counted until it is answered."""
        self._peers.pop(node_id, None)
        self._known.pop(node_id, None)
        self.open.pop(node_id, None)

    def reserve(self, node_id: NodeId) -> None:
        """A job is on its way there."""
        self._sent[node_id] = self._sent.get(node_id, 0) + 1
        self._settle(node_id)

    def release(self, node_id: NodeId) -> None:
        """That job was answered for."""
        left = self._sent[node_id] - 1
        if left:
            self._sent[node_id] = left
        else:
            del self._sent[node_id]
        self._settle(node_id)

    def free(self, node_id: NodeId) -> int:
        """Jobs that the node would start at once."""
        known = self._known.get(node_id)
        return 0 if known is None else max(0, known.free - self._sent.get(node_id, 0))

    def _settle(self, node_id: NodeId) -> None:
        if self.free(node_id) > 0 and node_id in self._peers:
            self.open[node_id] = self._peers[node_id]
        else:
            self.open.pop(node_id, None)


@frozen
class Choice:
    """A destination, and why it was chosen."""

    peer: Peer
    note: str
    may_wait: bool = False
    """The target is to take it even if it is full by then."""


@frozen
class Policy:
    """One of ``model.words.POLICIES`` with its limits."""

    name: str
    max_hops: int
    idle_threshold: float
    accounts: bool = field(init=False)
    """Whether what was sent counts, full targets refuse, and free nodes ask."""

    @accounts.default
    def _accounts(self) -> bool:
        return self.name == RESERVE_PULL

    def may_hop(self, hops: int) -> bool:
        """Whether a job that was handed on ``hops`` times may be handed on once more."""
        return self.name != LOCAL and hops < self.max_hops

    def takes(self, capacity: Capacity, free: int, wish: Wish | None) -> bool:
        """Whether a node of this capacity is below the threshold for a job of this wish."""
        if wish is not None and wish.idle and capacity.load is not None and capacity.load >= self.idle_threshold:
            return False
        if self.name == PAPER and capacity.cpu is not None:
            return capacity.cpu < capacity.threshold
        return free > 0

    def choose(self, accounts: Accounts, course: Course, dice: Dice) -> Choice | None:
        """The paper's rule; None if there is no such node."""
        found = [peer for peer in self.pool(accounts) if self.fits(accounts, peer, course)]
        if not found:
            return None
        found = [peer for peer in found if peer.name not in course.died_on] or found
        peer = found[0] if len(found) == 1 else dice.choice(found)
        return Choice(peer, self._note(accounts, peer, len(found)), may_wait=not self.accounts)

    def pool(self, accounts: Accounts) -> Iterable[Peer]:
        """The nodes that may be below the threshold."""
        return accounts.open.values() if self.accounts else accounts.peers()

    def fits(self, accounts: Accounts, peer: Peer, course: Course) -> bool:
        """Whether a job of this course may go to ``peer`` now."""
        wish = course.wish
        if not self.may_hop(course.hops) or peer.node_id in course.visited:
            return False
        if wish is not None and (wish.local or not wish.allows(peer.name)):
            return False
        capacity = accounts.capacity(peer.node_id)
        if capacity is None:
            return False
        free = accounts.free(peer.node_id) if self.accounts else capacity.free
        return self.takes(capacity, free, wish)

    def note(self, accounts: Accounts, peer: Peer, why: str) -> Choice:
        """A destination that was not chosen by the rule: the node asked for it."""
        return Choice(peer, f"{_state(accounts, peer)}; {why}")

    def _note(self, accounts: Accounts, peer: Peer, candidates: int) -> str:
        how = "the only such node" if candidates == 1 else f"chosen at random among {candidates} such nodes"
        return f"{_state(accounts, peer)}; {how} (policy {self.name})"


def _state(accounts: Accounts, peer: Peer) -> str:
    capacity = accounts.capacity(peer.node_id)
    if capacity is None:
        return f"to {peer.name}"
    load = "" if capacity.load is None else f", load {capacity.load:.2f} below {capacity.threshold:.2f}"
    return f"to {peer.name}: {accounts.free(peer.node_id)} of {capacity.slots} slots free{load}"


def claim_chance(waiting_nodes: int) -> float:
    """The probability with which a node that has waiting jobs goes for one slot that it hears has become free, where
    ``waiting_nodes`` others have waiting jobs too (overlay simulation: without it they all go for the same slot)."""
    return 1.0 / (1 + waiting_nodes)


def is_free(slots_free: int, load: float | None, threshold: float, alone: bool) -> bool:
    """Design section 2: a node is free while a slot is free and its load below its threshold; 0 runs nothing, 1 is
    slots alone. Where there is no other node to go to (``alone``), a job is better off here than waiting."""
    if slots_free <= 0 or threshold <= 0:
        return False
    return alone or threshold >= 1 or load is None or load < threshold
