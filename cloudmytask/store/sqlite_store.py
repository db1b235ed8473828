"""The durable store as the node sees it: composes database, blobs, spools and work directories.

Invariant: no call but :meth:`SqliteStore.open` and :meth:`SqliteStore.recover` waits for the disk. The threads are the
store's own, so closing it works while the reactor's pool is going away. Short questions have a thread of their own, so
that none waits behind a listing.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TypeVar

from twisted.internet.defer import Deferred, fail, succeed

from cloudmytask.boundaries import Recovery, Spool
from cloudmytask.core.blobs import GRACE, UPLOAD_PREFIX
from cloudmytask.model.errors import InvalidArgument, StoreFailed
from cloudmytask.model.job import Blob, ClientId, Content, Digest, Job, JobId, JobPage, JobQuery, JobState
from cloudmytask.store import blobs, jobs
from cloudmytask.store.arriving import BlobsAhead
from cloudmytask.store.blob_reader import LEAF, LeafCache, Measured, leaf_range
from cloudmytask.store.database import (
    connect,
    count_boot,
    new_node_id,
    prepare,
    put_checkpoint,
    put_memory,
    start_failures,
)
from cloudmytask.store.files import own_directory, plain_name
from cloudmytask.store.opened import Opened, StorePaths, open_parts
from cloudmytask.store.reserve import RESERVE_SIZE, Reserve
from cloudmytask.store.schema import STEPS, Step
from cloudmytask.store.spool import FileSpool, SpoolSupport
from cloudmytask.store.staging import directory_name
from cloudmytask.store.threads import MakeWorker, Operation, ResultDelivery, ThreadWorker
from cloudmytask.version import VERSION

T = TypeVar("T")


class SqliteStore:
    """Implements ``boundaries.JobStore``. From the reactor thread only; :meth:`open` comes first."""

    def __init__(
        self,
        directory: Path,
        *,
        call_from_thread: Callable[..., object],
        new_node_id: Callable[[], str] = new_node_id,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        steps: Sequence[Step] = STEPS,
        make_worker: MakeWorker = ThreadWorker,
        reserve: int = RESERVE_SIZE,
    ) -> None:
        """Name what it is made of; the disk is not touched before :meth:`open`.

        :param directory: where all of it lies; made if it is absent.
        :param call_from_thread: runs a function on the reactor thread soon: ``reactor.callFromThread``.
        :param new_node_id: called once in the store's life, when the database is made.
        :param monotonic: seconds of a clock that never steps.
        :param wall: UTC seconds, to tell after a restart how old an upload is.
        :param steps: the schema, version by version.
        :param make_worker: makes what does the store's work, a thread for each kind of it.
        :param reserve: bytes of the disk that are kept for when it is full.
        """
        self._paths = StorePaths(directory.absolute())
        self._call_from_thread = call_from_thread
        self._new_node_id = new_node_id
        self._monotonic = monotonic
        self._wall = wall
        self._steps = steps
        self._make_worker = make_worker
        self._reserve = Reserve(self._paths.directory, reserve)
        self._cache = LeafCache()
        self._ahead = BlobsAhead(monotonic)
        self._unreadable = jobs.UnreadableRecords()
        self._opened_at = 0.0
        self._opened: Opened | None = None
        self._support: SpoolSupport | None = None
        self.checked: Deferred[None] = succeed(None)
        """Fires once the search for damage that :meth:`open` began has ended; what it finds is logged."""

    def open(self) -> None:
        """Make or check everything on the disk, and start the threads. Blocks, for a moment however large the store is;
        after the daemon's fork.

        :raises StartFailed: the sentence names the path that is in the way.
        """
        paths = self._paths
        for path in (paths.directory, paths.blobs, paths.spool, paths.work):
            own_directory(path)
        prepare(paths.database, self._steps, self._new_node_id)
        with start_failures(f"The store {paths.directory} cannot be opened"):
            count_boot(paths.database)
            with closing(connect(paths.database)) as connection:
                jobs.take_up_again(connection, VERSION)
                now = self._wall()
                for digest, brought in blobs.brought_since(connection, now - GRACE):
                    self._ahead.note(digest, max(0.0, now - brought))
            delivery = ResultDelivery(self._call_from_thread)
            parts = open_parts(paths, self._cache, delivery, self._make_worker, self._reserve)
        self._opened, self._opened_at = parts, self._monotonic()

        def adopt(source: Path, measured: Measured) -> Deferred[None]:
            self._ahead.note(measured.blob.digest)
            adopting = partial(blobs.adopt_file, directory=paths.blobs, source=source, measured=measured)
            new_work = source.name.startswith(UPLOAD_PREFIX)
            return parts.writer.submit(Operation(partial(adopting, brought=self._wall()), new_work=new_work))

        self._support = SpoolSupport(parts.spooling, parts.reading, parts.sealing, parts.removing, adopt)
        self.checked = Deferred.fromCoroutine(parts.check())

    def look(self) -> Deferred[None]:
        """Look whether all is where it was when it was opened, and take the reserve again if there is room for it. To
        be called every few seconds.

        :raises StoreFailed: the state directory or the database is gone or was replaced. From then on every change
            fails.
        """
        parts = self._parts

        def look() -> None:
            parts.presence.check()
            parts.reserve.take()

        return parts.watching.call(look)

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
        """What an earlier life knew. Blocks. Jobs whose records cannot be read are left out, and logged.

        :raises StartFailed: the database cannot be read.
        """
        database = self._paths.database
        with start_failures(f"The database {database} cannot be read"), closing(connect(database)) as connection:
            recovery = self._readable(jobs.read_recovery(connection))
        for path in self._parts.spools.of_others({job.id for job in recovery.own}):
            self._parts.remove_file(path)
        return recovery

    def save(self, job: Job, contents: Sequence[Content] = ()) -> Deferred[None]:
        """Make the record of an own job durable, and ``contents`` with it.

        :raises BlobCorrupt: one of ``contents`` does not match its digest; nothing was stored.
        """
        return self._record(job, contents, jobs.save_job, slot=job.id)

    def hold(self, job: Job, contents: Sequence[Content] = ()) -> Deferred[None]:
        """Make the copy of another node's job durable, and ``contents`` with it.

        :raises BlobCorrupt: one of ``contents`` does not match its digest; nothing was stored.
        """
        return self._record(job, contents, jobs.hold_job)

    def _record(
        self,
        job: Job,
        contents: Sequence[Content],
        write: Callable[[sqlite3.Connection, Job], None],
        slot: JobId | None = None,
    ) -> Deferred[None]:
        def put_contents(connection: sqlite3.Connection) -> None:
            blobs.put_contents(connection, contents)

        def put_all(connection: sqlite3.Connection) -> None:
            blobs.put_contents(connection, contents, jobs.references(job))
            write(connection, job)

        new_work = job.state is JobState.PENDING
        saved = self._parts.writer.submit(Operation(put_all, slot, put_contents, new_work))
        return self._arrive(self._ahead.refer(saved, job), contents)

    def put(self, content: Content) -> Deferred[None]:
        """Make a small blob durable ahead of the job that will need it.

        :raises BlobCorrupt: the bytes do not match their digest.
        """
        self._ahead.note(content.blob.digest)
        putting = partial(blobs.put_content, content=content, brought=self._wall())
        put = self._parts.writer.submit(Operation(putting, new_work=True))
        return self._arrive(put, (content,))

    def _arrive(self, saved: Deferred[None], contents: Sequence[Content]) -> Deferred[None]:
        def put_in_cache(_: None) -> None:
            for content in contents:
                self._cache.put(content.blob.digest, 0, content.data)

        saved = self._ahead.arrive(saved, contents)
        return saved.addCallback(put_in_cache) if contents else saved

    def get(self, job_id: JobId) -> Deferred[Job | None]:
        """The own job of that id; None if there is none.

        :raises StoreFailed: its record cannot be read.
        """
        parts = self._parts
        return parts.reading.call(partial(jobs.get_job, parts.reader, job_id))

    def newest(self, client: ClientId, query: JobQuery) -> Deferred[JobPage]:
        return self._list(partial(jobs.newest_jobs, client=client, query=query))

    def due(self, age: float, limit: int) -> Deferred[tuple[Job, ...]]:
        return self._list(partial(jobs.due_jobs, age=age, limit=limit))

    def _list(self, query: Callable[[sqlite3.Connection], jobs.Found[T]]) -> Deferred[T]:
        parts = self._parts
        return parts.listing.call(partial(query, parts.lister)).addCallback(self._readable)

    def _readable(self, found: jobs.Found[T]) -> T:
        """What was found. What could not be read is logged once, and set aside."""
        if (news := self._unreadable.report(found)) and self._opened is not None:
            aside = self._change(lambda connection: jobs.set_aside(connection, news, VERSION))
            # on a disk that refuses they are skipped, again and again
            aside.addErrback(lambda failure: failure.trap(StoreFailed) and None)
        return found.value

    def forget(self, job_id: JobId) -> Deferred[None]:
        return self._parts.writer.submit(Operation(lambda connection: jobs.forget_job(connection, job_id), job_id))

    def remember(self, key: str, text: str) -> Deferred[None]:
        return self._change(lambda connection: put_memory(connection, key, text))

    def checkpoint(self, age: float, wall: float) -> Deferred[None]:
        return self._change(lambda connection: put_checkpoint(connection, age, wall))

    def _change(self, change: Callable[[sqlite3.Connection], T]) -> Deferred[T]:
        return self._parts.writer.submit(Operation(change))

    def collect(self, keep: Sequence[Digest] = ()) -> Deferred[int]:
        parts = self._parts
        if self._monotonic() - self._opened_at > GRACE:
            # what the node has not asked for since it started it has no job for
            for path in parts.spools.unclaimed():
                parts.remove_file(path)
        return Deferred.fromCoroutine(parts.collect(self._ahead, self._cache, keep))

    def has(self, blob: Blob) -> Deferred[bool]:
        parts = self._parts
        look = partial(parts.reading.call, partial(parts.read_source.has, blob))
        return Deferred.fromCoroutine(self._ahead.has(blob, look))

    def read(self, blob: Blob, offset: int, size: int) -> Deferred[bytes]:
        content = self._ahead.content(blob.digest)
        if content is not None and content.blob == blob:
            return succeed(content.data[offset : offset + size])
        first, end = leaf_range(blob, offset, size)
        if end - first == 1 and (leaf := self._cache.get(blob, first)) is not None:
            start = offset - first * LEAF
            return succeed(leaf[start : start + size])
        parts = self._parts
        return parts.reading.call(partial(parts.read_source.read, blob, offset, size))

    def spool(self, name: str, *, resume: bool = False) -> Spool:
        """Open a spool; ``resume``: go on with what an earlier life left under that name.

        :raises InvalidArgument: ``name`` cannot be a file's name.
        """
        parts = self._parts
        leftover = parts.spools.take_leftover(plain_name(name))
        if leftover is not None and not resume:
            parts.remove_file(leftover.path)
            leftover = None
        path, size = (leftover.path, leftover.size) if leftover is not None else (parts.spools.new_path(name), 0)
        assert self._support is not None
        return FileSpool(path, self._support, size)

    def stage(self, name: str, files: Mapping[str, Blob], contents: Sequence[Content] = ()) -> Deferred[str]:
        """Make the work directory ``name`` with ``files`` in it; fires with its path.

        :raises BlobMissing, BlobCorrupt, StoreFailed, InvalidArgument: nothing was made.
        """
        try:
            directory_name(name)
            for file_name in files:
                plain_name(file_name)
        except InvalidArgument as error:
            return fail(error)
        arriving = (self._ahead.content(blob.digest) for blob in files.values())
        known = {content.blob: content for content in (*arriving, *contents) if content is not None}
        parts = self._parts
        return parts.staging.call(partial(parts.directories.stage, name, dict(files), known, parts.stage_source))

    def unstage(self, name: str) -> Deferred[None]:
        """Remove the work directory ``name``.

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
        gone = await parts.staging.call(partial(parts.reserve.helping, partial(parts.directories.clear, name)))
        if gone is not None:
            await parts.remove_tree(gone)

    def close(self) -> Deferred[None]:
        """Also of a store that was never opened, or is closed already."""
        opened, self._opened = self._opened, None
        return Deferred.fromCoroutine(self._close(opened)) if opened is not None else succeed(None)

    async def _close(self, parts: Opened) -> None:
        assert self._support is not None
        await self._support.flush()
        await parts.close()
