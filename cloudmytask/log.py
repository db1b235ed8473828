"""The log: one JSON object per line, for files and for standard error.

Invariant: one event is one line. JSON escapes every control character, so that nothing that came
from outside can forge a line or speak to a terminal; and nobody who makes us log fills the disk with lines of one kind.
"""

from __future__ import annotations

import json
import os
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from attrs import Factory, define
from twisted.logger import (
    FileLogObserver,
    FilteringLogObserver,
    ILogFilterPredicate,
    ILogObserver,
    LogEvent,
    LogLevel,
    LogLevelFilterPredicate,
    PredicateResult,
    formatEvent,
)
from twisted.python.failure import Failure
from twisted.python.logfile import LogFile
from zope.interface import implementer

from cloudmytask.core.rates import TokenBucket

ROTATE_AT = 16 * 1024**2
"""Bytes after which a log file is put aside as ``NAME.1``."""
KEPT_FILES = 5
"""How many log files that were put aside are kept."""

BURST = 100
"""Lines of one kind that are written however fast they come."""
RATE = 5.0
"""Lines of one kind a second beyond."""
KINDS_MAX = 1000

# What an event of the older logging interface (twisted.python.log) carries besides its text.
_LEGACY = frozenset({"message", "time", "system", "isError", "failure", "why", "format", "logLevel"})


def json_line(event: LogEvent) -> str:
    """The event as a JSON object on a line of its own.

    ``time`` (ISO 8601, UTC), ``level``, ``system`` and ``event`` (the text) always; ``failure`` (a traceback) where
    there is one; then the event's own fields as far as JSON has words for them.
    """
    line: dict[str, Any] = {
        "time": _iso(event.get("log_time", 0.0)),
        # None in events of the older interface, and a field of that name may be anything
        "level": getattr(event.get("log_level"), "name", "info"),
        "system": event.get("log_system") or event.get("log_namespace") or "",
        "event": formatEvent(event),
    }
    failure = event.get("log_failure")
    if isinstance(failure, Failure):
        line["failure"] = failure.getTraceback()
    for key, value in event.items():
        if not key.startswith("log_") and key not in _LEGACY and key not in line and _has_words(value):
            line[key] = value
    # JSON itself would let DEL pass.
    return json.dumps(line, ensure_ascii=True).replace("\x7f", "\\u007f") + "\n"


@define
class _Kind:
    allowance: TokenBucket
    left_out: int = 0


@implementer(ILogFilterPredicate)
@define(eq=False)
class KindLimit:
    """Lets pass a bounded number of events of each kind: those that one line of a module makes.

    The next one that passes says in ``left_out`` how many did not. Times are those of the events, seconds.
    """

    _kinds: dict[tuple[object, object], _Kind] = Factory(dict)

    def __call__(self, event: LogEvent) -> Any:
        """Twisted's interface."""
        if "log_failure" in event or not event.get("log_format"):
            return PredicateResult.maybe  # a bug of ours, or a line of a library's
        now = event.get("log_time", 0.0)
        kind = event.get("log_namespace"), event["log_format"]
        kept = self._kinds.get(kind)
        if kept is None:
            if len(self._kinds) >= KINDS_MAX:
                self._kinds.clear()
            kept = self._kinds[kind] = _Kind(TokenBucket(RATE, BURST, BURST, now))
        kept.allowance.refill(now)
        if kept.allowance.tokens < 1:
            kept.left_out += 1
            return PredicateResult.no
        kept.allowance.tokens -= 1
        if kept.left_out:
            event["left_out"], kept.left_out = kept.left_out, 0
        return PredicateResult.maybe


def json_observer(stream: IO[Any]) -> ILogObserver:
    """An observer that writes events of level info and above to ``stream``."""
    levels = LogLevelFilterPredicate(defaultLogLevel=LogLevel.info)
    # AMP tells of every connection that comes and goes
    levels.setLogLevelForNamespace("twisted.protocols.amp", LogLevel.warn)
    return FilteringLogObserver(FileLogObserver(stream, json_line), [levels, KindLimit()])


def open_log(path: Path) -> IO[Any]:
    """Open a log file for appending, readable by its owner only; a regular file is rotated.

    :raises OSError: it cannot be opened.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        rotated: IO[Any] = LogFile.fromFullPath(
            str(path), rotateLength=ROTATE_AT, defaultMode=0o600, maxRotatedFiles=KEPT_FILES
        )
        return rotated
    # A terminal, a pipe or /dev/null can be neither renamed nor given a mode.
    return os.fdopen(descriptor, "w", encoding="utf-8")


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _has_words(value: object) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return True
