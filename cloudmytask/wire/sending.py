"""What one connection still has to send: bounded, and given up if the other end takes none of it.

Invariant: what is written to a connection costs at most :data:`UNSENT_LIMIT` bytes beyond what its transport holds,
and is let go at the latest :data:`STALL_TIMEOUT` seconds after the other end has ceased to read,
or this one has closed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IConsumer, IPushProducer
from zope.interface import implementer

from cloudmytask.boundaries import Clock
from cloudmytask.deferreds import Countdown, Signal

UNSENT_MAX = 4 * 1024 * 1024
"""Unsent bytes beyond which nothing more is read from the other end, so that it cannot ask for more."""
UNSENT_LIMIT = 32 * 1024 * 1024
"""Unsent bytes that no connection is worth: answers to what was read before. It is closed."""
STALL_TIMEOUT = 60.0
"""Seconds for which the other end may read nothing of what it is sent."""


@implementer(IPushProducer)
class SendQueue:
    """Writes to a transport as fast as the other end reads, and keeps the rest.

    :param changed: called when :attr:`full` may have changed.
    :param give_up: called with the reason if the connection must be closed at once.
    """

    def __init__(
        self, transport: Any, clock: Clock, changed: Callable[[], None], give_up: Callable[[str], None]
    ) -> None:
        self._transport = transport
        self._changed = changed
        self._give_up = give_up
        self._waiting: deque[bytes] = deque()
        self._paused = self._closing = False
        self._stall = Countdown(clock)
        self._cleared = Signal()
        self.size = 0
        """Bytes that wait here."""
        if IConsumer.providedBy(transport):
            transport.registerProducer(self, True)

    @property
    def full(self) -> bool:
        """Whether the other end is to be read from no more."""
        return self.size > UNSENT_MAX

    @property
    def clear(self) -> bool:
        """Whether what is written now goes out at once."""
        return not self._paused

    def cleared(self) -> Deferred[None]:
        """Fires when the other end has read what was sent before; never, if the connection ends first."""
        return succeed(None) if self.clear else self._cleared.wait()

    def write(self, data: bytes) -> None:
        """Send ``data``, after all that was written before."""
        if not self._paused:
            self._transport.write(data)
            return
        self._waiting.append(data)
        self.size += len(data)
        if self.size > UNSENT_LIMIT:
            self._give_up(f"{self.size} bytes are unsent, the other end asks faster than it reads")
        elif self.full:
            self._changed()

    def close(self) -> None:
        """End the connection after what was written."""
        self._closing = True
        if not self._paused:
            self._finish()

    def lost(self) -> None:
        """The connection is gone: release what it held."""
        self._waiting.clear()
        self.size = 0
        self._stall.stop()

    def pauseProducing(self) -> None:
        """Twisted's interface: the transport holds enough."""
        self._paused = True
        self._await_reading()

    def resumeProducing(self) -> None:
        """Twisted's interface: the transport is empty."""
        self._paused = False
        self._stall.stop()
        while self._waiting and not self._paused:
            data = self._waiting.popleft()
            self.size -= len(data)
            self._transport.write(data)
        self._changed()
        if not self._paused:
            if self._closing or getattr(self._transport, "disconnecting", False):
                self._finish()
            self._cleared.fire()

    def stopProducing(self) -> None:
        """Twisted's interface."""
        self.lost()

    def _finish(self) -> None:
        if IConsumer.providedBy(self._transport):
            self._transport.unregisterProducer()
        self._await_reading()  # of what the transport holds
        self._transport.loseConnection()

    def _await_reading(self) -> None:
        if not self._stall.running:
            self._stall.start(STALL_TIMEOUT, self._stalled)

    def _stalled(self) -> None:
        self._give_up(f"the other end has read nothing for {STALL_TIMEOUT:g} s")
