"""One task processing service instance (the paper's TPSI), composed from its roles; offers ``boundaries.FrontDoor``.

Invariant: it contains wiring and the order of its end, no other policy and no reactor: whoever builds it hands it a
world.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from cloudmytask.boundaries import OutputReader, Receipt, Submission, Upload, Watch, World
from cloudmytask.config import NodeConfig
from cloudmytask.core.explain import explain
from cloudmytask.core.queue import WaitingQueue
from cloudmytask.core.retention import RetentionClock
from cloudmytask.model import (
    Blob,
    ClientId,
    Explanation,
    Job,
    JobId,
    JobPage,
    JobQuery,
    NodeStatus,
    StreamName,
)
from cloudmytask.node import uploads
from cloudmytask.node.acceptance import Acceptance
from cloudmytask.node.executor import Executor
from cloudmytask.node.gate import Gate
from cloudmytask.node.ledger import Ledger
from cloudmytask.node.origin import Origin
from cloudmytask.node.outputs import Outputs, Reader
from cloudmytask.node.upkeep import Upkeep
from cloudmytask.periodic import Periodic, every
from cloudmytask.version import VERSION

_log = Logger(namespace="cloudmytask.node")

PLACE_INTERVAL = 1.0
"""Seconds between looks at the load on behalf of waiting idle-class jobs."""


class Node:
    """See the module. ``start`` before anything else; ``drain`` ends it."""

    def __init__(self, world: World, config: NodeConfig, boot_id: str) -> None:
        recovery = world.store.recover()
        now, wall = world.clock.seconds(), world.wall()
        retention = RetentionClock.resume(recovery.age, recovery.checkpoint_at, now, wall)
        self._world, self._config = world, config
        self._node_id, self._boot_id, self._started = recovery.node_id, boot_id, now
        self._gate = Gate(config.name)
        self._ledger = Ledger(world, retention, recovery.next_sequence, config.tombstones)
        self._outputs = Outputs(world.store, config.output_max)
        self._executor = Executor(world, config, self._outputs)
        self._queue = WaitingQueue(config.queue_max)
        self._origin = origin = Origin(world, config, self._gate, self._ledger, self._executor, self._queue)
        self._acceptance = Acceptance(
            world, config, self._gate, self._ledger, self._executor, self._queue, origin.enqueue, origin.withdraw
        )
        self._upkeep = Upkeep(world, self._ledger, config.sweep_interval)
        self._recovered = recovery.jobs
        self._placing: Periodic | None = None

    @property
    def busy(self) -> bool:
        """Whether scripts are running."""
        return self._executor.running > 0

    def whereabouts(self) -> dict[JobId, list[str]]:
        """In which places each open job is; exactly one, or something is wrong."""
        return self._origin.whereabouts()

    def start(self) -> None:
        """Take over what an earlier life left, and begin to work."""
        jobs, self._recovered = self._recovered, ()
        self._origin.resume(jobs)
        self._upkeep.begin()
        self._placing = every(self._world.clock, PLACE_INTERVAL, self._origin.place)

    def drain(self) -> Deferred[None]:
        """Refuse new work, give running scripts ``drain_timeout`` to end, interrupt the rest, and flush."""
        return Deferred.fromCoroutine(self._drain())

    def stop_now(self) -> None:
        """Cut a drain short: running scripts are killed; their jobs run again after the next start."""
        self._gate.close()
        self._executor.kill()

    # boundaries.FrontDoor

    def identify(self, claim: str) -> ClientId:
        return self._gate.identify(claim)

    def describe(self) -> NodeStatus:
        return NodeStatus(
            name=self._config.name,
            node_id=self._node_id,
            boot_id=self._boot_id,
            version=VERSION,
            slots=self._config.slots,
            running=self._executor.running,
            waiting=self._queue.counts(),
            queue_max=self._config.queue_max,
            load=self._world.probe.load(),
            draining=self._gate.draining,
            uptime=self._world.clock.seconds() - self._started,
            script_max=self._config.script_max,
        )

    def submit(self, client: ClientId, submission: Submission) -> Deferred[Receipt]:
        return Deferred.fromCoroutine(self._acceptance.submit(client, submission))

    def status(self, client: ClientId, job_id: JobId) -> Deferred[Job]:
        return self._ledger.find(client, job_id)

    def cancel(self, client: ClientId, job_id: JobId, note: str) -> Deferred[Job]:
        async def cancel() -> Job:
            return await self._origin.cancel(await self._ledger.find_kept(client, job_id), note)

        return Deferred.fromCoroutine(cancel())

    def retry(self, client: ClientId, job_id: JobId, key: str) -> Deferred[Receipt]:
        async def retry() -> Receipt:
            return await self._acceptance.retry(client, await self._ledger.find_kept(client, job_id), key)

        return Deferred.fromCoroutine(retry())

    def remove(self, client: ClientId, job_id: JobId) -> Deferred[Job]:
        return Deferred.fromCoroutine(self._ledger.remove(client, job_id))

    def jobs(self, client: ClientId, query: JobQuery) -> Deferred[JobPage]:
        return Deferred.fromCoroutine(self._ledger.newest(client, query))

    def explain(self, client: ClientId, job_id: JobId) -> Deferred[Explanation]:
        async def answer() -> Explanation:
            job = await self._ledger.find(client, job_id)
            return explain(job, self._origin.surroundings(job))

        return Deferred.fromCoroutine(answer())

    def watch(self, client: ClientId, job_id: JobId, changed: Callable[[Job], None]) -> Deferred[tuple[Job, Watch]]:
        async def watch() -> tuple[Job, Watch]:
            job = await self._ledger.find(client, job_id)
            return job, self._ledger.watch(job, changed)

        return Deferred.fromCoroutine(watch())

    def output(
        self, client: ClientId, job_id: JobId, attempt: int, offsets: Mapping[StreamName, int], follow: bool
    ) -> Deferred[OutputReader]:
        async def output() -> OutputReader:
            await self._ledger.find_kept(client, job_id)

            def changed() -> Deferred[None]:
                signal = self._ledger.signal(job_id)
                assert signal is not None, "a job without outcome is live"
                return signal.wait()

            return Reader(
                self._outputs,
                self._world.store,
                lambda: self._ledger.find_kept(client, job_id),
                changed,
                attempt,
                dict(offsets),
                follow,
            )

        return Deferred.fromCoroutine(output())

    def upload(self, client: ClientId, blob: Blob) -> Deferred[Upload | None]:  # noqa: ARG002 - quotas will need it
        async def upload() -> Upload | None:
            self._gate.admit_work()
            return await uploads.begin(self._world, blob)

        return Deferred.fromCoroutine(upload())

    async def _drain(self) -> None:
        self._gate.close()
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
        await self._upkeep.end()
