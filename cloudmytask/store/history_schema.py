"""The tables of a CSU, version by version.

Invariant: as in ``schema``: a step that was released is never edited, a change is a further step at the end.
"""

from __future__ import annotations

from collections.abc import Sequence

from cloudmytask.store.schema import Step

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

APPLICATION_ID = 0x434D5453
"""Marks the file as a CSU's (``PRAGMA application_id``): "CMTS"."""
