"""One task processing service instance (the paper's TPSI), composed from its parts.

Invariant: it contains wiring and the order of its end, no other policy and no reactor: it is
handed a world. ``front_door`` is for clients, ``peer_door`` for other instances.
"""

from __future__ import annotations

from functools import partial

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from cloudmytask.boundaries import World
from cloudmytask.cluster.ban_reports import BanReports
from cloudmytask.cluster.flood_control import FloodControl
from cloudmytask.cluster.member import ClusterMember, identity_of
from cloudmytask.config import NodeConfig
from cloudmytask.core.announcing import Condition
from cloudmytask.core.placement import Accounts, Policy
from cloudmytask.core.queue import WaitingQueue
from cloudmytask.core.rates import RateLimits, Rates
from cloudmytask.core.retention import RetentionClock
from cloudmytask.model.cluster import (
    ClusterView,
    PeerIdentity,
    Role,
)
from cloudmytask.model.job import JobId, NodeStatus, Owner
from cloudmytask.node.front_door import NodeFrontDoor
from cloudmytask.node.gate import Gate
from cloudmytask.node.jobs.acceptance import Acceptance
from cloudmytask.node.jobs.handover import Handover
from cloudmytask.node.jobs.ledger import Ledger
from cloudmytask.node.jobs.origin import Origin
from cloudmytask.node.jobs.upkeep import Upkeep
from cloudmytask.node.neighborhood import Neighborhood
from cloudmytask.node.peer_door import NodePeerDoor
from cloudmytask.node.placing.capacity_meter import CapacityMeter
from cloudmytask.node.placing.placer import Placer
from cloudmytask.node.placing.work_stealer import WorkStealer
from cloudmytask.node.remote.delegate import Delegate
from cloudmytask.node.remote.guests import Guests
from cloudmytask.node.running.executor import Executor
from cloudmytask.node.running.outputs import Outputs
from cloudmytask.node.shortage_watch import ShortageWatch
from cloudmytask.periodic import Periodic, every
from cloudmytask.version import VERSION

_log = Logger()

PLACE_INTERVAL = 1.0
"""Seconds between looks around on behalf of waiting jobs."""
HANDOVER_TIME = 10.0
"""Seconds within which waiting jobs of a node that shuts down find another owner, or stay."""
LAST_CALL_TIME = 15.0
"""Seconds that a call to another owner, begun just before that, may take: a link and an answer."""
DELIVERY_TIME = 5.0
"""Seconds that a node which shuts down waits for the followers of its guests to take their last words."""


class Node:
    """Composes a node and starts and ends it: ``start`` before anything else; ``drain`` ends it.

    :param address: where peers reach it, ``HOST:PORT``; empty for a node that stands alone.
    """

    def __init__(self, world: World, config: NodeConfig, address: str = "") -> None:
        recovery = world.store.recover()
        now, wall = world.clock.seconds(), world.wall()
        clock, entropy = world.clock, world.entropy
        retention = RetentionClock.resume(recovery.age, recovery.checkpoint_at, now, wall)
        self._world, self._config, self._started = world, config, now
        self._insecure = config.beyond_loopback
        self._me = me = identity_of(config, recovery.node_id, recovery.boots, entropy, address)
        # among peers
        self.cluster_member = cluster_member = ClusterMember(
            world,
            config,
            me,
            world.store.remember,
            recovery.memory,
            condition=self._condition,
            nearest=lambda: self._neighborhood.neighbors(),
            spread_to=lambda: self._neighborhood.neighbors(),
        )
        self._neighborhood = neighborhood = Neighborhood(
            clock,
            entropy,
            me,
            cluster_member.detector,
            cluster_member.pool,
            cluster_member.changed,
            cluster_member.relaying.acquaint,
        )
        self._reports = BanReports(clock, lambda: cluster_member.alive(Role.CSU), cluster_member.link)
        rates = Rates(
            RateLimits(requests=config.request_rate, requests_burst=config.request_burst, bytes=config.byte_rate)
        )
        flood_control = FloodControl(me.node_id, me.name, clock, cluster_member.blacklist, self._reports.add, rates)
        self._gate = gate = Gate(config.name, flood_control, world.disk_free, config.disk_min)
        # jobs
        self._ledger = ledger = Ledger(world, retention, recovery.next_sequence, config.tombstones)
        self._outputs = outputs = Outputs(world.store, world.sinks, config.output_max, config.name)
        self._shortages = shortages = ShortageWatch(world, gate)
        self._executor = executor = Executor(world, config, outputs, shortages)
        self._accounts = accounts = Accounts()
        self._queue = queue = WaitingQueue(config.queue_max)
        policy = Policy(config.placement, config.max_hops, config.idle_threshold)
        meter = CapacityMeter(config, executor, gate, shortages, accounts, world.probe)
        self._placer = placer = Placer(
            world, config.name, gate, meter, queue, accounts, policy, cluster_member.changed, executor.may_join
        )
        self._work_stealer = stealer = WorkStealer(world, policy, gate, placer, accounts, cluster_member)
        self._delegate = delegate = Delegate(world, outputs, cluster_member, placer.learned)
        self._guests = guests = Guests(
            world, config, me, gate, shortages, executor, outputs, placer, delegate, stealer.slot_freed, ledger.owns
        )
        self._origin = origin = Origin(
            world, config, gate, ledger, executor, placer, delegate, me, queue, stealer.slot_freed, shortages
        )
        others = partial(cluster_member.names, Role.NODE)
        owner = Owner.alone(me.node_id, me.name)
        acceptance = Acceptance(world, config, gate, ledger, placer, queue, others, origin, guests, owner)
        self._handover = Handover(world, ledger, origin, accounts, cluster_member)
        self._upkeep = Upkeep(world, ledger, config.sweep_interval, guests.digests)
        self._recovered = recovery.own
        self._placing: Periodic | None = None
        self.front_door = NodeFrontDoor(
            world, gate, ledger, outputs, acceptance, origin, cluster_member, self.describe, self.cluster
        )
        self.peer_door = NodePeerDoor(world, cluster_member, acceptance, guests, placer, neighborhood, gate)
        detector, blacklist = cluster_member.detector, cluster_member.blacklist
        shortages.changed.add(cluster_member.changed)
        detector.changes.add(stealer.changed)
        detector.changes.add(delegate.changed)
        detector.announcements.add(stealer.heard)
        detector.announcements.add(self._reports.heard)
        blacklist.enforced.add(origin.banned)
        blacklist.enforced.add(guests.banned)

    @property
    def identity(self) -> PeerIdentity:
        """Who it is."""
        return self._me

    def whereabouts(self) -> dict[JobId, list[str]]:
        """In which places each open job is; exactly one, or something is wrong."""
        return self._origin.whereabouts()

    def start(self) -> None:
        """Take over what an earlier life left, and begin to work."""
        self.cluster_member.start(self.peer_door)
        if self._me.address:
            self._neighborhood.start()
        jobs, self._recovered = self._recovered, ()
        self._origin.resume(jobs)
        self._upkeep.begin()
        self._placing = every(self._world.clock, PLACE_INTERVAL, self._look_around)

    def drain(self) -> Deferred[None]:
        """Refuse new work, give running scripts ``drain_timeout`` to end, interrupt the rest, and flush."""
        return Deferred.fromCoroutine(self._drain())

    @property
    def drain_time(self) -> float:
        """Seconds that :meth:`drain` takes at the most, the disk aside."""
        scripts = self._config.drain_timeout + self._config.kill_grace
        return HANDOVER_TIME + LAST_CALL_TIME + scripts + DELIVERY_TIME

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
            load=self._placer.here().load,
            draining=self._gate.draining,
            uptime=self._world.clock.seconds() - self._started,
            script_max=self._config.script_max,
            cluster=self._config.cluster if self._me.address else "",
            address=self._me.address,
            insecure=self._insecure,
            short=self._shortages.short,
        )

    def cluster(self) -> ClusterView:
        """All instances, as this node sees them."""
        return self.cluster_member.view()

    def _condition(self) -> Condition:
        return Condition(
            capacity=self._placer.here(),
            backlog=self._placer.backlog(),
            tree=self._neighborhood.position,
            draining=self._gate.draining,
            short=self._shortages.short,
            insecure=self._insecure,
            bans=self.cluster_member.blacklist.digest,
        )

    def _look_around(self) -> None:
        self._shortages.look()
        self._executor.lend_slots()
        self._origin.check_whereabouts()
        self._placer.look_around()
        self._work_stealer.seek()

    async def _drain(self) -> None:
        self._gate.close()
        self._neighborhood.refuse("draining")
        self.cluster_member.changed()
        self._guests.end_all()
        await self._handover.all_waiting(HANDOVER_TIME)
        if self._executor.attempts:
            _log.info("draining: waiting for {attempts} attempts to end", attempts=self._executor.attempts)
            idle = self._executor.idle.wait()
            timer = self._world.clock.callLater(self._config.drain_timeout, self._executor.interrupt)
            await idle
            if timer.active():
                timer.cancel()
        if self._placing is not None:
            self._placing.stop()
        await self._origin.settled()
        await self._guests.delivered(DELIVERY_TIME)
        await self.cluster_member.leave(self._neighborhood.leave)
        await self._upkeep.end()
