"""One node and a few clients through a long, eventful time: submits, cancels, timeouts, kills, restarts, clock steps.

Invariant: everything follows from the seed. The trace is a digest over what happened and when; equal seeds give equal
traces in any process.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from cloudmytask.boundaries import Launch
from cloudmytask.client.node_client import NodeClient
from cloudmytask.client.sources import Source
from cloudmytask.config import NodeConfig
from cloudmytask.core.job_id import job_id as id_of
from cloudmytask.model.errors import CloudMyTaskError, JobExpired
from cloudmytask.model.job import ClientId, JobId, JobSpec, QoS, StreamName
from cloudmytask.simulation.clock import VirtualClock
from cloudmytask.simulation.host import Host, SeededEntropy
from cloudmytask.simulation.invariants import HostChecker, PromiseChecker
from cloudmytask.simulation.network import Network
from cloudmytask.simulation.runner import ScriptPlan

RETENTION = 120.0
"""Seconds; short, so that jobs expire within the run."""
PATIENCE = 20_000.0
"""Virtual seconds within which everything must have settled."""


class Scenario:
    """See the module.

    :param kills: how often the node is killed or restarted.
    """

    def __init__(self, seed: int, *, jobs: int = 1000, clients: int = 3, slots: int = 4, kills: int = 12) -> None:
        self.jobs, self.clients, self.kills = jobs, clients, kills
        self.counts: Counter[str] = Counter()
        """What happened how often: a run in which nothing happens proves nothing."""
        self.random = random.Random(seed)
        self._sha = hashlib.sha256()
        self.clock = VirtualClock()
        network = Network(self.clock, lambda _here, _there: self.random.uniform(0.0002, 0.002))
        config = NodeConfig(
            state=Path("/simulated"),
            name="node",
            slots=slots,
            queue_max=200,
            retention=RETENTION,
            retention_max=RETENTION,
            tombstones=100_000.0,
            load_source="none",
        )
        entropy = SeededEntropy(random.Random(self.random.random()))
        self.host = Host(
            "node", self.clock, network, config, self._plan, entropy, lambda: self.random.uniform(0.001, 0.02)
        )
        self.checker = HostChecker(self.host)
        self.promises = PromiseChecker()
        self._at_work = 0
        self._late = 0.1
        """Seconds by which an expiry may be late: answers travel, and no clock counts the time that the node is down
        for certain."""
        self._failure: Failure | None = None

    def run(self) -> str:
        """Live through it; the trace's digest.

        :raises Violation: an invariant does not hold.
        """
        self.host.start()
        for number in range(self.clients):
            share = self.jobs // self.clients + (number < self.jobs % self.clients)
            self._spawn(self._submit_all(f"client{number}", share))
        if self.kills:
            self.clock.callLater(self.random.uniform(5.0, 20.0), self._disturb, self.kills)
        steps = 0
        while self._at_work and self.clock.seconds() < PATIENCE and self.clock.step():
            if self._failure is not None:
                self._failure.raiseException()
            self.checker.check()
            steps += 1
            if steps % 10 == 0:
                self.checker.check_places()
            if steps % 500 == 0:
                self.checker.check_disk()
        self.checker.check_disk()
        self.promises.settled(self.host)
        self._note("end", len(self.host.disk.jobs))
        return str(self._sha.hexdigest())

    def _plan(self, launch: Launch) -> ScriptPlan:
        """What a script does is decided by the dice when it starts."""
        dice = self.random
        self._note("launch", launch.id.job, launch.id.number)
        kind = dice.random()
        if kind < 0.03:
            return ScriptPlan(launch_failure="no such interpreter")
        pieces = tuple(
            (dice.uniform(0.0, 2.0), dice.choice(tuple(StreamName)), b"x" * dice.randrange(1, 3000))
            for _ in range(dice.randrange(3))
        )
        return ScriptPlan(
            duration=None if kind < 0.08 else dice.expovariate(0.5),
            exit_code=dice.choice((0, 0, 0, 1, 3)),
            signal=11 if kind > 0.97 else None,
            output=pieces,
            term_delay=dice.choice((0.0, 0.1, None)),
            term_exit_code=dice.choice((None, 0)),
        )

    async def _submit_all(self, name: str, share: int) -> None:
        dice = self.random
        done = 0
        while done < share:
            await self._sleep(dice.expovariate(2.0))
            try:
                node = await self.host.connect(name, name)
            except CloudMyTaskError as problem:
                self._note(name, "no node", problem.name)
                continue
            while done < share and node.connected:
                await self._sleep(dice.expovariate(2.0))
                done += await self._submit_one(name, node)

    async def _submit_one(self, name: str, node: NodeClient) -> bool:
        """Submit one job and follow it; whether it was acknowledged."""
        dice = self.random
        source = Source.of_bytes(b"script %d" % dice.randrange(20))
        spec = JobSpec(
            script=source.blob,
            qos=dice.choice(tuple(QoS)),
            timeout=dice.choice((None, 5.0, 20.0)) if dice.random() < 0.9 else 0.5,
            retries=dice.choice((0, 0, 0, 2)),
            at_most_once=dice.random() < 0.2,
        )
        key = f"{dice.getrandbits(64):x}"
        twice = dice.random() < 0.1
        try:
            job = await node.submit(spec, source, key=key)
            self._accepted(job.id)
            if twice:
                again = await node.submit(spec, source, key=key)
                assert again.id == job.id == id_of(ClientId(name), key)
        except CloudMyTaskError as problem:
            self._note(name, "refused", problem.name)
            self.counts["refused " + problem.name] += 1
            return False
        forever = spec.timeout is None
        self._spawn(self._follow(name, job.id, cancel=forever or dice.random() < 0.1))
        return True

    async def _follow(self, name: str, job_id: JobId, *, cancel: bool) -> None:
        """Ask after a job until it is gone; cancel it on the way if need be."""
        dice = self.random
        cancel_at = self.clock.seconds() + dice.expovariate(0.05)
        while True:
            await self._sleep(dice.uniform(5.0, 60.0))
            try:
                node = await self.host.connect(name, name)
                try:
                    if cancel and self.clock.seconds() > cancel_at:
                        await node.cancel(job_id)
                        cancel = False
                    status = await node.getScriptJobStatus(job_id)
                    now = self.clock.seconds()
                    self.counts[status.state.value] += job_id not in self.promises.outcomes
                    self.promises.told(status, now, RETENTION + self._late)
                    self._note(name, job_id, status.state, status.exit_code)
                    if status.state.terminal:
                        self._note(name, job_id, "output", await self._read(node, job_id))
                finally:
                    node.close()
            except JobExpired:
                return
            except CloudMyTaskError as problem:
                self._note(name, job_id, problem.name)

    async def _read(self, node: NodeClient, job_id: JobId) -> int:
        """How many bytes of output there are."""
        size = 0

        def write(_stream: StreamName, data: bytes) -> None:
            nonlocal size
            size += len(data)

        await node.output(job_id, write)
        return size

    def _disturb(self, left: int) -> None:
        """Kill or restart the node, perhaps while the wall clock steps."""
        dice = self.random
        if dice.random() < 0.3:
            step = dice.choice((3600.0, -3600.0))
            self.clock.offset += step
            # after a step back, the next start cannot tell how long ago the last checkpoint was
            self._late += self.host.config.sweep_interval
            self._note("wall clock", step)
        if dice.random() < 0.7:
            self.host.kill(flushed=dice.random() < 0.5)
            self.counts["kills"] += 1
            self._note("kill")
            self._revive_later(dice.uniform(0.1, 5.0), left - 1)
        else:
            self.counts["drains"] += 1
            self._note("stop")
            self.host.stop().addCallback(lambda _: self._revive_later(1.0, left - 1))

    def _revive_later(self, seconds: float, left: int) -> None:
        self._late += seconds
        self.clock.callLater(seconds, self._revive, left)

    def _revive(self, left: int) -> None:
        self._note("start")
        self.host.start()
        if left:
            self.clock.callLater(self.random.uniform(10.0, 60.0), self._disturb, left)

    def _accepted(self, job_id: JobId) -> None:
        self.promises.accepted(job_id, self.clock.seconds())
        self._note("accepted", job_id)

    def _sleep(self, seconds: float) -> Deferred[None]:
        slept: Deferred[None] = Deferred()
        self.clock.callLater(seconds, slept.callback, None)
        return slept

    def _spawn(self, work: Coroutine[Deferred[Any], Any, None]) -> None:
        def ended(result: object) -> None:
            self._at_work -= 1
            if isinstance(result, Failure):
                self._failure = result

        self._at_work += 1
        Deferred.fromCoroutine(work).addBoth(ended)

    def _note(self, *what: object) -> None:
        self._sha.update(f"{self.clock.seconds():.9f} {what}\n".encode())
