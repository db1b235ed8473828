"""A node's place in the overlay: asks for a parent, takes children, mends what breaks, by the rules of
``core.overlay``.

Invariant: every change of the position is told to the children, to the announcer, and to the links that have to be
watched; only one parent is asked at a time, and a node that took us in vain is told so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from attrs import Factory, define, evolve, field
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from cloudmytask.boundaries import Clock, DelayedCall, Entropy, Link
from cloudmytask.cluster.failure_detector import FailureDetector
from cloudmytask.cluster.links import LinkPool
from cloudmytask.core.backoff import Backoff
from cloudmytask.core.membership import Member
from cloudmytask.core.overlay import Overlay, Sight
from cloudmytask.core.sighting import sight
from cloudmytask.core.unanswered import Unanswered
from cloudmytask.deferreds import NO_ANSWER, lightly, patiently
from cloudmytask.model.cluster import Announcement, AttachAnswer, NodeId, PeerIdentity, TreePosition
from cloudmytask.periodic import Periodic, every

_log = Logger()

LISTEN = (0.5, 1.0)
"""Seconds that a newcomer listens, at random, before it takes part."""
SOON = 0.05
"""Seconds at most, at random, until a root looks whether what it heard concerns it."""
AGAIN = 0.5
"""Seconds for which a node that refused is not asked again."""
SILENCES = Backoff(first=AGAIN, factor=2.0, ceiling=4.0)
"""The same for one that did not answer, and all that are announced to be at its address."""
PATIENCE = 1.0
"""Seconds for a would-be parent to answer."""
LOOK = 1.0
"""Seconds between two looks whether neighbors agree that they are."""
SETTLED = 2.0
"""Seconds that a new neighbor has, beyond two of its intervals, to announce that it is one."""
IMPROVE = 10.0
IMPROVING = 0.1
"""The share of nodes that look for a higher place every ``IMPROVE`` seconds."""


@define(eq=False)
class Neighborhood:
    """Keeps this node's place in the tree.

    :ivar changed: called when the position is another.
    :ivar acquaint: called with a link to an instance of a younger tree, which should hear of ours.
    """

    _clock: Clock
    _entropy: Entropy
    _me: PeerIdentity
    _detector: FailureDetector
    _pool: LinkPool
    changed: Callable[[], None] = field(default=lambda: None)
    acquaint: Callable[[Link], None] = field(default=lambda _link: None)
    _overlay: Overlay = field(init=False)
    _running: bool = field(init=False, default=False)
    _asking: NodeId | None = field(init=False, default=None)
    _seeking: bool = field(init=False, default=False)
    _due: DelayedCall | None = field(init=False, default=None)
    _refused: dict[NodeId, float] = field(init=False, default=Factory(dict))
    """Until when each is not asked again."""
    _unanswered: Unanswered = field(init=False, default=Factory(lambda: Unanswered(SILENCES)))
    _since: dict[NodeId, float] = field(init=False, default=Factory(dict))
    """Since when each neighbor is one."""
    _series: list[Periodic] = field(init=False, default=Factory(list))

    def __attrs_post_init__(self) -> None:
        self._overlay = Overlay(self._me.node_id)
        self._detector.neighbors = self.neighbors
        self._detector.announcements.add(self._heard)
        self._detector.changes.add(self._standing_changed)
        self._pool.lost.add(self._lost)

    @property
    def position(self) -> TreePosition | None:
        """Where we stand; None while we do not take part."""
        return self._overlay.position if self._running else None

    def neighbors(self) -> tuple[NodeId, ...]:
        """The parent first."""
        return self._overlay.position.neighbors

    def start(self) -> None:
        """Listen for a moment, then take part."""
        low, high = LISTEN
        self._due = self._clock.callLater(low + (high - low) * self._entropy.random.random(), self._begin)

    def refuse(self, why: str) -> None:
        """Take no more children, such as while draining."""
        self._overlay.closed = why

    def leave(self) -> None:
        """Part from all neighbors: they look for others at once."""
        self._cancel()
        for series in self._series:
            series.stop()
        self._running = False
        for neighbor in self.neighbors():
            self._part(neighbor)
        self._overlay = Overlay(self._me.node_id)
        self._pool.hold(())

    # what peers call (boundaries.PeerDoor)

    def attached(self, link: Link, root: NodeId, depth: int) -> AttachAnswer:  # noqa: ARG002 - the door's signature
        peer = link.peer.node_id
        if not self._running:
            return AttachAnswer(False, self._overlay.root, why="absent")
        member = self._detector.get(peer)
        with self._step():
            answer = self._overlay.asked(peer, member.announcement.tree if member is not None else None)
        if answer.accepted:
            return answer
        if answer.why == "root":
            self.acquaint(link)
            self._consider(SOON)
        return evolve(answer, try_next=self._others(peer))

    def detached(self, link: Link) -> None:
        self._lost(link.peer.node_id)

    def path_told(self, link: Link, term: int, path: Sequence[NodeId]) -> None:
        peer = link.peer.node_id
        if peer == self._asking:
            return  # its answer is on its way; should the path be another then, it tells us again
        with self._step():
            ours = self._overlay.told(peer, term, path)
        if not ours or self._overlay.parent is None:
            self._part(peer)
        self._consider(0.0)

    # what happens

    def _begin(self) -> None:
        self._running = True
        self._series = [every(self._clock, LOOK, self._look), every(self._clock, IMPROVE, self._improve)]
        self.changed()
        self._consider(0.0)

    def _heard(self, announcement: Announcement) -> None:
        tree, overlay = announcement.tree, self._overlay
        if tree is not None and overlay.parent is None and tree.root < overlay.root:
            self._consider(SOON)

    def _standing_changed(self, member: Member) -> None:
        if not member.present:
            self._lost(member.node_id)

    def _lost(self, node_id: NodeId) -> None:
        with self._step():
            was = self._overlay.lost(node_id)
        if was:
            self._consider(0.0)

    def _look(self) -> None:
        """Neighbors that announce something else than we believe are none, or missed a word."""
        now, me = self._clock.seconds(), self._me.node_id
        self._refused = {node_id: until for node_id, until in self._refused.items() if now < until}
        for neighbor in self.neighbors():
            if self._pool.live(neighbor) is None:
                self._lost(neighbor)
                continue
            member = self._detector.get(neighbor)
            tree = member.announcement.tree if member is not None else None
            if member is None or tree is None or now < self._since.get(neighbor, now) + SETTLED + 2 * member.interval:
                continue
            is_parent = neighbor == self._overlay.parent
            if (me not in tree.children) if is_parent else (tree.parent != me):
                self._part(neighbor)
                self._lost(neighbor)
            elif not is_parent and (tree.root, tree.depth) != (self._overlay.root, len(self._overlay.lineage)):
                self._tell(neighbor)
        self._consider(0.0)

    # looking for a parent

    def _consider(self, within: float) -> None:
        """Look for a parent if we have none, at a random moment from now on."""
        if self._running and self._overlay.parent is None and not self._seeking:
            if within == 0.0:
                self._cancel()
                self._seek(None)
            elif self._due is None or not self._due.active():
                self._due = self._clock.callLater(within * self._entropy.random.random(), self._consider, 0.0)

    def _improve(self) -> None:
        if not self._seeking and self._entropy.random.random() < IMPROVING:
            higher = self._overlay.improve(self._sight(), self._entropy.random)
            if higher is not None:
                self._seek(higher)

    def _cancel(self) -> None:
        if self._due is not None and self._due.active():
            self._due.cancel()

    def _seek(self, higher: NodeId | None) -> None:
        self._seeking = True
        seeking = self._ask(higher, "") if higher is not None else self._seek_parent()
        Deferred.fromCoroutine(seeking).addErrback(
            lambda failure: _log.failure("looking for a parent failed; it goes on", failure=failure)
        ).addCallback(self._sought)

    def _sought(self, _result: object) -> None:
        self._seeking = False
        if self._refused and self._overlay.parent is None:
            self._consider(2 * AGAIN)

    async def _seek_parent(self) -> None:
        referred: list[tuple[NodeId, str]] = []
        while self._running and self._overlay.parent is None:
            now = self._clock.seconds()
            while referred and now < self._refused.get(referred[0][0], 0.0):
                referred.pop(0)
            if referred:
                target, address = referred.pop(0)
            else:
                with self._step():
                    chosen = self._overlay.choose(self._sight(), self._entropy.random)
                if chosen is None:
                    return
                target, address = chosen, ""
            referred = [*await self._ask(target, address), *referred]

    async def _ask(self, target: NodeId, address: str) -> tuple[tuple[NodeId, str], ...]:
        """Ask one node to become our parent; those to whom it refers us instead."""
        self._refused[target] = self._clock.seconds() + AGAIN
        self._asking = target
        link: Link | None = None
        try:
            where = target if self._detector.get(target) is not None or not address else address
            link = await patiently(self._clock, PATIENCE, self._pool.get(where))
            height = self._overlay.height(self._sight())
            answer = await patiently(self._clock, PATIENCE, link.attach(self._me.node_id, height))
        except NO_ANSWER as error:
            _log.debug("{target} does not become our parent: {why}", target=target, why=str(error))
            self._leave_alone(target, address)
            if link is not None:
                self._part(target)  # it may have taken us all the same
            self._detector.doubt(target)
            return ()
        finally:
            self._asking = None
        self._unanswered.answered(link.peer.address)
        if not answer.accepted:
            if answer.why == "root":
                self.acquaint(link)
            mine = (self._me.node_id, *self.neighbors())
            return tuple((node_id, at) for node_id, at in answer.try_next if node_id not in mine)
        before = self._overlay.parent
        with self._step():
            taken = self._running and link.alive and self._overlay.accepted(target, answer)
        if not taken:
            self._part(target)
        elif before is not None and before != target:
            self._part(before)
        return ()

    def _leave_alone(self, target: NodeId, address: str) -> None:
        """It did not answer: it is not asked for a while from now on, nor is anybody else there."""
        where = self._detector.address(target) or address
        self._refused[target] = until = self._unanswered.missed(where, self._clock.seconds())
        for member in self._detector.members():
            if member.announcement.address == where:
                self._refused[member.node_id] = until

    def _sight(self) -> Sight:
        return sight(self._detector.members(), self._refused, self._clock.seconds())

    def _others(self, asker: NodeId) -> tuple[tuple[NodeId, str], ...]:
        """Two children that may have room, for somebody for whom there is none here."""
        children = [child for child in self._overlay.children if child != asker]
        self._entropy.random.shuffle(children)
        known = [(child, self._detector.address(child)) for child in children]
        return tuple((child, address) for child, address in known if address is not None)[:2]

    # telling

    @contextmanager
    def _step(self) -> Iterator[None]:
        """A change of the overlay, and what follows from it."""
        overlay = self._overlay
        lineage, root, position = overlay.lineage, overlay.root, overlay.position
        yield
        if (overlay.lineage, overlay.root) != (lineage, root):
            for child in overlay.children:
                self._tell(child)
        if overlay.position != position:
            now, neighbors = self._clock.seconds(), self.neighbors()
            self._since = {neighbor: self._since.get(neighbor, now) for neighbor in neighbors}
            self._pool.hold(neighbors)
            self.changed()

    def _tell(self, child: NodeId) -> None:
        link = self._pool.live(child)
        if link is not None:
            lightly(link.tell_path(self._overlay.root.term, self._overlay.lineage))

    def _part(self, node_id: NodeId) -> None:
        link = self._pool.live(node_id)
        if link is not None:
            lightly(link.detach())
