"""Whether an instance could start, found out before twistd turns into a daemon and its terminal is gone.

The state directory is made if there is none, for the log goes there too; the sockets are bound for a moment. The
database is looked at only: it is made and upgraded, which takes its time, by the start.

Invariant: nothing is held afterwards, and no thread was started: the process may fork. No job is touched.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from cloudmytask.config import InstanceConfig
from cloudmytask.model.cluster import Role
from cloudmytask.model.errors import StartFailed
from cloudmytask.service.claim import claim
from cloudmytask.store import history, schema
from cloudmytask.store.database import connect
from cloudmytask.store.files import reason
from cloudmytask.store.opened import StorePaths

NODE = (schema.APPLICATION_ID, schema.CURRENT_VERSION)
CSU = (history.APPLICATION_ID, len(history.STEPS))


def rehearse(config: InstanceConfig) -> None:
    """Find out what can be known in advance: lock, addresses, and whose the database is, if there is one.

    :raises StartFailed: with one sentence about what is in the way.
    """
    held = claim(config)
    try:
        csu = config.ROLE is Role.CSU
        database = config.state / history.DATABASE if csu else StorePaths(config.state).database
        if database.exists():
            _look_at(database, *(CSU if csu else NODE))
    finally:
        held.release()


def _look_at(database: Path, wanted: int, known: int) -> None:
    """:raises StartFailed: it cannot be written to, is something else's, or a later version's."""
    if not os.access(database, os.R_OK | os.W_OK, effective_ids=True):
        raise StartFailed(f"The database {database} cannot be read and written: Permission denied.")
    try:
        with closing(connect(database)) as connection:
            [application] = connection.execute("PRAGMA application_id").fetchone()
            [version] = connection.execute("PRAGMA user_version").fetchone()
    except sqlite3.Error as error:
        raise StartFailed(f"The database {database} cannot be opened: {reason(error)}.") from error
    if application != wanted:
        raise StartFailed(f"The file {database} is not a database of Cloud My Task.")
    if version > known:
        raise StartFailed(
            f"The database {database} has schema {version}, written by a newer Cloud My Task; this one knows {known}."
        )
