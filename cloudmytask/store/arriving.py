"""What the reactor thread knows of blobs ahead of the database, real or simulated.

Invariant: a content is found here from the call that saves it until that save has succeeded or failed; a blob that
somebody just brought or asked for is protected from collection for an hour, so that the job that will refer to it
finds it. For one that is being deleted already, the question whether it is here waits until it is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from twisted.internet.defer import Deferred, succeed

from cloudmytask.core.blobs import EMPTY, GRACE
from cloudmytask.model.job import Blob, Content, Digest, Job

T = TypeVar("T")


class BlobsAhead:
    """Contents of saves that are under way, blobs of the last hour, and deletes that are under way."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._arriving: dict[Digest, list[Content]] = {EMPTY.blob.digest: [EMPTY]}
        self._noted: dict[Digest, float] = {}
        self._asked: dict[Digest, int] = {}
        self._deletes = 0
        self._waiting: list[Deferred[None]] = []

    def content(self, digest: Digest) -> Content | None:
        """The content of that digest whose save is under way; the empty one is always there."""
        saves = self._arriving.get(digest)
        return saves[0] if saves else None

    def arrive(self, saved: Deferred[T], contents: Sequence[Content]) -> Deferred[T]:
        """``saved`` fires when ``contents`` are durable; the same Deferred."""
        for content in contents:
            self._arriving.setdefault(content.blob.digest, []).append(content)
        return saved.addBoth(self._settled, contents) if contents else saved

    def _settled(self, result: T, contents: Sequence[Content]) -> T:
        for content in contents:
            saves = self._arriving[content.blob.digest]
            saves.pop()
            if not saves:
                del self._arriving[content.blob.digest]
        return result

    def refer(self, saved: Deferred[None], job: Job) -> Deferred[None]:
        """Once ``saved`` has fired, the blobs of ``job`` live as long as it does; the same Deferred."""

        def referred(_: None) -> None:
            for blob in job.blobs():
                self._noted.pop(blob.digest, None)

        return saved.addCallback(referred)

    def note(self, digest: Digest, age: float = 0.0) -> None:
        """The blob was brought ``age`` seconds ago, and no job has come to refer to it yet."""
        self._noted[digest] = self._monotonic() - age

    def protected(self) -> frozenset[Digest]:
        """Blobs noted in the last :data:`GRACE` seconds, and those that are asked for; older ones are dropped."""
        oldest = self._monotonic() - GRACE
        self._noted = {digest: at for digest, at in self._noted.items() if at > oldest}
        return frozenset((*self._noted, *self._asked))

    def delete(self, deleting: Deferred[T]) -> Deferred[T]:
        """``deleting`` was submitted; the same Deferred.

        What a delete spares is settled when it is submitted. Until it has taken effect, a look at the disk would still
        find what it is going to take.
        """
        self._deletes += 1
        return deleting.addBoth(self._deleted)

    def _deleted(self, result: T) -> T:
        self._deletes -= 1
        if not self._deletes:
            waiting, self._waiting = self._waiting, []
            for deferred in waiting:
                deferred.callback(None)
        return result

    def _deletes_ended(self) -> Deferred[None]:
        if not self._deletes:
            return succeed(None)
        self._waiting.append(Deferred())
        return self._waiting[-1]

    async def has(self, blob: Blob, look: Callable[[], Deferred[bool]]) -> bool:
        """Whether ``blob`` is here. After a yes it is spared for an hour.

        :param look: asks the disk.
        """
        digest, found = blob.digest, False
        # from now on no collection will take it; one that began before may, so it has to end before we look
        self._asked[digest] = self._asked.get(digest, 0) + 1
        try:
            await self._deletes_ended()
            content = self.content(digest)
            found = content.blob == blob if content is not None else await look()
        finally:
            self._asked[digest] -= 1
            if not self._asked[digest]:
                del self._asked[digest]
            if found:
                self.note(digest)
        return found
