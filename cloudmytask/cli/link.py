"""A connection to a node that is made anew when it is lost: jobs live on the node, not in the connection.

Invariant: what is asked again after a loss is asked of the same address, and only questions that may be asked twice
are. Only new work moves to another node, and none moves from an address that was given with ``--via``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.task import deferLater

from cloudmytask.cli.remembered import Remembered, cache_file
from cloudmytask.cli.standby import Standby
from cloudmytask.cli.terminal.console import Console
from cloudmytask.client.addresses import Address, candidates
from cloudmytask.client.lines import elsewhere
from cloudmytask.client.node_client import NodeClient
from cloudmytask.client.options import default_client
from cloudmytask.client.ways import UNREACHABLE, Reached, Ways
from cloudmytask.model.errors import ConnectionInterrupted, NodeDraining, NoNode, NoSuchJob, RequestTimeout
from cloudmytask.model.job import JobId

T = TypeVar("T")
Question = Callable[[NodeClient], Deferred[T]]

PATIENCE = (0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0)
"""Seconds between attempts to reach a node again that we had spoken to."""
LOSSES_MAX = 20
"""Connections that one question may cost before we believe that it is the question's fault."""


@define(eq=False)
class Link:
    """Made by :func:`reach` and :func:`reach_any`."""

    _ways: Ways
    _reached: Reached
    _standby: Standby | None = None
    _mending: DeferredLock = field(init=False, factory=DeferredLock)

    @property
    def client(self) -> NodeClient:
        """The connection, as it is now."""
        return self._reached.client

    @property
    def address(self) -> Address:
        """Where the node is."""
        return self._reached.address

    @property
    def instead_of(self) -> Address | None:
        """The address that was named, where another node stands in for the one there."""
        return self._reached.instead_of

    async def ask(self, question: Question[T], about: JobId | None = None) -> T:
        """The answer; the question is asked again on a new connection as often as the connection is lost.

        :param about: the job that it is about, for the sentence.
        :raises ConnectionInterrupted: the node could not be reached again.
        """
        for _ in range(LOSSES_MAX):
            try:
                return await question(self.client)
            except ConnectionInterrupted:
                await self._mend(about)
        raise self._lost(f"{self.address.text}: the connection was lost {LOSSES_MAX} times", about)

    async def hand_over(self, question: Question[T], *, once: bool) -> T:
        """Like :meth:`ask`, for new work: where the node does not answer, or takes none, another one is asked.

        :param question: under the same key each time.
        :param once: what a node may have is not handed to another one.
        """
        while True:
            try:
                return await self.ask(question)
            except NodeDraining:
                if not await self._move("takes no new work"):
                    raise
            except (ConnectionInterrupted, RequestTimeout) as problem:
                # Where the connection stands again it was lost each time that we asked: no node would fare better.
                fault = isinstance(problem, ConnectionInterrupted) and self.client.connected
                if once or fault or not await self._move("does not answer"):
                    raise

    async def learn(self) -> None:
        """Remember for other days which other nodes there are, if that is due. Never fails, and hardly takes time."""
        if self._standby is not None:
            await self._standby.learn(self._ways, self._reached)

    def close(self) -> None:
        """End the connection. Idempotent."""
        self.client.close()

    async def _move(self, why: str) -> bool:
        """Whether there is another node to talk to from now on."""
        if self._standby is None:
            return False
        found = await self._standby.reach(self._ways, self._reached, why)
        if found is None:
            return False
        self.client.close()
        self._reached = found
        return True

    async def _mend(self, about: JobId | None) -> None:
        await self._mending.acquire()
        try:
            if self.client.connected:  # somebody else has mended it
                return
            was, reason = self._reached, ""
            for delay in PATIENCE:
                await deferLater(self._ways.clock, delay)  # type: ignore[arg-type]  # it needs no more than that
                try:
                    client = await self._ways.to(was.address)
                except UNREACHABLE as problem:
                    reason = str(problem)
                else:
                    self._reached = Reached(was.address, client, was.instead_of, was.name)
                    return
            lost = f"the connection to {was.address.text} was lost and could not be made again"
            raise self._lost(f"{lost} within {sum(PATIENCE):.0f} s: {reason}", about)
        finally:
            self._mending.release()

    def _lost(self, problem: str, about: JobId | None) -> ConnectionInterrupted:
        """What becomes of a job whose node is gone, and what to do."""
        if about is None:
            return ConnectionInterrupted(problem)
        via = f"--via {self.address.text} " if self._standby is None or self.instead_of is not None else ""
        return ConnectionInterrupted(
            f"{problem}; job {about} is kept there and goes on when that node is back; ask again then:"
            f" cmt {via}wait {about}"
        )


def _ways(reactor: Any) -> Ways:
    return Ways(lambda address: address.endpoint(reactor), reactor, default_client())


async def reach(reactor: Any, via: str | None) -> Link:
    """Connect to the first address that answers: ``via``, ``$CMT_NODE``, the local node, the configuration file.

    :raises NoNode: none does; the sentence says what was tried, and how to start a node.
    :raises CloudMyTaskError: a node answered and declined.
    """
    return await reach_one(reactor, candidates(via, os.environ))


async def reach_one(reactor: Any, addresses: Sequence[Address]) -> Link:
    """Connect to the first of ``addresses`` that answers; raises like :func:`reach`."""
    ways = _ways(reactor)
    return Link(ways, await ways.to_first(addresses))


async def reach_any(reactor: Any, console: Console) -> Link:
    """Like :func:`reach`; but where no address answers and none was given with ``--via``, connect to a node that is
    remembered from there."""
    addresses = candidates(console.via, os.environ)
    if console.via is not None:
        return await reach_one(reactor, addresses)
    ways, remembered = _ways(reactor), Remembered(cache_file(os.environ))
    try:
        reached = await ways.to_first(addresses)
    except NoNode:
        for each in addresses:
            standby = Standby(each, console, remembered)
            found = await standby.reach(ways, None, "does not answer")
            if found is not None:
                return Link(ways, found, standby)
        raise
    return Link(ways, reached, Standby(reached.address, console, remembered))


START_A_NODE = 'start one with "twistd -n cmt-node"'


def with_node(
    console: Console, work: Callable[[Any, Link], Coroutine[Deferred[Any], Any, int]]
) -> Callable[[Any], Coroutine[Deferred[Any], Any, int]]:
    """Work for :func:`cloudmytask.cli.session.conduct` that is given a session and a link, which is closed at the end.

    :raises NoNode: the sentence says how to start one.
    """

    async def conducted(session: Any) -> int:
        try:
            link = await reach_any(session.reactor, console)
        except NoNode as problem:
            raise NoNode(f"{problem} ({START_A_NODE})") from None
        try:
            code = await work(session, link)
            await link.learn()
            return code
        except NoSuchJob as problem:
            if type(problem) is NoSuchJob and link.instead_of is not None:
                raise NoNode(elsewhere(problem, link.address.text, link.instead_of)) from None
            raise
        finally:
            link.close()

    return conducted
