"""The command line of an instance, node or CSU, under twistd and ``python -m twisted``; and whether it could start,
found out before twistd turns into a daemon and its terminal is gone.

Invariant: once the options are parsed, the reactor runs on monotonic time and the instance could start; otherwise the
process ended with code 1 and one line on standard error, while there still was a terminal to write it to.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from twisted.logger import ILogObserver
from twisted.python.usage import Options as UsageOptions
from twisted.python.usage import UsageError

from cloudmytask import reactor as monotonic
from cloudmytask.config import InstanceConfig, Option, default_file, load
from cloudmytask.model.cluster import Role
from cloudmytask.model.errors import ConfigurationError, StartFailed
from cloudmytask.service.claim import claim
from cloudmytask.service.logs import adapt_twist, observer_for
from cloudmytask.store import history, schema
from cloudmytask.store.database import connect
from cloudmytask.store.files import reason
from cloudmytask.store.making_room import has_room
from cloudmytask.store.opened import StorePaths
from cloudmytask.version import VERSION

Config = TypeVar("Config", bound=InstanceConfig)

_NODE_DATABASE = (schema.APPLICATION_ID, schema.CURRENT_VERSION)
_CSU_DATABASE = (history.APPLICATION_ID, len(history.STEPS))
"""Which database is whose: its application id, and the last schema known."""

REPEATABLE = ("listen", "seeds")
"""Options that collect what each of their occurrences says."""


def sentence(option: Option) -> str:
    """An option for the help page."""
    limits = f", {option.limits}" if option.limits else ""
    return f"{option.help} ({option.kind.unit}{limits}) [default: {option.default}]"


def parameters(of: type[InstanceConfig]) -> list[list[Any]]:
    """``optParameters`` for a configuration class."""
    return [
        ["config", "c", None, f"The TOML file. [default: {default_file(of=of)}, which need not exist]"],
        *([each.flag, None, None, sentence(each)] for each in of.options() if each.key not in REPEATABLE),
    ]


def collector(of: type[InstanceConfig], key: str) -> Callable[[UsageOptions, str], None]:
    """The method for an option that, unlike the others, may be repeated."""
    [option] = [each for each in of.options() if each.key == key]

    def collect(self: UsageOptions, text: str) -> None:
        self[option.flag] = f"{self[option.flag]},{text}" if option.flag in self else text

    collect.__doc__ = sentence(option)
    return collect


class InstanceOptions(UsageOptions, Generic[Config]):
    """A subclass says which role it is for, and has a :func:`collector` for each of :data:`REPEATABLE`; :attr:`config`
    is set by :meth:`parseOptions`."""

    OF: ClassVar[type[InstanceConfig]]

    synopsis = "[options]"

    config: Config

    def opt_version(self) -> None:
        """Display the version of Cloud My Task and exit."""
        print(f"{self.OF.ROLE.program} {VERSION}")
        raise SystemExit(0)

    def parseOptions(self, options: Sequence[str] | None = None) -> None:  # noqa: N802 - Twisted's name
        """Parse, check, and rehearse the start.

        :raises SystemExit: with one line for standard error. A UsageError, which Twisted's own tools raise here, would
            end up on standard output below a page of twistd's options.
        """
        try:
            monotonic.install()
            UsageOptions.parseOptions(self, options)
        except (UsageError, ConfigurationError, StartFailed) as problem:
            raise SystemExit(f"{self.OF.ROLE.program}: {problem}") from None

    def postOptions(self) -> None:
        """Load the configuration and rehearse the start.

        :raises ConfigurationError: a value is not accepted.
        :raises StartFailed: the instance could not start.
        :raises UsageError: twistd is to change user or root directory.
        """
        runner = self.parent if self.parent is not None else {}
        if any(runner.get(each) is not None for each in ("uid", "gid", "chroot")):
            raise UsageError(
                f"A {self.OF.ROLE.word} does not change its user or its root directory;"
                " start it as the user it runs as."
            )
        given = {each.key: self[each.flag] for each in self.OF.options() if self.get(each.flag) is not None}
        file = Path(self["config"]) if self["config"] is not None else None
        config: Any = load(file, given, of=self.OF)
        self.config = config
        rehearse(config)
        if "fileLogObserverFactory" in runner:
            adapt_twist(config, runner)

    def observer(self) -> ILogObserver | None:
        """Where the log is to go.

        :raises SystemExit: it cannot be opened.
        """
        try:
            return observer_for(self.config, self.parent)
        except StartFailed as problem:
            raise SystemExit(f"{self.OF.ROLE.program}: {problem}") from None


def rehearse(config: InstanceConfig) -> None:
    """Find out what can be known in advance: lock, addresses, and whose the database is, if there is one.

    The state directory is made if there is none, for the log goes there too; the sockets are bound for a moment. The
    database is looked at only: it is made and upgraded, which takes its time, by the start. Nothing is held afterwards,
    and no thread was started, so the process may fork.

    :raises StartFailed: it could not start; the sentence says what is in the way.
    """
    held = claim(config)
    try:
        csu = config.ROLE is Role.CSU
        database = config.state / history.DATABASE if csu else StorePaths(config.state).database
        # on a full disk it can be opened only when the start has made room
        if database.exists() and has_room(config.state):
            _look_at(database, *(_CSU_DATABASE if csu else _NODE_DATABASE))
    finally:
        held.release()


def _look_at(database: Path, wanted: int, known: int) -> None:
    """Check that the start can use the database.

    :raises StartFailed: it cannot be written to, is something else's, or a later version's.
    """
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
