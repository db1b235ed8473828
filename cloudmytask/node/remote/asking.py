"""Offers a job to one node until there is an answer, also where an answer is lost.

Invariant: what was offered once and may have been accepted is offered to nobody else before the target has answered,
that life of it is over, or it has let too many offers go unanswered; then :attr:`Asking.uncertain` says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import define, field
from twisted.logger import Logger

from cloudmytask.boundaries import AttemptSink, Link, World
from cloudmytask.core.placement import Peer
from cloudmytask.deferreds import Signal, first_of, pause
from cloudmytask.listeners import Registration
from cloudmytask.model.cluster import BootId, Offer, OfferAnswer
from cloudmytask.model.errors import (
    BlobCorrupt,
    BlobMissing,
    CloudMyTaskError,
    ConnectionInterrupted,
    NoNode,
    RequestTimeout,
)
from cloudmytask.model.job import Blob
from cloudmytask.node.remote.inputs import brought, packed
from cloudmytask.node.roles import Acquaintances

_log = Logger()

RETRY_INTERVAL = 0.5
"""Seconds between attempts to reach a node again."""
UNCERTAIN_MAX = 3
"""How often an offer is made whose answer does not come although its target is there."""


@define(eq=False)
class Asking:
    """Of one offer.

    :ivar sink: follows the attempt, once it is accepted.
    :ivar news: fired when the offer is called off, which ``called_off`` then says.
    """

    _world: World
    _others: Acquaintances
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
