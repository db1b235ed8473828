"""A whole cluster in one process: nodes that find each other, jobs that arrive, nodes that die, networks that break.

Invariant: everything follows from the plan; equal plans give equal traces in any process. Every step is checked by
:class:`~cloudmytask.simulation.cluster_checker.ClusterChecker`.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import define, field
from twisted.python.failure import Failure

from cloudmytask.boundaries import Launch, Receipt, Submission
from cloudmytask.cluster import NodeId, Offer, OfferAnswer
from cloudmytask.config import NodeConfig
from cloudmytask.core.announcing import Pace
from cloudmytask.core.blobs import blob_of
from cloudmytask.core.central_queue import central_queue, figures
from cloudmytask.core.job_id import job_id as id_of
from cloudmytask.core.placement import RESERVE_PULL
from cloudmytask.errors import CloudMyTaskError
from cloudmytask.model import ClientId, Content, Job, JobId, JobSpec, JobState, QoS
from cloudmytask.simulation.arrivals import Arrival, poisson_arrivals
from cloudmytask.simulation.bus import SimulatedGroup
from cloudmytask.simulation.clock import VirtualClock
from cloudmytask.simulation.cluster_checker import ClusterChecker
from cloudmytask.simulation.cluster_plan import ClusterPlan
from cloudmytask.simulation.figures import ClusterFigures
from cloudmytask.simulation.host import Host, SeededEntropy
from cloudmytask.simulation.invariants import Violation
from cloudmytask.simulation.network import Network
from cloudmytask.simulation.observing import ObservedRecords
from cloudmytask.simulation.runner import ScriptPlan

WARM_UP = 5.0
"""Seconds until the first job, for the nodes to find each other."""
QUIET = 30.0
"""Seconds after the last job within which all views must agree."""
PATIENCE = 3600.0
"""Seconds after the last arrival within which every job must have ended."""
LOOK = 0.1
"""Seconds between two looks at free slots and waiting jobs."""
SCRIPT = b"# what it does is decided by the simulation\n"


@define(eq=False)
class _Case:
    """One job that is to be done."""

    number: int
    arrival: Arrival
    client: ClientId
    tries: int = 0
    end: float | None = None


@define(eq=False)
class ClusterRun:
    """One run of a plan.

    :ivar progress: told now and then how many jobs are done, of how many.
    """

    plan: ClusterPlan
    progress: Callable[[int, int], None] = field(default=lambda _done, _jobs: None)
    clock: VirtualClock = field(init=False, factory=VirtualClock)
    random: random.Random = field(init=False)
    network: Network = field(init=False)
    group: SimulatedGroup = field(init=False)
    hosts: dict[str, Host] = field(init=False, factory=dict)
    checker: ClusterChecker = field(init=False)
    cases: list[_Case] = field(init=False)
    kills: int = field(init=False, default=0)
    refused: int = field(init=False, default=0)
    executions: int = field(init=False, default=0)
    _interval: float = field(init=False)
    _by_id: dict[JobId, _Case] = field(init=False, factory=dict)
    _pending: dict[JobId, str] = field(init=False, factory=dict)
    _launches: dict[tuple[JobId, int], float] = field(init=False, factory=dict)
    _closed: int = field(init=False, default=0)
    """Cases that nothing more will come of."""
    _faults: int = field(init=False, default=0)
    """Faults that are not over yet."""
    _sha: Any = field(init=False, factory=hashlib.sha256)
    _failure: Failure | None = field(init=False, default=None)
    _script: Content = field(init=False, factory=lambda: Content(blob_of(SCRIPT), SCRIPT))

    def __attrs_post_init__(self) -> None:
        plan = self.plan
        dice = self.random = random.Random(plan.seed)
        arrivals = poisson_arrivals(
            random.Random(dice.getrandbits(64)),
            jobs=plan.jobs,
            nodes=plan.nodes,
            slots=plan.slots,
            load=plan.load,
            mean=plan.length,
            lengths=plan.lengths,
            gateway=plan.gateway,
        )
        self.cases = [
            _Case(number, each, ClientId(f"client{dice.randrange(plan.clients)}"))
            for number, each in enumerate(arrivals)
        ]
        self.network = Network(self.clock, lambda _here, _there: 0.0003 + 0.0004 * dice.random())
        self.group = SimulatedGroup(self.network, random.Random(dice.getrandbits(64)), loss=plan.loss)
        self._interval = Pace().heartbeat(plan.nodes)
        steady = plan.policy == RESERVE_PULL and not (plan.kill or plan.partitions or plan.loss)
        self.checker = ClusterChecker(
            max_hops=0,
            ban_grace=2 * self._interval,
            idle_grace=self._interval if steady else math.inf,
        )
        for number in range(plan.nodes):
            self._add_host(number)
        self.checker.max_hops = next(iter(self.hosts.values())).config.max_hops

    def run(self) -> ClusterFigures:
        """Live through it.

        :raises Violation: an invariant does not hold.
        """
        plan, clock = self.plan, self.clock
        for host in self.hosts.values():
            clock.callLater(self.random.uniform(0.0, 1.0), host.start)
        span = self.cases[-1].arrival.at
        clock.callLater(WARM_UP, self._arrive, 0)
        clock.callLater(WARM_UP, self._look)
        self._plan_faults(span)
        while self._closed < plan.jobs or self._faults:
            if not clock.step() or clock.seconds() > WARM_UP + span + PATIENCE:
                raise Violation(f"{plan.jobs - self._closed} jobs have no outcome after {clock.seconds():.0f} s")
            if self._failure is not None:
                self._failure.raiseException()
        duration = clock.seconds()
        announced = self.group.messages
        clock.advance(QUIET)
        if self._failure is not None:
            self._failure.raiseException()
        nodes = [host.node for host in self.hosts.values()]
        self.checker.converged((node.cluster() for node in nodes), [node.identity.node_id for node in nodes])
        self.checker.settled({name: host.disk.jobs for name, host in self.hosts.items()})
        return self._figures(duration, announced)

    # the cluster

    def _add_host(self, number: int) -> None:
        plan, name = self.plan, f"n{number}"
        address = f"127.{1 + number // 65_536}.{number // 256 % 256}.{number % 256}:7001"
        options: dict[str, Any] = {
            "slots": plan.slots,
            "placement": plan.policy,
            "queue_max": 1_000_000,
            "load_source": "none",
            **dict(plan.options),
        }
        config = NodeConfig(state=Path("/simulated"), name=name, listen=(address,), **options)
        dice = random.Random(self.random.getrandbits(64))
        host = Host(
            name,
            self.clock,
            self.network,
            config,
            lambda launch: self._launched(host, launch),
            SeededEntropy(dice),
            lambda: 0.002 + 0.002 * dice.random(),
            group=self.group,
            observer=lambda offer, answer: self._offered(host, offer, answer),
        )
        host.disk.jobs = ObservedRecords(lambda before, job: self._recorded(name, before, job))
        self.hosts[name] = host

    def _launched(self, host: Host, launch: Launch) -> ScriptPlan:
        case = self._by_id[launch.job_id]
        now = self.clock.seconds()
        self.executions += 1
        self._launches[launch.job_id, launch.attempt] = now
        self._note("launch", host.name, launch.job_id, launch.attempt)
        self.checker.started(host.name, case.client, running=host.machine.live + 1, slots=host.config.slots, now=now)
        return ScriptPlan(duration=case.arrival.length)

    def _offered(self, host: Host, offer: Offer, answer: OfferAnswer) -> None:
        self.checker.offered(NodeId(host.disk.node_id), offer, answer)

    def _recorded(self, name: str, before: Job | None, job: Job) -> None:
        self.checker.recorded(name, before, job)
        if not job.state.terminal or (before is not None and before.state.terminal):
            return
        self._note(job.state, name, job.id)
        case = self._by_id[job.id]
        if job.state is JobState.SUCCEEDED and job.attempt is not None:
            case.end = self._launches[job.id, job.attempt.number] + case.arrival.length
        if job.id in self.checker.acknowledged:
            self._close()

    # jobs

    def _arrive(self, number: int) -> None:
        """Submit the next job, and wait for the one after it."""
        case = self.cases[number]
        self._submit(case)
        if number + 1 < len(self.cases):
            self.clock.callLater(self.cases[number + 1].arrival.at - case.arrival.at, self._arrive, number + 1)

    def _submit(self, case: _Case) -> None:
        """To its node, or to the next that is up, as a client would that knows several."""
        names = list(self.hosts)
        place = case.arrival.node
        host = next((h for i in range(len(names)) if (h := self.hosts[names[(place + i) % len(names)]]).up), None)
        if host is None:
            self.clock.callLater(1.0, self._submit, case)
            return
        case.tries += 1
        key = f"{case.number}.{case.tries}"
        job_id = id_of(case.client, key)
        self._by_id[job_id], self._pending[job_id] = case, host.name
        spec = JobSpec(self._script.blob, qos=QoS.BATCH)
        submitted = host.node.front_door.submit(case.client, Submission(key, spec, (self._script,)))
        submitted.addCallbacks(self._accepted, self._refused, callbackArgs=(host.name,), errbackArgs=(job_id,))
        submitted.addErrback(self._failed)

    def _accepted(self, receipt: Receipt, name: str) -> None:
        job = receipt.job
        del self._pending[job.id]
        self.checker.accepted(name, job.id)
        if self.hosts[name].disk.jobs[job.id].state.terminal:  # it ended before it was acknowledged
            self._close()

    def _refused(self, failure: Failure, job_id: JobId) -> None:
        failure.trap(CloudMyTaskError)
        del self._pending[job_id]
        self.refused += 1
        self._note("refused", type(failure.value).__name__, job_id)
        self._close()

    def _close(self) -> None:
        self._closed += 1
        if self._closed % max(1, self.plan.jobs // 100) == 0:
            self.progress(self._closed, self.plan.jobs)

    # faults

    def _plan_faults(self, span: float) -> None:
        dice, plan = self.random, self.plan
        for name in dice.sample(list(self.hosts), round(plan.kill * plan.nodes)):
            self._later(dice.uniform(0.1, 0.9) * span, self._kill, name, dice.uniform(2.0, 20.0))
        for number in range(plan.partitions):
            begin = (number + dice.random()) / plan.partitions
            self._later(begin * span, self._partition, dice.uniform(5.0, 15.0))
        if plan.ban:
            self._later(0.4 * span, self._ban)

    def _later(self, seconds: float, fault: Callable[..., None], *arguments: object) -> None:
        self._faults += 1
        self.clock.callLater(WARM_UP + seconds, fault, *arguments)

    def _kill(self, name: str, down: float) -> None:
        host = self.hosts[name]
        self.kills += 1
        self._note("kill", name)
        self.checker.excuse()
        if self.random.random() < 0.5:
            host.lose_power()
        else:
            host.kill(flushed=self.random.random() < 0.5)
        self.clock.callLater(down, self._revive, host)
        # Their clients learn nothing of what they had asked for, and ask another node.
        for job_id in [job_id for job_id, there in self._pending.items() if there == name]:
            del self._pending[job_id]
            self._submit(self._by_id[job_id])

    def _revive(self, host: Host) -> None:
        self._note("start", host.name)
        self.checker.excuse()
        host.start()
        self._faults -= 1

    def _partition(self, seconds: float) -> None:
        names = list(self.hosts)
        self.random.shuffle(names)
        middle = self.random.randrange(1, len(names)) if len(names) > 1 else 1
        self._note("partition", middle)
        self.network.paths.partition(names[:middle], names[middle:])
        self.clock.callLater(seconds, self._heal)

    def _heal(self) -> None:
        self.network.paths.partition()
        self._faults -= 1

    def _ban(self) -> None:
        host = self.random.choice([host for host in self.hosts.values() if host.up])
        client = ClientId("client0")
        self._note("ban", host.name)
        banned = host.node.front_door.ban(ClientId("admin"), client, "a flood of jobs", 86_400.0)
        banned.addCallbacks(lambda _: self.checker.banned(client, self.clock.seconds()), self._failed)
        self._faults -= 1

    # observation

    def _look(self) -> None:
        free, waiting = {}, {}
        for name, host in self.hosts.items():
            if host.up:
                free[name] = host.config.slots - host.machine.live
                waiting[name] = sum(host.node.describe().waiting.values())
        self.checker.unused(free, waiting, self.clock.seconds())
        self.clock.callLater(LOOK, self._look)

    def _failed(self, failure: Failure) -> None:
        self._failure = failure

    def _note(self, *what: object) -> None:
        self._sha.update(f"{self.clock.seconds():.9f} {what}\n".encode())

    def _figures(self, duration: float, announced: int) -> ClusterFigures:
        plan = self.plan
        done = [(WARM_UP + case.arrival.at, case) for case in self.cases if case.end is not None]
        jobs = [(at, case.arrival.length) for at, case in done]
        mine = figures(jobs, [case.end or 0.0 for _, case in done], skip=int(plan.warm * len(jobs)))
        ideal = figures(jobs, central_queue(jobs, plan.nodes * plan.slots), skip=int(plan.warm * len(jobs)))
        work = math.fsum(length for _, length in jobs)
        count = max(1, len(jobs))
        self._note("end", len(jobs))
        return ClusterFigures(
            nodes=plan.nodes,
            slots=plan.slots,
            jobs=plan.jobs - self.refused,
            succeeded=len(jobs),
            refused=self.refused,
            cluster=mine,
            ideal=ideal,
            utilization=work / (mine.makespan * plan.nodes * plan.slots) if jobs else 0.0,
            forwards_per_job=self.checker.accepted_offers / count,
            refusals_per_job=self.checker.refused_offers / count,
            messages_per_job=self.network.messages / count,
            announcements=announced / (plan.nodes * duration),
            executions=self.executions,
            kills=self.kills,
            longest_idle=self.checker.longest_idle,
            duration=duration,
            trace=self._sha.hexdigest(),
        )
