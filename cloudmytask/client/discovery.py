"""What a client finds out about the other nodes of its cluster: it asks the node that it talks to, now and then.

Invariant: nobody waits for it for longer than they said, and it never makes a request fail: what was known before is
still worth something.
"""

from __future__ import annotations

from typing import Any

from attrs import define, field
from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from cloudmytask.addresses import Address
from cloudmytask.boundaries import Clock
from cloudmytask.client.connection import Connection
from cloudmytask.client.known_nodes import KnownNode, KnownNodes, Told, nodes_of
from cloudmytask.deferreds import Signal, patiently
from cloudmytask.model.errors import CloudMyTaskError

_log = Logger()

LEARN_TIMEOUT = 10.0
"""Seconds that a node may take to tell which other nodes there are; nobody waits for it."""


@define(eq=False)
class Discovery:
    """For one client.

    :ivar identity: its ClientID, by which it has the nodes in an order of its own.
    """

    known: KnownNodes
    identity: str
    clock: Clock
    _told: dict[str, Told | None] = field(init=False, factory=dict)
    _told_by: str = field(init=False, default="")
    _asking: bool = field(init=False, default=False)
    _answered: Signal = field(init=False, factory=Signal)

    def nodes(self, asked: Address) -> tuple[KnownNode, ...]:
        """The nodes that may stand in for the one at an address."""
        told = self._recall(asked)
        return () if told is None else told.nodes

    def begin(self, connection: Connection) -> None:
        """Ask the node there, if that is due."""
        if not self._asking and self._is_due(connection):
            self._asking = True
            asked = Deferred.fromCoroutine(self._ask(connection))
            asked.addErrback(lambda failure: failure.trap(CloudMyTaskError)).addErrback(
                lambda failure: _log.failure("the other nodes could not be learnt of", failure=failure)
            ).addBoth(self._end)

    async def wait(self, timeout: float) -> None:
        """Wait for the answer, if one is awaited, for so many seconds. Never fails."""
        if self._asking:
            try:
                await patiently(self.clock, timeout, self._answered.wait())
            except defer.TimeoutError:
                return  # the next session asks again

    def _recall(self, asked: Address) -> Told | None:
        if asked.key not in self._told:
            self._told[asked.key] = self.known.recall(asked)
        return self._told[asked.key]

    def _is_due(self, connection: Connection) -> bool:
        told = self._recall(connection.asked)
        if told is None or not self.known.fresh(told):
            return True
        # The one that stands in now is to be the first to be tried the next time: it has our jobs.
        first = told.nodes[0].place.key if told.nodes else ""
        return connection.instead_of is not None and connection.address.key not in (first, self._told_by)

    async def _ask(self, connection: Connection) -> None:
        view = await connection.client.some_of_cluster(LEARN_TIMEOUT)
        nodes = nodes_of(view, self.identity, with_teller=connection.instead_of is not None)
        self._told[connection.asked.key] = self.known.keep(connection.asked, nodes)
        self._told_by = connection.address.key

    def _end(self, _: Any) -> None:
        self._asking = False
        self._answered.fire()
