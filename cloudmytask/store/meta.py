"""The table ``meta``: the few values that belong to the node and not to a job.

Invariant: the retention clock and the wall clock of a checkpoint are always from the same checkpoint. What the node
remembers under names of its own has keys with a prefix, so that no such name can hide one of ours.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from attrs import frozen

from cloudmytask.boundaries import Recovery
from cloudmytask.model.job import NodeId
from cloudmytask.store.database import connect
from cloudmytask.store.jobs import next_sequence, open_jobs
from cloudmytask.store.unreadable import Found

_PUT = "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
_MEMORY = "memory:"
_BOOTS = "boots"


def put_checkpoint(connection: sqlite3.Connection, age: float, wall: float) -> None:
    """Remember the retention clock (seconds), and the wall clock at that moment."""
    connection.executemany(_PUT, [("age", age), ("checkpoint_at", wall)])


def put_memory(connection: sqlite3.Connection, key: str, text: str) -> None:
    """Keep a text of the node's own; it takes the place of the one before."""
    connection.execute(_PUT, (_MEMORY + key, text))


def count_boot(database: Path) -> None:
    """Note that this state was opened once more; durable when it returns. Ahead of everything else that a start does: a
    boot that anybody heard of must never be counted a second time.

    :raises ValueError, TypeError: the count so far has rotted. :raises sqlite3.Error:
    """
    with closing(connect(database)) as connection:
        row = connection.execute("SELECT value FROM meta WHERE key = ?", (_BOOTS,)).fetchone()
        connection.execute(_PUT, (_BOOTS, int(row[0]) + 1 if row is not None else 1))


@frozen
class MetaValues:
    """What the table holds, but for the retention clock."""

    node_id: str
    boots: int
    memory: Mapping[str, str]
    others: Mapping[str, Any]


def read_values(connection: sqlite3.Connection) -> MetaValues:
    """
    :raises ValueError, TypeError: a value that nobody can do without has rotted.
    """
    values = {str(key): value for key, value in connection.execute("SELECT key, value FROM meta")}
    if "node_id" not in values:
        raise ValueError("it has no node id")
    memory = {key.removeprefix(_MEMORY): str(value) for key, value in values.items() if key.startswith(_MEMORY)}
    return MetaValues(str(values["node_id"]), int(values.get(_BOOTS, 0)), memory, values)


def read_recovery(connection: sqlite3.Connection) -> Found[Recovery]:
    """All that a starting node needs to know.

    :raises ValueError, TypeError: a value that it cannot do without has rotted.
    """
    values = read_values(connection)
    checkpoint_at = values.others.get("checkpoint_at")
    jobs = open_jobs(connection)
    recovery = Recovery(
        node_id=NodeId(values.node_id),
        own=jobs.value,
        next_sequence=next_sequence(connection),
        age=float(values.others.get("age", 0.0)),
        checkpoint_at=float(checkpoint_at) if checkpoint_at is not None else None,
        boots=values.boots,
        memory=values.memory,
    )
    return Found(recovery, jobs.unreadable)
