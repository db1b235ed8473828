"""What a node that shuts down does with its waiting jobs: other nodes make them their own.

Invariant: a job is let go only once another node has it on disk; one that nobody takes stays, and is queued again when
this node comes back. Jobs that are to run on this node only, or at most once, or are running, stay as well.
"""

from __future__ import annotations

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from cloudmytask.boundaries import World
from cloudmytask.cluster.member import ClusterMember
from cloudmytask.core.placement import Accounts, Peer
from cloudmytask.core.retention import depart
from cloudmytask.model.errors import CloudMyTaskError, StoreFailed
from cloudmytask.model.job import Job, JobId
from cloudmytask.node.jobs.ledger import Ledger
from cloudmytask.node.jobs.origin import Origin
from cloudmytask.node.remote.inputs import brought

_log = Logger()

AT_ONCE = 8
"""Jobs on their way at a time."""


@define(eq=False)
class Handover:
    """Finds another owner for each waiting job of a node that shuts down."""

    _world: World
    _ledger: Ledger
    _origin: Origin
    _accounts: Accounts
    _others: ClusterMember
    _until: float = field(init=False, default=0.0)

    async def all_waiting(self, patience: float) -> int:
        """Hand over what waits; how many jobs found a new owner within ``patience`` seconds."""
        self._until = self._world.clock.seconds() + patience
        waiting = [
            job
            for job, accepted in self._ledger.open_jobs()
            if accepted and not job.spec.local and not job.spec.at_most_once  # of which a lost answer would make two
        ]
        done: list[JobId] = []
        lines = [Deferred.fromCoroutine(self._one_by_one(waiting[first::AT_ONCE], done)) for first in range(AT_ONCE)]
        for line in lines:
            await line
        if done:
            _log.info("handed over {jobs} waiting jobs", jobs=len(done))
        return len(done)

    async def _one_by_one(self, jobs: list[Job], done: list[JobId]) -> None:
        for job in jobs:
            if self._origin.begin_move(job.id):
                moved = False
                try:
                    moved = await self._to_somebody(job.id)
                except Exception:  # noqa: BLE001 - a bug of ours must not keep the node from ending its scripts
                    _log.failure("job {job_id}: broken hand-over", job_id=job.id)
                self._origin.end_move(job.id, moved=moved)
                done.extend([job.id] if moved else [])

    async def _to_somebody(self, job_id: JobId) -> bool:
        """Offer a job to one node after the other, in random order, those with free slots first."""
        peers = list(self._accounts.peers())
        self._world.entropy.random.shuffle(peers)
        peers.sort(key=lambda peer: self._accounts.free(peer.node_id) == 0)
        for peer in peers:
            job = self._ledger.live(job_id)
            if job is None or self._world.clock.seconds() >= self._until:
                break
            if await self._taken(peer, job):
                return True
        return False

    async def _taken(self, peer: Peer, job: Job) -> bool:
        try:
            if not await self._to(peer, job):
                return False
        except CloudMyTaskError as problem:
            _log.info("{node} did not take job {job_id}: {why}", node=peer.name, job_id=job.id, why=str(problem))
            return False
        try:
            await self._ledger.move(job.id, f"{peer.name} at {peer.address}")
        except StoreFailed as problem:
            _log.error("job {job_id} was handed over, which is not noted: {why}", job_id=job.id, why=str(problem))
        return True

    async def _to(self, peer: Peer, job: Job) -> bool:
        link = await self._others.reach(peer.node_id)
        traveling = depart(job, self._ledger.age())
        answer = await link.hand_over(traveling, ())
        if answer.missing:
            answer = await link.hand_over(traveling, await brought(self._world.store, link, answer.missing))
        return answer.accepted
