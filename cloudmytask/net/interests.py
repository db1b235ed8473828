"""What one connection's client is interested in: watches and output streams, by the numbers that it gave them.

Invariant: a number names one interest at a time, also while it is being made. An interest closes what it got exactly
once, and never touches one that has taken its number since; what comes about after the client has lost interest, or
the connection is gone, is closed at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from attrs import define, field

from cloudmytask.model.errors import InvalidArgument

INTERESTS_MAX = 1000
"""Watches and output streams of one connection."""


@define(eq=False)
class Interest:
    """The holder of one number; made by :meth:`Interests.making`."""

    number: int
    _held: dict[int, Interest]
    _close: Callable[[], None] | None = field(init=False, default=None)

    @property
    def lasts(self) -> bool:
        """Whether the client still wants to be told."""
        return self._held.get(self.number) is self

    def made(self, close: Callable[[], None]) -> None:
        """What is to be told of has come about; ``close`` ends it."""
        if self.lasts:
            self._close = close
        else:
            close()

    def end(self) -> None:
        """Give the number back, and close what it stood for. Idempotent."""
        if self.lasts:
            del self._held[self.number]
            close, self._close = self._close, None
            if close is not None:
                close()


@define(eq=False)
class Interests:
    """``held``: the interests that last, by number."""

    held: dict[int, Interest] = field(init=False, factory=dict)

    @contextmanager
    def making(self, number: int) -> Iterator[Interest]:
        """Hold a number while its interest is made, and give it back if that fails.

        :raises InvalidArgument: it is in use, or there are too many.
        """
        if number in self.held:
            raise InvalidArgument(f"watch: {number} is in use already")
        if len(self.held) >= INTERESTS_MAX:
            raise InvalidArgument(f"watch: {INTERESTS_MAX} are open already, more are not allowed")
        interest = self.held[number] = Interest(number, self.held)
        try:
            yield interest
        except BaseException:
            interest.end()
            raise

    def end(self, number: int) -> None:
        """End one, if there is one of that number."""
        if number in self.held:
            self.held[number].end()

    def end_all(self) -> None:
        """The connection is gone."""
        for interest in list(self.held.values()):
            interest.end()
