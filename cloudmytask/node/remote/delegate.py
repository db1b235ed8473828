"""The attempts of this node's jobs, and of those it relays, that run on other nodes.

Invariant: an attempt that was given up because its executor seemed to be gone is ended there should it come back.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from cloudmytask.boundaries import World
from cloudmytask.model.cluster import Capacity, NodeId
from cloudmytask.model.errors import CloudMyTaskError
from cloudmytask.model.job import AttemptId, Blob, JobSpec, Reason
from cloudmytask.node.remote.inputs import needed
from cloudmytask.node.remote.remote import Remote
from cloudmytask.node.roles import Acquaintances
from cloudmytask.node.running.outputs import Outputs

_log = Logger()

REMEMBERED_MAX = 10_000
"""Blobs that are remembered to be somewhere already, and attempts that were given up."""


@define(eq=False)
class Delegate:
    """The attempts of one node's jobs, and of those it relays, that run elsewhere.

    :ivar learned: told of every picture that an executor sends of its capacity.
    """

    world: World
    outputs: Outputs
    others: Acquaintances
    learned: Callable[[NodeId, Capacity], None]
    remotes: dict[AttemptId, Remote] = field(init=False, factory=dict)
    there: dict[tuple[NodeId, str], None] = field(init=False, factory=dict)
    abandoned: dict[tuple[NodeId, AttemptId], None] = field(init=False, factory=dict)

    @property
    def running(self) -> int:
        """Attempts elsewhere."""
        return len(self.remotes)

    def remote(self, attempt: AttemptId, before_start: Callable[[], Awaitable[None]]) -> Remote:
        """Prepare an attempt."""
        return Remote(self, attempt, before_start)

    def abandon(self, node_id: NodeId, attempt: AttemptId) -> None:
        """That attempt was given up, as its executor seemed to be gone: should it come back, it is told."""
        self.abandoned[node_id, attempt] = None
        while len(self.abandoned) > REMEMBERED_MAX:
            del self.abandoned[next(iter(self.abandoned))]

    def returned(self, node_id: NodeId) -> None:
        """A node that seemed to be gone is back, or is there for the first time."""
        attempts = [attempt for where, attempt in self.abandoned if where == node_id]
        if attempts:
            told = Deferred.fromCoroutine(self._end_abandoned(node_id, attempts))
            told.addErrback(lambda failure: _log.failure("attempts that were given up were not ended", failure))

    async def _end_abandoned(self, node_id: NodeId, attempts: list[AttemptId]) -> None:
        try:
            link = await self.others.link(node_id)
            for attempt in attempts:
                await link.stop_attempt(attempt, Reason.LOST, hurry=True)
                self.abandoned.pop((node_id, attempt), None)
        except CloudMyTaskError as problem:
            _log.info("{node} was not told what was given up: {why}", node=node_id, why=str(problem))

    def unknown_to(self, node_id: NodeId, spec: JobSpec) -> list[Blob]:
        """Which of a job's blobs are not known to be there."""
        return [blob for blob in needed(spec) if (node_id, blob.digest) not in self.there]

    def remember(self, node_id: NodeId, spec: JobSpec) -> None:
        """The blobs of a job are there now."""
        for blob in needed(spec):
            self.there[node_id, blob.digest] = None
        while len(self.there) > REMEMBERED_MAX:
            del self.there[next(iter(self.there))]
