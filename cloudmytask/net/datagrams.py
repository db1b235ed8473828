"""Receiving many small datagrams without a wake-up of the reactor for each.

Invariant: while fewer than ``OFTEN`` come in a second, each is handed on at once; above, none waits for longer than
``REST``, in the kernel's buffer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.protocol import DatagramProtocol

from cloudmytask.boundaries import Clock, DelayedCall

OFTEN = 300
"""Datagrams per second; the wake-ups for more would cost more than the datagrams."""
REST = 0.01
"""Seconds."""
WINDOW = 0.1
"""Seconds over which datagrams are counted."""


class PacedDatagrams(DatagramProtocol):
    """Hands on what arrives; beyond :data:`OFTEN` it reads what has come, and then rests.

    :param received: called with each datagram.
    """

    def __init__(self, clock: Clock, received: Callable[[bytes], None]) -> None:
        self._clock = clock
        self._received = received
        self._window = clock.seconds()
        self._count = 0
        self._often = False
        self._resting: DelayedCall | None = None

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:  # noqa: ARG002, N802 - Twisted's interface
        """Twisted's interface."""
        now = self._clock.seconds()
        self._count += 1
        if now - self._window >= WINDOW:
            self._often = self._count > OFTEN * (now - self._window)
            self._window, self._count = now, 0
        if self._often and self._resting is None:
            # the transport's present turn goes on until nothing is left to read
            self.transport.stopReading()  # type: ignore[union-attr]  # udp.Port; its interface does not say so
            self._resting = self._clock.callLater(REST, self._go_on)
        self._received(datagram)

    def stopProtocol(self) -> None:  # noqa: N802 - Twisted's interface
        """Twisted's interface."""
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None

    def _go_on(self) -> None:
        self._resting = None
        self.transport.startReading()  # type: ignore[union-attr]
