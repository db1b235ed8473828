"""Who else is in the cluster: hears the bus, asks the silent, buries the dead.

A suspect is asked over a link before anybody calls it dead; its neighbors in the overlay and those whose jobs it runs
ask at once, all others after a random delay, so that mostly one asks and its obituary spares the rest the question.

Invariant: nobody is declared dead who was heard of since the question. An obituary about an instance that we have a
link to, or that somebody here watches, is a reason to ask it, never a verdict. So is an announcement that contradicts
what was proven, or that would keep an instance out of its place: its sender is asked, a few at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

from attrs import Factory, define, field
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from cloudmytask.boundaries import Bus, Clock, Entropy
from cloudmytask.cluster.confirming import Liveness, ask
from cloudmytask.cluster.life_watch import LifeWatches, over
from cloudmytask.cluster.links import LinkPool
from cloudmytask.core.membership import Heard, Member, Membership
from cloudmytask.listeners import Listeners, Registration
from cloudmytask.model.cluster import (
    Announcement,
    BootId,
    BusMessage,
    MemberStatus,
    NodeId,
    Obituary,
    PeerIdentity,
    Pulse,
    Standing,
)
from cloudmytask.periodic import Periodic, every

_log = Logger()

ASKED_MAX = 200
"""Suspects that are asked at a time; others come at their next turn. Those that somebody depends on are no others."""
DOUBTS_MAX = 16
"""Senders of doubtful announcements that are asked at a time; the next word of another one is another chance."""
DELAY_PER_MEMBER = 0.05
"""Seconds by which the random delay before a question grows with each instance that may ask it, up to one announced
interval of the suspect."""


@define(eq=False)
class FailureDetector:
    """Believes of every other instance that it is alive, suspect, gone or dead.

    :ivar neighbors: names those in the overlay.
    """

    _clock: Clock
    _entropy: Entropy
    _bus: Bus
    _pool: LinkPool
    _me: PeerIdentity
    neighbors: Callable[[], Collection[NodeId]] = field(default=tuple)
    announcements: Listeners[[Announcement]] = field(init=False, default=Factory(Listeners))
    """Told of each announcement that is news."""
    changes: Listeners[[Member]] = field(init=False, default=Factory(Listeners))
    """Told when an instance is new, or its standing is another."""
    news: Listeners[[BusMessage, NodeId | None]] = field(init=False, default=Factory(Listeners))
    """Told of each message that is news, and who relayed it: this node's id for what it publishes itself, None for
    what came over the bus."""
    own_obituaries: Listeners[[int]] = field(init=False, default=Factory(Listeners))
    """Told which incarnation of ours was declared dead."""
    newcomers: Listeners[[]] = field(init=False, default=Factory(Listeners))
    """Told that somebody new is here."""
    conflict: bool = field(init=False, default=False)
    """Another instance claims this node's id."""
    _membership: Membership = field(init=False, default=Factory(Membership))
    _life_watches: LifeWatches = field(init=False, default=Factory(LifeWatches))
    _asking: set[NodeId] = field(init=False, default=Factory(set))
    _doubted: set[NodeId] = field(init=False, default=Factory(set))
    _ticks: Periodic | None = field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        self._pool.find = self.address
        self._pool.linked.add(self._membership.relink)
        self._pool.lost.add(self._link_lost)
        self._pool.answered.add(self._alive)

    def start(self) -> None:
        """Listen from now on."""
        self._bus.open(self.heard)
        self._ticks = every(self._clock, self._membership.period, self._tick)

    def stop(self) -> None:
        """Look after nobody any more; the bus is left open for a last word. Idempotent."""
        if self._ticks is not None:
            self._ticks.stop()

    def watch(self, node_id: NodeId, boot_id: BootId, ended: Callable[[], None]) -> Registration:
        """Call ``ended`` once, when that boot of that instance is dead, has left, or another boot took its place; later
        than now in any case. Meanwhile it is asked at once whenever there is a doubt."""
        member = self._membership.get(node_id)
        if member is not None and over(member, boot_id):
            self._clock.callLater(0, self._life_watches.look, member)
        return self._life_watches.add(node_id, boot_id, ended)

    # who is there

    def get(self, node_id: NodeId) -> Member | None:
        """None for an instance that was never heard of, or is forgotten."""
        return self._membership.get(node_id)

    def members(self) -> Iterator[Member]:
        """All, the dead and the departed of the last minutes included."""
        return iter(self._membership)

    def present(self) -> int:
        """How many others are alive or suspected."""
        return self._membership.present()

    def established(self) -> int:
        """How many of them have shown that they stay."""
        return self._membership.established()

    def is_dead(self, node_id: NodeId) -> bool:
        """Whether it was declared dead and has not been heard since."""
        member = self._membership.get(node_id)
        return member is not None and member.standing is Standing.DEAD

    def address(self, node_id: NodeId) -> str | None:
        """Where it said it is reached."""
        member = self._membership.get(node_id)
        return member.announcement.address if member is not None else None

    def statuses(self) -> tuple[MemberStatus, ...]:
        """All others, for people."""
        now = self._clock.seconds()
        return tuple(
            MemberStatus(
                announcement=member.announcement,
                standing=member.standing,
                heard=now - member.heard,
                linked=self._pool.live(member.node_id) is not None,
                conflict=now < member.conflict_until,
            )
            for member in self._membership
        )

    # what is heard and said

    def publish(self, message: BusMessage) -> None:
        """Say it on the bus, and to those that relay it."""
        self._bus.send(message)
        self.news.tell(message, self._me.node_id)

    def heard(self, message: BusMessage) -> None:
        """Over the bus."""
        self._take(message, None)

    def relayed(self, message: BusMessage, by: NodeId) -> None:
        """Over a link. What is not of our cluster is dropped."""
        if message.cluster == self._me.cluster:
            self._take(message, by)

    def doubt(self, node_id: NodeId) -> None:
        """Somebody could not reach it: ask it now."""
        member = self._membership.get(node_id)
        if member is not None and member.present:
            self._ask(member)

    def _take(self, message: BusMessage, by: NodeId | None) -> None:
        if isinstance(message, Obituary):
            self._take_obituary(message, by)
        elif message.node_id == self._me.node_id:
            self._take_own(message)
        else:
            now = self._clock.seconds()
            heard = self._membership.hear(message, now, direct=by is None)
            if heard is Heard.DOUBTED:
                self._doubt_word(message, by)
            elif heard is not Heard.STALE:
                self._believe(message, by, heard)

    def _believe(self, message: Announcement, by: NodeId | None, heard: Heard) -> None:
        if heard is not Heard.FRESH:
            self._notice(message.node_id, new=heard is Heard.NEW)
        self.announcements.tell(message)
        self.news.tell(message, by)

    def _doubt_word(self, message: Announcement, by: NodeId | None) -> None:
        if message.node_id not in self._doubted and len(self._doubted) < DOUBTS_MAX:
            self._doubted.add(message.node_id)
            Deferred.fromCoroutine(self._settle(message, by)).addErrback(
                lambda failure: _log.failure("a doubtful announcement was not looked into", failure=failure)
            )

    async def _settle(self, message: Announcement, by: NodeId | None) -> None:
        """Ask the sender of a doubtful announcement who it is, and if it is older than what is believed, first that
        one."""
        node_id = message.node_id
        try:
            verdict = await ask(self._clock, self._pool, node_id, message)
            member = self._membership.get(node_id)
            if member is not None and verdict.pulse is not None and message.boot_id < member.announcement.boot_id:
                believed = await ask(self._clock, self._pool, node_id, member.announcement)
                if believed.liveness is Liveness.LIVES:
                    return  # two instances have one id
        finally:
            self._doubted.discard(node_id)
        if verdict.pulse is not None:
            heard = self._membership.reinstate(message, verdict.pulse, self._clock.seconds())
            self._believe(message, by, heard)

    def _take_own(self, message: Announcement) -> None:
        # An older boot is an echo of this node's past life.
        if message.boot_id > self._me.boot_id and not self.conflict:
            self.conflict = True
            _log.warn("{name} at {address} has our node id", name=message.name, address=message.address)

    def _take_obituary(self, obituary: Obituary, by: NodeId | None) -> None:
        if obituary.subject == self._me.node_id:
            if obituary.boot_id == self._me.boot_id:
                self.own_obituaries.tell(obituary.incarnation)
            return
        member = self._membership.get(obituary.subject)
        if member is None or not member.present or member.announcement.boot_id != obituary.boot_id:
            return
        if obituary.subject in self._life_watches or self._pool.live(obituary.subject) is not None:
            if member.announcement.incarnation <= obituary.incarnation:
                self._ask(member)
        elif self._bury(obituary.subject, obituary.boot_id, obituary.incarnation):
            self.news.tell(obituary, by)

    # who is silent

    def _tick(self) -> None:
        for member in self._membership.tick(self._clock.seconds()):
            self.changes.tell(member)
            if self._close_to(member.node_id):
                self._ask(member)
            else:
                most = min(max(1.0, member.interval), DELAY_PER_MEMBER * len(self._membership))
                delay = most * self._entropy.random.random()
                self._clock.callLater(delay, self._ask_suspect, member.node_id)

    def _close_to(self, node_id: NodeId) -> bool:
        return node_id in self._life_watches or node_id in self.neighbors()

    def _link_lost(self, node_id: NodeId) -> None:
        close_to = self._close_to(node_id)  # before the overlay learns of it
        self._membership.lose_link(node_id, self._clock.seconds())
        member = self._membership.get(node_id)
        if close_to and member is not None and member.present:
            self._ask(member)

    def _ask_suspect(self, node_id: NodeId) -> None:
        member = self._membership.get(node_id)
        if member is not None and member.standing is Standing.SUSPECT:
            self._ask(member)

    def _ask(self, member: Member) -> None:
        crowded = len(self._asking) >= ASKED_MAX and not self._close_to(member.node_id)
        if member.node_id not in self._asking and not crowded:
            self._asking.add(member.node_id)
            Deferred.fromCoroutine(self._confirm(member.node_id, member.announcement)).addErrback(
                lambda failure: _log.failure("asking a suspect failed", failure=failure)
            )

    async def _confirm(self, node_id: NodeId, last: Announcement) -> None:
        try:
            verdict = await ask(self._clock, self._pool, node_id, last)
        finally:
            self._asking.discard(node_id)
        if verdict.peer is not None and verdict.pulse is not None:
            self._alive(verdict.peer, verdict.pulse)
            return
        member = self._membership.get(node_id)
        # Silence over a link proves something only together with silence on the bus.
        if verdict.liveness is Liveness.SILENT and (member is None or member.standing is not Standing.SUSPECT):
            return
        if self._bury(node_id, last.boot_id, last.incarnation, last.sequence):
            _log.info("{name} is dead", name=last.name)
            self.publish(Obituary(last.cluster, self._me.node_id, node_id, last.boot_id, last.incarnation))

    def _alive(self, peer: PeerIdentity, pulse: Pulse) -> None:
        if self._membership.confirm(peer.node_id, peer.boot_id, self._clock.seconds(), pulse):
            self._notice(peer.node_id, new=False)

    def _bury(self, node_id: NodeId, boot_id: BootId, incarnation: int, sequence: int | None = None) -> bool:
        if not self._membership.bury(node_id, boot_id, incarnation, self._clock.seconds(), sequence=sequence):
            return False
        self._notice(node_id, new=False)
        return True

    def _notice(self, node_id: NodeId, *, new: bool) -> None:
        """Tell everybody of an instance that is new, or whose standing is another."""
        member = self._membership.get(node_id)
        assert member is not None
        self.changes.tell(member)
        if new:
            self.newcomers.tell()
        if member.standing is Standing.DEAD:
            self._pool.close_links(node_id)
        self._life_watches.look(member)
