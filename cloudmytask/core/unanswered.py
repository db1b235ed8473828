"""Addresses at which nobody answered: they are left alone for growing pauses.

Invariant: what is remembered is bounded, and one answer forgets all misses. It goes by addresses, not by node ids:
anybody can announce any number of ids.
"""

from __future__ import annotations

from attrs import Factory, define

from cloudmytask.core.backoff import Backoff

PAUSES = Backoff(first=1.0, factor=2.0, ceiling=15.0)
ADDRESSES_MAX = 1000
"""Beyond, the longest untouched are forgotten."""


@define(eq=False)
class Unanswered:
    """Times on the caller's clock, seconds."""

    _pauses: Backoff = PAUSES
    _missed: dict[str, tuple[int, float]] = Factory(dict)
    """How often in a row, and until when it is left alone."""

    def missed(self, address: str, now: float) -> float:
        """Nobody answered there; until when it is left alone. Of questions that were asked at once one counts."""
        misses, until = self._missed.pop(address, (0, now))
        if now >= until:
            misses, until = misses + 1, now + self._pauses.delay(misses + 1, 0.0)
        self._missed[address] = misses, until
        if len(self._missed) > ADDRESSES_MAX:
            del self._missed[next(iter(self._missed))]
        return until

    def answered(self, address: str) -> None:
        """Somebody did."""
        self._missed.pop(address, None)

    def resting(self, address: str, now: float) -> bool:
        """Whether it is to be left alone now."""
        return self._missed.get(address, (0, now))[1] > now
