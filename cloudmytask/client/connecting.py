"""Makes connections to nodes.

Invariant: a connection is handed out only after the node has answered ``Hello``; until then nobody counts on it, and
one that comes to nothing is closed.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.interfaces import IAddress, IStreamClientEndpoint
from twisted.internet.protocol import Factory

from cloudmytask.boundaries import Clock
from cloudmytask.client.node_client import NodeClient
from cloudmytask.model.errors import CloudMyTaskError, NoNode
from cloudmytask.wire.guard import GuardedAMP


class _ClientFactory(Factory):
    noisy = False

    def __init__(self, client: NodeClient) -> None:
        self._client = client

    def buildProtocol(self, addr: IAddress | None) -> GuardedAMP:  # noqa: ARG002 - Twisted's interface
        return self._client.protocol


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
    return Deferred.fromCoroutine(_connect(endpoint, clock, client, new_key))


async def _connect(
    endpoint: IStreamClientEndpoint, clock: Clock, client: str, new_key: Callable[[], str]
) -> NodeClient:
    node_client = NodeClient(clock, new_key)
    try:
        await endpoint.connect(_ClientFactory(node_client))
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


def _why(problem: Exception) -> str:
    number = getattr(problem, "osError", None)
    if isinstance(number, int):
        return os.strerror(number)
    return str(problem).rstrip(".") or type(problem).__name__
