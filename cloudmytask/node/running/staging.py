"""Lays out what an attempt needs in a directory of its own, before it has any process.

Invariant: whoever waits for a directory can stop waiting at any moment; it is deleted only when the store has finished
with it, so that nothing is written into a directory that is being deleted.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import Factory, define, frozen
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from cloudmytask.boundaries import JobStore
from cloudmytask.deferreds import Signal
from cloudmytask.model.job import Assignment, AttemptId, Blob, Content, JobSpec

STDIN_NAME = ".cmt-stdin"
"""File in the work directory that standard input is read from."""


@frozen
class Staged:
    """A directory in which a script can be started."""

    directory: str
    """Absolute path."""
    stdin: str | None
    """Absolute path of the file to read standard input from, if there is any."""


@define(eq=False)
class WorkDirectories:
    """The directories of this node's attempts."""

    _store: JobStore
    _under_way: dict[AttemptId, Signal] = Factory(dict)
    """Fired when the store has finished with that directory."""

    def stage(self, assignment: Assignment, contents: Sequence[Content]) -> Deferred[Staged]:
        """Make an attempt's directory. Cancelling it ends the wait at once, and not what the store does meanwhile.

        :param contents: inputs that are not durable yet.
        :raises BlobMissing, BlobCorrupt, StoreFailed: there is no directory.
        """
        attempt, spec = assignment.id, assignment.spec
        stdin_name = None if spec.stdin is None else _stdin_name(spec)
        files: dict[str, Blob] = {spec.script_name: spec.script}
        if spec.stdin is not None and stdin_name is not None:
            files[stdin_name] = spec.stdin
        staged: Deferred[Staged] = Deferred()
        finished = self._under_way[attempt] = Signal()

        def made(result: str | Failure) -> None:
            del self._under_way[attempt]
            if isinstance(result, Failure):
                staged.errback(result)
            else:
                staged.callback(Staged(result, None if stdin_name is None else f"{result}/{stdin_name}"))
            finished.fire()

        self._store.stage(str(attempt), files, contents).addBoth(made)
        return staged

    async def remove(self, attempt: AttemptId) -> None:
        """Delete an attempt's directory, if there is one. :raises StoreFailed: it stays."""
        finished = self._under_way.get(attempt)
        if finished is not None:
            await finished.wait()
        await self._store.unstage(str(attempt))


def _stdin_name(spec: JobSpec) -> str:
    return STDIN_NAME if spec.script_name != STDIN_NAME else f"{STDIN_NAME}-too"
