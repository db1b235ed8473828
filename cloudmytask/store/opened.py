"""Everything that exists while a store is open: connections, threads, and what was found on the disk.

Invariant: either all of it exists or none; each connection belongs to one thread. What an earlier life of the node
left behind is out of the way before anything new is made, and deleted in the background.
"""

from __future__ import annotations

import sqlite3
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from cloudmytask.store.blobs import BlobSource, orphans
from cloudmytask.store.database import connect
from cloudmytask.store.leaves import LeafCache
from cloudmytask.store.spool import remove_file
from cloudmytask.store.spools import SpoolDirectory
from cloudmytask.store.staging import Staging
from cloudmytask.store.threads import Delivery, WorkThread
from cloudmytask.store.writer import Writer

_log = Logger()


@frozen
class Paths:
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


@frozen(eq=False)
class Opened:
    """The parts of an open store, for ``SqliteStore`` to play on."""

    paths: Paths
    writer: Writer
    reading: WorkThread
    """Queries, and pieces of blobs and spools."""
    staging: WorkThread
    """Makes work directories; nothing slow may delay it."""
    sealing: WorkThread
    """Hashes large outputs."""
    removing: WorkThread
    """Deletes files."""
    clearing: WorkThread
    """Deletes trees, each for a slice of time, so that one that takes long holds no other up."""
    reader: sqlite3.Connection
    read_source: BlobSource
    stage_source: BlobSource
    directories: Staging
    spools: SpoolDirectory

    def remove_file(self, path: Path) -> None:
        """Unlink in the background; a failure is only logged."""
        removal = self.removing.call(partial(remove_file, path))
        removal.addErrback(lambda failure: _log.failure("{path} could not be deleted", failure, path=path))

    async def remove_tree(self, gone: str) -> None:
        """Delete a work directory that was set aside. What is left when the store closes, the next start deletes.

        :raises StoreFailed: something of it resists, or is written to all the time; it stays until the next start.
        """
        removal = self.directories.removal(gone)
        while not self.clearing.stopping:
            if await self.clearing.call(removal.advance):
                return

    def remove_tree_later(self, gone: str) -> None:
        """The same in the background; a failure is only logged."""
        removal = Deferred.fromCoroutine(self.remove_tree(gone))
        removal.addErrback(lambda failure: _log.failure("work directory {name} stays", failure, name=gone))

    async def close(self) -> None:
        """Let every thread finish what it was given, and what comes of that: each may still feed those after it."""
        for thread in (self.staging, self.sealing, self.reading, self.writer, self.removing, self.clearing):
            await thread.stop()


def open_parts(paths: Paths, cache: LeafCache, delivery: Delivery) -> Opened:
    """Connect, take stock, start the threads.

    :raises OSError, sqlite3.Error: nothing was started.
    """
    with ExitStack() as undo:
        writing, reading, staging = (undo.enter_context(closing(connect(paths.database))) for _ in range(3))
        thread = partial(WorkThread, path=paths.directory, delivery=delivery)

        def remove_later(gone: str) -> None:
            # called by the thread that stages; Deferreds are for the reactor's
            told: Deferred[str] = Deferred()
            told.addCallback(opened.remove_tree_later)
            delivery.send([(told, gone)])

        directories = Staging(paths.work, remove_later)
        spools, useless = SpoolDirectory.survey(paths.spool)
        useless += orphans(reading, paths.blobs)
        opened = Opened(
            paths=paths,
            writer=Writer(writing, paths.directory, delivery),
            reading=thread("reader", at_end=reading.close),
            staging=thread("stager", at_end=staging.close),
            sealing=thread("sealer"),
            removing=thread("remover"),
            clearing=thread("clearer"),
            reader=reading,
            read_source=BlobSource(reading, paths.blobs, cache),
            stage_source=BlobSource(staging, paths.blobs, cache),
            directories=directories,
            spools=spools,
        )
        left_behind = directories.set_all_aside()
        undo.pop_all()
    for part in (
        opened.writer,
        opened.reading,
        opened.staging,
        opened.sealing,
        opened.removing,
        opened.clearing,
    ):
        part.start()
    for gone in left_behind:
        opened.remove_tree_later(gone)
    for path in useless:
        opened.remove_file(path)
    return opened
