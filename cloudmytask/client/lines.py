"""A client's connections: one for new work, which moves to another node where its own does not answer, and one to each
node that has a job of ours.

Invariant: a question about a job is asked of the node that accepted it, and of no other. New work is handed over under
one key, and goes to another node only if the one before does not answer, or takes none; what must never run twice moves
only while no node can have it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

from attrs import define, field
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.task import deferLater

from cloudmytask.client.addresses import Address
from cloudmytask.client.node_client import NodeClient
from cloudmytask.client.peers import Peer, peers_of
from cloudmytask.client.ways import UNREACHABLE, Reached, Ways
from cloudmytask.model.errors import (
    CloudMyTaskError,
    ConnectionInterrupted,
    NodeDraining,
    NoNode,
    NoSuchJob,
    RequestTimeout,
)

T = TypeVar("T")
Question = Callable[[NodeClient], Deferred[T]]

PATIENCE = (0.0, 0.1, 0.2, 0.4, 0.8, 1.6)
"""Seconds between attempts to reach a node again that may have our work already: one that is only being restarted
should be the one to tell."""
LEARN_AFTER = 60.0
"""Seconds after which the other nodes are asked for again."""
LEARN_TIMEOUT = 10.0
LOSSES_MAX = 20
"""Connections that one question may cost before we believe that it is the question's fault."""


@define(eq=False)
class Lines:
    """Used in the reactor only.

    :ivar named: the addresses to try first.
    :ivar failover: whether other nodes than the named ones are tried.
    """

    _ways: Ways
    _named: Sequence[Address]
    _failover: bool = True
    _home: Reached | None = field(init=False, default=None)
    _others: dict[str, NodeClient] = field(init=False, factory=dict)
    _peers: tuple[Peer, ...] = field(init=False, default=())
    _learned: float | None = field(init=False, default=None)
    _connecting: DeferredLock = field(init=False, factory=DeferredLock)

    def close(self) -> None:
        """End all connections; they are made anew when they are needed."""
        home, self._home = self._home, None
        others, self._others = self._others, {}
        for client in [*others.values(), *([] if home is None else [home.client])]:
            client.close()

    async def ask(self, question: Question[T]) -> T:
        """Ask the node that we talk to, whichever that is now. :raises CloudMyTaskError:"""
        reached = await self._reached(set())
        answer = await question(reached.client)
        self._learn(reached)
        return answer

    async def ask_at(self, address: Address, question: Question[T]) -> T:
        """Ask the node at that address.

        :raises NoNode, ConnectionInterrupted, RequestTimeout: it does not answer.
        """
        return await question(await self._connected(address))

    async def find(self, question: Question[T]) -> tuple[T, Address]:
        """Ask about a job that the node we talk to should know; the answer, and where the job lives.

        :raises NoNode: it may be with a node that does not answer.
        """
        reached = await self._reached(set())
        try:
            answer = await question(reached.client)
        except NoSuchJob as problem:
            if type(problem) is not NoSuchJob or reached.instead_of is None:
                raise
            for address in self._named:
                try:
                    return await self.ask_at(address, question), address
                except UNREACHABLE:
                    continue
            raise NoNode(elsewhere(problem, reached.name, reached.instead_of)) from None
        self._learn(reached)
        return answer, reached.address

    async def hand_over(self, question: Question[T], *, once: bool) -> tuple[T, Address]:
        """Hand over new work; the answer, and the address of the node that has it.

        :param question: under the same key each time.
        :param once: what a node may have is not handed to another one.
        :raises NoNode, ConnectionInterrupted, RequestTimeout: no node took it that answers.
        """
        tried: set[str] = set()
        for _ in range(LOSSES_MAX):
            reached = await self._reached(tried)
            try:
                answer = await question(reached.client)
            except NodeDraining:
                if not await self._move(reached, tried):
                    raise
            except (ConnectionInterrupted, RequestTimeout) as problem:
                back = isinstance(problem, ConnectionInterrupted) and await self._returns(reached)
                if once and back:
                    return await self.ask_at(reached.address, question), reached.address
                if once or not (back or await self._move(reached, tried)):
                    raise
            else:
                self._learn(reached)
                return answer, reached.address
        raise ConnectionInterrupted(f"{reached.address.text}: the connection was lost {LOSSES_MAX} times")

    async def _reached(self, tried: set[str]) -> Reached:
        # One at a time: the calls of other threads wait for the connection instead of making further ones.
        await self._connecting.acquire()
        try:
            if self._home is None or not self._home.client.connected:
                self._home = await self._reach(tried)
            return self._home
        finally:
            self._connecting.release()

    async def _reach(self, tried: set[str]) -> Reached:
        try:
            return await self._ways.to_first(self._named)
        except NoNode:
            if not (self._failover and self._named):
                raise
            tried.update(each.key for each in self._named)
            found = await self._ways.to_stand_in(self._peers, self._named[0], tried)
            if found is None:
                raise
            return found

    async def _connected(self, address: Address) -> NodeClient:
        await self._connecting.acquire()
        try:
            home = self._home
            if home is not None and home.address.key == address.key and home.client.connected:
                return home.client
            client = self._others.get(address.key)
            if client is None or not client.connected:
                client = self._others[address.key] = await self._ways.to(address)
            return client
        finally:
            self._connecting.release()

    async def _returns(self, lost: Reached) -> bool:
        """Whether a node whose connection was lost is reached again soon."""
        for delay in PATIENCE:
            await deferLater(cast(Any, self._ways.clock), delay)
            await self._connecting.acquire()
            try:
                if self._home is not None and self._home is not lost:  # somebody else has been there
                    return self._home.address.key == lost.address.key
                client = await self._ways.to(lost.address)
                self._home = Reached(lost.address, client, lost.instead_of, lost.name)
            except UNREACHABLE:
                continue
            finally:
                self._connecting.release()
            return True
        return False

    async def _move(self, gone: Reached, tried: set[str]) -> bool:
        """Whether there is another node to talk to from now on."""
        tried.add(gone.address.key)
        if not self._failover:
            return False
        await self._connecting.acquire()
        try:
            if self._home is gone:
                found = await self._ways.to_stand_in(self._peers, gone.instead_of or gone.address, tried)
                if found is None:
                    return False
                self._home = found
                gone.client.close()
            return True
        finally:
            self._connecting.release()

    def _learn(self, reached: Reached) -> None:
        """Ask for the other nodes, in the background, if that is due."""
        now = self._ways.clock.seconds()
        if not self._failover or (self._learned is not None and now - self._learned < LEARN_AFTER):
            return
        self._learned = now
        Deferred.fromCoroutine(self._ask_for_peers(reached)).addErrback(self._not_learned)

    async def _ask_for_peers(self, reached: Reached) -> None:
        view = await reached.client.some_of_cluster(LEARN_TIMEOUT)
        self._peers = peers_of(view, self._ways.identity, with_teller=reached.instead_of is not None)

    def _not_learned(self, failure: Any) -> None:
        """What was known before is still worth something; the next call asks again."""
        failure.trap(CloudMyTaskError)
        self._learned = None


def elsewhere(problem: NoSuchJob, stand_in: str, instead_of: Address) -> str:
    """What it means that a stand-in does not know a job."""
    return (
        f"{problem} at {stand_in}, and {instead_of.text} does not answer: what was submitted there is kept there, and"
        " goes on when that node is back; ask again then"
    )
