"""The store of a simulated node: on a disk in memory, and in virtual time.

Invariant: a store that was cut off by :meth:`MemoryDisk.crash`, or by another store on the same disk, never touches
the disk nor fires a Deferred again. Everything happens in one order, which no hash decides.

Values are kept as they are, not as text: this is about the order of events, not about bytes. What the real store
knows of blobs ahead of its database, this one knows by the same code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from cloudmytask.boundaries import Clock, Recovery
from cloudmytask.core.blobs import GRACE, blob_of, verified
from cloudmytask.model.errors import BlobCorrupt, BlobMissing, StoreFailed
from cloudmytask.model.job import (
    INLINE_MAX,
    Blob,
    ClientId,
    Content,
    Digest,
    Job,
    JobId,
    JobPage,
    JobQuery,
    JobState,
    NodeId,
)
from cloudmytask.simulation.commits import GroupCommit
from cloudmytask.simulation.disk import MemoryDisk, MemorySpool, disk_is_full
from cloudmytask.store.arriving import BlobsAhead

__all__ = ["MemoryDisk", "MemoryStore"]

T = TypeVar("T")


class MemoryStore:
    """Implements ``boundaries.JobStore`` with the commits of the real one: what gathers during a commit is the next."""

    def __init__(self, disk: MemoryDisk, clock: Clock, commit_delay: Callable[[], float]) -> None:
        """Take the disk from the store that had it.

        :param commit_delay: asked at the start of each commit for the seconds that it takes.
        """
        self._disk = disk
        self._clock = clock
        self._commits = GroupCommit(clock, commit_delay)
        self._alive = True
        self._ahead = BlobsAhead(clock.seconds)
        self._claimed: dict[str, None] = {}
        self._opened_at = now = clock.seconds()
        disk.attach(self._cut_off)
        for digest, brought in disk.brought.items():
            self._ahead.note(digest, now - brought)

    def _cut_off(self, flushed: bool) -> None:
        """The end of this store, as ``MemoryDisk.crash`` describes it."""
        self._alive = False
        self._commits.cut_off(flushed)

    def recover(self) -> Recovery:
        disk = self._disk
        jobs = sorted(disk.jobs.values(), key=_sequence)
        unfinished = {job.id for job in jobs if not job.state.terminal}
        for name in [name for name in disk.spools if name.partition(".")[0] not in unfinished]:
            del disk.spools[name]
        return Recovery(
            node_id=NodeId(disk.node_id),
            own=tuple(job for job in jobs if not job.state.terminal),
            next_sequence=jobs[-1].sequence + 1 if jobs else 1,
            age=disk.age,
            checkpoint_at=disk.checkpoint_at,
            boots=disk.boots,
            memory=dict(disk.memory),
            held=tuple(disk.held.values()),
            guests=tuple(disk.guests.values()),
        )

    def save(self, job: Job, contents: Sequence[Content] = ()) -> Deferred[None]:
        return self._record(job, contents, self._disk.jobs)

    def hold(self, job: Job, contents: Sequence[Content] = ()) -> Deferred[None]:
        return self._record(job, contents, self._disk.held)

    def _record(self, job: Job, contents: Sequence[Content], records: dict[JobId, Job]) -> Deferred[None]:
        def apply() -> None:
            self._keep(contents)
            records[job.id] = job

        return self._ahead.arrive(self._ahead.refer(self._change(apply), job), contents)

    def put(self, content: Content) -> Deferred[None]:
        digest, now = content.blob.digest, self._clock.seconds()
        self._ahead.note(digest)

        def apply() -> None:
            self._keep([content])
            self._disk.brought[digest] = now

        return self._ahead.arrive(self._change(apply), [content])

    def _keep(self, contents: Sequence[Content]) -> None:
        for content in contents:
            verified(content)
        for content in contents:
            self._disk.blobs[content.blob.digest] = content.data
            self._disk.corrupt.pop(content.blob.digest, None)

    def get(self, job_id: JobId) -> Deferred[Job | None]:
        return self.soon(lambda: self._disk.jobs.get(job_id))

    def newest(self, client: ClientId, query: JobQuery) -> Deferred[JobPage]:
        def wanted(job: Job) -> bool:
            return (
                job.client == client
                and job.id.startswith(query.prefix)
                and (query.name is None or job.spec.label == query.name)
                and (job.state in query.states if query.states else job.state is not JobState.EXPIRED)
                and (query.before is None or job.sequence < query.before)
            )

        def search() -> JobPage:
            found = sorted(filter(wanted, self._disk.jobs.values()), key=_sequence)
            found.reverse()
            jobs = tuple(found[: query.limit])
            return JobPage(jobs, jobs[-1].sequence if jobs and len(found) > len(jobs) else None)

        return self.soon(search)

    def due(self, age: float, limit: int) -> Deferred[tuple[Job, ...]]:
        def search() -> tuple[Job, ...]:
            found = [
                (job.expires, job.sequence, job)
                for job in self._disk.jobs.values()
                if job.expires is not None and job.expires <= age
            ]
            found.sort(key=lambda entry: entry[:2])
            return tuple(job for _, _, job in found[:limit])

        return self.soon(search)

    def forget(self, job_id: JobId) -> Deferred[None]:
        def apply() -> None:
            self._disk.jobs.pop(job_id, None)

        return self._change(apply)

    def remember(self, key: str, text: str) -> Deferred[None]:
        def apply() -> None:
            self._disk.memory[key] = text

        return self._change(apply)

    def checkpoint(self, age: float, wall: float) -> Deferred[None]:
        def apply() -> None:
            self._disk.age, self._disk.checkpoint_at = age, wall

        return self._change(apply)

    def collect(self, keep: Sequence[Digest] = ()) -> Deferred[int]:
        now = self._clock.seconds()
        if now - self._opened_at > GRACE:
            for name in [name for name in self._disk.spools if name not in self._claimed]:
                del self._disk.spools[name]
        protected = self._ahead.protected().union(keep)

        def apply() -> int:
            needed = set(protected)
            for job in (*self._disk.jobs.values(), *self._disk.held.values()):
                if job.state is not JobState.EXPIRED:
                    needed.update(blob.digest for blob in job.blobs())
            gone = [digest for digest in self._disk.blobs if digest not in needed]
            for digest in gone:
                self._disk.brought.pop(digest, None)
            return sum(len(self._disk.blobs.pop(digest)) for digest in gone)

        return self._ahead.delete(self._change(apply))

    def has(self, blob: Blob) -> Deferred[bool]:
        return Deferred.fromCoroutine(self._ahead.has(blob, lambda: self.soon(lambda: self._readable(blob))))

    def _readable(self, blob: Blob) -> bool:
        return self._known(blob) is not None and (blob.digest not in self._disk.corrupt or blob.size > INLINE_MAX)

    def read(self, blob: Blob, offset: int, size: int) -> Deferred[bytes]:
        return self.soon(lambda: self._verified(blob)[offset : offset + size])

    def _known(self, blob: Blob) -> bytes | None:
        content = self._ahead.content(blob.digest)
        data = content.data if content is not None else self._disk.blobs.get(blob.digest)
        return data if data is not None and len(data) == blob.size else None

    def _verified(self, blob: Blob) -> bytes:
        data = self._known(blob)
        if data is None:
            raise BlobMissing(f"The blob {blob.digest} of {blob.size} bytes is not on this node.")
        if blob.digest in self._disk.corrupt and self._ahead.content(blob.digest) is None:
            raise BlobCorrupt(f"The stored bytes of blob {blob.digest} do not match it.")
        return data

    def spool(self, name: str, *, resume: bool = False) -> MemorySpool:
        if name in self._claimed or not resume:
            self._disk.spools.pop(name, None)
        self._claimed[name] = None
        return MemorySpool(self, self._disk, name)

    def adopt(self, data: bytes) -> Deferred[Blob]:
        """Make the bytes of a large spool a durable blob."""
        blob, now = blob_of(data), self._clock.seconds()
        self._ahead.note(blob.digest)

        def apply() -> Blob:
            self._disk.blobs[blob.digest] = data
            self._disk.brought[blob.digest] = now
            self._disk.corrupt.pop(blob.digest, None)
            return blob

        return self._change(apply)

    def stage(self, name: str, files: Mapping[str, Blob], contents: Sequence[Content] = ()) -> Deferred[str]:
        given = {content.blob: content for content in contents}

        def make() -> str:
            self._need_room()
            self._disk.directories.pop(name, None)
            self._disk.directories[name] = {
                file_name: verified(given[blob]) if blob in given else self._verified(blob)
                for file_name, blob in files.items()
            }
            return f"/simulated/{name}"

        return self.soon(make)

    def unstage(self, name: str) -> Deferred[None]:
        def remove() -> None:
            self._disk.directories.pop(name, None)

        return self.soon(remove)

    def close(self) -> Deferred[None]:
        """Fires after the commits of what was submitted before."""
        return self._commits.submit(lambda: None)

    def soon(self, function: Callable[[], T]) -> Deferred[T]:
        """What the real store does in a thread that only reads: the answer comes in a later turn."""
        deferred: Deferred[T] = Deferred()
        if self._alive:
            self._clock.callLater(0.0, self._answer, function, deferred)
        return deferred

    def _answer(self, function: Callable[[], T], deferred: Deferred[T]) -> None:
        if not self._alive:
            return
        try:
            result = function()
        except (BlobMissing, BlobCorrupt, StoreFailed):
            deferred.errback(Failure())
        else:
            deferred.callback(result)

    def _change(self, apply: Callable[[], T]) -> Deferred[T]:
        def apply_if_room() -> T:
            self._need_room()
            return apply()

        return self._commits.submit(apply_if_room)

    def _need_room(self) -> None:
        if self._disk.full:
            raise disk_is_full()


def _sequence(job: Job) -> int:
    return job.sequence
