"""Which bans are accepted at all.

Invariant: an entry that passes the checks fits into a message together with as many others as one may carry.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from cloudmytask.codec import decode, encode
from cloudmytask.core.admission import NOTE_MAX
from cloudmytask.core.units import format_duration
from cloudmytask.model.cluster import BANS_MAX, Ban, BanReport
from cloudmytask.model.errors import InvalidArgument

TERM_MAX = 365 * 86400.0
"""Seconds of the longest ban."""
REASON_MAX = NOTE_MAX
"""Characters."""
REPORTERS_NEEDED = 2
"""Different nodes that must have reported a client before it is banned everywhere without an administrator."""


def check_reason(reason: str) -> str:
    """The reason of a ban, checked.

    :raises InvalidArgument: it is empty, too long, or more than one line.
    """
    if not reason or not reason.isprintable():
        raise InvalidArgument(f"reason: {reason!r} is not one line of text")
    if len(reason) > REASON_MAX:
        raise InvalidArgument(f"reason: {len(reason)} characters are more than the limit, {REASON_MAX}")
    return reason


def check_term(term: float) -> float:
    """The term of a ban in seconds, checked.

    :raises InvalidArgument: no ban lasts so long, or for ever, or not at all.
    """
    if not (math.isfinite(term) and 0 < term <= TERM_MAX):
        raise InvalidArgument(f"term: {term:g} s is not between 0 and {format_duration(TERM_MAX)}")
    return term


def check_ban(ban: Ban) -> None:
    """Whether an entry by another instance makes sense.

    :raises InvalidArgument: it does not; the sentence says what is wrong.
    """
    decode(Ban, encode(ban))  # within the limits that its class declares
    check_reason(ban.reason)
    check_term(ban.term)
    for field, name in (("by", ban.by), *(("reporters", reporter) for reporter in ban.reporters)):
        if not name.isprintable():
            raise InvalidArgument(f"{field}: {name!r} is not printable")
    if not ban.version.admin and len(set(ban.reporters)) < REPORTERS_NEEDED:
        raise InvalidArgument(
            f"reporters: a ban that is no administrator's needs {REPORTERS_NEEDED}, that of {ban.client} names"
            f" {len(set(ban.reporters))}"
        )


def sound(bans: Iterable[Ban], refuse: Callable[[str], object]) -> tuple[Ban, ...]:
    """The entries that make sense; of each other one ``refuse`` is told why. One is no worse for its neighbors."""
    found = []
    for ban in bans:
        try:
            check_ban(ban)
        except InvalidArgument as problem:
            refuse(str(problem))
        else:
            found.append(ban)
    return tuple(found)


def bans_of(document: Any, refuse: Callable[[str], object]) -> tuple[Ban, ...]:
    """The entries in a message of another instance, one that is malformed left out; ``refuse`` is told of that.

    :raises InvalidArgument: it is no list of entries at all, or too long.
    """
    documents = document.get("bans") or ()
    if not isinstance(documents, Sequence) or isinstance(documents, str) or len(documents) > BANS_MAX:
        raise InvalidArgument(f"bans: it is not a list of up to {BANS_MAX} entries")
    found = []
    for place, each in enumerate(documents):
        try:
            found.append(decode(Ban, each, f"bans[{place}]"))
        except InvalidArgument as problem:
            refuse(str(problem))
    return tuple(found)


def check_report(report: BanReport) -> None:
    """Check a report.

    :raises InvalidArgument: what is wrong with it.
    """
    decode(BanReport, encode(report))
    check_reason(report.reason)
    if not report.reporter_name.isprintable():
        raise InvalidArgument(f"reporter_name: {report.reporter_name!r} is not printable")
