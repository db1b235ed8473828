"""Everything that exists while a store is open: connections, threads, and what was found on the disk.

Invariant: either all of it exists or none; each connection belongs to one thread. What an earlier life of the node
left behind is out of the way before anything new is made, and deleted in the background. A start takes no longer for a
large store: what has to read all of it comes after.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

from attrs import field, frozen
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from cloudmytask.model.errors import StoreFailed
from cloudmytask.model.job import Digest
from cloudmytask.model.words import Resource
from cloudmytask.store.arriving import BlobsAhead
from cloudmytask.store.blob_reader import BlobSource, LeafCache
from cloudmytask.store.blobs import Strays, bury, bury_files, strays, sweep_loose
from cloudmytask.store.database import connect, damage
from cloudmytask.store.presence import Presence
from cloudmytask.store.reserve import Reserve
from cloudmytask.store.spool_directory import SpoolDirectory
from cloudmytask.store.staging import Staging
from cloudmytask.store.threads import MakeWorker, Operation, ResultDelivery, Worker, WorkThread, Writer

_log = Logger()

LISTINGS_MAX = 256
"""Listings that may wait at a time: each is quick, and its answer is large."""


@frozen
class StorePaths:
    """Where the parts of a store lie."""

    directory: Path

    @property
    def database(self) -> Path:
        return self.directory / "jobs.sqlite"

    @property
    def blobs(self) -> Path:
        return self.directory / "blobs"

    @property
    def spool(self) -> Path:
        return self.directory / "spool"

    @property
    def work(self) -> Path:
        return self.directory / "work"

    def presence(self) -> Presence:
        """All of them as they are now.

        :raises OSError: one is not there.
        """
        database = self.database
        parts = (self.directory, database, self.blobs, self.spool, self.work)
        return Presence(parts, later=[database.with_name(f"{database.name}-wal")])


@frozen(eq=False)
class Opened:
    """The parts of an open store, for ``SqliteStore`` to play on."""

    paths: StorePaths
    writer: Writer
    reading: WorkThread
    """Single records, pieces of blobs and spools: all that is quick."""
    listing: WorkThread
    """Queries for many records."""
    staging: WorkThread
    """Makes work directories; nothing slow may delay it."""
    spooling: WorkThread
    """Writes to spools."""
    sealing: WorkThread
    """Hashes large outputs."""
    checking: WorkThread
    """Looks for damage, and for what a crash left."""
    removing: WorkThread
    """Deletes files."""
    clearing: WorkThread
    """Deletes trees, each for a slice of time, so that one that takes long holds no other up."""
    watching: WorkThread
    """Looks whether all is where it was, and takes the reserve."""
    lister: sqlite3.Connection
    checker: sqlite3.Connection
    reader: sqlite3.Connection
    read_source: BlobSource
    stage_source: BlobSource
    directories: Staging
    spools: SpoolDirectory
    presence: Presence
    reserve: Reserve
    searching: threading.Event = field(factory=threading.Event)
    """Set once the search for damage has begun: it may be interrupted."""

    def remove_file(self, path: Path) -> None:
        """Unlink in the background; a failure is only logged."""
        removal = self.removing.call(partial(self.reserve.helping, partial(path.unlink, missing_ok=True)))
        removal.addErrback(lambda failure: _log.failure("{path} could not be deleted", failure, path=path))

    async def remove_tree(self, gone: str) -> None:
        """Delete a work directory that was set aside. What is left when the store closes, the next start deletes.

        :raises StoreFailed: something of it resists, or is written to all the time; it stays until the next start.
        """
        removal = self.directories.removal(gone)
        while not self.clearing.stopping:
            try:
                if await self.clearing.call(removal.advance):
                    return
            except StoreFailed as problem:
                # to delete takes room too: a tree's directories are renamed
                if problem.resource is not Resource.DISK or not await self.clearing.call(self.reserve.give_up):
                    raise
                removal = self.directories.removal(gone)

    def remove_tree_later(self, gone: str) -> None:
        """The same in the background; a failure is only logged."""
        removal = Deferred.fromCoroutine(self.remove_tree(gone))
        removal.addErrback(lambda failure: _log.failure("work directory {name} stays", failure, name=gone))

    async def check(self) -> None:
        """Take the reserve, delete what a crash left among the blobs, then look for damage, which is logged."""
        directory = self.paths.blobs
        try:
            await self.watching.call(self.reserve.take)
            found: Strays = await self.checking.call(partial(strays, self.checker, directory))
            bury = partial(bury_files, directory=directory, files=found.suspects)
            buried = await self.writer.submit(Operation(bury)) if found.suspects else []
            for path in (*found.graves, *buried):
                self.remove_file(path)
            if (harm := await self.checking.call(self._damage)) is not None:
                _log.error("the database {path} is damaged ({harm})", path=self.paths.database, harm=harm)
        except StoreFailed as problem:
            if not self.checking.stopping:
                _log.error("the store could not be checked: {problem}", problem=str(problem))

    async def collect(self, ahead: BlobsAhead, cache: LeafCache, keep: Sequence[Digest]) -> int:
        """Delete the blobs that no job refers to, but fresh ones and those in ``keep``; the bytes freed."""
        freed, after = 0, ""
        while True:
            # what came in or was asked for since the last step is spared too
            protected = ahead.protected().union(keep)
            sweeping = self.writer.submit(Operation(partial(sweep_loose, after=after, keep=protected)))
            sweep = await ahead.delete(sweeping)
            if sweep.gone:
                cache.forget({blob.digest for blob in sweep.gone})
                burial = partial(bury, directory=self.paths.blobs, blobs=sweep.gone)
                for path in await self.writer.submit(Operation(burial)):
                    await self.removing.call(partial(path.unlink, missing_ok=True))
            freed += sum(blob.size for blob in sweep.gone)
            if sweep.last is None:
                return freed
            after = sweep.last

    def _damage(self) -> str | None:
        self.searching.set()
        return damage(self.checker)

    async def close(self) -> None:
        """Let every thread finish what it was given, and what comes of that: each may still feed those after it."""
        if self.searching.is_set():
            self.checker.interrupt()
        stopped = self.checking.stop()
        await stopped
        threads = (self.spooling, self.staging, self.sealing, self.reading, self.listing)
        for thread in (*threads, self.writer, self.removing, self.clearing, self.watching):
            await thread.stop()


WORKERS = (
    *("writer", "reader", "lister", "stager", "spooler"),
    *("sealer", "checker", "remover", "clearer", "watcher"),
)
"""The names of what does the work of a store."""


def open_parts(
    paths: StorePaths, cache: LeafCache, delivery: ResultDelivery, make_worker: MakeWorker, reserve: Reserve
) -> Opened:
    """Connect, take stock, start the threads.

    :raises OSError, sqlite3.Error, StartFailed: nothing was started.
    """
    with ExitStack() as undo:
        connections = (undo.enter_context(closing(connect(paths.database))) for _ in range(5))
        writing, reading, listing, staging, checking = connections

        def remove_later(gone: str) -> None:
            # called by the thread that stages; Deferreds are for the reactor's
            told: Deferred[str] = Deferred()
            told.addCallback(opened.remove_tree_later)
            delivery.send([(told, gone)])

        directories = Staging(paths.work, remove_later)
        left_behind = directories.set_all_aside()
        spools, useless = SpoolDirectory.survey(paths.spool)
        presence = paths.presence()
        workers: dict[str, Worker] = {}
        for name in WORKERS:
            workers[name] = make_worker(name)
            undo.callback(workers[name].stop)
        undo.pop_all()

    def thread(name: str, connection: sqlite3.Connection | None = None, waiting_max: int | None = None) -> WorkThread:
        at_end = connection.close if connection is not None else lambda: None
        return WorkThread(workers[name], paths.directory, delivery, at_end, waiting_max)

    opened = Opened(
        paths=paths,
        writer=Writer(workers["writer"], writing, paths.directory, delivery, presence.check, reserve.give_up),
        reading=thread("reader", reading),
        listing=thread("lister", listing, LISTINGS_MAX),
        staging=thread("stager", staging),
        spooling=thread("spooler"),
        sealing=thread("sealer"),
        checking=thread("checker", checking),
        removing=thread("remover"),
        clearing=thread("clearer"),
        watching=thread("watcher"),
        lister=listing,
        checker=checking,
        reader=reading,
        read_source=BlobSource(reading, paths.blobs, cache),
        stage_source=BlobSource(staging, paths.blobs, cache),
        directories=directories,
        spools=spools,
        presence=presence,
        reserve=reserve,
    )
    for gone in left_behind:
        opened.remove_tree_later(gone)
    for path in useless:
        opened.remove_file(path)
    return opened
