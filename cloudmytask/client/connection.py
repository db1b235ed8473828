"""Connections to nodes: to an address, to the first of several that answers, to a node that stands in for one that
does not.

Invariant: a connection is handed out only after the node has answered ``Hello``; one that comes to nothing is closed.
A node stands in only if it is the node that we were told of.
"""

from __future__ import annotations

import getpass
import os
import secrets
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

from attrs import define, frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory

from cloudmytask.addresses import Address
from cloudmytask.boundaries import Clock
from cloudmytask.client.known_nodes import KnownNode
from cloudmytask.client.node_client import NodeClient
from cloudmytask.model.errors import (
    Banned,
    CloudMyTaskError,
    ConfigurationError,
    ConnectionInterrupted,
    NoNode,
    RequestTimeout,
)

UNREACHABLE = (NoNode, ConnectionInterrupted, RequestTimeout)
"""Failures of an attempt to connect after which the next address is worth trying."""
STAND_IN_PATIENCE = 2.0
"""Seconds that a stand-in may take to answer: there may be many to try."""
NOTHING_NAMED = "no address is configured and no node runs on this machine"


def default_client() -> str:
    """The ClientID to claim: ``$CMT_CLIENT``, or the user's name (design section 7).

    :raises ConfigurationError: neither is known.
    """
    try:
        return os.environ.get("CMT_CLIENT") or getpass.getuser()
    except (KeyError, OSError):
        raise ConfigurationError(
            f"the user id {os.getuid()} has no name on this machine; say in $CMT_CLIENT who you are"
        ) from None


def new_key() -> str:
    """A fresh idempotency key: 128 random bits."""
    return secrets.token_hex(16)


def connect(
    endpoint: IStreamClientEndpoint, clock: Clock, client: str, new_key: Callable[[], str] = new_key
) -> Deferred[NodeClient]:
    """Connect to a node; ready when it has answered ``Hello``.

    :param clock: the reactor, or a virtual clock.
    :param client: the ClientID to claim.
    :param new_key: where idempotency keys come from.
    :raises NoNode: nothing answers there. :raises CloudMyTaskError: what answers declines.
    """

    async def connected() -> NodeClient:
        node_client = NodeClient(clock, new_key)
        factory = Factory.forProtocol(lambda: node_client.protocol)
        factory.noisy = False
        try:
            await endpoint.connect(factory)
        except (CancelledError, ConnectingCancelledError) as given_up:
            raise CancelledError from given_up
        except Exception as problem:
            raise NoNode(_why(problem)) from problem
        try:
            await node_client.hello(client)
        except (CloudMyTaskError, CancelledError):
            node_client.close()
            raise
        return node_client

    return Deferred.fromCoroutine(connected())


def _why(problem: Exception) -> str:
    number = getattr(problem, "osError", None)
    if isinstance(number, int):
        return os.strerror(number)
    return str(problem).rstrip(".") or type(problem).__name__


@frozen(eq=False)
class Connection:
    """A node that was reached.

    :ivar instead_of: the address that was named and does not answer, if this node stands in for the one there.
    :ivar name: of a node that stands in.
    """

    address: Address
    client: NodeClient
    instead_of: Address | None = None
    name: str = ""

    @property
    def asked(self) -> Address:
        """The address that was named."""
        return self.instead_of or self.address


@define(eq=False)
class Connector:
    """Makes the connections of one client.

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

    async def to_first(self, addresses: Sequence[Address]) -> Connection:
        """The first of those that answers.

        :raises NoNode: none does; the sentence says what was tried. :raises CloudMyTaskError: one declined.
        """
        problems: list[str] = []
        for address in addresses:
            try:
                return Connection(address, await self.to(address))
            except UNREACHABLE as problem:
                problems.append(f"{address.source} {address.text}: {problem}")
        raise NoNode("; ".join(problems) or NOTHING_NAMED)

    async def to_stand_in(self, nodes: Iterable[KnownNode], instead_of: Address, tried: set[str]) -> Connection | None:
        """The first of ``nodes`` that answers, and is who it should be; None if there is none.

        :param tried: keys of the addresses that are not to be tried; those that were are added.
        :raises Banned: the client is.
        """
        for node in nodes:
            place = node.place
            if place.key in tried:
                continue
            tried.add(place.key)
            try:
                client = await self.to(place, STAND_IN_PATIENCE)
            except Banned:  # then it is everywhere
                raise
            except CloudMyTaskError:
                continue
            if client.node.get("id") == node.id:
                return Connection(place, client, instead_of, node.name)
            client.close()
        return None


def _too_late(_failure: object, seconds: float) -> NodeClient:
    raise NoNode(f"no answer within {seconds:g} s")
