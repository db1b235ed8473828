"""What a node that shuts down does with its waiting jobs: other nodes make them their own.

Invariant: a job is let go only once another node has it on disk; one that nobody takes stays, and is queued again when
this node comes back. Jobs that are to run on this node only, or at most once, or are running, stay as well.
"""

from __future__ import annotations

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from cloudmytask.boundaries import World
from cloudmytask.core.placement import Accounts, Peer
from cloudmytask.errors import CloudMyTaskError
from cloudmytask.model import Job, JobState
from cloudmytask.node.ledger import Ledger
from cloudmytask.node.luggage import brought
from cloudmytask.node.roles import Acquaintances, Placement

_log = Logger(namespace="cloudmytask.handover")

AT_ONCE = 8
"""Jobs on their way at a time."""


@define(eq=False)
class Handover:
    """See the module."""

    _world: World
    _ledger: Ledger
    _placement: Placement
    _accounts: Accounts
    _others: Acquaintances
    _until: float = field(init=False, default=0.0)

    async def all_waiting(self, patience: float) -> int:
        """Hand over what waits; how many jobs found a new owner within ``patience`` seconds."""
        self._until = self._world.clock.seconds() + patience
        waiting = [
            job
            for job, accepted in self._ledger.open_jobs()
            if accepted
            and job.state in (JobState.PENDING, JobState.WAITING)
            and not job.spec.local
            and not job.spec.at_most_once  # should the answer be lost, two nodes would own it
            and self._placement.holds(job.id) in ("queue", None)
        ]
        counts = [0]
        lines = [Deferred.fromCoroutine(self._one_by_one(waiting[first::AT_ONCE], counts)) for first in range(AT_ONCE)]
        for line in lines:
            await line
        if waiting:
            _log.info("handed over {done} of {all} waiting jobs", done=counts[0], all=len(waiting))
        return counts[0]

    async def _one_by_one(self, jobs: list[Job], counts: list[int]) -> None:
        for job in jobs:
            live = self._ledger.live(job.id)
            if live is not None and live.state in (JobState.PENDING, JobState.WAITING):
                counts[0] += await self._to_somebody(live)

    async def _to_somebody(self, job: Job) -> bool:
        """Offer a job to one node after the other, in random order."""
        peers = list(self._accounts.peers())
        self._world.entropy.random.shuffle(peers)
        peers.sort(key=lambda peer: self._accounts.free(peer.node_id) == 0)
        for peer in peers:
            if self._world.clock.seconds() >= self._until:
                break
            try:
                if await self._to(peer, job):
                    self._placement.withdraw(job.id)
                    await self._ledger.move(job.id, f"{peer.name} at {peer.address}")
                    return True
            except CloudMyTaskError as problem:
                _log.info(
                    "job {job_id} could not be handed over to {node}: {why}",
                    job_id=job.id,
                    node=peer.name,
                    why=str(problem),
                )
        return False

    async def _to(self, peer: Peer, job: Job) -> bool:
        link = await self._others.link(peer.node_id)
        answer = await link.hand_over(job, ())
        if answer.missing:
            answer = await link.hand_over(job, await brought(self._world.store, link, answer.missing))
        return answer.accepted
