"""The tables ``jobs`` and ``job_blobs``: statements that write and read job records.

Invariant: ``job_blobs`` names exactly the blobs that the job's last saved record needs; a tombstone needs none.
Functions that write run inside the writer's transaction; functions that read run on any connection.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence

from cloudmytask.codec import to_text
from cloudmytask.codec.records import job_from_record, job_to_record
from cloudmytask.model.errors import InvalidArgument, StoreFailed
from cloudmytask.model.job import ClientId, Digest, Job, JobId, JobPage, JobQuery, JobState
from cloudmytask.store.unreadable import Found, Unreadable

_Row = tuple[bytes, int, bytes, bytes]
_ROW = "CAST(id AS BLOB), sequence, CAST(spec AS BLOB), CAST(record AS BLOB)"
"""As bytes: what has rotted need not be UTF-8, and then SQLite would fail the whole query and not the one row."""

_LAST_CHARACTER = "\U0010ffff"


def save_job(connection: sqlite3.Connection, job: Job) -> None:
    """Write the job's record, and the spec too if the job is new."""
    key = column(job.id)
    updated = connection.execute(
        "UPDATE jobs SET state = ?, expires = ?, record = ? WHERE id = ?",
        (job.state, job.expires, job_to_record(job), key),
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
                to_text(job.spec),
                job_to_record(job),
            ),
        )
    _refer(connection, key, references(job))


def references(job: Job) -> dict[Digest, None]:
    """Digests of the blobs that must be kept because of this job, in a fixed order."""
    return {} if job.state is JobState.EXPIRED else {blob.digest: None for blob in job.blobs()}


def _refer(connection: sqlite3.Connection, key: str | bytes, wanted: dict[Digest, None]) -> None:
    # most saves change nothing here, and looking is cheaper than writing
    rows = connection.execute("SELECT digest FROM job_blobs WHERE job_id = ?", (key,))
    present = {digest for (digest,) in rows}
    if missing := [(key, digest) for digest in wanted if digest not in present]:
        connection.executemany("INSERT INTO job_blobs (job_id, digest) VALUES (?, ?)", missing)
    if gone := [(key, digest) for digest in present if digest not in wanted]:
        connection.executemany("DELETE FROM job_blobs WHERE job_id = ? AND digest = ?", gone)


def forget_job(connection: sqlite3.Connection, job_id: JobId) -> None:
    """Delete the job's row and its references."""
    key = column(job_id)
    connection.execute("DELETE FROM jobs WHERE id = ?", (key,))
    connection.execute("DELETE FROM job_blobs WHERE job_id = ?", (key,))


def get_job(connection: sqlite3.Connection, job_id: JobId) -> Job | None:
    """
    :raises StoreFailed: its record cannot be read.
    """
    row = connection.execute(f"SELECT {_ROW} FROM jobs WHERE id = ?", (column(job_id),)).fetchone()  # noqa: S608 - fixed
    if row is None:
        return None
    record = _read(row)
    if isinstance(record, Unreadable):
        raise StoreFailed(str(record))
    return record


def newest_jobs(connection: sqlite3.Connection, client: ClientId, query: JobQuery) -> Found[JobPage]:
    """A page of the records that can be read."""
    parameters: list[str | bytes | int] = [column(client)]
    # with a prefix the primary key narrows more than the client does: a unary plus takes the client's index away
    conditions = ["+client = ?" if query.prefix else "client = ?"]
    if query.prefix:
        conditions.append("id >= ? AND id < ?")
        parameters += [column(query.prefix), column(query.prefix + _LAST_CHARACTER)]
    if query.name is not None:
        conditions.append("name = ?")
        parameters.append(column(query.name))
    if query.states:
        conditions.append(f"state IN ({', '.join('?' * len(query.states))})")
        parameters += sorted(query.states)
    else:
        conditions.append("state != 'expired'")
    if query.before is not None:
        conditions.append("sequence < ?")
        parameters.append(query.before)
    # only the fixed fragments above are put together here
    statement = f"SELECT {_ROW} FROM jobs WHERE {' AND '.join(conditions)} ORDER BY sequence DESC"  # noqa: S608
    found = _first(connection, statement, parameters, query.limit + 1)
    jobs = found.value[: query.limit]
    page = JobPage(jobs, jobs[-1].sequence if jobs and len(found.value) > query.limit else None)
    return Found(page, found.unreadable)


def due_jobs(connection: sqlite3.Connection, age: float, limit: int) -> Found[tuple[Job, ...]]:
    statement = f"SELECT {_ROW} FROM jobs WHERE expires <= ? ORDER BY expires, sequence"  # noqa: S608 - fixed
    return _first(connection, statement, [age], limit)


def open_jobs(connection: sqlite3.Connection) -> Found[tuple[Job, ...]]:
    """Every job without an outcome, oldest first."""
    # the condition is the one of the index `jobs_open`, word for word: SQLite uses the index only then
    states = "state IN ('pending', 'waiting', 'staging', 'running')"
    return _sorted_out(connection.execute(f"SELECT {_ROW} FROM jobs WHERE {states} ORDER BY sequence"))  # noqa: S608 - fixed


def every_id(connection: sqlite3.Connection) -> Iterator[str]:
    """The id of every record, but of those that have rotted: nobody can ask for such a one."""
    for (key,) in connection.execute("SELECT CAST(id AS BLOB) FROM jobs"):
        try:
            yield _text(key)
        except UnicodeDecodeError:
            continue


def next_sequence(connection: sqlite3.Connection) -> int:
    """One more than the highest sequence in use."""
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


def _first(
    connection: sqlite3.Connection, statement: str, parameters: Sequence[str | bytes | float], limit: int
) -> Found[tuple[Job, ...]]:
    """The first ``limit`` records that can be read."""
    wanted = limit
    while True:
        rows = connection.execute(f"{statement} LIMIT ?", (*parameters, wanted)).fetchall()
        found = _sorted_out(rows)
        if len(found.value) >= limit or len(rows) < wanted:
            return Found(found.value[:limit], found.unreadable)
        # what could not be read took places away
        wanted += len(found.unreadable)


def _sorted_out(rows: Iterable[_Row]) -> Found[tuple[Job, ...]]:
    records = [_read(row) for row in rows]
    return Found(
        tuple(record for record in records if isinstance(record, Job)),
        tuple(record for record in records if isinstance(record, Unreadable)),
    )


def _read(row: _Row) -> Job | Unreadable:
    key, sequence, spec, record = row
    try:
        job = job_from_record(spec, record)
        if (job.id, job.sequence) != (_text(key), sequence):
            raise ValueError("it belongs to another job")
    except (ValueError, InvalidArgument) as error:
        return Unreadable(key.decode("utf-8", "backslashreplace"), f"{type(error).__name__}: {error}")
    return job
