"""What one connection has subscribed to: watches and output streams, by the numbers that its client gave them.

Invariant: a number names one subscription at a time, also while it is being made; one that comes about after its
client has lost interest, or the connection is gone, is closed at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from attrs import define, field

from cloudmytask.errors import InvalidArgument

SUBSCRIPTIONS_MAX = 1000
"""Watches and output streams of one connection."""


@define(eq=False)
class Subscriptions:
    """``closers``: how each open subscription is closed."""

    closers: dict[int, Callable[[], None]] = field(init=False, factory=dict)
    _ended: bool = field(init=False, default=False)

    @contextmanager
    def making(self, number: int) -> Iterator[None]:
        """Hold a number while its subscription is made, and give it back if that fails.

        :raises InvalidArgument: it is in use, or there are too many.
        """
        if number in self.closers:
            raise InvalidArgument(f"watch: {number} is in use already")
        if len(self.closers) >= SUBSCRIPTIONS_MAX:
            raise InvalidArgument(f"watch: {SUBSCRIPTIONS_MAX} are open already, more are not allowed")
        self.closers[number] = _nothing
        try:
            yield
        except BaseException:
            self.closers.pop(number, None)
            raise

    def made(self, number: int, close: Callable[[], None]) -> None:
        """It has come about; ``close`` ends it."""
        if number in self.closers and not self._ended:
            self.closers[number] = close
        else:
            close()

    def end(self, number: int) -> None:
        """End one, if there is one of that number."""
        self.closers.pop(number, _nothing)()

    def end_all(self) -> None:
        """The connection is gone."""
        self._ended = True
        for number in list(self.closers):
            self.end(number)


def _nothing() -> None:
    """Closes what is not there yet."""
