"""Streams without sockets: real protocols at both ends, bytes delivered in virtual time.

Invariant: a direction delivers its bytes in order, each ``latency`` after it was written; whoever is cut off is
noticed at the other end by a lost connection, and nothing that was under way from it arrives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from attrs import define, field
from twisted.internet import error
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint, ITransport
from twisted.python.failure import Failure
from zope.interface import implementer

from cloudmytask.simulation.clock import VirtualClock


@define(eq=False)
class Network:
    """Hosts by name; each listens with one factory."""

    clock: VirtualClock
    latency: Callable[[str, str], float] = field(default=lambda _here, _there: 0.0005)
    """Seconds that bytes take from one host to another; asked for each write."""
    _listening: dict[str, IProtocolFactory] = field(init=False, factory=dict)
    _open: dict[SimulatedTransport, None] = field(init=False, factory=dict)

    def listen(self, host: str, factory: IProtocolFactory) -> None:
        """Accept connections on a host."""
        self._listening[host] = factory

    def endpoint(self, here: str, there: str) -> SimulatedEndpoint:
        """How ``here`` connects to ``there``."""
        return SimulatedEndpoint(self, here, there)

    def cut_off(self, host: str) -> None:
        """Stop listening and break every connection of a host, as its death does."""
        self._listening.pop(host, None)
        for transport in [t for t in self._open if t.here == host]:
            transport.die()

    def connect(self, here: str, there: str, factory: IProtocolFactory, done: Deferred[IProtocol]) -> None:
        """Make a connection, or fail ``done``."""
        if done.called:
            return
        listening = self._listening.get(there)
        if listening is None:
            done.errback(error.ConnectionRefusedError())
            return
        near, far = SimulatedTransport(self, here, there), SimulatedTransport(self, there, here)
        near.peer, far.peer = far, near
        self._open[near] = self._open[far] = None
        client = factory.buildProtocol(IPv4Address("TCP", there, 1))
        server = listening.buildProtocol(IPv4Address("TCP", here, 1))
        assert client is not None and server is not None
        near.protocol, far.protocol = client, server
        server.makeConnection(far)
        client.makeConnection(near)
        done.callback(client)

    def forget(self, transport: SimulatedTransport) -> None:
        """A connection is gone."""
        self._open.pop(transport, None)


@implementer(ITransport)
@define(eq=False)
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

    def write(self, data: bytes) -> None:
        """Twisted's interface."""
        if data and not self.disconnecting and not self._lost:
            self._send(self.peer.deliver, data)

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
            self._send(self.peer.end, error.ConnectionLost())
            self.network.clock.callLater(0, self.end, error.ConnectionAborted())

    def die(self) -> None:
        """The process is gone: its protocol hears nothing, its peer a reset."""
        if not self._lost:
            self._lost = True
            self.network.forget(self)
            self.network.clock.callLater(self._latency(), self.peer.end, error.ConnectionLost())

    def getPeer(self) -> IPv4Address:
        """Twisted's interface."""
        return IPv4Address("TCP", self.there, 1)

    def getHost(self) -> IPv4Address:
        """Twisted's interface."""
        return IPv4Address("TCP", self.here, 1)

    def deliver(self, data: bytes) -> None:
        """Bytes arrive, unless their sender died meanwhile."""
        if not self._lost and (not self.peer._lost or self.peer.disconnecting):
            self.protocol.dataReceived(data)

    def end(self, why: Exception) -> None:
        """The connection is over at this end."""
        if not self._lost:
            self._lost = True
            self.network.forget(self)
            self.protocol.connectionLost(Failure(why))

    def _latency(self) -> float:
        return self.network.latency(self.here, self.there)

    def _send(self, deliver: Callable[[Any], None], what: object) -> None:
        now = self.network.clock.seconds()
        self._next = max(self._next, now + self._latency())
        self.network.clock.callLater(self._next - now, deliver, what)


@implementer(IStreamClientEndpoint)
@define(eq=False)
class SimulatedEndpoint:
    """Twisted's interface to :meth:`Network.connect`."""

    _network: Network
    _here: str
    _there: str

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:  # noqa: N803 - Twisted's name
        """Twisted's interface."""
        done: Deferred[IProtocol] = Deferred()
        delay = self._network.latency(self._here, self._there)
        self._network.clock.callLater(delay, self._network.connect, self._here, self._there, protocolFactory, done)
        return done
