"""The ways to a node: those that were named, and where none of them leads to one, those to the nodes that stand in.

Invariant: a stand-in is only ever taken for a named node that does not answer, and only if it is the node that we were
told of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

from attrs import define, frozen
from twisted.internet.interfaces import IStreamClientEndpoint

from cloudmytask.boundaries import Clock
from cloudmytask.client.addresses import Address
from cloudmytask.client.connecting import connect
from cloudmytask.client.node_client import NodeClient
from cloudmytask.client.peers import Peer
from cloudmytask.model.errors import Banned, CloudMyTaskError, ConnectionInterrupted, NoNode, RequestTimeout

UNREACHABLE = (NoNode, ConnectionInterrupted, RequestTimeout)
"""Failures of an attempt to connect after which the next address is worth trying."""
STAND_IN_PATIENCE = 2.0
"""Seconds that a stand-in may take to answer: there may be many to try."""
NOTHING_NAMED = "no address is configured and no node runs on this machine"


@frozen(eq=False)
class Reached:
    """A connection.

    :ivar instead_of: the address that was named and does not answer, where this is a stand-in.
    """

    address: Address
    client: NodeClient
    instead_of: Address | None = None
    name: str = ""
    """Of a stand-in."""


@define(eq=False)
class Ways:
    """How connections are made for one client.

    :ivar endpoint: how to connect to an address.
    :ivar identity: the ClientID to claim.
    """

    endpoint: Callable[[Address], IStreamClientEndpoint]
    clock: Clock
    identity: str

    async def to(self, address: Address, patience: float | None = None) -> NodeClient:
        """Connect to that very address.

        :param patience: seconds it may take in all; None: as long as connecting and the first answer may take.
        :raises NoNode, ConnectionInterrupted, RequestTimeout: it does not answer.
        :raises CloudMyTaskError: it declined.
        """
        connecting = connect(self.endpoint(address), self.clock, self.identity)
        if patience is not None:
            connecting.addTimeout(patience, cast(Any, self.clock), _too_late)
        return await connecting

    async def to_first(self, addresses: Sequence[Address]) -> Reached:
        """The first of those that answers.

        :raises NoNode: none does; the sentence says what was tried. :raises CloudMyTaskError: one declined.
        """
        problems: list[str] = []
        for address in addresses:
            try:
                return Reached(address, await self.to(address))
            except UNREACHABLE as problem:
                problems.append(f"{address.source} {address.text}: {problem}")
        raise NoNode("; ".join(problems) or NOTHING_NAMED)

    async def to_stand_in(self, peers: Iterable[Peer], instead_of: Address, tried: set[str]) -> Reached | None:
        """The first of ``peers`` that answers, and is who it should be; None if there is none.

        :param tried: keys of the addresses that are not to be tried; those that were are added.
        :raises Banned: the client is.
        """
        for peer in peers:
            if peer.address.key in tried:
                continue
            tried.add(peer.address.key)
            try:
                client = await self.to(peer.address, STAND_IN_PATIENCE)
            except Banned:  # then it is everywhere
                raise
            except CloudMyTaskError:
                continue
            if client.node.get("id") == peer.node_id:
                return Reached(peer.address, client, instead_of, peer.name)
            client.close()
        return None


def _too_late(_failure: object, seconds: float) -> NodeClient:
    raise NoNode(f"no answer within {seconds:g} s")
