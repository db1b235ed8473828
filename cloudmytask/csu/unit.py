"""The Central Supervisory Unit (paper 3.1.3), composed of its roles; offers ``boundaries.FrontDoor`` to clients, where
it refuses all that is about jobs, and :class:`~cloudmytask.csu.door.SupervisorDoor` to peers.

Any number may run. They merge their bans as all instances do, and none of them is on the way of any client's request.

Invariant: it contains wiring and the order of its end, no other policy and no reactor: whoever builds it hands it a
world.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from twisted.internet.defer import Deferred

from cloudmytask.boundaries import Link
from cloudmytask.boundaries.supervision import SeenInstance, SupervisionWorld
from cloudmytask.cluster import (
    Announcement,
    Ban,
    BanReport,
    BootId,
    ClusterView,
    LoadSample,
    MemberStatus,
    NodeId,
    PeerIdentity,
    Role,
    Standing,
)
from cloudmytask.config import CsuConfig
from cloudmytask.core.admission import LIMIT_MAX, check_client
from cloudmytask.core.announcing import Condition, Pace
from cloudmytask.core.ban_records import check_report
from cloudmytask.csu.door import NOTHING, SupervisorDoor
from cloudmytask.csu.history import History
from cloudmytask.csu.no_jobs import NoJobs
from cloudmytask.csu.registry import Registry, status_of
from cloudmytask.csu.witnesses import Witnesses
from cloudmytask.errors import NotPermitted
from cloudmytask.model import ClientId, NodeStatus
from cloudmytask.peering.announcer import Announcer
from cloudmytask.peering.ban_exchange import BanExchange
from cloudmytask.peering.blacklist import KEY, Blacklist
from cloudmytask.peering.links import LinkPool
from cloudmytask.peering.relaying import Relaying
from cloudmytask.peering.roster import Roster
from cloudmytask.peering.sensing import Sensing
from cloudmytask.version import VERSION

REPORTED_TERM = 3600.0
"""Seconds of a ban of the cluster that nodes asked for."""
RELAYS_MAX = 2
"""Nodes to hear announcements from, where multicast does not reach us."""
SPREAD_MAX = 8
"""Instances that a CSU tells of a new ban itself; they pass it on along the tree."""


class CentralSupervisoryUnit(NoJobs):
    """See the module. ``start`` before anything else; ``drain`` ends it.

    :param address: where peers reach it, ``HOST:PORT``; empty for one that stands alone.
    """

    def __init__(self, world: SupervisionWorld, config: CsuConfig, address: str = "") -> None:
        super().__init__(self._where_jobs_go)
        recovery = world.store.recover()
        clock, entropy = world.clock, world.entropy
        self._world, self._config = world, config
        self._started = clock.seconds()
        self._me = me = PeerIdentity(
            cluster=config.cluster,
            role=Role.CSU,
            node_id=NodeId(recovery.node_id),
            boot_id=BootId(f"{recovery.boots & 0xFFFFFFFF:08x}{entropy.token(4).hex()}"),
            name=config.name,
            address=address,
        )
        self._pool = LinkPool(clock, world.links, me)
        self._roster = Roster(clock, entropy, world.bus, self._pool, me)
        pace = Pace(config.announce_budget)
        self._announcer = Announcer(
            clock, entropy, me, self._roster.publish, self._condition, self._roster.present, pace
        )
        self._relaying = Relaying(
            clock,
            entropy,
            me,
            self._roster,
            self._pool,
            self._announcer.current,
            lambda: self._announcer.gap,
            config.seeds,
            neighbors=lambda: self._linked()[:RELAYS_MAX],
        )
        self._blacklist = Blacklist(me.node_id, config.name, clock, world.wall, world.store.remember)
        self._blacklist.recall(recovery.memory.get(KEY))
        self._exchange = BanExchange(self._blacklist, clock, entropy, self._nearest, self._pool.get)
        self._witnesses = Witnesses()
        # whoever floods a CSU is kept out of it; that is no reason to keep it from the nodes
        self._sensing = Sensing(me.node_id, config.name, clock, self._blacklist, lambda _report: None)
        self._registry = Registry()
        self._registry.recall(recovery.instances)
        self._history = History(
            clock, world.wall, world.store, self._registry, self._nodes, config.history_interval, config.history
        )
        self.door = SupervisorDoor(me, self._pool, self._relaying, self._blacklist, self._report)

    def start(self) -> None:
        """Join the cluster, and begin to supervise it."""
        self._roster.refute = self._announcer.refute
        self._roster.newcomer = self._announcer.greet
        self._roster.on_heard(self._heard)
        self._roster.on_changed(lambda member: self._registry.stands(member.node_id, member.standing))
        self._blacklist.on_change(self._bans_changed)
        if self._me.address:
            self._world.links.open(self.door)
            self._exchange.begin()
            self._pool.start()
            self._roster.start()
            self._announcer.start()
            self._relaying.start()
        self._history.begin()

    def drain(self) -> Deferred[None]:
        """Say goodbye, write down what is left to be written."""
        return Deferred.fromCoroutine(self._drain())

    def stop_now(self) -> None:
        """End without a word."""
        self._exchange.end()
        self._announcer.stop()
        self._relaying.stop()
        self._roster.stop()
        self._history.stop()
        self._pool.close()

    @property
    def instances(self) -> tuple[SeenInstance, ...]:
        """The registry: every instance ever seen, those seen last at the end."""
        return self._registry.instances()

    # boundaries.ClusterDoor

    def identify(self, claim: str) -> ClientId:
        return check_client(claim)

    def admit(self, client: ClientId, size: int) -> float:
        return self._sensing.admit(client, size)

    def malformed(self, client: ClientId) -> None:
        self._sensing.malformed(client)

    def describe(self) -> NodeStatus:
        return NodeStatus(
            name=self._me.name,
            node_id=self._me.node_id,
            boot_id=self._me.boot_id,
            version=VERSION,
            slots=0,
            running=0,
            waiting={},
            queue_max=0,
            load=None,
            draining=False,
            uptime=self._world.clock.seconds() - self._started,
            script_max=LIMIT_MAX,  # whoever brings a job is to hear why it is refused
            cluster=self._me.cluster,
            address=self._me.address,
            role=Role.CSU.value,
            insecure=self._config.beyond_loopback,
        )

    def cluster(self) -> ClusterView:
        own = MemberStatus(self._announcer.current(), Standing.ALIVE, 0.0, linked=False, conflict=self._roster.conflict)
        known = (own, *self._roster.statuses())
        present = {each.announcement.node_id for each in known}
        wall = self._world.wall()
        oldest = wall - self._config.history
        gone = (
            status_of(each, self._me.cluster, wall)
            for each in self._registry.instances()
            if each.node_id not in present and each.last_seen >= oldest
        )
        return ClusterView(
            by=self._me.node_id,
            cluster=self._me.cluster,
            members=(*known, *gone),
            bus=self._world.bus.statistics(),
            interval=self._announcer.interval,
        )

    def bans(self) -> tuple[Ban, ...]:
        return self._blacklist.bans()

    def ban(self, by: ClientId, client: ClientId, reason: str, term: float) -> Deferred[Ban]:
        return self._blacklist.ban(by, client, reason, term)

    def lift_ban(self, by: ClientId, client: ClientId) -> Deferred[Ban]:
        return self._blacklist.lift(by, client)

    def history(self, seconds: float) -> Deferred[tuple[LoadSample, ...]]:
        return self._history.last(seconds)

    def _where_jobs_go(self) -> str:
        node = next((f", such as {each.name} at {each.address}" for each in self._nodes()), "")
        return f"{self._me.name} is a CSU and takes no jobs; ask a node{node}"

    # what happens in the cluster

    def _condition(self) -> Condition:
        return Condition(capacity=NOTHING, insecure=self._config.beyond_loopback, bans=self._blacklist.digest)

    def _heard(self, announcement: Announcement) -> None:
        self._registry.heard(announcement, self._world.wall())
        self._exchange.heard(announcement)

    def _nodes(self) -> Iterator[Announcement]:
        for member in self._roster.members():
            if member.present and member.announcement.role is Role.NODE:
                yield member.announcement

    def _linked(self) -> list[NodeId]:
        """The nodes that a link is open to."""
        return [each.node_id for each in self._nodes() if self._pool.live(each.node_id) is not None]

    def _nearest(self) -> list[Link]:
        links = (self._pool.live(node_id) for node_id in self._linked()[:SPREAD_MAX])
        return [link for link in links if link is not None]

    def _bans_changed(self, news: Sequence[Ban], _source: Link | None) -> None:
        for ban in news:
            if ban.lifted:
                self._witnesses.forget(ban.client)
        self._announcer.changed()

    def _report(self, link: Link, report: BanReport) -> bool:
        peer = link.peer
        if peer.role is not Role.NODE or peer.node_id != report.reporter:
            raise NotPermitted(f"{peer.name} reports in the name of {report.reporter_name}, and only nodes report")
        check_report(report)
        words = self._witnesses.hear(report, self._world.clock.seconds())
        ban = self._blacklist.in_force(report.client)
        if ban is None and words:
            reporters = tuple(f"{each.reporter_name[:50]} ({each.reporter[:8]})" for each in words)
            self._blacklist.ban_everywhere(report.client, report.reason, reporters, REPORTED_TERM)
        return ban is not None or bool(words)

    async def _drain(self) -> None:
        if self._me.address:
            await self._announcer.leave()
        self.stop_now()
        self._world.bus.close()
        await self._history.flush()
