"""The tables ``jobs`` and ``job_blobs``: statements that write and read job records.

Invariant: ``job_blobs`` names exactly the blobs that the job's last saved record needs; a tombstone needs none.
Functions that write run inside the writer's transaction; functions that read run on any connection.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from cloudmytask.core.records import job_from_record, job_to_record, spec_to_json
from cloudmytask.errors import StoreFailed
from cloudmytask.model import ClientId, Digest, Job, JobId, JobPage, JobQuery, JobState

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
                spec_to_json(job.spec),
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
    row = connection.execute("SELECT id, spec, record FROM jobs WHERE id = ?", (column(job_id),)).fetchone()
    return _job(row) if row is not None else None


def newest_jobs(connection: sqlite3.Connection, client: ClientId, query: JobQuery) -> JobPage:
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
    rows = connection.execute(
        # only the fixed fragments above are put together here
        f"SELECT id, spec, record FROM jobs WHERE {' AND '.join(conditions)} ORDER BY sequence DESC LIMIT ?",  # noqa: S608
        (*parameters, query.limit + 1),
    ).fetchall()
    jobs = tuple(_job(row) for row in rows[: query.limit])
    return JobPage(jobs, jobs[-1].sequence if jobs and len(rows) > query.limit else None)


def due_jobs(connection: sqlite3.Connection, age: float, limit: int) -> tuple[Job, ...]:
    rows = connection.execute(
        "SELECT id, spec, record FROM jobs WHERE expires <= ? ORDER BY expires, sequence LIMIT ?", (age, limit)
    )
    return tuple(_job(row) for row in rows)


def open_jobs(connection: sqlite3.Connection) -> tuple[Job, ...]:
    """Every job without an outcome, oldest first."""
    # the condition is the one of the index `jobs_open`, word for word: SQLite uses the index only then
    rows = connection.execute(
        """
        SELECT id, spec, record FROM jobs
        WHERE state IN ('pending', 'waiting', 'staging', 'running')
        ORDER BY sequence
        """
    )
    return tuple(_job(row) for row in rows)


def every_id(connection: sqlite3.Connection) -> Iterator[str]:
    """The id of every record."""
    for (job_id,) in connection.execute("SELECT id FROM jobs"):
        yield job_id if isinstance(job_id, str) else job_id.decode("utf-8", "surrogatepass")


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


def _job(row: tuple[str | bytes, str, str]) -> Job:
    job_id, spec, record = row
    try:
        return job_from_record(spec, record)
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise StoreFailed(f"The record of job {job_id!r} cannot be read.") from error
