"""The connections of one instance: accepts clients and peers, as many as there are descriptors for.

Invariant: at most :attr:`NodeFactory.most` are open at a time, so that the store, the scripts and the
links have descriptors left. One that says who is there takes the place of one that has not said so.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory
from twisted.logger import Logger

from cloudmytask.net.client_session import ClientSession
from cloudmytask.wire.guard import GuardedAMP

_log = Logger()

MOST = 20_000
"""Connections of one instance, however many descriptors it may have: each costs some kilobytes."""
LEAST = 16
RESERVED = 64
"""Descriptors for the store and what an instance has open anyway, and for links that it makes itself."""
RESERVED_A_SLOT = 8
"""Descriptors for one script: its pipes, its files, its process."""


def room_for_connections(descriptors: int, slots: int = 0) -> int:
    """How many connections there may be.

    :param descriptors: that this process may have open; negative if there is no limit.
    :param slots: scripts that it runs at once.
    """
    if descriptors < 0:
        return MOST
    reserved = max(RESERVED + RESERVED_A_SLOT * slots, descriptors // 8)
    return min(MOST, max(LEAST, descriptors - reserved))


class NodeFactory(Factory):
    """Accepts clients, and peers.

    :param session: makes our end of a connection.
    :ivar most: how many connections there may be.
    """

    noisy = False

    def __init__(self, session: Callable[[], ClientSession], most: int = MOST) -> None:
        self._session = session
        self._sessions: dict[int, ClientSession] = {}
        self.most = most
        self._full = False

    def buildProtocol(self, addr: IAddress | None) -> GuardedAMP | None:  # noqa: ARG002 - Twisted's interface
        """Twisted's interface: None closes the connection."""
        if len(self._sessions) >= self.most and not self._made_room():
            return None
        session = self._session()
        self._sessions[id(session)] = session
        session.protocol.gone.add(lambda: self._ended(session))
        return session.protocol

    def close(self) -> None:
        """End all connections, after what was written to them."""
        for session in list(self._sessions.values()):
            session.protocol.close()

    def _made_room(self) -> bool:
        """Drop the connection that has kept silent for the longest time; False if all have said who is there."""
        if not self._full:
            self._full = True
            _log.warn("there are {most} connections, as many as there may be: silent ones make room", most=self.most)
        silent = next((each for each in self._sessions.values() if each.anonymous), None)
        if silent is None:
            return False
        self._ended(silent)
        silent.drop("others need the room")
        return True

    def _ended(self, session: ClientSession) -> None:
        self._sessions.pop(id(session), None)
        if len(self._sessions) < self.most // 2:
            self._full = False
