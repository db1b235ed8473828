"""The history of load that a CSU keeps: samples from what the nodes announce.

Invariant: a sample that cannot be stored is logged and lost, and the next is taken all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from cloudmytask.boundaries import Clock, WallClock
from cloudmytask.boundaries.supervision import SupervisionStore
from cloudmytask.csu.registry import INSTANCES_MAX, Registry
from cloudmytask.model.cluster import Announcement, LoadSample
from cloudmytask.model.errors import StoreFailed
from cloudmytask.periodic import Periodic, every

_log = Logger()

PRUNE_EVERY = 60.0
"""Seconds between two looks for what is too old."""
POINTS_MAX = 2000
"""Samples in one answer; where there are more, they are thinned over the whole time."""


@define(eq=False)
class History:
    """Takes samples of what the nodes announce, and answers questions about them.

    :ivar nodes: what the nodes that are alive announced last.
    :ivar interval: seconds between two samples; ``kept``: seconds for which they are kept.
    """

    _clock: Clock
    _wall: WallClock
    _store: SupervisionStore
    _registry: Registry
    _nodes: Callable[[], Iterable[Announcement]]
    _interval: float
    _kept: float
    _series: list[Periodic] = field(init=False, factory=list)

    def begin(self) -> None:
        """Take samples from now on."""
        self._series = [
            every(self._clock, self._interval, self.sample),
            every(self._clock, max(PRUNE_EVERY, self._interval), self.prune),
        ]

    def stop(self) -> None:
        """Take no more samples. Idempotent."""
        for series in self._series:
            series.stop()

    async def flush(self) -> None:
        """Write down what is known of the instances."""
        await self._record(())

    async def sample(self) -> None:
        """Note how busy each node is now, and what changed in the registry."""
        at = self._wall()
        await self._record(
            tuple(
                LoadSample(
                    at=at,
                    node=each.name,
                    load=each.capacity.load,
                    slots=each.capacity.slots,
                    free=each.capacity.free,
                    waiting=each.backlog.total,
                )
                for each in self._nodes()
            )
        )

    async def prune(self) -> None:
        """Forget what is too old."""
        await self._store.prune(self._wall() - self._kept, INSTANCES_MAX)

    def last(self, seconds: float) -> Deferred[tuple[LoadSample, ...]]:
        """The samples of the last ``seconds``, oldest first, :data:`POINTS_MAX` at most."""
        now = self._wall()
        return self._store.samples(now - min(seconds, self._kept), now, POINTS_MAX)

    async def _record(self, samples: tuple[LoadSample, ...]) -> None:
        changed = self._registry.take_changed()
        if not samples and not changed:
            return
        try:
            await self._store.record(samples, changed)
        except StoreFailed as problem:
            self._registry.changed_again(changed)
            _log.error("a sample of the load is lost: {problem}", problem=str(problem))
