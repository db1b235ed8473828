"""Opening the database file: made whole or not at all, checked, upgraded with a backup beside it.

Invariant: the file at its final name is always a complete database of some known version; whatever is wrong with it
is a StartFailed that names it, and leaves it as it was.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

from cloudmytask.model.errors import StartFailed
from cloudmytask.store.files import reason, sync_directory, sync_file
from cloudmytask.store.schema import APPLICATION_ID, Step

BUSY_TIMEOUT = 10.0
"""Seconds to wait for a lock: only a backup tool or a curious person with ``sqlite3`` can hold one."""


def connect(path: Path) -> sqlite3.Connection:
    """A connection without implicit transactions, for whichever thread it is given to.

    :raises sqlite3.Error:
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


def prepare(
    path: Path, steps: Sequence[Step], new_node_id: Callable[[], str], application: int = APPLICATION_ID
) -> None:
    """Make sure that ``path`` is a sound and writable database of the version that ``steps`` lead to.

    :param application: marks what kind of database it is (``PRAGMA application_id``).
    :raises StartFailed:
    """
    try:
        if not path.exists():
            _create(path, steps, new_node_id(), application)
        # SQLite would fall back to reading only, and say so at the first commit
        _need_access(path, os.R_OK | os.W_OK)
        connection = connect(path)
        try:
            _check(connection, path, len(steps), application)
            _upgrade(connection, path, steps)
        finally:
            connection.close()
    except (OSError, sqlite3.Error) as error:
        raise StartFailed(f"The database {path} cannot be opened: {reason(error)}.") from error


def _create(path: Path, steps: Sequence[Step], node_id: str, application: int) -> None:
    fresh = path.with_name(path.name + ".new")
    for leftover in (fresh, *(fresh.with_name(fresh.name + suffix) for suffix in ("-wal", "-shm", "-journal"))):
        leftover.unlink(missing_ok=True)
    fresh.touch(mode=0o600)
    connection = connect(fresh)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(f"PRAGMA application_id = {application}")
        _run(connection, steps, 0)
        connection.execute("INSERT INTO meta (key, value) VALUES ('node_id', ?)", (node_id,))
        connection.execute("COMMIT")
    finally:
        connection.close()
    sync_file(fresh)
    fresh.rename(path)
    sync_directory(path.parent)


def _check(connection: sqlite3.Connection, path: Path, known: int, application: int) -> None:
    [application_id] = connection.execute("PRAGMA application_id").fetchone()
    if application_id != application:
        raise StartFailed(f"The file {path} is not a database of Cloud My Task.")
    version = _version(connection)
    if version > known:
        raise StartFailed(
            f"The database {path} has schema {version}, written by a newer Cloud My Task; this one knows {known}."
        )
    [verdict] = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise StartFailed(f"The database {path} is damaged ({verdict}).")


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
    sync_file(fresh)
    fresh.rename(target)
    sync_directory(target.parent)


def _run(connection: sqlite3.Connection, steps: Sequence[Step], version: int) -> None:
    for step in steps[version:]:
        for statement in step:
            connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {len(steps)}")


def _version(connection: sqlite3.Connection) -> int:
    [version] = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def _need_access(path: Path, mode: int) -> None:
    """
    :raises PermissionError: see access(2).
    """
    if not os.access(path, mode, effective_ids=True):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def own_directory(path: Path) -> None:
    """Make ``path`` a directory of ours with mode 0700, or accept one that is ours already.

    :raises StartFailed: it cannot be made or used, is not a directory, or belongs to somebody else.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = path.stat().st_uid
        if owner == os.geteuid():
            _need_access(path, os.R_OK | os.W_OK | os.X_OK)
    except FileExistsError as error:
        raise StartFailed(f"The path {path} is not a directory.") from error
    except OSError as error:
        raise StartFailed(f"The directory {path} cannot be used: {reason(error)}.") from error
    if owner != os.geteuid():
        raise StartFailed(f"The directory {path} belongs to another user (uid {owner}).")
