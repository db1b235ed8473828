"""One task processing service instance (the paper's TPSI), composed from its roles.

Invariant: it contains wiring and the order of its end, no other policy and no reactor: whoever builds it hands it a
world. ``front_door`` is for clients, ``peer_door`` for other instances.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from cloudmytask.boundaries import Link, World
from cloudmytask.cluster import (
    Ban,
    BootId,
    ClusterView,
    MemberStatus,
    NodeId,
    PeerIdentity,
    Role,
    Standing,
)
from cloudmytask.config import NodeConfig
from cloudmytask.core.announcing import Condition, Pace
from cloudmytask.core.placement import Accounts, Policy
from cloudmytask.core.queue import WaitingQueue
from cloudmytask.core.rates import RateLimits, Rates
from cloudmytask.core.retention import RetentionClock
from cloudmytask.model import JobId, NodeStatus
from cloudmytask.node.acceptance import Acceptance
from cloudmytask.node.delegate import Delegate
from cloudmytask.node.executor import Executor
from cloudmytask.node.front_door import NodeFrontDoor
from cloudmytask.node.gate import Gate
from cloudmytask.node.guests import Guests
from cloudmytask.node.handover import Handover
from cloudmytask.node.ledger import Ledger
from cloudmytask.node.meter import Meter
from cloudmytask.node.neighborhood import Neighborhood
from cloudmytask.node.news import News
from cloudmytask.node.origin import Origin
from cloudmytask.node.outputs import Outputs
from cloudmytask.node.peer_door import NodePeerDoor
from cloudmytask.node.placer import Placer
from cloudmytask.node.seeker import Seeker
from cloudmytask.node.upkeep import Upkeep
from cloudmytask.peering.announcer import Announcer
from cloudmytask.peering.ban_exchange import BanExchange
from cloudmytask.peering.ban_reports import BanReports
from cloudmytask.peering.blacklist import KEY as BANS_KEY
from cloudmytask.peering.blacklist import Blacklist
from cloudmytask.peering.links import LinkPool
from cloudmytask.peering.relaying import Relaying
from cloudmytask.peering.roster import Roster
from cloudmytask.peering.sensing import Sensing
from cloudmytask.peering.vigils import Vigil
from cloudmytask.periodic import Periodic, every
from cloudmytask.version import VERSION

_log = Logger(namespace="cloudmytask.node")

PLACE_INTERVAL = 1.0
"""Seconds between looks around on behalf of waiting jobs."""
DELIVERY_TIME = 5.0
"""Seconds that a node which shuts down waits for the followers of its guests to take their last words."""


class Node:
    """See the module. ``start`` before anything else; ``drain`` ends it.

    :param address: where peers reach it, ``HOST:PORT``; empty for a node that stands alone.
    """

    def __init__(self, world: World, config: NodeConfig, address: str = "") -> None:
        recovery = world.store.recover()
        now, wall = world.clock.seconds(), world.wall()
        clock, entropy = world.clock, world.entropy
        retention = RetentionClock.resume(recovery.age, recovery.checkpoint_at, now, wall)
        self._world, self._config, self._started = world, config, now
        self._me = me = PeerIdentity(
            cluster=config.cluster,
            role=Role.NODE,
            node_id=NodeId(recovery.node_id),
            boot_id=BootId(f"{recovery.boots & 0xFFFFFFFF:08x}{entropy.token(4).hex()}"),
            name=config.name,
            address=address,
        )
        # among peers
        self._pool = pool = LinkPool(clock, world.links, me)
        self._blacklist = blacklist = Blacklist(me.node_id, me.name, clock, world.wall, world.store.remember)
        blacklist.recall(recovery.memory.get(BANS_KEY))
        self._roster = roster = Roster(clock, entropy, world.bus, pool, me)
        self._neighborhood = neighborhood = Neighborhood(clock, entropy, me, roster, pool, self._changed)
        self._ban_exchange = BanExchange(blacklist, clock, entropy, self._neighbor_links, pool.get)
        self._reports = BanReports(clock, self._supervisors, pool.get)
        rates = Rates(
            RateLimits(requests=config.request_rate, requests_burst=config.request_burst, bytes=config.byte_rate)
        )
        sensing = Sensing(me.node_id, me.name, clock, blacklist, self._reports.add, rates)
        self._gate = gate = Gate(config.name, sensing, world.disk_free, config.disk_min)
        # jobs
        self._ledger = ledger = Ledger(world, retention, recovery.next_sequence, config.tombstones)
        self._outputs = outputs = Outputs(world.store, config.output_max)
        self._executor = executor = Executor(world, config, outputs)
        self._accounts = accounts = Accounts()
        self._queue = queue = WaitingQueue(config.queue_max)
        policy = Policy(config.placement, config.max_hops, config.idle_threshold)
        meter = Meter(
            config.slots,
            config.threshold,
            world.probe,
            lambda: executor.running,
            lambda: gate.draining,
            lambda: not any(True for _ in accounts.peers()),
        )
        self._placer = placer = Placer(world, config.name, gate, meter, queue, accounts, policy, self._changed)
        self._delegate = delegate = Delegate(world, outputs, self, placer.learned)
        self._seeker = Seeker(world, policy, gate, placer, self)
        self._guests = guests = Guests(
            world, config, lambda: me, gate, executor, outputs, placer, delegate, self._slot_freed
        )
        self._origin = origin = Origin(
            world, config, gate, ledger, executor, placer, delegate, lambda: me, queue, slot_freed=self._slot_freed
        )
        acceptance = Acceptance(
            world, config, gate, ledger, placer, queue, self._other_names, origin.enqueue, origin.withdraw
        )
        self._handover = Handover(world, ledger, placer, accounts, self)
        self._upkeep = Upkeep(world, ledger, config.sweep_interval, guests.digests)
        self._announcer = Announcer(
            clock,
            entropy,
            me,
            roster.publish,
            self._condition,
            roster.present,
            Pace(config.announce_budget, config.heartbeat),
        )
        self._relaying = relaying = Relaying(
            clock,
            entropy,
            me,
            roster,
            pool,
            self._announcer.current,
            lambda: self._announcer.gap,
            config.seeds,
            neighbors=neighborhood.neighbors,
        )
        neighborhood.acquaint = relaying.acquaint
        self._recovered = recovery.jobs
        self._placing: Periodic | None = None
        self.front_door = NodeFrontDoor(
            world, gate, ledger, outputs, acceptance, origin, blacklist, self.describe, self.cluster
        )
        self.peer_door = NodePeerDoor(
            world, lambda: me, pool, acceptance, guests, placer, neighborhood, relaying, blacklist
        )
        self._wire(News(entropy, accounts, placer, self._seeker))

    @property
    def busy(self) -> bool:
        """Whether scripts are running."""
        return self._executor.running > 0

    @property
    def identity(self) -> PeerIdentity:
        """Who it is."""
        return self._me

    def whereabouts(self) -> dict[JobId, list[str]]:
        """In which places each open job is; exactly one, or something is wrong."""
        return self._origin.whereabouts()

    def start(self) -> None:
        """Take over what an earlier life left, and begin to work."""
        if self._me.address:
            self._world.links.open(self.peer_door)
            self._pool.start()
            self._roster.start()
            self._neighborhood.start()
            self._ban_exchange.begin()
            self._announcer.start()
            self._relaying.start()
        jobs, self._recovered = self._recovered, ()
        self._origin.resume(jobs)
        self._upkeep.begin()
        self._placing = every(self._world.clock, PLACE_INTERVAL, self._look_around)

    def drain(self) -> Deferred[None]:
        """Refuse new work, give running scripts ``drain_timeout`` to end, interrupt the rest, and flush."""
        return Deferred.fromCoroutine(self._drain())

    def stop_now(self) -> None:
        """Cut a drain short: running scripts are killed; their jobs run again after the next start."""
        self._gate.close()
        self._executor.kill()

    def describe(self) -> NodeStatus:
        """The node's picture of itself."""
        return NodeStatus(
            name=self._config.name,
            node_id=self._me.node_id,
            boot_id=self._me.boot_id,
            version=VERSION,
            slots=self._config.slots,
            running=self._executor.running,
            waiting=self._queue.counts(),
            queue_max=self._config.queue_max,
            load=self._world.probe.load(),
            draining=self._gate.draining,
            uptime=self._world.clock.seconds() - self._started,
            script_max=self._config.script_max,
            cluster=self._config.cluster if self._me.address else "",
            address=self._me.address,
            insecure=self._config.beyond_loopback,
        )

    def cluster(self) -> ClusterView:
        """All instances, as this node sees them."""
        own = MemberStatus(
            announcement=self._announcer.current(),
            standing=Standing.ALIVE,
            heard=0.0,
            linked=False,
            conflict=self._roster.conflict,
        )
        return ClusterView(
            by=self._me.node_id,
            cluster=self._config.cluster,
            members=(own, *self._roster.statuses()),
            bus=self._world.bus.statistics(),
            interval=self._announcer.interval,
        )

    # roles.Acquaintances

    def link(self, node_id: NodeId) -> Deferred[Link]:
        """A link to a node."""
        return self._pool.get(node_id)

    def watch(self, node_id: NodeId, boot_id: BootId, ended: Callable[[], None]) -> Vigil:
        """Somebody wants to know when that life of a node is over."""
        return self._roster.watch(node_id, boot_id, ended)

    # how the roles hear of each other

    def _wire(self, news: News) -> None:
        roster = self._roster
        roster.refute = self._announcer.refute
        roster.newcomer = self._announcer.greet
        roster.on_changed(news.changed)
        roster.on_dead(news.dead)
        roster.on_heard(news.heard)
        roster.on_heard(self._ban_exchange.heard)
        roster.on_heard(self._reports.heard)
        self._blacklist.on_change(lambda _news, _source: self._changed())
        self._blacklist.on_banned(self._banned)

    def _condition(self) -> Condition:
        return Condition(
            capacity=self._placer.here(),
            backlog=self._placer.backlog(),
            tree=self._neighborhood.position,
            draining=self._gate.draining,
            disk_short=self._gate.disk_short,
            insecure=self._config.beyond_loopback,
            bans=self._blacklist.digest,
        )

    def _changed(self) -> None:
        if self._me.address:
            self._announcer.changed()

    def _slot_freed(self) -> None:
        """A script has ended: waiting jobs get the slot, our own or, if they wait longer, others'."""
        self._seeker.seek()
        self._placer.place()
        self._seeker.seek()

    def _look_around(self) -> None:
        self._placer.look_around()
        self._seeker.seek()

    def _banned(self, ban: Ban) -> None:
        self._origin.banned(ban)

    def _other_names(self) -> list[str]:
        return [m.announcement.name for m in self._roster.members() if m.announcement.role is Role.NODE]

    def _supervisors(self) -> list[NodeId]:
        return [
            m.node_id
            for m in self._roster.members()
            if m.announcement.role is Role.CSU and m.standing is Standing.ALIVE
        ]

    def _neighbor_links(self) -> list[Link]:
        links = [self._pool.live(node_id) for node_id in self._neighborhood.neighbors()]
        return [link for link in links if link is not None]

    async def _drain(self) -> None:
        self._gate.close()
        self._changed()
        self._guests.end_all()
        if self._me.address:
            await self._handover.all_waiting()
        if self._executor.running:
            _log.info("draining: {running} scripts are running", running=self._executor.running)
            idle = self._executor.idle.wait()
            timer = self._world.clock.callLater(self._config.drain_timeout, self._executor.interrupt)
            await idle
            if timer.active():
                timer.cancel()
        if self._placing is not None:
            self._placing.stop()
        await self._origin.settled()
        await self._guests.delivered(DELIVERY_TIME)
        await self._leave()
        await self._upkeep.end()

    async def _leave(self) -> None:
        """Say goodbye to the others."""
        if not self._me.address:
            return
        self._ban_exchange.end()
        self._roster.stop()
        await self._announcer.leave()
        self._relaying.stop()
        self._neighborhood.leave()
        self._pool.close()
        self._world.bus.close()
