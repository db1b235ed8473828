"""Jobs as text for people and as JSON for programs.

Invariant: pure; no control character of a job's name or note gets into a line of ours.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from cloudmytask.cli.terminal.escape import one_line
from cloudmytask.cli.terminal.tables import aligned
from cloudmytask.core.units import format_duration, format_size
from cloudmytask.model.words import StreamName

COLUMNS = ("ID", "NAME", "STATE", "EXIT", "SUBMITTED", "RAN", "NODE")
NUMBERS = frozenset({"EXIT", "RAN"})
SHRINK = (("NAME", 12), ("NODE", 8), ("NAME", 4))
"""What gives way on a narrow terminal: first the name, then the node."""
PREFIX_MIN = 6
"""Symbols of an id that are shown at least."""
_STEPS = ((86_400, "d"), (3600, "h"), (60, "m"))

Document = Mapping[str, Any]


def with_output(
    job: Document, output: Mapping[StreamName, bytearray], discarded: Mapping[StreamName, int]
) -> dict[str, Any]:
    """Add to a job's document its output: as text, or in base64 (``stdout_base64``) if it is not UTF-8.

    :param discarded: how many bytes of each stream are missing from it; absent means none.
    """
    document = dict(job)
    document["discarded"] = {stream.value: discarded.get(stream, 0) for stream in output}
    for stream, data in output.items():
        try:
            document[stream.value] = data.decode()
        except UnicodeDecodeError:
            document[stream.value] = None
            document[f"{stream.value}_base64"] = base64.b64encode(data).decode("ascii")
    return document


def rows(jobs: Sequence[Document], now: datetime | None) -> list[tuple[str, ...]]:
    """Make a line of ``cmt ps`` for each job.

    :param now: write times as ages and ids by their shortest beginning that tells them apart; None: in full.
    """
    length = None if now is None else shortest([str(job["id"]) for job in jobs])
    return [
        (
            str(job["id"])[:length],
            one_line(str(job["name"])),
            str(job["state"]),
            exit_text(job),
            when(job.get("submitted"), now),
            seconds_text(job.get("wall_seconds")),
            str(job.get("executor") or job.get("origin") or "-"),
        )
        for job in jobs
    ]


def shortest(ids: Sequence[str]) -> int:
    """Count the symbols that tell these ids apart, and at least :data:`PREFIX_MIN`."""
    length = PREFIX_MIN
    while len({each[:length] for each in ids}) < len(set(ids)):
        length += 1
    return length


def exit_text(job: Document) -> str:
    """Write how a script ended: ``0``, ``SIG9``, ``-``."""
    if job.get("signal") is not None:
        return f"SIG{job['signal']}"
    return "-" if job.get("exit_code") is None else str(job["exit_code"])


def when(time: str | None, now: datetime | None) -> str:
    """Write a time of a document, in full or as an age."""
    if time is None or now is None:
        return time or "-"
    age = (now - datetime.fromisoformat(time)).total_seconds()
    for size, unit in _STEPS:
        if age >= 2 * size:
            return f"{int(age // size)}{unit} ago"
    return f"{max(0, int(age))}s ago"


def seconds_text(seconds: float | None) -> str:
    """Write a duration that was measured, to a precision that people read: ``0.12s``, ``90.0s``, ``2h03m``."""
    if seconds is None:
        return "-"
    if seconds < 10:
        return f"{seconds:.2f}s"
    if seconds < 600:
        return f"{seconds:.1f}s"
    minutes = round(seconds / 60)
    return f"{minutes}m" if minutes < 120 else f"{minutes // 60}h{minutes % 60:02}m"


def details(job: Document) -> str:
    """Describe a job for ``cmt status``, one field a line; what is not known is left out."""
    last = job["attempts"][-1] if job.get("attempts") else {}
    memory = job.get("peak_memory")
    fields: list[tuple[str, object]] = [
        ("id", job["id"]),
        ("name", job["name"]),
        ("script", job.get("script")),
        ("state", job["state"]),
        ("reason", job.get("reason")),
        ("detail", job.get("detail")),
        ("exit code", job.get("exit_code")),
        ("signal", job.get("signal")),
        ("client", job.get("client")),
        ("qos", job.get("qos")),
        ("origin", job.get("origin")),
        ("executor", job.get("executor")),
        ("attempt", _attempt(job)),
        ("submitted", job.get("submitted")),
        ("started", job.get("started")),
        ("ended", job.get("ended")),
        ("wall", _known(seconds_text, job.get("wall_seconds"))),
        ("cpu", _known(seconds_text, job.get("cpu_seconds"))),
        ("peak memory", None if memory is None else f"{memory / 1024**2:.1f}M"),
        ("timeout", _known(format_duration, job.get("timeout"))),
        ("retention", _known(format_duration, job.get("retention"))),
        ("cancelled by", job.get("cancelled_by")),
        ("stdout", _stream(last, "stdout")),
        ("stderr", _stream(last, "stderr")),
    ]
    shown = [(f"{label}:", one_line(str(value))) for label, value in fields if value is not None]
    return aligned(shown)


def _attempt(job: Document) -> str | None:
    number, retries = job.get("attempt"), job.get("retries")
    if not number:
        return None
    return f"{number} ({retries} retries allowed)" if retries else str(number)


def _stream(attempt: Document, stream: str) -> str | None:
    size, discarded, lost = (attempt.get(f"{stream}_{what}") for what in ("size", "discarded", "lost"))
    if attempt.get("ended") is None or size is None:
        return None
    more = f", {discarded} more discarded" if discarded else ""
    more += f", {lost['size']} more lost by the disk of node {lost['node']}" if lost else ""
    return f"{format_size(size)} bytes{more}"


def _known(form: Any, value: float | None) -> str | None:
    return None if value is None else str(form(value))


def now() -> datetime:
    """Tell the present, for ages."""
    return datetime.now(UTC)
