"""A whole cluster in one process: nodes that find each other, jobs that arrive, nodes that die, networks that break.

Invariant: everything follows from the plan; equal plans give equal traces in any process. What happens is checked as it
happens, by :class:`~cloudmytask.simulation.cluster_checker.ClusterChecker`.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import define, field
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure

from cloudmytask.config import NodeConfig
from cloudmytask.core.announcing import AnnouncementPace
from cloudmytask.model.cluster import NodeId
from cloudmytask.model.job import ClientId
from cloudmytask.model.words import RESERVE_PULL
from cloudmytask.simulation.bus import SimulatedGroup
from cloudmytask.simulation.clock import VirtualClock
from cloudmytask.simulation.cluster_checker import ClusterChecker, Violation
from cloudmytask.simulation.faults import Faults
from cloudmytask.simulation.figures import ClusterFigures, central_queue, figures
from cloudmytask.simulation.host import Host, SeededEntropy
from cloudmytask.simulation.network import Network
from cloudmytask.simulation.observing import LoggedFailures, ObservedRecords
from cloudmytask.simulation.plan import ClusterPlan, Gateway, poisson_arrivals
from cloudmytask.simulation.workload import Case, Workload

WARM_UP = 5.0
"""Seconds until jobs begin to arrive, for the nodes to find each other."""
QUIET = 30
"""Seconds after the last job within which all views must agree."""
PATIENCE = 3600.0
"""Seconds after the last arrival within which every job must have ended."""
LOOK = 0.1
"""Seconds between two looks at free slots and waiting jobs."""


@define(eq=False, repr=False)
class ClusterRun:
    """One run of a plan.

    :ivar progress: told now and then how many jobs are done, of how many.
    """

    plan: ClusterPlan
    progress: Callable[[int, int], None] = field(default=lambda _done, _jobs: None)
    clock: VirtualClock = field(init=False, factory=VirtualClock)
    dice: random.Random = field(init=False)
    network: Network = field(init=False)
    group: SimulatedGroup = field(init=False)
    hosts: dict[str, Host] = field(init=False, factory=dict)
    checker: ClusterChecker = field(init=False)
    workload: Workload = field(init=False)
    faults: Faults = field(init=False)
    _looks: int = field(init=False, default=0)
    _sha: Any = field(init=False, factory=hashlib.sha256)
    _failure: Failure | None = field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        plan = self.plan
        dice = self.dice = random.Random(plan.seed)
        self.network = Network(self.clock, lambda _here, _there: 0.0003 + 0.0004 * dice.random())
        self.group = SimulatedGroup(self.network, self._fork(), loss=plan.loss)
        self.checker = self._checker()
        arrivals = poisson_arrivals(
            self._fork(),
            jobs=plan.jobs,
            nodes=plan.nodes,
            slots=plan.slots,
            load=plan.load,
            mean=plan.length,
            lengths=plan.lengths,
            gateway=plan.gateway,
        )
        cases = [
            Case(number, arrival, ClientId(f"client{dice.randrange(plan.clients)}"))
            for number, arrival in enumerate(arrivals)
        ]
        self.workload = work = Workload(
            cases, self.clock, self.hosts, self.checker, self._note, self._failed, self.progress
        )
        for number in range(plan.nodes):
            host = self._host(number)
            self.hosts[host.name] = host
            self.checker.max_hops = host.config.max_hops
        self.faults = Faults(plan, self.clock, dice, self.network, self.hosts, self.checker, self._note, work.node_died)

    def run(self) -> ClusterFigures:
        """Live through it.

        :raises Violation: an invariant does not hold, or a node logged a failure.
        """
        logged = LoggedFailures(lambda text: self._failed(Failure(Violation(f"a failure was logged: {text}"))))
        globalLogPublisher.addObserver(logged)
        try:
            return self._run()
        finally:
            globalLogPublisher.removeObserver(logged)

    def _run(self) -> ClusterFigures:
        clock, work, span = self.clock, self.workload, self.workload.cases[-1].arrival.at
        for host in self.hosts.values():
            clock.callLater(self.dice.uniform(0.0, 1.0), host.start)
        clock.callLater(WARM_UP, work.begin)
        clock.callLater(WARM_UP, self._look)
        self.faults.schedule(WARM_UP, span)
        while work.open or self.faults.under_way:
            if not clock.step() or clock.seconds() > WARM_UP + span + PATIENCE:
                raise Violation(f"{work.open} jobs have no outcome after {clock.seconds():.0f} s")
            if self._failure is not None:
                self._failure.raiseException()
        duration, announced = clock.seconds(), self.group.messages
        self._converge()
        self.checker.settled({name: host.disk.jobs for name, host in self.hosts.items()})
        return self._figures(duration, announced)

    def _converge(self) -> None:
        """All views must agree soon."""
        nodes = [host.node for host in self.hosts.values()]
        for second in range(1, QUIET + 1):
            self.clock.advance(1.0)
            if self._failure is not None:
                self._failure.raiseException()
            try:
                self.checker.converged((n.cluster() for n in nodes), [n.identity.node_id for n in nodes])
            except Violation:
                if second == QUIET:
                    raise
            else:
                return

    def _checker(self) -> ClusterChecker:
        plan, interval = self.plan, AnnouncementPace().heartbeat(self.plan.nodes)
        # Who has just lost its peers, or what they said, does not know who waits, or who is free.
        quiet = plan.policy == RESERVE_PULL and not (plan.kill or plan.partitions or plan.shortages or plan.loss)
        # Where all jobs come from one node, it knows all that is sent to anybody.
        lonely = quiet and plan.gateway == Gateway.ONE
        return ClusterChecker(
            max_hops=0,
            refusals_max=0.05 if lonely else 10.0,
            ban_grace=2 * interval,
            idle_grace=interval if quiet else math.inf,
            violated=lambda violation: self._failed(Failure(violation)),
        )

    def options(self, number: int) -> dict[str, Any]:
        """The configuration of one node, as far as it is not the default."""
        return {
            "name": f"n{number}",
            "listen": (f"127.1.{number // 256}.{number % 256}:7001",),
            "slots": self.plan.slots,
            "placement": self.plan.policy,
            "queue_max": 1_000_000,
            "load_source": "none",
        }

    def _host(self, number: int) -> Host:
        dice = self._fork()
        config = NodeConfig(state=Path("/simulated"), **self.options(number))
        name = config.name
        host = Host(
            name,
            self.clock,
            self.network,
            config,
            lambda launch: self.workload.launched(host, launch),
            SeededEntropy(dice),
            lambda: 0.002 + 0.002 * dice.random(),
            group=self.group,
            observer=lambda offer, answer: self.checker.offered(NodeId(host.disk.node_id), offer, answer),
        )
        host.disk.jobs = ObservedRecords(lambda before, job: self.workload.recorded(name, before, job))
        return host

    def _look(self) -> None:
        free, waiting = {}, {}
        for name, host in self.hosts.items():
            if host.up:
                free[name] = host.config.slots - host.machine.live
                waiting[name] = sum(host.node.describe().waiting.values())
        self.checker.unused(free, waiting, self.clock.seconds())
        self._looks += 1
        host = self.hosts[f"n{self._looks % len(self.hosts)}"]
        if host.up:
            self.checker.places(host.name, host.node.whereabouts())
        self.clock.callLater(LOOK, self._look)

    def _fork(self) -> random.Random:
        """For somebody whose luck must not depend on what others do."""
        return random.Random(self.dice.getrandbits(64))

    def _failed(self, failure: Failure) -> None:
        self._failure = self._failure or failure

    def _note(self, *what: object) -> None:
        self._sha.update(f"{self.clock.seconds():.9f} {what}\n".encode())

    def _figures(self, duration: float, announced: int) -> ClusterFigures:
        plan, work = self.plan, self.workload
        done = [case for case in work.cases if case.end is not None]
        jobs = [(WARM_UP + case.arrival.at, case.arrival.length) for case in done]
        skip, count = int(plan.warm * len(jobs)), max(1, len(jobs))
        mine = figures(jobs, [case.end or 0.0 for case in done], skip=skip)
        self._note("end", len(jobs))
        return ClusterFigures(
            nodes=plan.nodes,
            slots=plan.slots,
            jobs=plan.jobs - work.refused,
            succeeded=len(jobs),
            refused=work.refused,
            cluster=mine,
            ideal=figures(jobs, central_queue(jobs, plan.nodes * plan.slots), skip=skip),
            utilization=math.fsum(length for _, length in jobs) / (mine.makespan * plan.nodes * plan.slots or 1.0),
            forwards_per_job=self.checker.accepted_offers / count,
            refusals_per_job=self.checker.refused_offers / count,
            messages_per_job=self.network.messages / count,
            announcements=announced / (plan.nodes * duration),
            executions=work.executions,
            kills=self.faults.kills,
            longest_idle=self.checker.longest_idle,
            duration=duration,
            trace=self._sha.hexdigest(),
        )
