"""Lays out what an attempt needs in a directory of its own, before it has any process.

Invariant: a wait for a directory can be cancelled at any moment; a directory is deleted only when the store has
finished with it, so that nothing is written into a directory that is being deleted.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import Factory, define
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from cloudmytask.boundaries import JobStore, Launch
from cloudmytask.deferreds import Signal
from cloudmytask.model.job import AttemptId, Content


@define(eq=False)
class WorkDirectories:
    """The directories of this node's attempts."""

    _store: JobStore
    _under_way: dict[AttemptId, Signal] = Factory(dict)
    """Fired when the store has finished with that directory."""

    def stage(self, launch: Launch, contents: Sequence[Content]) -> Deferred[str]:
        """Make an attempt's directory; its absolute path. Cancelling it ends the wait at once, and not what the store
        does meanwhile.

        :param contents: files that are not durable yet.
        :raises BlobMissing, BlobCorrupt, StoreFailed: there is no directory.
        """
        staged: Deferred[str] = Deferred()
        finished = self._under_way[launch.id] = Signal()

        def made(result: str | Failure) -> None:
            del self._under_way[launch.id]
            staged.callback(result)  # a Failure becomes the errback's
            finished.fire()

        self._store.stage(str(launch.id), launch.files, contents).addBoth(made)
        return staged

    async def remove(self, attempt: AttemptId) -> None:
        """Delete an attempt's directory, if there is one.

        :raises StoreFailed: it stays.
        """
        finished = self._under_way.get(attempt)
        if finished is not None:
            await finished.wait()
        await self._store.unstage(str(attempt))
