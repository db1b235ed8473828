"""The tables of a node, version by version.

Invariant: a step that was released is never edited; a change is a further step at the end. A new database goes
through the same steps as an old one, so the two cannot differ.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress

from attrs import evolve

from cloudmytask.codec import body_digest, to_text
from cloudmytask.codec.records import job_from_version_1, job_to_record
from cloudmytask.model.errors import InvalidArgument
from cloudmytask.model.job import NodeId

Step = tuple[str | Callable[[sqlite3.Connection], object], ...]
"""SQL statements, each on its own, and functions for what SQL cannot say, that lead from one version to the next inside
one transaction."""

_VERSION_1: Step = (
    """
    CREATE TABLE meta (
        key TEXT PRIMARY KEY,
        value
    ) WITHOUT ROWID
    """,
    # `record` changes several times in a job's life, `spec` never: it is written once
    """
    CREATE TABLE jobs (
        id TEXT PRIMARY KEY,
        sequence INTEGER NOT NULL,
        client TEXT NOT NULL,
        name TEXT NOT NULL,
        state TEXT NOT NULL,
        expires REAL,
        spec TEXT NOT NULL,
        record TEXT NOT NULL
    )
    """,
    "CREATE INDEX jobs_newest ON jobs (client, sequence DESC)",
    "CREATE INDEX jobs_due ON jobs (expires, sequence) WHERE expires IS NOT NULL",
    "CREATE INDEX jobs_open ON jobs (sequence) WHERE state IN ('pending', 'waiting', 'staging', 'running')",
    # a small blob has `data`; a large one is a file and has `leaves`: the sha256 of each stretch of 256 KiB, in a row;
    # `brought` (UTC seconds) is when it came in ahead of a job, NULL if it came along with one
    """
    CREATE TABLE blobs (
        digest TEXT PRIMARY KEY,
        size INTEGER NOT NULL,
        brought REAL,
        leaves BLOB,
        data BLOB
    )
    """,
    """
    CREATE TABLE job_blobs (
        job_id TEXT NOT NULL,
        digest TEXT NOT NULL,
        PRIMARY KEY (job_id, digest)
    ) WITHOUT ROWID
    """,
    "CREATE INDEX job_blobs_digest ON job_blobs (digest)",
)


def _rewrite_records(connection: sqlite3.Connection) -> None:
    """Records of version 1 in today's form. Those that cannot be read stay as they are, and are reported when read."""
    place = 0
    while rows := connection.execute(
        "SELECT rowid, CAST(spec AS BLOB), CAST(record AS BLOB) FROM jobs WHERE rowid > ? ORDER BY rowid LIMIT 500",
        (place,),
    ).fetchall():
        [node_id] = connection.execute("SELECT value FROM meta WHERE key = 'node_id'").fetchone()
        changed = []
        for place, spec, record in rows:
            with suppress(InvalidArgument):
                job = job_from_version_1(spec, record, NodeId(node_id))
                # over the spec's new text, so that the same key submitted again is still the same job
                job = evolve(job, body=body_digest(job.spec))
                changed.append((to_text(job.spec), job_to_record(job), place))
        connection.executemany("UPDATE jobs SET spec = ?, record = ? WHERE rowid = ?", changed)


_VERSION_2: Step = (
    _rewrite_records,
    # Copies of other nodes' jobs are in tables of their own, so that no query can take one for a job of this node.
    """
    CREATE TABLE held_jobs (
        id TEXT PRIMARY KEY,
        sequence INTEGER NOT NULL,
        spec TEXT NOT NULL,
        record TEXT NOT NULL
    )
    """,
    """
    CREATE TABLE held_blobs (
        job_id TEXT NOT NULL,
        digest TEXT NOT NULL,
        PRIMARY KEY (job_id, digest)
    ) WITHOUT ROWID
    """,
    "CREATE INDEX held_blobs_digest ON held_blobs (digest)",
    # listings by state or name, and the highest sequence, without a look at other rows
    "DROP INDEX jobs_newest",
    "CREATE INDEX jobs_newest ON jobs (client, sequence DESC) WHERE state != 'expired'",
    "CREATE INDEX jobs_state ON jobs (client, state, sequence)",
    "CREATE INDEX jobs_name ON jobs (client, name, state, sequence)",
    "CREATE INDEX jobs_sequence ON jobs (sequence)",
    # what a start asks for
    "CREATE INDEX blobs_brought ON blobs (brought) WHERE brought IS NOT NULL",
    # blobs that came in without a job or lost one: all that no job refers to, and perhaps some that one does again
    "CREATE TABLE loose (digest TEXT PRIMARY KEY) WITHOUT ROWID",
    "INSERT INTO loose SELECT digest FROM blobs WHERE digest NOT IN (SELECT digest FROM job_blobs)",
)

_VERSION_3: Step = (
    # The version of the program that could not read a record; it keeps out of the way of all others until it is saved
    # once more, or another version looks at it. No index but `jobs_sequence` has it then.
    "ALTER TABLE jobs ADD COLUMN unreadable TEXT",
    "ALTER TABLE held_jobs ADD COLUMN unreadable TEXT",
    *(f"DROP INDEX jobs_{name}" for name in ("newest", "state", "name", "due", "open")),
    "CREATE INDEX jobs_newest ON jobs (client, sequence DESC) WHERE state != 'expired' AND unreadable IS NULL",
    "CREATE INDEX jobs_state ON jobs (client, state, sequence) WHERE unreadable IS NULL",
    "CREATE INDEX jobs_name ON jobs (client, name, state, sequence) WHERE unreadable IS NULL",
    # a listing by prefix looks at ids of that client only, and at no record that it does not tell: all columns that it
    # asks for are here
    "CREATE INDEX jobs_prefix ON jobs (client, id, state, sequence, unreadable) WHERE unreadable IS NULL",
    "CREATE INDEX jobs_due ON jobs (expires, sequence) WHERE expires IS NOT NULL AND unreadable IS NULL",
    """
    CREATE INDEX jobs_open ON jobs (sequence)
    WHERE state IN ('pending', 'waiting', 'staging', 'running') AND unreadable IS NULL
    """,
    "CREATE INDEX jobs_unreadable ON jobs (unreadable) WHERE unreadable IS NOT NULL",
    "CREATE INDEX held_jobs_unreadable ON held_jobs (unreadable) WHERE unreadable IS NOT NULL",
)

STEPS: Sequence[Step] = (_VERSION_1, _VERSION_2, _VERSION_3)
"""Entry n leads from version n to version n + 1."""

CURRENT_VERSION = len(STEPS)
"""The version that this program writes (``PRAGMA user_version``)."""

APPLICATION_ID = 0x434D5431
"""Marks the file as ours (``PRAGMA application_id``): "CMT1"."""
