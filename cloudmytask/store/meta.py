"""The table ``meta``: the few values that belong to the node and not to a job.

Invariant: the retention clock and the wall clock of a checkpoint are always from the same checkpoint.
"""

from __future__ import annotations

import sqlite3

from cloudmytask.boundaries import Recovery
from cloudmytask.store.jobs import next_sequence, open_jobs
from cloudmytask.store.unreadable import Found


def put_checkpoint(connection: sqlite3.Connection, age: float, wall: float) -> None:
    """Remember the retention clock (seconds), and the wall clock at that moment."""
    connection.executemany(
        "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        [("age", age), ("checkpoint_at", wall)],
    )


def read_recovery(connection: sqlite3.Connection) -> Found[Recovery]:
    """All that a starting node needs to know.

    :raises ValueError, TypeError: a value that it cannot do without has rotted.
    """
    values = dict(connection.execute("SELECT key, value FROM meta"))
    if "node_id" not in values:
        raise ValueError("it has no node id")
    checkpoint_at = values.get("checkpoint_at")
    jobs = open_jobs(connection)
    recovery = Recovery(
        node_id=str(values["node_id"]),
        jobs=jobs.value,
        next_sequence=next_sequence(connection),
        age=float(values.get("age", 0.0)),
        checkpoint_at=float(checkpoint_at) if checkpoint_at is not None else None,
        boots=int(values.get("boots", 1)),
    )
    return Found(recovery, jobs.unreadable)
