"""How the bans of the cluster reach every instance.

A new entry goes at once along the tree, from neighbor to neighbor. An instance that it misses (behind a partition, or
not part of the tree) shows another digest in its announcement, and the two exchange their lists: known everywhere
within two announcement intervals.

Invariant: with one peer there is one exchange at a time, and never more than :data:`EXCHANGES_MAX` at once. An
exchange that failed is begun again by the next announcement that shows another digest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from cloudmytask.boundaries import Clock, DelayedCall, Entropy, Link
from cloudmytask.cluster.blacklist import PAGE, Blacklist
from cloudmytask.model.cluster import Announcement, Ban, NodeId
from cloudmytask.model.errors import CloudMyTaskError

_log = Logger()

DELAY = (0.3, 0.8)
"""In intervals of the peer: after how long its list is asked for. By then it has mostly come along the tree."""
EXCHANGES_MAX = 8


@define(eq=False)
class _Difference:
    digest: str
    """The last that the peer showed."""
    timer: DelayedCall | None = None
    """None while the exchange is under way."""


@define(eq=False)
class BanExchange:
    """Spreads new bans, and exchanges lists with peers that show another digest.

    :ivar neighbors: the links that are open now along which news goes.
    :ivar connect: gives a link to an instance; it is not ours to close.
    """

    _blacklist: Blacklist
    _clock: Clock
    _entropy: Entropy
    _neighbors: Callable[[], Iterable[Link]]
    _connect: Callable[[NodeId], Deferred[Link]]
    _differences: dict[NodeId, _Difference] = field(init=False, factory=dict)
    _ended: bool = field(init=False, default=False)

    def start(self) -> None:
        """From now on what is new goes on to the neighbors."""
        self._blacklist.changes.add(self._spread)

    def stop(self) -> None:
        """Begin no further exchange."""
        self._ended = True
        for difference in self._differences.values():
            if difference.timer is not None:
                difference.timer.cancel()
        self._differences.clear()

    def heard(self, announcement: Announcement) -> None:
        """An instance of our cluster announced itself."""
        peer, digest = announcement.node_id, announcement.bans
        difference = self._differences.get(peer)
        if difference is not None:
            difference.digest = digest
        elif digest != self._blacklist.digest and len(self._differences) < EXCHANGES_MAX and not self._ended:
            delay = announcement.interval * self._entropy.random.uniform(*DELAY)
            timer = self._clock.callLater(delay, self._compare, peer)
            self._differences[peer] = _Difference(digest, timer)

    def _compare(self, peer: NodeId) -> None:
        difference = self._differences[peer]
        difference.timer = None
        if difference.digest == self._blacklist.digest:
            del self._differences[peer]
            return
        exchanged = Deferred.fromCoroutine(self._exchange(peer))
        exchanged.addErrback(_failed, "exchanged").addBoth(lambda _: self._differences.pop(peer, None))

    async def _exchange(self, peer: NodeId) -> None:
        link = await self._connect(peer)
        theirs = await link.exchange_bans(())
        self._blacklist.take(theirs, link)
        await self._give(link, self._blacklist.beyond(theirs))

    async def _give(self, link: Link, bans: Sequence[Ban]) -> None:
        for start in range(0, len(bans), PAGE):
            self._blacklist.take(await link.exchange_bans(bans[start : start + PAGE]), link)

    def _spread(self, news: Sequence[Ban], source: Link | None) -> None:
        for link in self._neighbors():
            if source is None or link.peer.node_id != source.peer.node_id:
                Deferred.fromCoroutine(self._give(link, news)).addErrback(_failed, "spread")


def _failed(failure: Failure, what: str) -> None:
    """A peer that died or sent nonsense: the next announcement is another chance."""
    if failure.check(CloudMyTaskError):
        _log.info("bans could not be {what}: {problem}", what=what, problem=failure.getErrorMessage())
    else:
        _log.failure("bans could not be {what}", failure, what=what)
