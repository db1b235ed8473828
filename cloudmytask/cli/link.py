"""A connection to a node that is made anew when it is lost: jobs live on the node, not in the connection.

Invariant: what is asked again after a loss is asked of the same address, and only questions that may be asked twice
are.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.task import deferLater

from cloudmytask.client.addresses import Address, candidates
from cloudmytask.client.connecting import connect
from cloudmytask.client.node_client import NodeClient
from cloudmytask.client.options import default_client
from cloudmytask.errors import ConnectionInterrupted, NoNode, RequestTimeout

T = TypeVar("T")

UNREACHABLE = (NoNode, ConnectionInterrupted, RequestTimeout)
"""Failures of an attempt to connect after which the next address is worth trying."""
PATIENCE = (0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0)
"""Seconds between attempts to reach a node again that we had spoken to."""
LOSSES_MAX = 20
"""Connections that one question may cost before we believe that it is the question's fault."""


@define(eq=False)
class Link:
    """Made by :func:`reach`."""

    _reactor: Any
    _identity: str
    address: Address
    client: NodeClient
    _mending: DeferredLock = field(init=False, factory=DeferredLock)

    async def ask(self, question: Callable[[NodeClient], Deferred[T]]) -> T:
        """The answer; the question is asked again on a new connection as often as the connection is lost.

        :raises ConnectionInterrupted: the node could not be reached again.
        """
        for _ in range(LOSSES_MAX):
            try:
                return await question(self.client)
            except ConnectionInterrupted:
                await self._mend()
        raise ConnectionInterrupted(f"{self.address.text}: the connection was lost {LOSSES_MAX} times")

    def close(self) -> None:
        """End the connection. Idempotent."""
        self.client.close()

    async def _mend(self) -> None:
        await self._mending.acquire()
        try:
            if self.client.connected:  # somebody else has mended it
                return
            reason = ""
            for delay in PATIENCE:
                await deferLater(self._reactor, delay)
                try:
                    self.client = await connect(self.address.endpoint(self._reactor), self._reactor, self._identity)
                except UNREACHABLE as problem:
                    reason = str(problem)
                else:
                    return
            waited = f"{sum(PATIENCE):.0f} s"
            raise ConnectionInterrupted(
                f"the connection to {self.address.text} was lost and could not be made again within {waited}: {reason}"
            )
        finally:
            self._mending.release()


async def reach(reactor: Any, via: str | None) -> Link:
    """Connect to the first address that answers: ``via``, ``$CMT_NODE``, the local node, the configuration file.

    :raises NoNode: none does; the sentence says what was tried, and how to start a node.
    :raises CloudMyTaskError: a node answered and declined.
    """
    addresses = candidates(via, os.environ)
    return await reach_one(reactor, addresses)


async def reach_one(reactor: Any, addresses: Sequence[Address]) -> Link:
    """Connect to the first of ``addresses`` that answers; raises like :func:`reach`."""
    identity = default_client()
    tried: list[str] = []
    for address in addresses:
        try:
            client = await connect(address.endpoint(reactor), reactor, identity)
        except UNREACHABLE as problem:
            tried.append(f"{address.source} {address.text}: {problem}")
        else:
            return Link(reactor, identity, address, client)
    raise NoNode("; ".join(tried) or "no address is configured and no node runs on this machine")


START_A_NODE = 'start one with "twistd -n cmt-node"'


def with_node(
    via: str | None, work: Callable[[Any, Link], Coroutine[Deferred[Any], Any, int]]
) -> Callable[[Any], Coroutine[Deferred[Any], Any, int]]:
    """Work for :func:`cloudmytask.cli.session.conduct` that is given a session and a link, which is closed at the end.

    :raises NoNode: the sentence says how to start one.
    """

    async def conducted(session: Any) -> int:
        try:
            link = await reach(session.reactor, via)
        except NoNode as problem:
            raise NoNode(f"{problem} ({START_A_NODE})") from None
        try:
            return await work(session, link)
        finally:
            link.close()

    return conducted
