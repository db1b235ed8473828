"""What a node offers to clients (``boundaries.ClusterDoor``, ``JobDoor``): each call goes to the part that it concerns.

Invariant: no policy of its own; the client at the other end has been identified.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attrs import frozen
from twisted.internet.defer import Deferred

from cloudmytask.boundaries import Event, OutputReader, Receipt, Submission, Upload, Watch, World
from cloudmytask.cluster.member import ClusterMember
from cloudmytask.core.explain import explain
from cloudmytask.listeners import Registration
from cloudmytask.model.cluster import Ban, ClusterView, LoadSample
from cloudmytask.model.errors import NodeDraining, NotSupervised
from cloudmytask.model.job import (
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
from cloudmytask.node.gate import Gate
from cloudmytask.node.jobs.acceptance import Acceptance
from cloudmytask.node.jobs.ledger import Ledger
from cloudmytask.node.jobs.origin import Origin
from cloudmytask.node.remote.inputs import receive
from cloudmytask.node.running.outputs import Outputs, Reader


@frozen(eq=False)
class NodeFrontDoor:
    """Implements ``boundaries.ClusterDoor`` and ``JobDoor`` for a node.

    :ivar describe: the node's picture of itself. :ivar cluster: all instances as this node sees them.
    """

    _world: World
    _gate: Gate
    _ledger: Ledger
    _outputs: Outputs
    _acceptance: Acceptance
    _origin: Origin
    _cluster_member: ClusterMember
    describe: Callable[[], NodeStatus]
    cluster: Callable[[], ClusterView]

    # ClusterDoor

    def jobs_of(self) -> NodeFrontDoor:
        return self

    def bans(self) -> tuple[Ban, ...]:
        return self._cluster_member.blacklist.bans()

    def ban(self, by: ClientId, client: ClientId, reason: str, term: float) -> Deferred[Ban]:
        return self._cluster_member.blacklist.ban(by, client, reason, term)

    def lift_ban(self, by: ClientId, client: ClientId) -> Deferred[Ban]:
        return self._cluster_member.blacklist.lift(by, client)

    def history(self, seconds: float) -> Deferred[tuple[LoadSample, ...]]:  # noqa: ARG002 - none is kept
        raise NotSupervised("this instance is a node and keeps no history of load; a CSU does")

    def follow(self, client: ClientId | None, told: Callable[[Event], None]) -> Watch:
        def changed(job: Job) -> None:
            if client is None or job.client == client:
                told(job)

        jobs, cluster = self._ledger.published.add(changed), self._cluster_member.follow(told)

        def close() -> None:
            jobs.close()
            cluster.close()

        return Registration(close)

    def admit(self, client: ClientId, size: int) -> float:
        return self._gate.admit(client, size)

    def malformed(self, client: ClientId) -> None:
        self._gate.malformed(client)

    # JobDoor

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
                if signal is None:  # its note that it has moved is not on disk yet, or the disk refused it
                    raise NodeDraining(f"job {job_id} is being handed over to another node; ask again in a moment")
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
            return await receive(self._world, self._gate, blob)

        return Deferred.fromCoroutine(upload())
