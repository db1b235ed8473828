"""Job records in the database: statements that write and read them.

Invariant: ``job_blobs`` names exactly the blobs that the job's last saved record needs, ``held_blobs`` those of a copy
of another node's job; a tombstone needs none. Functions that write run inside the writer's transaction; functions that
read run on any connection, and look at no more rows than they return, but for a listing by prefix.

A record that cannot be read, because it has rotted or a later version wrote it, is left as it is, but for a mark that
keeps it out of the way: it is reported once, and no other record is found later or not at all because of it. None is
written that could not be read back.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Mapping
from typing import Generic, TypeVar

from attrs import field, frozen
from twisted.logger import Logger

from cloudmytask.boundaries import Recovery
from cloudmytask.codec import to_text
from cloudmytask.codec.records import check_record, job_from_record, job_to_record
from cloudmytask.model.errors import StoreFailed
from cloudmytask.model.job import ClientId, Digest, Job, JobId, JobPage, JobQuery, JobState, NodeId
from cloudmytask.store.blobs import loosen
from cloudmytask.store.database import read_meta

T = TypeVar("T")

_log = Logger()

_Row = tuple[int, bytes, int, bytes, bytes]
_ROW = "rowid, CAST(id AS BLOB), sequence, CAST(spec AS BLOB), CAST(record AS BLOB)"
"""As bytes: what has rotted need not be UTF-8, and then SQLite would fail the whole query and not the one row."""

_LAST_CHARACTER = "\U0010ffff"


@frozen
class UnreadableRecord:
    """One of them."""

    job_id: str
    reason: str
    place: int
    record: bytes = field(repr=False)
    table: str = "jobs"

    def __str__(self) -> str:
        return f"The record of job {self.job_id} cannot be read ({self.reason})."


@frozen
class Found(Generic[T]):
    """What a query found, and what it had to leave out."""

    value: T
    unreadable: tuple[UnreadableRecord, ...] = ()


class UnreadableRecords:
    """Those that were reported already. From one thread only, the one that may log."""

    def __init__(self) -> None:
        self._reported: set[str] = set()

    def report(self, found: Found[T]) -> list[UnreadableRecord]:
        """The log gets what was left out, each record once; those that are news."""
        news = [record for record in found.unreadable if record.job_id not in self._reported]
        for record in news:
            self._reported.add(record.job_id)
            _log.error("{record} It is set aside.", record=record)
        return news


def set_aside(connection: sqlite3.Connection, records: Iterable[UnreadableRecord], by: str) -> None:
    """Mark records that the version ``by`` of the program cannot read, unless they were written once more meanwhile."""
    for record in records:
        connection.execute(
            f"UPDATE {record.table} SET unreadable = ? WHERE rowid = ? AND CAST(record AS BLOB) = ?",  # noqa: S608
            (by, record.place, record.record),
        )


def take_up_again(connection: sqlite3.Connection, by: str) -> None:
    """Take the marks of other versions of the program away: perhaps ``by`` can read what they could not."""
    for table in ("jobs", "held_jobs"):
        marked = f"FROM {table} WHERE unreadable IS NOT NULL AND unreadable != ?"
        if connection.execute(f"SELECT 1 {marked} LIMIT 1", (by,)).fetchone() is not None:
            connection.execute(
                f"UPDATE {table} SET unreadable = NULL WHERE unreadable IS NOT NULL AND unreadable != ?",  # noqa: S608
                (by,),
            )


def save_job(connection: sqlite3.Connection, job: Job) -> None:
    """Write the job's record, and the spec too if the job is new.

    :raises InternalError: it could not be read back.
    """
    key, spec, record = column(job.id), to_text(job.spec), job_to_record(job)
    check_record(job, spec, record)
    updated = connection.execute(
        "UPDATE jobs SET state = ?, expires = ?, record = ?, unreadable = NULL WHERE id = ?",
        (job.state, job.expires, record, key),
    )
    if updated.rowcount == 0:
        connection.execute(
            """
            INSERT INTO jobs (id, sequence, client, name, state, expires, spec, record)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?)
            """,
            (
                key,
                job.sequence,
                column(job.client),
                column(job.spec.label),
                job.state,
                job.expires,
                spec,
                record,
            ),
        )
    _refer(connection, "job_blobs", key, references(job))


def hold_job(connection: sqlite3.Connection, job: Job) -> None:
    """Write the copy of another node's job; it takes the place of an older copy.

    :raises InternalError: it could not be read back.
    """
    key, spec, record = column(job.id), to_text(job.spec), job_to_record(job)
    check_record(job, spec, record)
    connection.execute(
        "INSERT OR REPLACE INTO held_jobs (id, sequence, spec, record) VALUES (?, ?, ?, ?)",
        (key, job.sequence, spec, record),
    )
    _refer(connection, "held_blobs", key, references(job))


def references(job: Job) -> dict[Digest, None]:
    """Digests of the blobs that must be kept because of this job, in a fixed order."""
    return {} if job.state is JobState.EXPIRED else {blob.digest: None for blob in job.blobs()}


def _refer(connection: sqlite3.Connection, table: str, key: str | bytes, wanted: Collection[Digest]) -> None:
    # most saves change nothing here, and looking is cheaper than writing
    rows = connection.execute(f"SELECT digest FROM {table} WHERE job_id = ?", (key,))  # noqa: S608 - one of two
    present = {digest for (digest,) in rows}
    if missing := [(key, digest) for digest in wanted if digest not in present]:
        connection.executemany(f"INSERT INTO {table} (job_id, digest) VALUES (?, ?)", missing)  # noqa: S608
    if gone := [(key, digest) for digest in present if digest not in wanted]:
        connection.executemany(f"DELETE FROM {table} WHERE job_id = ? AND digest = ?", gone)  # noqa: S608
        loosen(connection, (digest for _, digest in gone))


def forget_job(connection: sqlite3.Connection, job_id: JobId) -> None:
    """Delete an own job's row and its references."""
    key = column(job_id)
    connection.execute("DELETE FROM jobs WHERE id = ?", (key,))
    _refer(connection, "job_blobs", key, ())


def get_job(connection: sqlite3.Connection, job_id: JobId) -> Job | None:
    """The own job of that id; None if there is none.

    :raises StoreFailed: its record cannot be read.
    """
    row = connection.execute(f"SELECT {_ROW} FROM jobs WHERE id = ?", (column(job_id),)).fetchone()  # noqa: S608 - fixed
    if row is None:
        return None
    record = _read(row)
    if isinstance(record, UnreadableRecord):
        raise StoreFailed(str(record))
    return record


def newest_jobs(connection: sqlite3.Connection, client: ClientId, query: JobQuery) -> Found[JobPage]:
    """A page of the records that can be read."""
    values: dict[str, str | bytes | float] = {"client": column(client)}
    table, condition = "jobs", "client = :client AND unreadable IS NULL"
    if query.prefix:
        # it narrows more than any other index
        table = "jobs INDEXED BY jobs_prefix"
        condition += " AND id >= :first AND id < :last"
        values |= {"first": column(query.prefix), "last": column(query.prefix + _LAST_CHARACTER)}
    if query.name is not None:
        condition += " AND name = :name"
        values["name"] = column(query.name)
    if query.before is not None:
        condition += " AND sequence < :before"
        values["before"] = query.before
    states = sorted(query.states) or [state for state in JobState if state is not JobState.EXPIRED]
    if query.prefix:
        arms = [f"state IN ({', '.join(map(_quoted, states))})"]
    elif query.name is None and not query.states:
        arms = ["state != 'expired'"]
    else:
        # the newest of each state by an index, and of these the newest: jobs of other states are not looked at
        arms = [f"state = {_quoted(state)}" for state in states]
    # only fixed fragments and names of states are put together here
    found = _first(
        connection,
        f"SELECT {_ROW} FROM jobs WHERE rowid IN (SELECT place FROM ("  # noqa: S608
        + " UNION ALL ".join(
            f"SELECT * FROM (SELECT rowid AS place, sequence FROM {table} WHERE {condition} AND {arm}"  # noqa: S608
            " ORDER BY sequence DESC LIMIT :limit)"
            for arm in arms
        )
        + ") ORDER BY sequence DESC LIMIT :limit) ORDER BY sequence DESC",
        values,
        query.limit + 1,
    )
    jobs = found.value[: query.limit]
    page = JobPage(jobs, jobs[-1].sequence if jobs and len(found.value) > query.limit else None)
    return Found(page, found.unreadable)


def due_jobs(connection: sqlite3.Connection, age: float, limit: int) -> Found[tuple[Job, ...]]:
    """Own records that fell due at ``age``, earliest first."""
    statement = (
        f"SELECT {_ROW} FROM jobs WHERE expires <= :age AND unreadable IS NULL"  # noqa: S608 - fixed
        " ORDER BY expires, sequence LIMIT :limit"
    )
    return _first(connection, statement, {"age": age}, limit)


def read_recovery(connection: sqlite3.Connection) -> Found[Recovery]:
    """All that a starting node needs to know.

    :raises ValueError, TypeError: a value that it cannot do without has rotted.
    """
    values = read_meta(connection)
    checkpoint_at = values.others.get("checkpoint_at")
    own, held = open_jobs(connection), held_jobs(connection)
    recovery = Recovery(
        node_id=NodeId(values.node_id),
        own=own.value,
        next_sequence=next_sequence(connection),
        age=float(values.others.get("age", 0.0)),
        checkpoint_at=float(checkpoint_at) if checkpoint_at is not None else None,
        boots=values.boots,
        memory=values.memory,
        held=held.value,
    )
    return Found(recovery, (*own.unreadable, *held.unreadable))


def open_jobs(connection: sqlite3.Connection) -> Found[tuple[Job, ...]]:
    """Every job without an outcome, oldest first."""
    # the condition is the one of the index `jobs_open`, word for word: SQLite uses the index only then
    states = "state IN ('pending', 'waiting', 'staging', 'running') AND unreadable IS NULL"
    return _sorted_out(connection.execute(f"SELECT {_ROW} FROM jobs WHERE {states} ORDER BY sequence"))  # noqa: S608 - fixed


def held_jobs(connection: sqlite3.Connection) -> Found[tuple[Job, ...]]:
    """Every copy of another node's job."""
    rows = connection.execute(f"SELECT {_ROW} FROM held_jobs WHERE unreadable IS NULL ORDER BY sequence, id")  # noqa: S608
    return _sorted_out(rows, "held_jobs")


def next_sequence(connection: sqlite3.Connection) -> int:
    """One more than the highest sequence of this node's own jobs."""
    [highest] = connection.execute("SELECT max(sequence) FROM jobs").fetchone()
    return int(highest or 0) + 1


def column(text: str) -> str | bytes:
    """``text`` as a column's value. Text with lone surrogates, which SQLite has no encoding for, becomes a BLOB: it
    still equals only itself."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")
    return text


def _text(key: bytes) -> str:
    """What :func:`column` was given.

    :raises UnicodeDecodeError: it has rotted.
    """
    return key.decode("utf-8", "surrogatepass")


def _quoted(state: JobState) -> str:
    return f"'{state}'"


def _first(
    connection: sqlite3.Connection, statement: str, values: Mapping[str, str | bytes | float], limit: int
) -> Found[tuple[Job, ...]]:
    """The first ``limit`` records that can be read."""
    wanted = limit
    while True:
        rows = connection.execute(statement, {**values, "limit": wanted}).fetchall()
        found = _sorted_out(rows)
        if len(found.value) >= limit or len(rows) < wanted:
            return Found(found.value[:limit], found.unreadable)
        # what could not be read took places away
        wanted += len(found.unreadable)


def _sorted_out(rows: Iterable[_Row], table: str = "jobs") -> Found[tuple[Job, ...]]:
    records = [_read(row, table) for row in rows]
    return Found(
        tuple(record for record in records if isinstance(record, Job)),
        tuple(record for record in records if isinstance(record, UnreadableRecord)),
    )


def _read(row: _Row, table: str = "jobs") -> Job | UnreadableRecord:
    place, key, sequence, spec, record = row
    try:
        job = job_from_record(spec, record)
        if (job.id, job.sequence) != (_text(key), sequence):
            raise ValueError("it belongs to another job")
    except Exception as error:  # noqa: BLE001 - there is no knowing what rotten bytes lead to
        job_id = key.decode("utf-8", "backslashreplace") if isinstance(key, bytes) else str(key)
        return UnreadableRecord(job_id, f"{type(error).__name__}: {error}", place, record, table)
    return job
