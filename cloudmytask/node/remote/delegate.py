"""Offers jobs to other nodes: this node's own, and those it relays.

Invariant: what was offered once and may have been accepted is offered to nobody else before the target has answered,
that life of it is over, or it has let too many offers go unanswered; then :attr:`Asking.uncertain` says so. An attempt
that was given up because its executor seemed to be gone is ended there should it come back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from cloudmytask.boundaries import AttemptSink, Link, World
from cloudmytask.cluster.member import ClusterMember
from cloudmytask.core.membership import Member
from cloudmytask.core.placement import Peer
from cloudmytask.deferreds import Signal, first_of, pause
from cloudmytask.listeners import Listeners, Registration
from cloudmytask.model.cluster import BootId, Capacity, NodeId, Offer, OfferAnswer, Standing
from cloudmytask.model.errors import (
    BlobCorrupt,
    BlobMissing,
    CloudMyTaskError,
    ConnectionInterrupted,
    NoNode,
    RequestTimeout,
)
from cloudmytask.model.job import AttemptId, Blob, JobSpec, Reason
from cloudmytask.node.remote.inputs import brought, needed, packed
from cloudmytask.node.running.outputs import Outputs

_log = Logger()

REMEMBERED_MAX = 10_000
"""Blobs that are remembered to be somewhere already, and attempts that were given up."""
RETRY_INTERVAL = 0.5
"""Seconds between attempts to reach a node again."""
UNCERTAIN_MAX = 3
"""How often an offer is made whose answer does not come although its target is there."""


@define(eq=False)
class Delegate:
    """What is known of the other nodes for that: which blobs are there, and which attempts were given up.

    :ivar learned: told of every picture that an executor sends of its capacity.
    """

    world: World
    outputs: Outputs
    others: ClusterMember
    learned: Callable[[NodeId, Capacity], None]
    attempts: set[AttemptId] = field(init=False, factory=set)
    """Those that run elsewhere now."""
    there: dict[tuple[NodeId, str], None] = field(init=False, factory=dict)
    abandoned: dict[tuple[NodeId, AttemptId], BootId | None] = field(init=False, factory=dict)
    """With the life of that node that had it, if that is known."""
    died: Listeners[[AttemptId]] = field(init=False, factory=Listeners)
    """Told of such an attempt when its node is back in another life."""

    @property
    def running(self) -> int:
        """Attempts elsewhere."""
        return len(self.attempts)

    def abandon(self, node_id: NodeId, attempt: AttemptId, boot: BootId | None = None) -> None:
        """That attempt was given up, as its executor seemed to be gone: should it come back, it is told."""
        self.abandoned[node_id, attempt] = boot
        while len(self.abandoned) > REMEMBERED_MAX:
            del self.abandoned[next(iter(self.abandoned))]

    def changed(self, member: Member) -> None:
        """A node that seemed to be gone may be back."""
        node_id = member.node_id
        if member.standing is not Standing.ALIVE:
            return
        attempts = [attempt for where, attempt in self.abandoned if where == node_id]
        for attempt in attempts:
            boot = self.abandoned[node_id, attempt]
            if boot is not None and member.announcement.boot_id > boot:
                self.died.tell(attempt)
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


@define(eq=False)
class Asking:
    """Of one offer.

    :ivar sink: follows the attempt, once it is accepted.
    :ivar news: fired when the offer is called off, which ``called_off`` then says.
    """

    _world: World
    _others: ClusterMember
    _sink: AttemptSink
    _news: Signal
    _called_off: Callable[[], bool]
    uncertain: bool = field(init=False, default=False)
    """It was given up, and may have been accepted all the same."""
    _boot: BootId | None = field(init=False, default=None)
    """Of the target, since it was asked for the first time."""
    _interest: Registration | None = field(init=False, default=None)
    _over: Signal = field(init=False, factory=Signal)

    async def until_answered(self, peer: Peer, offer: Offer, riding: Sequence[Blob]) -> tuple[Link, OfferAnswer] | None:
        """The answer, and the link that it came by. An offer that is made again changes nothing at the target.

        :param riding: blobs that the target may not have; those that are small go along.
        :raises BlobMissing, BlobCorrupt: one cannot be read here, so that no node will ever get it.
        """
        try:
            for _ in range(UNCERTAIN_MAX):
                try:
                    link = await self._others.link(peer.node_id)
                    if self._boot not in (None, link.peer.boot_id):
                        return None  # it was started again, and knows nothing of it
                    return link, await self._asked(link, offer, riding)
                except (BlobMissing, BlobCorrupt):
                    raise
                except CloudMyTaskError as problem:
                    _log.info(
                        "attempt {attempt} could not be offered to {node}: {problem}",
                        attempt=offer.attempt,
                        node=peer.name,
                        problem=str(problem),
                    )
                    if self._boot is None or not isinstance(problem, ConnectionInterrupted | RequestTimeout | NoNode):
                        return None
                gone = self._over.wait()
                paused = pause(self._world.clock, RETRY_INTERVAL)
                if await first_of(gone, self._news.wait(), paused) is gone or self._called_off():
                    break
            self.uncertain = True
            return None
        finally:
            if self._interest is not None:
                self._interest.close()

    async def _asked(self, link: Link, offer: Offer, riding: Sequence[Blob]) -> OfferAnswer:
        store = self._world.store
        contents = await packed(store, riding)
        if self._interest is None:
            self._boot = link.peer.boot_id
            self._interest = self._others.watch(link.peer.node_id, self._boot, self._over.fire)
        answer = await link.offer(offer, contents, self._sink)
        if answer.missing:
            answer = await link.offer(offer, await brought(store, link, answer.missing), self._sink)
        return answer
