"""What a node does again and again: expires what is due, frees what nobody needs, remembers how old it is.

Invariant: a sweep that fails is logged and tried again; none is under way once :meth:`Upkeep.end` has fired.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from attrs import Factory, define, field
from twisted.logger import Logger

from cloudmytask.boundaries import World
from cloudmytask.deferreds import Signal
from cloudmytask.model.errors import StoreFailed
from cloudmytask.model.job import Digest, Job, JobId, JobState
from cloudmytask.node.jobs.ledger import Ledger
from cloudmytask.periodic import Periodic, every

_log = Logger()

SWEEP_BATCH = 200
"""Records that one sweep takes in hand at a time."""


@define(eq=False)
class Upkeep:
    """Sweeps every ``interval`` seconds.

    :ivar needed: blobs that others than this node's own jobs need.
    """

    _world: World
    _ledger: Ledger
    _interval: float
    _needed: Callable[[], Iterable[Digest]] = tuple
    _series: Periodic | None = field(init=False, default=None)
    _sweeping: bool = field(init=False, default=False)
    _swept: Signal = field(init=False, default=Factory(Signal))

    def begin(self) -> None:
        """From now on the wall clock can tell how long a death lasted, even one before the first sweep."""
        checkpoint = self._world.store.checkpoint(self._ledger.age(), self._world.wall())
        checkpoint.addErrback(lambda failure: _log.failure("the retention clock could not be stored", failure))
        self._series = every(self._world.clock, self._interval, self.sweep)

    async def sweep(self) -> None:
        """Expire what is due, forget old tombstones, free unreferenced blobs, remember the retention clock."""
        self._sweeping = True
        try:
            await self._sweep()
        finally:
            self._sweeping = False
            self._swept.fire()

    async def end(self) -> None:
        """Start no further sweep, and wait for one that is under way; then remember the retention clock."""
        if self._series is not None:
            self._series.stop()
        while self._sweeping:
            await self._swept.wait()
        await self._world.store.checkpoint(self._ledger.age(), self._world.wall())

    async def _swept_job(self, job: Job) -> None:
        if job.state is JobState.EXPIRED:
            await self._world.store.forget(job.id)
        else:
            await self._ledger.expire(job, removed=False)

    async def _sweep(self) -> None:
        store, age = self._world.store, self._ledger.age()
        broken: set[JobId] = set()
        while due := [job for job in await store.due(age, SWEEP_BATCH + len(broken)) if job.id not in broken]:
            for job in due:
                try:
                    await self._swept_job(job)
                except StoreFailed:
                    raise
                except Exception:  # noqa: BLE001 - a bug of ours, which must not keep the others
                    _log.failure("job {job_id} has fallen due and cannot be swept", job_id=job.id)
                    broken.add(job.id)
        await store.collect((*self._ledger.digests(), *self._needed()))
        await store.checkpoint(self._ledger.age(), self._world.wall())
