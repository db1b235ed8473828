"""The durable store as the node sees it: composes database, blobs, spools and work directories.

Invariant: no call waits for the disk, save for the page-cache writes of a spool. The threads are the store's own, so
closing it works while the reactor's pool is going away.
"""

from __future__ import annotations

import secrets
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

from cloudmytask.boundaries import Recovery, Spool
from cloudmytask.core.blobs import GRACE
from cloudmytask.model.errors import InvalidArgument, StartFailed, StoreFailed
from cloudmytask.model.job import Blob, ClientId, Content, Digest, Job, JobId, JobPage, JobQuery
from cloudmytask.store import blobs, jobs, meta
from cloudmytask.store.arriving import ArrivingContents, Deletions, FreshBlobs
from cloudmytask.store.database import connect, own_directory, prepare
from cloudmytask.store.files import plain_name, reason
from cloudmytask.store.known import KnownIds
from cloudmytask.store.leaves import LEAF, LeafCache, Measured
from cloudmytask.store.opened import Opened, Paths, open_parts
from cloudmytask.store.schema import STEPS, Step
from cloudmytask.store.spool import FileSpool, SpoolSupport, remove_file
from cloudmytask.store.staging import directory_name
from cloudmytask.store.threads import Delivery
from cloudmytask.store.unreadable import UnreadableRecords
from cloudmytask.store.writer import Operation, Writer

T = TypeVar("T")


def _random_node_id() -> str:
    return secrets.token_hex(16)


class SqliteStore:
    """Implements ``boundaries.JobStore``. From the reactor thread only; :meth:`open` comes first."""

    def __init__(
        self,
        directory: Path,
        *,
        call_from_thread: Callable[..., object],
        new_node_id: Callable[[], str] = _random_node_id,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        steps: Sequence[Step] = STEPS,
    ) -> None:
        """
        :param directory: where all of it lies; made if it is absent.
        :param call_from_thread: runs a function on the reactor thread soon: ``reactor.callFromThread``.
        :param new_node_id: called once in the store's life, when the database is made.
        :param monotonic: seconds of a clock that never steps.
        :param wall: UTC seconds, to tell after a restart how old an upload is.
        :param steps: the schema, version by version.
        """
        self._paths = Paths(directory.absolute())
        self._call_from_thread = call_from_thread
        self._new_node_id = new_node_id
        self._monotonic = monotonic
        self._wall = wall
        self._steps = steps
        self._cache = LeafCache()
        self._arriving = ArrivingContents()
        self._fresh = FreshBlobs(monotonic)
        self._deletions = Deletions()
        self._unreadable = UnreadableRecords()
        self._known = KnownIds()
        self._opened_at = 0.0
        self._opened: Opened | None = None

    def open(self) -> None:
        """Make or check everything on the disk, and start the threads. Blocks; after the daemon's fork.

        :raises StartFailed: the sentence names the path that is in the way.
        """
        paths = self._paths
        for path in (paths.directory, paths.blobs, paths.spool, paths.work):
            own_directory(path)
        prepare(paths.database, self._steps, self._new_node_id)
        try:
            meta.count_boot(paths.database)
            self._opened = open_parts(paths, self._cache, Delivery(self._call_from_thread))
            for job_id in jobs.every_id(self._opened.reader):
                self._known.add(job_id)
            now = self._wall()
            for digest, brought in blobs.brought_since(self._opened.reader, now - GRACE):
                self._fresh.note(digest, max(0.0, now - brought))
        except (OSError, sqlite3.Error, ValueError, TypeError) as error:
            raise StartFailed(f"The store {paths.directory} cannot be opened: {reason(error)}.") from error
        self._opened_at = self._monotonic()

    @property
    def commits(self) -> int:
        """Transactions committed since the store was opened."""
        return self._parts.writer.commits

    @property
    def _parts(self) -> Opened:
        if self._opened is None:
            raise StoreFailed("The store is not open.")
        return self._opened

    def recover(self) -> Recovery:
        """Jobs whose records cannot be read are left out, and logged.

        :raises StartFailed: the database cannot be read.
        """
        try:
            connection = connect(self._paths.database)
            try:
                recovery = self._unreadable.report(meta.read_recovery(connection))
            finally:
                connection.close()
        except (OSError, sqlite3.Error, ValueError, TypeError) as error:
            raise StartFailed(f"The database {self._paths.database} cannot be read: {reason(error)}.") from error
        for path in self._parts.spools.of_others({job.id for job in recovery.own}):
            self._parts.remove_file(path)
        return recovery

    def save(self, job: Job, contents: Sequence[Content] = ()) -> Deferred[None]:
        """
        :raises BlobCorrupt: one of ``contents`` does not match its digest; nothing was stored.
        """

        def save_contents(connection: sqlite3.Connection) -> None:
            for content in contents:
                blobs.put_content(connection, content)

        def save_all(connection: sqlite3.Connection) -> None:
            save_contents(connection)
            jobs.save_job(connection, job)

        self._known.add(job.id)
        saved = self._parts.writer.submit(Operation(save_all, job.id, save_contents))
        saved.addCallback(self._referred, job)
        return self._arrive(saved, contents) if contents else saved

    def _referred(self, _: None, job: Job) -> None:
        self._fresh.claim(blob.digest for blob in job.blobs())

    def put(self, content: Content) -> Deferred[None]:
        """
        :raises BlobCorrupt: the bytes do not match their digest.
        """
        self._fresh.note(content.blob.digest)
        put = self._change(partial(blobs.put_content, content=content, brought=self._wall()))
        return self._arrive(put, (content,))

    def _arrive(self, saved: Deferred[None], contents: Sequence[Content]) -> Deferred[None]:
        self._arriving.add(contents)
        return saved.addBoth(self._arrived, contents)

    def _arrived(self, result: Failure | None, contents: Sequence[Content]) -> Failure | None:
        self._arriving.settle(contents)
        if not isinstance(result, Failure):
            for content in contents:
                self._cache.put(content.blob.digest, 0, content.data)
        return result

    def get(self, job_id: JobId) -> Deferred[Job | None]:
        if not self._known.possible(job_id):
            return succeed(None)
        return self._query(partial(jobs.get_job, job_id=job_id))

    def newest(self, client: ClientId, query: JobQuery) -> Deferred[JobPage]:
        found = self._query(partial(jobs.newest_jobs, client=client, query=query))
        return found.addCallback(self._unreadable.report)

    def due(self, age: float, limit: int) -> Deferred[tuple[Job, ...]]:
        return self._query(partial(jobs.due_jobs, age=age, limit=limit)).addCallback(self._unreadable.report)

    def _query(self, query: Callable[[sqlite3.Connection], T]) -> Deferred[T]:
        parts = self._parts
        return parts.reading.call(partial(query, parts.reader))

    def forget(self, job_id: JobId) -> Deferred[None]:
        return self._parts.writer.submit(Operation(lambda connection: jobs.forget_job(connection, job_id), job_id))

    def remember(self, key: str, text: str) -> Deferred[None]:
        return self._change(lambda connection: meta.put_memory(connection, key, text))

    def checkpoint(self, age: float, wall: float) -> Deferred[None]:
        return self._change(lambda connection: meta.put_checkpoint(connection, age, wall))

    def _change(self, change: Callable[[sqlite3.Connection], T]) -> Deferred[T]:
        return self._parts.writer.submit(Operation(change))

    def collect(self, keep: Sequence[Digest] = ()) -> Deferred[int]:
        return Deferred.fromCoroutine(self._collect(keep))

    async def _collect(self, keep: Sequence[Digest]) -> int:
        parts, directory = self._parts, self._paths.blobs
        if self._monotonic() - self._opened_at > GRACE:
            # what the node has not asked for since it started it has no job for
            for path in parts.spools.unclaimed():
                parts.remove_file(path)
        protected = self._fresh.digests().union(keep)
        deleting = parts.writer.submit(Operation(partial(blobs.delete_unreferenced, keep=protected)))
        gone = await self._deletions.add(deleting)
        self._cache.drop({blob.digest for blob in gone})
        buried = await parts.writer.submit(Operation(partial(blobs.bury, directory=directory, blobs=gone)))
        for path in buried:
            await parts.removing.call(partial(remove_file, path))
        return sum(blob.size for blob in gone)

    def has(self, blob: Blob) -> Deferred[bool]:
        return Deferred.fromCoroutine(self._has(self._parts, blob))

    async def _has(self, parts: Opened, blob: Blob) -> bool:
        found = False
        # from now on no collection will take it; one that began before may, so it has to end before we look
        self._fresh.ask(blob.digest)
        try:
            await self._deletions.ended()
            content = self._arriving.get(blob.digest)
            if content is not None:
                found = content.blob == blob
            else:
                found = await parts.reading.call(partial(parts.read_source.has, blob))
        finally:
            self._fresh.answer(blob.digest, found)
        return found

    def read(self, blob: Blob, offset: int, size: int) -> Deferred[bytes]:
        content = self._arriving.get(blob.digest)
        if content is not None and content.blob == blob:
            return succeed(content.data[offset : offset + size])
        first, end = blobs.leaf_range(blob, offset, size)
        if end - first == 1 and (leaf := self._cache.get(blob, first)) is not None:
            start = offset - first * LEAF
            return succeed(leaf[start : start + size])
        parts = self._parts
        return parts.reading.call(partial(parts.read_source.read, blob, offset, size))

    def spool(self, name: str, *, resume: bool = False) -> Spool:
        """
        :raises InvalidArgument: ``name`` cannot be a file's name.
        """
        parts = self._parts
        leftover = parts.spools.take_leftover(plain_name(name))
        if leftover is not None and not resume:
            parts.remove_file(leftover.path)
            leftover = None
        path, size = (leftover.path, leftover.size) if leftover is not None else (parts.spools.new_path(name), 0)
        adopt = partial(self._adopt, parts.writer)
        return FileSpool(path, SpoolSupport(parts.reading, parts.sealing, parts.removing, adopt), size)

    def _adopt(self, writer: Writer, source: Path, measured: Measured) -> Deferred[None]:
        self._fresh.note(measured.blob.digest)
        adopt = partial(blobs.adopt_file, directory=self._paths.blobs, source=source, measured=measured)
        return writer.submit(Operation(partial(adopt, brought=self._wall())))

    def stage(self, name: str, files: Mapping[str, Blob], contents: Sequence[Content] = ()) -> Deferred[str]:
        """
        :raises BlobMissing, BlobCorrupt, StoreFailed, InvalidArgument: nothing was made.
        """
        try:
            directory_name(name)
            for file_name in files:
                plain_name(file_name)
        except InvalidArgument as error:
            return fail(error)
        arriving = (self._arriving.get(blob.digest) for blob in files.values())
        known = {content.blob: content for content in (*arriving, *contents) if content is not None}
        parts = self._parts
        return parts.staging.call(partial(parts.directories.stage, name, dict(files), known, parts.stage_source))

    def unstage(self, name: str) -> Deferred[None]:
        """
        :raises StoreFailed: something in the directory resists deletion, or is written to all the time. The name is
            free nevertheless, and the next start deletes what is left.
        """
        try:
            return Deferred.fromCoroutine(self._unstage(directory_name(name)))
        except InvalidArgument as error:
            return fail(error)

    async def _unstage(self, name: str) -> None:
        parts = self._parts
        # renamed by the thread that makes directories, so that a new one of that name is safe; deleting takes longer
        gone = await parts.staging.call(partial(parts.directories.clear, name))
        if gone is not None:
            await parts.remove_tree(gone)

    def close(self) -> Deferred[None]:
        """Also of a store that was never opened, or is closed already."""
        opened, self._opened = self._opened, None
        return Deferred.fromCoroutine(opened.close()) if opened is not None else succeed(None)
