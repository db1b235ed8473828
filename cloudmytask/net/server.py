"""Accepts the connections of clients.

Invariant: every connection is known until it is lost, so that a node can end them in order.
"""

from __future__ import annotations

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory

from cloudmytask.boundaries import Clock, FrontDoor
from cloudmytask.net.peer_links import PeerLinks
from cloudmytask.net.session import Session
from cloudmytask.wire.guard import GuardedAMP


class NodeFactory(Factory):
    """Accepts clients, and peers. ``connections``: the protocols that are connected, for an orderly end.

    :param links: where connections of peers become links; None where only clients are welcome.
    """

    noisy = False

    def __init__(self, front_door: FrontDoor, clock: Clock, links: PeerLinks | None = None) -> None:
        self._door = front_door
        self._clock = clock
        self._links = links
        self.connections: dict[int, GuardedAMP] = {}

    def buildProtocol(self, addr: IAddress | None) -> GuardedAMP:  # noqa: ARG002 - Twisted's interface
        """Twisted's interface."""
        session = Session(self._door, self._clock, self._links)
        protocol = session.protocol
        self.connections[id(protocol)] = protocol
        protocol.gone.add(lambda: self.connections.pop(id(protocol), None))
        return protocol

    def close(self) -> None:
        """End all connections, after what was written to them."""
        for protocol in list(self.connections.values()):
            protocol.close()
