"""The channels of one connection: watches and output streams, by the numbers that its client gave them.

Invariant: a number names one channel at a time, also while it is being opened. A channel closes what it got exactly
once, and never touches one that has taken its number since; what comes about after the client has lost interest, or
the connection is gone, is closed at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from attrs import define, field

from cloudmytask.model.errors import InvalidArgument

CHANNELS_MAX = 1000
"""Watches and output streams of one connection."""


@define(eq=False)
class Channel:
    """The holder of one number; made by :meth:`Channels.opening`."""

    number: int
    _held: dict[int, Channel]
    _close: Callable[[], None] | None = field(init=False, default=None)

    @property
    def is_open(self) -> bool:
        """Whether the client still wants to be told."""
        return self._held.get(self.number) is self

    def opened(self, close: Callable[[], None]) -> None:
        """What is to be told of has come about; ``close`` ends it."""
        if self.is_open:
            self._close = close
        else:
            close()

    def close(self) -> None:
        """Give the number back, and close what it stood for. Idempotent."""
        if self.is_open:
            del self._held[self.number]
            end, self._close = self._close, None
            if end is not None:
                end()


@define(eq=False)
class Channels:
    """``held``: the channels that are open, by number."""

    held: dict[int, Channel] = field(init=False, factory=dict)

    @contextmanager
    def opening(self, number: int) -> Iterator[Channel]:
        """Hold a number while its channel is opened, and give it back if that fails.

        :raises InvalidArgument: it is in use, or there are too many.
        """
        if number in self.held:
            raise InvalidArgument(f"watch: {number} is in use already")
        if len(self.held) >= CHANNELS_MAX:
            raise InvalidArgument(f"watch: {CHANNELS_MAX} are open already, more are not allowed")
        channel = self.held[number] = Channel(number, self.held)
        try:
            yield channel
        except BaseException:
            channel.close()
            raise

    def close(self, number: int) -> None:
        """Close one, if there is one of that number."""
        if number in self.held:
            self.held[number].close()

    def close_all(self) -> None:
        """The connection is gone."""
        for channel in list(self.held.values()):
            channel.close()
