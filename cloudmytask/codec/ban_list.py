"""How an instance writes down its list of bans.

Invariant: what was written is read back equal, but for the seconds that went by.
"""

from __future__ import annotations

from collections.abc import Iterable

from attrs import evolve, frozen

from cloudmytask.codec.text import from_text, to_text
from cloudmytask.model.cluster import Ban
from cloudmytask.model.errors import InvalidArgument
from cloudmytask.model.fields import Number

Remembered = Iterable[tuple[Ban, float]]
"""Entries, and until when each is needed."""
KNOWN_MAX = 365 * 86400.0
"""Seconds for which an entry can be needed at the most: the longest term of a ban."""


@frozen
class _RememberedBan:
    ban: Ban
    """``until`` in seconds that remain."""
    known: Number
    """Seconds for which it is still needed."""


@frozen
class _Written:
    wall: Number
    """UTC seconds when it was written."""
    shared: tuple[_RememberedBan, ...]
    own: tuple[_RememberedBan, ...]


def bans_to_text(shared: Remembered, own: Remembered, now: float, wall: float) -> str:
    """A list and the bans of this instance alone, as text.

    :param now: the moment on the clock of the entries; ``wall``: the same moment, UTC seconds.
    """
    return to_text(_Written(wall, _entries(shared, now), _entries(own, now)))


def bans_from_text(text: str, now: float, wall: float) -> tuple[list[tuple[Ban, float]], list[tuple[Ban, float]]]:
    """What :func:`bans_to_text` wrote. Time that went by counts, as far as the wall clock tells; a clock that was set
    back makes no ban longer than it was.

    :raises ValueError: it is something else.
    """
    try:
        written = from_text(_Written, text)
    except InvalidArgument as problem:
        raise ValueError(f"it is not a list of bans: {problem}") from None
    moment = now - max(0.0, wall - written.wall)
    return _as_of(written.shared, moment), _as_of(written.own, moment)


def _entries(remembered: Remembered, now: float) -> tuple[_RememberedBan, ...]:
    return tuple(
        _RememberedBan(evolve(ban, until=ban.until - now), known_until - now) for ban, known_until in remembered
    )


def _as_of(entries: Iterable[_RememberedBan], moment: float) -> list[tuple[Ban, float]]:
    return [
        (
            evolve(each.ban, until=moment + min(each.ban.until, each.ban.term)),
            moment + min(each.known, KNOWN_MAX),
        )
        for each in entries
    ]
