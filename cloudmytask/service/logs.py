"""Where the log of an instance goes, with any runner that may start it.

Invariant: what a person asked of the runner (``--logfile``, ``--syslog``, ``--logger``) wins over the instance's own
option, and that over the default.
"""

from __future__ import annotations

import sys
from collections.abc import MutableMapping
from pathlib import Path
from typing import IO, Any

from twisted.logger import ILogObserver

from cloudmytask.config import InstanceConfig
from cloudmytask.log import json_observer, open_log
from cloudmytask.model.errors import StartFailed

RunnerOptions = MutableMapping[str, Any]
"""The options of twistd, or of ``python -m twisted``."""


def observer_for(config: InstanceConfig, runner: RunnerOptions | None) -> ILogObserver | None:
    """Choose the observer that a twistd application is to have; None leaves the log to twistd.

    :param runner: twistd's options; None if they are not known, which is so in a .tac file: then there is an
        observer only if its own option asks for one.
    :raises StartFailed: the log cannot be opened, or there is none to write to.
    """
    daemon = runner is not None and not (runner.get("nodaemon") or runner.get("debug"))
    if runner is not None and (runner.get("syslog") or runner.get("logger")):
        return None
    if runner is not None and runner.get("logfile"):
        # A daemon cannot log to "-": twistd says so itself.
        return None if daemon and runner["logfile"] == "-" else json_observer(_named(runner["logfile"], sys.stdout))
    if config.log == "-" and daemon:
        raise StartFailed("A daemon has no standard error to log to: give log a file, or start it with twistd -n.")
    if config.log is not None:
        return json_observer(_named(str(config.log), sys.stderr))
    if runner is None:
        return None
    return json_observer(_opened(config.state / f"{config.ROLE}.log") if daemon else sys.stderr)


def adapt_twist(config: InstanceConfig, runner: RunnerOptions) -> None:
    """Make ``python -m twisted``, which asks no application for its observer, write our lines instead of its own JSON.

    :raises StartFailed: the log cannot be opened.
    """
    if config.log is not None:
        runner["logFile"] = _named(str(config.log), sys.stderr)
    if config.log is not None or runner["logFormat"] == "json":
        runner["fileLogObserverFactory"] = json_observer


def _named(name: str, dash: IO[Any]) -> IO[Any]:
    return dash if name == "-" else _opened(Path(name))


def _opened(path: Path) -> IO[Any]:
    try:
        return open_log(path)
    except OSError as error:
        raise StartFailed(f"The log file {path} cannot be opened: {error.strerror}.") from None
