"""Streams without sockets: bytes delivered in virtual time.

Invariant: a direction delivers its bytes in order, each ``latency`` after it was written. A process that dies is
noticed at the other end by a lost connection, after what it had written, as by TCP. Where a path is cut, bytes wait:
they go on when it is mended within the network's ``patience``; otherwise the connection times out at the end that
waits, and only there. A host that dies behind a cut is missed by nobody until something is sent to it. An end that
does not read is sent more than ``IN_FLIGHT_MAX`` bytes only by those who do not heed it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from attrs import define, field
from twisted.internet import error
from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IConsumer, IPushProducer, ITransport
from twisted.python.failure import Failure
from zope.interface import implementer

from cloudmytask.simulation.clock import Timer

if TYPE_CHECKING:
    from cloudmytask.simulation.network import Network

IN_FLIGHT_MAX = 512 * 1024
"""Bytes that were written and not read yet, beyond which a producer is paused: what a socket and its buffers hold."""


@implementer(ITransport, IPushProducer, IConsumer)
@define(eq=False, repr=False)
class SimulatedTransport:
    """One end of a connection."""

    network: Network
    here: str
    there: str
    protocol: Any = field(init=False, default=None)
    peer: SimulatedTransport = field(init=False, default=None)
    disconnecting: bool = field(init=False, default=False)
    _lost: bool = field(init=False, default=False)
    _next: float = field(init=False, default=0.0)
    _waiting: list[tuple[Callable[[Any], None], object]] = field(init=False, factory=list)
    """What was sent while there was no path."""
    _impatient: Timer | None = field(init=False, default=None)
    _unread: deque[bytes] | None = field(init=False, default=None)
    """What has arrived while nothing was to be read; None while reading."""
    _producer: Any = field(init=False, default=None)
    _producer_paused: bool = field(init=False, default=False)
    _in_flight: int = field(init=False, default=0)
    """Bytes that the other end has not read yet."""

    def write(self, data: bytes) -> None:
        """Twisted's interface."""
        if data and not self.disconnecting and not self._lost:
            self.network.carried += len(data)
            self._in_flight += len(data)
            self._send(self.peer.deliver, data)
            if self._producer is not None and not self._producer_paused and self._in_flight > IN_FLIGHT_MAX:
                self._producer_paused = True
                self._producer.pauseProducing()

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """Twisted's interface."""
        self.write(b"".join(iovec))

    def loseConnection(self) -> None:
        """Twisted's interface: close after what was written."""
        if not self.disconnecting and not self._lost:
            self.disconnecting = True
            self._send(self.peer.end, error.ConnectionDone())
            self.network.clock.callLater(0, self.end, error.ConnectionDone())

    def abortConnection(self) -> None:
        """Twisted's interface: close at once."""
        if not self._lost:
            self._reset()
            self.network.clock.callLater(0, self.end, error.ConnectionAborted())

    def die(self) -> None:
        """The process is gone: its protocol hears nothing, its peer a reset after what was written."""
        if not self._lost:
            self._lost = True
            self.network.forget(self)
            self._reset()

    def getPeer(self) -> IPv4Address:
        """Twisted's interface."""
        return IPv4Address("TCP", self.there, 1)

    def getHost(self) -> IPv4Address:
        """Twisted's interface."""
        return IPv4Address("TCP", self.here, 1)

    def deliver(self, data: bytes) -> None:
        """Bytes arrive; where nobody is left to take them, their sender is told so."""
        if not self._lost:
            if self._unread is None:
                self._read(data)
            else:
                self._unread.append(data)
        elif not self.peer._lost:
            self._reset()

    def pauseProducing(self) -> None:
        """Twisted's interface: read nothing for now."""
        if self._unread is None:
            self._unread = deque()

    def resumeProducing(self) -> None:
        """Twisted's interface: read what has arrived meanwhile, and go on reading."""
        unread, self._unread = self._unread, None
        while unread and not self._lost:
            self._read(unread.popleft())
            if self._paused():  # once more, by what was read
                unread.extend(self._unread or ())
                self._unread = unread
                return

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Twisted's interface; for producers that push."""
        assert streaming
        self._producer = producer

    def unregisterProducer(self) -> None:
        """Twisted's interface."""
        self._producer = None

    def _read(self, data: bytes) -> None:
        self.peer._was_read(len(data))
        self.protocol.dataReceived(data)

    def _was_read(self, size: int) -> None:
        self._in_flight -= size
        if self._producer_paused and not self._lost and self._in_flight <= IN_FLIGHT_MAX // 2:
            self._producer_paused = False
            if self._producer is not None:
                self._producer.resumeProducing()

    def _paused(self) -> bool:
        return self._unread is not None

    def stopProducing(self) -> None:
        """Twisted's interface."""
        self.loseConnection()

    def end(self, why: Exception) -> None:
        """The connection is over at this end."""
        if not self._lost:
            self._lost = True
            self.network.forget(self)
            self.protocol.connectionLost(Failure(why))

    def resume(self) -> None:
        """A path was mended, perhaps ours."""
        if self.network.paths.reaches(self.here, self.there):
            waiting, self._waiting = self._waiting, []
            for deliver, what in waiting:
                self._send(deliver, what)
        if not self._waiting and self.network.open_between(self.here, self.there):
            self._calm()

    def _reset(self) -> None:
        """Give up what still waits, and tell the other end, once and for all."""
        self._waiting.clear()
        self._calm()
        if self.network.paths.reaches(self.here, self.there):
            self._send(self.peer.end, error.ConnectionLost())

    def _time_out(self) -> None:
        self._waiting.clear()
        self._calm()
        self.end(error.TimeoutError())

    def _calm(self) -> None:
        """What was sent is acknowledged, or no longer of interest."""
        self.network.unstall(self)
        if self._impatient is not None:
            self._impatient.cancel()
            self._impatient = None

    def _latency(self) -> float:
        return self.network.latency(self.here, self.there)

    def _send(self, deliver: Callable[[Any], None], what: object) -> None:
        network = self.network
        network.messages += 1
        if not network.open_between(self.here, self.there):
            self._grow_impatient()
            if self._waiting or not network.paths.reaches(self.here, self.there):
                self._waiting.append((deliver, what))
                return
        now = network.clock.seconds()
        self._next = max(self._next, now + self._latency())
        network.clock.callLater(self._next - now, deliver, what)

    def _grow_impatient(self) -> None:
        """What is sent now is not acknowledged, whether it arrives or not."""
        if self._impatient is None:
            self.network.stall(self)
            self._impatient = self.network.clock.callLater(self.network.patience, self._time_out)
