"""The durable store of a CSU: the load of all nodes over time, the registry, the blacklist.

Invariant: no call but :meth:`HistoryStore.open` and :meth:`HistoryStore.recover` waits for the disk; the threads are
the store's own.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

from attrs import astuple, frozen
from twisted.internet.defer import Deferred, succeed

from cloudmytask.boundaries.supervision import SeenInstance, Supervision
from cloudmytask.model.cluster import LoadSample, NodeId, Role, Standing
from cloudmytask.model.errors import StoreFailed
from cloudmytask.store.database import connect, count_boot, new_node_id, prepare, put_memory, read_meta, start_failures
from cloudmytask.store.files import own_directory
from cloudmytask.store.presence import Presence
from cloudmytask.store.schema import Step
from cloudmytask.store.threads import MakeWorker, Operation, ResultDelivery, ThreadWorker, WorkThread, Writer

DATABASE = "csu.sqlite"
"""The file in the state directory."""

APPLICATION_ID = 0x434D5453
"""Marks the file as a CSU's (``PRAGMA application_id``): "CMTS"."""

# as in ``schema``: a step that was released is never edited, a change is a further step at the end
_VERSION_1: Step = (
    """
    CREATE TABLE meta (
        key TEXT PRIMARY KEY,
        value
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE samples (
        at REAL NOT NULL,
        node TEXT NOT NULL,
        load REAL,
        slots INTEGER NOT NULL,
        free INTEGER NOT NULL,
        waiting INTEGER NOT NULL
    )
    """,
    "CREATE INDEX samples_at ON samples (at)",
    """
    CREATE TABLE instances (
        node_id TEXT PRIMARY KEY,
        role TEXT NOT NULL,
        name TEXT NOT NULL,
        address TEXT NOT NULL,
        version TEXT NOT NULL,
        standing TEXT NOT NULL,
        first_seen REAL NOT NULL,
        last_seen REAL NOT NULL
    ) WITHOUT ROWID
    """,
)

STEPS: Sequence[Step] = (_VERSION_1,)
"""Entry n leads from version n to version n + 1."""


@frozen(eq=False)
class _Opened:
    writer: Writer
    reading: WorkThread
    reader: sqlite3.Connection
    presence: Presence


class HistoryStore:
    """Implements ``boundaries.supervision.SupervisionStore``. From the reactor thread only; :meth:`open` first."""

    def __init__(
        self,
        directory: Path,
        *,
        call_from_thread: Callable[..., object],
        new_node_id: Callable[[], str] = new_node_id,
        steps: Sequence[Step] = STEPS,
        make_worker: MakeWorker = ThreadWorker,
    ) -> None:
        """Name what it is made of; the disk is not touched before :meth:`open`.

        :param directory: where the database lies; made if it is absent.
        :param call_from_thread: runs a function on the reactor thread soon: ``reactor.callFromThread``.
        :param new_node_id: called once in the store's life, when the database is made.
        :param steps: the schema, version by version.
        :param make_worker: makes what writes, and what reads.
        """
        self._directory = directory.absolute()
        self._call_from_thread = call_from_thread
        self._new_node_id = new_node_id
        self._steps = steps
        self._make_worker = make_worker
        self._opened: _Opened | None = None

    @property
    def path(self) -> Path:
        """The database."""
        return self._directory / DATABASE

    def open(self) -> None:
        """Make or check the database, and start the threads. Blocks; after the daemon's fork.

        :raises StartFailed: the sentence names the path that is in the way.
        """
        own_directory(self._directory)
        prepare(self.path, self._steps, self._new_node_id, APPLICATION_ID)
        with start_failures(f"The database {self.path} cannot be opened"), ExitStack() as undo:
            count_boot(self.path)
            writing, reading = (undo.enter_context(closing(connect(self.path))) for _ in range(2))
            presence = Presence([self._directory, self.path], later=[self.path.with_name(f"{self.path.name}-wal")])
            writer = self._make_worker("writer")
            undo.callback(writer.stop)
            reader = self._make_worker("reader")
            undo.pop_all()
        delivery = ResultDelivery(self._call_from_thread)
        self._opened = _Opened(
            Writer(writer, writing, self.path, delivery, presence.check),
            WorkThread(reader, self.path, delivery, at_end=reading.close),
            reading,
            presence,
        )

    def look(self) -> Deferred[None]:
        """Look whether the database is where it was when it was opened. To be called every few seconds.

        :raises StoreFailed: it is gone or was replaced. From then on every change fails.
        """
        parts = self._parts
        return parts.reading.call(parts.presence.check)

    @property
    def _parts(self) -> _Opened:
        if self._opened is None:
            raise StoreFailed("The store is not open.")
        return self._opened

    def recover(self) -> Supervision:
        """What an earlier life knew. Blocks.

        :raises StartFailed: the database cannot be read.
        """
        with start_failures(f"The database {self.path} cannot be read"), closing(connect(self.path)) as connection:
            values = read_meta(connection)
            rows = connection.execute(
                """
                SELECT node_id, role, name, address, version, standing, first_seen, last_seen
                FROM instances ORDER BY last_seen, node_id
                """
            ).fetchall()
            instances = tuple(_instance(row) for row in rows)
        return Supervision(node_id=values.node_id, boots=values.boots, memory=values.memory, instances=instances)

    def remember(self, key: str, text: str) -> Deferred[None]:
        return self._parts.writer.submit(Operation(lambda connection: put_memory(connection, key, text)))

    def record(self, samples: Sequence[LoadSample], instances: Sequence[SeenInstance]) -> Deferred[None]:
        def write(connection: sqlite3.Connection) -> None:
            connection.executemany("INSERT INTO samples VALUES (?, ?, ?, ?, ?, ?)", [astuple(each) for each in samples])
            connection.executemany(
                "INSERT OR REPLACE INTO instances VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [astuple(each) for each in instances],
            )

        return self._parts.writer.submit(Operation(write))

    def samples(self, since: float, until: float, limit: int) -> Deferred[tuple[LoadSample, ...]]:
        parts = self._parts
        return parts.reading.call(partial(_samples, parts.reader, since, until, limit))

    def prune(self, before: float, instances: int) -> Deferred[None]:
        def delete(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM samples WHERE at < ?", (before,))
            connection.execute(
                """
                DELETE FROM instances WHERE node_id IN
                (SELECT node_id FROM instances ORDER BY last_seen DESC, node_id LIMIT -1 OFFSET ?)
                """,
                (instances,),
            )

        return self._parts.writer.submit(Operation(delete))

    def close(self) -> Deferred[None]:
        """Also of a store that was never opened, or is closed already."""
        opened, self._opened = self._opened, None
        return Deferred.fromCoroutine(_close(opened)) if opened is not None else succeed(None)


async def _close(opened: _Opened) -> None:
    await opened.reading.stop()
    await opened.writer.stop()


def _samples(connection: sqlite3.Connection, since: float, until: float, limit: int) -> tuple[LoadSample, ...]:
    [count, nodes] = connection.execute(
        "SELECT count(*), count(DISTINCT node) FROM samples WHERE at BETWEEN ? AND ?", (since, until)
    ).fetchone()
    parts = max(1, limit // max(1, nodes)) if count > limit else 0
    query = "SELECT at, node, load, slots, free, waiting FROM samples WHERE at BETWEEN ? AND ?"
    values: tuple[float, ...] = (since, until)
    if parts:
        # of the bare columns beside max() SQLite gives those of the row that has the maximum
        query = query.replace("SELECT at", "SELECT max(at) AS at")
        query += " GROUP BY node, CAST(min((at - ?) * ? / ?, ?) AS INTEGER)"
        values += (since, parts, until - since, parts - 1)
    rows = connection.execute(f"{query} ORDER BY at, node LIMIT ?", (*values, limit)).fetchall()
    return tuple(LoadSample(*row) for row in rows)


def _instance(row: tuple[str, str, str, str, str, str, float, float]) -> SeenInstance:
    node_id, role, name, address, version, standing, first_seen, last_seen = row
    return SeenInstance(
        NodeId(node_id), Role(role), name, address, version, Standing(standing), float(first_seen), float(last_seen)
    )
