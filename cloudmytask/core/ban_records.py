"""Which bans are accepted at all, and how an instance writes down its list.

Invariant: what was written is read back equal, but for the seconds that went by; an entry that passes the checks fits
into a message together with as many others as one may carry.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

from cloudmytask.core.admission import NOTE_MAX, check_client
from cloudmytask.core.units import format_duration
from cloudmytask.model.cluster import Ban, BanReport, BanVersion, NodeId
from cloudmytask.model.errors import InvalidArgument

TERM_MAX = 365 * 86400.0
"""Seconds of the longest ban."""
REASON_MAX = NOTE_MAX
"""Characters."""
NAME_MAX = 64
"""Characters in the name of whoever banned or reported."""
REPORTERS_MAX = 8
REPORTERS_NEEDED = 2
"""Different nodes that must have reported a client before it is banned everywhere without an administrator."""
COUNTER_MAX = 2**40
"""No cluster makes so many bans; beyond, nobody could outdo an entry any more."""


def check_reason(reason: str) -> str:
    """
    :raises InvalidArgument: it is empty, too long, or more than one line.
    """
    if not reason or not reason.isprintable():
        raise InvalidArgument(f"reason: {reason!r} is not one line of text")
    if len(reason) > REASON_MAX:
        raise InvalidArgument(f"reason: {len(reason)} characters are more than the limit, {REASON_MAX}")
    return reason


def check_term(term: float) -> float:
    """
    :raises InvalidArgument: no ban lasts so long, or for ever, or not at all.
    """
    if not (math.isfinite(term) and 0 < term <= TERM_MAX):
        raise InvalidArgument(f"term: {term:g} s is not between 0 and {format_duration(TERM_MAX)}")
    return term


def check_ban(ban: Ban) -> None:
    """Whether an entry by another instance makes sense.

    :raises InvalidArgument: it does not; the sentence says what is wrong.
    """
    check_client(ban.client)
    check_reason(ban.reason)
    check_term(ban.term)
    _check_name("by", ban.by)
    if not math.isfinite(ban.until):
        raise InvalidArgument(f"until: {ban.until} is not a number of seconds")
    if not 0 < ban.version.counter <= COUNTER_MAX:
        raise InvalidArgument(f"counter: {ban.version.counter} is not between 1 and {COUNTER_MAX}")
    _check_name("node_id", ban.version.node_id)
    if len(ban.reporters) > REPORTERS_MAX:
        raise InvalidArgument(f"reporters: {len(ban.reporters)} are more than the limit, {REPORTERS_MAX}")
    for reporter in ban.reporters:
        _check_name("reporters", reporter)
    if not ban.version.admin and len(set(ban.reporters)) < REPORTERS_NEEDED:
        raise InvalidArgument(
            f"reporters: a ban that is no administrator's needs {REPORTERS_NEEDED}, that of {ban.client} names"
            f" {len(set(ban.reporters))}"
        )


def check_report(report: BanReport) -> None:
    """
    :raises InvalidArgument: what is wrong with it.
    """
    check_client(report.client)
    check_reason(report.reason)
    _check_name("reporter", report.reporter)
    _check_name("reporter_name", report.reporter_name)


def _check_name(field: str, name: str) -> None:
    if not name or len(name) > NAME_MAX or not name.isprintable():
        raise InvalidArgument(f"{field}: {name[: NAME_MAX + 1]!r} is no name of 1 to {NAME_MAX} printable characters")


Remembered = Iterable[tuple[Ban, float]]
"""Entries, and until when each is needed."""


def bans_to_text(shared: Remembered, own: Remembered, now: float, wall: float) -> str:
    """A list and the bans of this instance alone, as text.

    :param now: the moment on the clock of the entries; ``wall``: the same moment, UTC seconds.
    """
    document = {"wall": wall, "shared": _written(shared, now), "own": _written(own, now)}
    return json.dumps(document, separators=(",", ":"))


def bans_from_text(text: str, now: float, wall: float) -> tuple[list[tuple[Ban, float]], list[tuple[Ban, float]]]:
    """What :func:`bans_to_text` wrote. Time that went by counts, as far as the wall clock tells; a clock that was set
    back makes no ban longer than it was.

    :raises ValueError: it is something else.
    """
    try:
        document = json.loads(text)
        moment = now - max(0.0, wall - float(document["wall"]))
        return (
            [_read(entry, moment) for entry in document["shared"]],
            [_read(entry, moment) for entry in document["own"]],
        )
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"it is not a list of bans: {error!r}") from error


def _written(entries: Remembered, now: float) -> list[dict[str, Any]]:
    return [
        {
            "client": ban.client,
            "reason": ban.reason,
            "by": ban.by,
            "term": ban.term,
            "remaining": ban.until - now,
            "known": known_until - now,
            "version": [ban.version.counter, ban.version.admin, ban.version.node_id],
            "lifted": ban.lifted,
            "reporters": list(ban.reporters),
        }
        for ban, known_until in entries
    ]


def _read(entry: dict[str, Any], moment: float) -> tuple[Ban, float]:
    counter, admin, node_id = entry["version"]
    ban = Ban(
        client=check_client(str(entry["client"])),
        reason=str(entry["reason"]),
        by=str(entry["by"]),
        term=float(entry["term"]),
        until=moment + min(float(entry["remaining"]), float(entry["term"])),
        version=BanVersion(int(counter), bool(admin), NodeId(str(node_id))),
        lifted=bool(entry["lifted"]),
        reporters=tuple(str(reporter) for reporter in entry["reporters"]),
    )
    return ban, moment + min(float(entry["known"]), TERM_MAX)
