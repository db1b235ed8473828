"""What has happened to a job cannot be refused by the disk: it is tried until the disk takes it.

Invariant: a node that shuts down tries once more and gives up: on disk the job is without outcome then, and runs again
after the next start.
"""

from __future__ import annotations

from attrs import define
from twisted.logger import Logger

from cloudmytask.boundaries import World
from cloudmytask.core.backoff import Backoff
from cloudmytask.deferreds import first_of, pause
from cloudmytask.model.errors import StoreFailed
from cloudmytask.model.job import JobId
from cloudmytask.node.jobs.ledger import Ledger
from cloudmytask.node.roles import Door

_log = Logger()

STORE_RETRY = Backoff(first=0.5, factor=2.0, ceiling=30.0)
"""Between attempts to make an outcome durable on a disk that refuses."""


@define(eq=False)
class SaveRetry:
    """See the module."""

    _world: World
    _door: Door
    _ledger: Ledger

    async def insist(self, identity: JobId, problem: StoreFailed) -> None:
        """Make the job's record durable, after a first attempt that failed with ``problem``."""
        tries = 0
        while self._ledger.live(identity) is not None:  # not so if another save of it went before us
            last = self._door.draining
            tries += 1
            delay = 0.0 if last else STORE_RETRY.delay(tries, self._world.entropy.random.random())
            _log.error(
                "job {job_id}: not durable ({problem}); next try in {delay:.1f} s",
                job_id=identity,
                problem=str(problem),
                delay=delay,
            )
            await first_of(self._door.closing.wait(), pause(self._world.clock, delay))
            try:
                await self._ledger.resave(identity)
            except StoreFailed as again:
                problem = again
            else:
                return
            if last:
                _log.error("job {job_id}: given up, it runs again after the next start", job_id=identity)
                return
