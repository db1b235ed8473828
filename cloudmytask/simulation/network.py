"""A network in memory: who listens, who is connected with whom, and how connections are made.

Invariant: an attempt to connect over a path that is cut waits for it to be mended, and times out as Twisted's endpoints
do. Nothing ever happens to a process that is dead.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from attrs import define, field
from twisted.internet import error
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from zope.interface import implementer

from cloudmytask.simulation.clock import Timer, VirtualClock
from cloudmytask.simulation.paths import Paths
from cloudmytask.simulation.transport import SimulatedTransport

CONNECT_TIMEOUT = 30.0
"""Seconds that an attempt to connect waits for an answer: the default of Twisted's endpoints."""


@define(eq=False, repr=False)
class Network:
    """Hosts by name; each listens with one factory."""

    clock: VirtualClock
    latency: Callable[[str, str], float] = field(default=lambda _here, _there: 0.0005)
    """Seconds that bytes take from one host to another; asked for each write."""
    patience: float = 60.0
    """Seconds after which a connection whose bytes are not acknowledged is given up."""
    paths: Paths = field(init=False, factory=Paths)
    messages: int = field(init=False, default=0)
    """Pieces that were sent so far, by all."""
    carried: int = field(init=False, default=0)
    """Bytes that were written to connections."""
    _listening: dict[str, IProtocolFactory] = field(init=False, factory=dict)
    _open: dict[SimulatedTransport, None] = field(init=False, factory=dict)
    _stalled: dict[SimulatedTransport, None] = field(init=False, factory=dict)
    _connecting: dict[_Attempt, None] = field(init=False, factory=dict)
    _names: dict[str, str] = field(init=False, factory=dict)
    _deaths: Counter[str] = field(init=False, factory=Counter)

    def __attrs_post_init__(self) -> None:
        self.paths.changed = self._resume

    def listen(self, host: str, factory: IProtocolFactory) -> None:
        """Accept connections on a host."""
        self._listening[host] = factory

    def name(self, address: str, host: str) -> None:
        """``address`` is one of a host's."""
        self._names[address] = host

    def host_at(self, address: str) -> str:
        """Whose address it is; of an unknown one a host where nobody listens."""
        return self._names.get(address, address)

    def endpoint(self, here: str, there: str) -> SimulatedEndpoint:
        """How ``here`` connects to ``there``."""
        return SimulatedEndpoint(self, here, there)

    def cut_off(self, host: str) -> None:
        """The process on a host is dead: it listens no more, and its connections break."""
        self._deaths[host] += 1
        self._listening.pop(host, None)
        for transport in [t for t in self._open if t.here == host]:
            transport.die()
        for attempt in [each for each in self._connecting if each.here == host]:
            attempt.end()

    def deaths(self, host: str) -> int:
        """How often the process on a host has died."""
        return self._deaths[host]

    def connect(self, here: str, there: str, factory: IProtocolFactory, done: Deferred[IProtocol]) -> None:
        """Make a connection, or fail ``done``."""
        attempt = _Attempt(self, here, there, factory, done)
        if not attempt.go_on():
            self._connecting[attempt] = None
            attempt.timer = self.clock.callLater(CONNECT_TIMEOUT, attempt.give_up)

    def establish(self, here: str, there: str, factory: IProtocolFactory, done: Deferred[IProtocol]) -> None:
        """Both hosts hear each other: one accepts, or refuses."""
        listening = self._listening.get(there)
        if listening is None:
            done.errback(error.ConnectionRefusedError())
            return
        server = listening.buildProtocol(IPv4Address("TCP", here, 1))
        if server is None:  # it has no room; whether a connection is refused or closed at once is all the same
            done.errback(error.ConnectionRefusedError())
            return
        near, far = SimulatedTransport(self, here, there), SimulatedTransport(self, there, here)
        near.peer, far.peer = far, near
        self._open[near] = self._open[far] = None
        client = factory.buildProtocol(IPv4Address("TCP", there, 1))
        assert client is not None
        near.protocol, far.protocol = client, server
        server.makeConnection(far)
        client.makeConnection(near)
        done.callback(client)

    def open_between(self, here: str, there: str) -> bool:
        """Whether what is sent arrives, and is acknowledged."""
        return self.paths.whole or (self.paths.reaches(here, there) and self.paths.reaches(there, here))

    def stall(self, transport: SimulatedTransport) -> None:
        """It is to be told of every mended path."""
        self._stalled[transport] = None

    def unstall(self, transport: SimulatedTransport) -> None:
        """Nothing of it waits any more."""
        self._stalled.pop(transport, None)

    def forget(self, transport: SimulatedTransport) -> None:
        """A connection is gone."""
        self._open.pop(transport, None)

    def given_up(self, attempt: _Attempt) -> None:
        """An attempt to connect is over."""
        self._connecting.pop(attempt, None)

    def _resume(self) -> None:
        for transport in list(self._stalled):
            transport.resume()
        for attempt in list(self._connecting):
            attempt.go_on()


@define(eq=False, repr=False)
class _Attempt:
    """An attempt to connect, which may have to wait for a path."""

    _network: Network
    here: str
    there: str
    _factory: IProtocolFactory
    _done: Deferred[IProtocol]
    timer: Timer | None = field(init=False, default=None)

    def go_on(self) -> bool:
        """Try again; whether it is over."""
        if not self._done.called:
            if not self._network.open_between(self.here, self.there):
                return False
            self.end()
            self._network.establish(self.here, self.there, self._factory, self._done)
        else:
            self.end()
        return True

    def give_up(self) -> None:
        """Nobody answered."""
        self.end()
        if not self._done.called:
            self._done.errback(error.TimeoutError())

    def end(self) -> None:
        """Nothing more comes of it."""
        self._network.given_up(self)
        if self.timer is not None:
            self.timer.cancel()


@implementer(IStreamClientEndpoint)
@define(eq=False, repr=False)
class SimulatedEndpoint:
    """Twisted's interface to :meth:`Network.connect`."""

    _network: Network
    _here: str
    _there: str

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:  # noqa: N803 - Twisted's name
        """Twisted's interface."""
        done: Deferred[IProtocol] = Deferred()
        network, here, deaths = self._network, self._here, self._network.deaths(self._here)

        def arrived() -> None:
            if not done.called and network.deaths(here) == deaths:
                network.connect(here, self._there, protocolFactory, done)

        network.clock.callLater(network.latency(here, self._there), arrived)
        return done
