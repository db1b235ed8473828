"""Receiving many small datagrams without a wake-up of the reactor for each, and counting them for people.

Invariant: whatever is received, it takes a fixed amount of memory and of log. While fewer than ``OFTEN`` datagrams come
in a second, each is handed on at once; above, none waits for longer than ``REST``, in the kernel's buffer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.internet.protocol import DatagramProtocol
from twisted.logger import Logger

from cloudmytask.boundaries import Clock, DelayedCall
from cloudmytask.model.cluster import BusStatistics
from cloudmytask.wire.announcement import Foreign, Forged, Unreadable

_log = Logger()

FOREIGN_MAX = 20
"""Foreign clusters that are counted by name."""
OTHERS = "…"
"""The name under which all further ones are counted together; no cluster can have it."""
LOG_INTERVAL = 60.0
"""Seconds between two lines about datagrams of one kind."""

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


@define(eq=False)
class DatagramCounts:
    """What passed a multicast bus, and what was wrong with it, logged once a minute."""

    _clock: Clock
    sent: int = 0
    heard: int = 0
    unsent: int = 0
    _malformed: int = 0
    _forged: int = 0
    _foreign: dict[str, int] = field(factory=dict)
    _logged: dict[type[Unreadable], float] = field(factory=dict)

    def unreadable(self, problem: Unreadable) -> None:
        """One more that is not for us."""
        if isinstance(problem, Foreign):
            known = problem.name in self._foreign or len(self._foreign) < FOREIGN_MAX
            name = problem.name if known else OTHERS
            self._foreign[name] = self._foreign.get(name, 0) + 1
        elif isinstance(problem, Forged):
            self._forged += 1
        else:
            self._malformed += 1
        kind, now = type(problem), self._clock.seconds()
        if kind not in self._logged or now - self._logged[kind] >= LOG_INTERVAL:
            self._logged[kind] = now
            self._log(problem)

    def _log(self, problem: Unreadable) -> None:
        if isinstance(problem, Foreign):
            _log.info("another cluster in our group: {name}", name=problem.name)
        elif isinstance(problem, Forged):
            _log.warn("a forged datagram: {problem}; so far {count}", problem=str(problem), count=self._forged)
        else:
            _log.warn("a malformed datagram: {problem}; so far {count}", problem=str(problem), count=self._malformed)

    def statistics(self, group: str, joined: bool, error: str, receive_buffer: int) -> BusStatistics:
        """A picture of now."""
        return BusStatistics(
            group=group,
            joined=joined,
            error=error,
            sent=self.sent,
            heard=self.heard,
            unsent=self.unsent,
            malformed=self._malformed,
            forged=self._forged,
            foreign=dict(self._foreign),
            receive_buffer=receive_buffer,
        )
