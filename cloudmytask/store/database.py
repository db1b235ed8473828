"""The database file: made whole or not at all, upgraded with a backup beside it; and its table ``meta``.

Invariant: the file at its final name is always a complete database of some known version; what is wrong with it is a
StartFailed that names it, and leaves it as it was. A start costs the same however much is stored: the search for
damage (:func:`damage`) is for afterwards.

``meta`` has the few values that belong to the node and not to a job. What the node remembers under names of its own has
keys with a prefix, so that no such name can hide one of ours.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from attrs import frozen

from cloudmytask.model.errors import StartFailed
from cloudmytask.store.files import need_access, reason, rename_durably
from cloudmytask.store.schema import APPLICATION_ID, Step

BUSY_TIMEOUT = 10.0
"""Seconds to wait for a lock: only a backup tool or a curious person with ``sqlite3`` can hold one."""


def new_node_id() -> str:
    """A random id."""
    return secrets.token_hex(16)


def connect(path: Path) -> sqlite3.Connection:
    """A connection without implicit transactions, for the thread that it is given to.

    :raises sqlite3.Error: it cannot be opened.
    """
    connection = sqlite3.connect(
        f"{path.as_uri()}?mode=rw", uri=True, isolation_level=None, check_same_thread=False, timeout=BUSY_TIMEOUT
    )
    try:
        # FULL: a commit is on the disk when it returns, also in WAL mode (https://www.sqlite.org/pragma.html)
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA journal_size_limit = 67108864")
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def start_failures(subject: str) -> Iterator[None]:
    """Make one sentence of what keeps a store from starting.

    :param subject: the beginning of the sentence: "The database PATH cannot be opened".
    :raises StartFailed: instead of an error of the operating system, of SQLite, or of a value that has rotted.
    """
    try:
        yield
    except (OSError, sqlite3.Error, ValueError, TypeError) as error:
        raise StartFailed(f"{subject}: {reason(error)}.") from error


def prepare(
    path: Path, steps: Sequence[Step], new_node_id: Callable[[], str], application: int = APPLICATION_ID
) -> None:
    """Make sure that ``path`` is a sound and writable database of the version that ``steps`` lead to.

    :param application: marks what kind of database it is (``PRAGMA application_id``).
    :raises StartFailed: the sentence names the path, and says what is wrong with it.
    """
    with start_failures(f"The database {path} cannot be opened"):
        if not path.exists():
            _create(path, steps, new_node_id(), application)
        # SQLite would fall back to reading only, and say so at the first commit
        need_access(path, os.R_OK | os.W_OK)
        with closing(connect(path)) as connection:
            _check(connection, path, len(steps), application)
            _upgrade(connection, path, steps)


def _create(path: Path, steps: Sequence[Step], node_id: str, application: int) -> None:
    fresh = path.with_name(path.name + ".new")
    for leftover in (fresh, *(fresh.with_name(fresh.name + suffix) for suffix in ("-wal", "-shm", "-journal"))):
        leftover.unlink(missing_ok=True)
    fresh.touch(mode=0o600)
    with closing(connect(fresh)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(f"PRAGMA application_id = {application}")
        _run(connection, steps, 0)
        connection.execute("INSERT INTO meta (key, value) VALUES ('node_id', ?)", (node_id,))
        connection.execute("COMMIT")
    rename_durably(fresh, path)


def _check(connection: sqlite3.Connection, path: Path, known: int, application: int) -> None:
    [application_id] = connection.execute("PRAGMA application_id").fetchone()
    if application_id != application:
        raise StartFailed(f"The file {path} is not a database of Cloud My Task.")
    version = _version(connection)
    if version > known:
        raise StartFailed(
            f"The database {path} has schema {version}, written by a newer Cloud My Task; this one knows {known}."
        )
    # every tree's root is read: a file that lost its beginning is refused at once
    for (table,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall():
        connection.execute(f'SELECT 1 FROM "{table}" LIMIT 1').fetchone()  # noqa: S608 - of the schema


def damage(connection: sqlite3.Connection) -> str | None:
    """What is wrong with the database's pages, None if nothing is. Reads all of it; ``interrupt()`` ends it.

    :raises sqlite3.Error: it cannot be read, or was interrupted.
    """
    [verdict] = connection.execute("PRAGMA quick_check(1)").fetchone()
    return None if verdict == "ok" else str(verdict)


def _upgrade(connection: sqlite3.Connection, path: Path, steps: Sequence[Step]) -> None:
    version = _version(connection)
    if version == len(steps):
        return
    _back_up(connection, path.with_name(f"{path.name}.backup-v{version}"))
    connection.execute("BEGIN IMMEDIATE")
    try:
        _run(connection, steps, version)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _back_up(connection: sqlite3.Connection, target: Path) -> None:
    fresh = target.with_name(target.name + ".new")
    fresh.unlink(missing_ok=True)
    fresh.touch(mode=0o600)
    connection.execute("VACUUM INTO ?", (str(fresh),))
    rename_durably(fresh, target)


def _run(connection: sqlite3.Connection, steps: Sequence[Step], version: int) -> None:
    for step in steps[version:]:
        for change in step:
            if isinstance(change, str):
                connection.execute(change)
            else:
                change(connection)
    connection.execute(f"PRAGMA user_version = {len(steps)}")


def _version(connection: sqlite3.Connection) -> int:
    [version] = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


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
    """Note that this state was opened once more; durable when it returns. It comes before all else that a start does: a
    boot that others heard of must never be counted a second time.

    :raises ValueError, TypeError: the count so far has rotted. :raises sqlite3.Error: it cannot be written.
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


def read_meta(connection: sqlite3.Connection) -> MetaValues:
    """Read the whole table.

    :raises ValueError, TypeError: a value that no node can do without has rotted.
    """
    values = {str(key): value for key, value in connection.execute("SELECT key, value FROM meta")}
    if "node_id" not in values:
        raise ValueError("it has no node id")
    memory = {key.removeprefix(_MEMORY): str(value) for key, value in values.items() if key.startswith(_MEMORY)}
    return MetaValues(str(values["node_id"]), int(values.get(_BOOTS, 0)), memory, values)
