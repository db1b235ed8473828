"""The Central Supervisory Unit (paper 3.1.3), composed of its roles; offers ``boundaries.ClusterDoor`` to clients,
where it refuses all that is about jobs, and :class:`~cloudmytask.csu.door.SupervisorDoor` to peers.

Any number may run. They merge their bans as all instances do, and none of them is on the way of any client's request.

Invariant: it contains wiring and the order of its end, no other policy and no reactor: it is handed a world.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import NoReturn

from twisted.internet.defer import Deferred

from cloudmytask.boundaries import Event, Link, Watch
from cloudmytask.boundaries.supervision import SeenInstance, SupervisionWorld
from cloudmytask.cluster.flood_control import FloodControl
from cloudmytask.cluster.member import ClusterMember, identity_of
from cloudmytask.config import CsuConfig
from cloudmytask.core.admission import LIMIT_MAX
from cloudmytask.core.announcing import Condition
from cloudmytask.core.ban_checks import check_report
from cloudmytask.csu.door import NOTHING, SupervisorDoor
from cloudmytask.csu.history import History
from cloudmytask.csu.registry import Registry, status_of
from cloudmytask.csu.witnesses import Witnesses
from cloudmytask.model.cluster import (
    Announcement,
    Ban,
    BanReport,
    ClusterView,
    LoadSample,
    NodeId,
    Role,
)
from cloudmytask.model.errors import NotPermitted
from cloudmytask.model.job import ClientId, NodeStatus
from cloudmytask.version import VERSION

REPORTED_TERM = 3600.0
"""Seconds of a ban of the cluster that nodes asked for."""
RELAYS_MAX = 2
"""Nodes to hear announcements from, where multicast does not reach us."""
SPREAD_MAX = 8
"""Instances that a CSU tells of a new ban itself; they pass it on along the tree."""


class CentralSupervisoryUnit:
    """A CSU without a reactor or a network of its own. ``start`` before anything else; ``drain`` ends it.

    :param address: where peers reach it, ``HOST:PORT``; empty for one that stands alone.
    """

    def __init__(self, world: SupervisionWorld, config: CsuConfig, address: str = "") -> None:
        recovery = world.store.recover()
        clock, entropy = world.clock, world.entropy
        self._world, self._config = world, config
        self._started = clock.seconds()
        self._me = me = identity_of(config, recovery.node_id, recovery.boots, entropy, address)
        self._cluster_member = cluster_member = ClusterMember(
            world,
            config,
            me,
            world.store.remember,
            recovery.memory,
            condition=self._condition,
            nearest=lambda: list(islice(self._linked(), RELAYS_MAX)),
            spread_to=lambda: list(islice(self._linked(), SPREAD_MAX)),
        )
        self._blacklist = cluster_member.blacklist
        self._witnesses = Witnesses()
        # a client that floods a CSU is kept out of it; that is no reason to keep it from the nodes
        self._flood_control = FloodControl(me.node_id, config.name, clock, self._blacklist, lambda _report: None)
        self._registry = Registry()
        self._registry.recall(recovery.instances)
        self._history = History(
            clock, world.wall, world.store, self._registry, self._nodes, config.history_interval, config.history
        )
        self.door = SupervisorDoor(cluster_member, self._report)

    def start(self) -> None:
        """Join the cluster, and begin to supervise it."""
        detector = self._cluster_member.detector
        detector.announcements.add(lambda announcement: self._registry.heard(announcement, self._world.wall()))
        detector.changes.add(lambda member: self._registry.stands(member.node_id, member.standing))
        self._blacklist.changes.add(self._bans_changed)
        self._cluster_member.start(self.door)
        self._history.begin()

    def drain(self) -> Deferred[None]:
        """Say goodbye, write down what is left to be written."""
        return Deferred.fromCoroutine(self._drain())

    def stop_now(self) -> None:
        """End without a word."""
        self._cluster_member.stop()
        self._history.stop()

    @property
    def instances(self) -> tuple[SeenInstance, ...]:
        """The registry: every instance ever seen, those seen last at the end."""
        return self._registry.instances()

    # boundaries.ClusterDoor

    def jobs_of(self) -> NoReturn:
        node = next((f", such as {each.name} at {each.address}" for each in self._nodes()), "")
        raise NotPermitted(f"{self._me.name} is a CSU and takes no jobs; ask a node{node}")

    def follow(self, client: ClientId | None, told: Callable[[Event], None]) -> Watch:  # noqa: ARG002 - it has no jobs
        return self._cluster_member.follow(told)

    def admit(self, client: ClientId, size: int) -> float:
        return self._flood_control.admit(client, size)

    def malformed(self, client: ClientId) -> None:
        self._flood_control.malformed(client)

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
            script_max=LIMIT_MAX,  # a client that brings a job is to hear why it is refused
            cluster=self._me.cluster,
            address=self._me.address,
            role=Role.CSU.value,
            insecure=self._config.beyond_loopback,
        )

    def cluster(self) -> ClusterView:
        wall = self._world.wall()
        oldest = wall - self._config.history
        gone = (
            status_of(each, self._me.cluster, wall) for each in self._registry.instances() if each.last_seen >= oldest
        )
        return self._cluster_member.view(gone)

    def bans(self) -> tuple[Ban, ...]:
        return self._blacklist.bans()

    def ban(self, by: ClientId, client: ClientId, reason: str, term: float) -> Deferred[Ban]:
        return self._blacklist.ban(by, client, reason, term)

    def lift_ban(self, by: ClientId, client: ClientId) -> Deferred[Ban]:
        return self._blacklist.lift(by, client)

    def history(self, seconds: float) -> Deferred[tuple[LoadSample, ...]]:
        return self._history.last(seconds)

    # what happens in the cluster

    def _condition(self) -> Condition:
        return Condition(capacity=NOTHING, insecure=self._config.beyond_loopback, bans=self._blacklist.digest)

    def _nodes(self) -> Iterator[Announcement]:
        for member in self._cluster_member.detector.members():
            if member.present and member.announcement.role is Role.NODE:
                yield member.announcement

    def _linked(self) -> Iterator[NodeId]:
        """The nodes that a link is open to."""
        return (each.node_id for each in self._nodes() if self._cluster_member.pool.live(each.node_id) is not None)

    def _bans_changed(self, news: Sequence[Ban], _source: Link | None) -> None:
        for ban in news:
            if ban.lifted:
                self._witnesses.forget(ban.client)

    def _report(self, link: Link, report: BanReport) -> bool:
        peer = link.peer
        if peer.node_id != report.reporter:
            raise NotPermitted(f"{peer.name} reports in the name of {report.reporter_name}")
        check_report(report)
        words = self._witnesses.hear(report, self._world.clock.seconds())
        ban = self._blacklist.in_force(report.client)
        if ban is None and words:
            reporters = tuple(f"{each.reporter_name[:50]} ({each.reporter[:8]})" for each in words)
            self._blacklist.ban_everywhere(report.client, report.reason, reporters, REPORTED_TERM)
        return ban is not None or bool(words)

    async def _drain(self) -> None:
        await self._cluster_member.leave()
        self._history.stop()
        await self._history.flush()
