"""An instance among its peers, composed: who it is, whom it knows, its links, its announcements, the list of bans.

Invariant: it contains wiring and the order of start and end, no other policy. What an instance is for, its owner adds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NoReturn, Protocol

from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from cloudmytask.boundaries import BansChanged, Bus, Clock, Entropy, Link, Links, MemberChanged, PeerDoor, WallClock
from cloudmytask.cluster.announcer import Announcer
from cloudmytask.cluster.ban_exchange import BanExchange
from cloudmytask.cluster.blacklist import KEY, Blacklist
from cloudmytask.cluster.failure_detector import FailureDetector
from cloudmytask.cluster.links import LinkPool
from cloudmytask.cluster.relaying import Relaying
from cloudmytask.config import InstanceConfig
from cloudmytask.core.announcing import AnnouncementPace, Condition
from cloudmytask.deferreds import patiently
from cloudmytask.listeners import Registration
from cloudmytask.model.cluster import BootId, ClusterView, MemberStatus, NodeId, PeerIdentity, Role, Standing
from cloudmytask.model.errors import RequestTimeout

REACH = 0.5
"""Seconds within which an instance of a LAN introduces itself."""


class MemberWorld(Protocol):
    """The part of an instance's world that this module needs."""

    @property
    def clock(self) -> Clock: ...
    @property
    def wall(self) -> WallClock: ...
    @property
    def entropy(self) -> Entropy: ...
    @property
    def bus(self) -> Bus: ...
    @property
    def links(self) -> Links: ...


def identity_of(config: InstanceConfig, node_id: str, boots: int, entropy: Entropy, address: str) -> PeerIdentity:
    """Who an instance is in this life of its.

    :param boots: how often it was started, this time included.
    """
    return PeerIdentity(
        cluster=config.cluster,
        role=config.ROLE,
        node_id=NodeId(node_id),
        boot_id=BootId(f"{boots & 0xFFFFFFFF:08x}{entropy.token(4).hex()}"),
        name=config.name,
        address=address,
    )


class ClusterMember:
    """One instance in its cluster. An instance without an address meets nobody: it only keeps its bans.

    :ivar condition: what is to be announced now.
    :ivar nearest: the instances that announcements are relayed to and from.
    :ivar spread_to: those that are told of new bans first.
    """

    def __init__(
        self,
        world: MemberWorld,
        config: InstanceConfig,
        me: PeerIdentity,
        remember: Callable[[str, str], Deferred[None]],
        memory: Mapping[str, str],
        *,
        condition: Callable[[], Condition],
        nearest: Callable[[], Sequence[NodeId]],
        spread_to: Callable[[], Sequence[NodeId]],
    ) -> None:
        clock, entropy = world.clock, world.entropy
        self.me = me
        self._world = world
        self.pool = LinkPool(clock, world.links, me)
        self.detector = FailureDetector(clock, entropy, world.bus, self.pool, me)
        pace = AnnouncementPace(config.announce_budget, config.heartbeat)
        self.announcer = Announcer(
            clock, entropy, me, self.detector.publish, condition, self.detector.established, pace
        )
        self.relaying = Relaying(
            clock,
            entropy,
            me,
            self.detector,
            self.pool,
            self.announcer.current,
            lambda: self.announcer.gap,
            config.seeds,
            neighbors=nearest,
        )
        self.blacklist = Blacklist(me.node_id, me.name, clock, world.wall, remember)
        self.blacklist.recall(memory.get(KEY))
        self._exchange = BanExchange(self.blacklist, clock, entropy, lambda: self.linked(spread_to()), self.reach)
        self.detector.own_obituaries.add(self.announcer.refute)
        self.detector.newcomers.add(self.announcer.greet)
        self.detector.announcements.add(self._exchange.heard)
        self.blacklist.changes.add(lambda _news, _source: self.changed())

    def start(self, door: PeerDoor) -> None:
        """Join the others."""
        if self.me.address:
            self._world.links.open(door)
            self._exchange.start()
            self.pool.start()
            self.detector.start()
            self.announcer.start()
            self.relaying.start()

    def changed(self) -> None:
        """What is announced may be another."""
        if self.me.address:
            self.announcer.changed()

    async def leave(self, parting: Callable[[], None] = lambda: None) -> None:
        """Say goodbye, and end.

        :param parting: called when the last word was said, before the links are closed.
        """
        if self.me.address:
            self.detector.stop()
            await self.announcer.leave()
            parting()
        self.stop()

    def stop(self) -> None:
        """End without a word. Idempotent."""
        self._exchange.stop()
        self.announcer.stop()
        self.relaying.stop()
        self.detector.stop()
        self.pool.close()
        self._world.bus.close()

    def view(self, others: Iterable[MemberStatus] = ()) -> ClusterView:
        """All instances as this one sees them, itself first.

        :param others: instances that are known otherwise, to stand at the end.
        """
        own = MemberStatus(self.announcer.current(), Standing.ALIVE, 0.0, linked=False, conflict=self.detector.conflict)
        known = (own, *self.detector.statuses())
        present = {each.announcement.node_id for each in known}
        return ClusterView(
            by=self.me.node_id,
            cluster=self.me.cluster,
            members=(*known, *(each for each in others if each.announcement.node_id not in present)),
            bus=self._world.bus.statistics(),
            interval=self.announcer.interval,
        )

    def alive(self, role: Role) -> list[NodeId]:
        """The others of a role that are alive."""
        return [
            member.node_id
            for member in self.detector.members()
            if member.announcement.role is role and member.standing is Standing.ALIVE
        ]

    def names(self, role: Role) -> list[str]:
        """The names of the others of a role that are known."""
        return [each.announcement.name for each in self.detector.members() if each.announcement.role is role]

    def follow(self, told: Callable[[MemberChanged | BansChanged], object]) -> Registration:
        """Tell ``told`` of every change of the members and of the bans."""
        members = self.detector.changes.add(lambda member: told(MemberChanged(member.node_id, member.standing)))
        bans = self.blacklist.changes.add(lambda news, _source: told(BansChanged(tuple(news))))

        def close() -> None:
            members.close()
            bans.close()

        return Registration(close)

    def linked(self, node_ids: Iterable[NodeId]) -> list[Link]:
        """The open links among those to ``node_ids``."""
        links = (self.pool.live(node_id) for node_id in node_ids)
        return [link for link in links if link is not None]

    def link(self, node_id: NodeId) -> Deferred[Link]:
        """A link to an instance. Fails with a ``CloudMyTaskError`` if it is not known, or cannot be reached."""
        return self.pool.get(node_id)

    def reach(self, node_id: NodeId) -> Deferred[Link]:
        """Like :meth:`link`, for what can as well be asked of another one: within :data:`REACH` seconds. A link that
        comes later is there for the next question."""
        return patiently(self._world.clock, REACH, self.link(node_id)).addErrback(_not_reached, node_id)

    def watch(self, node_id: NodeId, boot_id: BootId, ended: Callable[[], None]) -> Registration:
        """Call ``ended`` once that life of an instance is certainly over."""
        return self.detector.watch(node_id, boot_id, ended)


def _not_reached(failure: Failure, node_id: NodeId) -> NoReturn:
    failure.trap(defer.TimeoutError)
    raise RequestTimeout(f"node {node_id} did not introduce itself within {REACH:g} s")
