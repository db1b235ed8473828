"""``NodeSession``: what a client has with a cluster: a node to talk to, which moves to another one when its own does
not answer, and a connection to each other node that has a job of ours.

Invariant: what becomes of a request is decided in ``failover``; here it is carried out. Callers share connections:
while one connects, the others wait for what comes of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, DeferredLock

from cloudmytask.addresses import Address
from cloudmytask.client.connection import UNREACHABLE, Connection, Connector
from cloudmytask.client.discovery import Discovery
from cloudmytask.client.failover import Failed, Moving, Recourse, Returning, Sent, State, nodes_to_ask
from cloudmytask.client.known_nodes import KnownNodes
from cloudmytask.client.node_client import NodeClient
from cloudmytask.deferreds import pause
from cloudmytask.model.errors import CloudMyTaskError, ConnectionInterrupted, NoNode, NoSuchJob
from cloudmytask.model.job import JobId

T = TypeVar("T")
Question = Callable[[NodeClient], Deferred[T]]


@frozen
class Habits:
    """How a session treats a node that does not answer.

    :ivar patience: seconds between attempts to reach a node again whose connection was lost.
    :ivar loyal: whether it stays with its node: a question whose connection was lost is asked again on a new one.
        Otherwise the question fails, and the next request looks for a node again, those that were named first.
    :ivar moved: told of each move: the address that is left, why, and where we are now.
    :ivar ask_again: how a person asks for a job that is kept by a node that is away.
    """

    patience: Sequence[float] = (0.0, 0.1, 0.2, 0.4, 0.8, 1.6)
    loyal: bool = False
    moved: Callable[[Address, str, Connection], object] = lambda _left, _why, _found: None
    ask_again: Callable[[JobId, Connection], str] = lambda _job, _connection: ""


@define(eq=False)
class NodeSession:
    """Used in the reactor only.

    :ivar named: the addresses to try first.
    :ivar known: the nodes that may stand in; None if none may.
    """

    connector: Connector
    named: Sequence[Address]
    known: KnownNodes | None = None
    habits: Habits = field(factory=Habits)
    _current: Connection | None = field(init=False, default=None)
    _others: dict[str, Connection] = field(init=False, factory=dict)
    _connecting: DeferredLock = field(init=False, factory=DeferredLock)
    _discovery: Discovery | None = field(init=False)

    def __attrs_post_init__(self) -> None:
        connector, known = self.connector, self.known
        self._discovery = None if known is None else Discovery(known, connector.identity, connector.clock)

    # Sent

    async def reach(self) -> NodeSession:
        """Connect now, and not only when something is asked; the session itself.

        :raises NoNode: no address answers, nor a node that may stand in. :raises CloudMyTaskError: one declined.
        """
        await self._attach(set())
        return self

    async def ask(self, question: Question[T], about: JobId | None = None) -> T:
        """Ask the node that we talk to, whichever that is now.

        :param about: the job that it is about, for the sentence.
        :raises CloudMyTaskError: it declined, or does not answer.
        """
        connection = await self._attach(set())
        recourse = Recourse.REPEAT if self.habits.loyal else Recourse.NONE
        return (await self._follow(Sent(recourse), question, connection, set(), about))[0]

    async def ask_about(
        self, question: Question[T], accepted_by: Address | None = None, *, patiently: bool = False
    ) -> tuple[T, Address]:
        """Ask about a job the nodes that may know it; the answer, and which node gave it.

        :param accepted_by: the node that accepted it; None: the one that we talk to should know it.
        :param patiently: whether to try for a while to reach a node whose connection was lost, or is.
        :raises NoNode, ConnectionInterrupted, RequestTimeout: who may know it does not answer.
        :raises NoSuchJob: nobody knows it.
        """
        talking_to = await self._attach(set()) if accepted_by is None else None
        unknown: NoSuchJob | None = None
        unreached: CloudMyTaskError | None = None
        for address in nodes_to_ask(accepted_by, talking_to, self.named):
            try:
                connection = await (self._return_to(address, address) if patiently else self._to(address))
                recourse = Recourse.REPEAT if patiently else Recourse.NONE
                answered = await self._follow(Sent(recourse), question, connection, set())
            except NoSuchJob as problem:
                if type(problem) is not NoSuchJob:
                    raise
                unknown = problem
            except UNREACHABLE as problem:
                unreached = problem
            else:
                return answered[0], address
        if unknown is None or unreached is None:
            raise unknown or unreached or NoNode("there is no node to ask")
        raise self.elsewhere(unknown)

    async def submit(self, question: Question[T], *, once: bool) -> tuple[T, Address]:
        """Submit new work; the answer, and the address of the node that has it.

        :param question: under the same key each time.
        :param once: what a node may have is not given to another one.
        :raises NoNode, ConnectionInterrupted, RequestTimeout: no node took it that answers.
        """
        tried: set[str] = set()
        connection = await self._attach(tried)
        recourse = Recourse.MOVE_UNSENT if once else Recourse.MOVE
        answer, connection = await self._follow(Sent(recourse), question, connection, tried)
        return answer, connection.address

    def elsewhere(self, problem: NoSuchJob) -> CloudMyTaskError:
        """What it means that the node that we talk to does not know a job: less, if it only stands in."""
        current = self._current
        if current is None or current.instead_of is None or type(problem) is not NoSuchJob:
            return problem
        return NoNode(
            f"{current.name}: {problem}, and {current.instead_of.text} does not answer: what was submitted there is"
            " kept there, and goes on when that node is back; ask again then"
        )

    async def learn(self, timeout: float) -> None:
        """Wait a moment to be told which other nodes there are, if that is due. Never fails."""
        if self._discovery is not None:
            if self._current is not None:
                self._discovery.begin(self._current)
            await self._discovery.wait(timeout)

    def close(self) -> None:
        """End all connections; they are made again when they are needed. Idempotent."""
        current, self._current = self._current, None
        others, self._others = self._others, {}
        for connection in [*others.values(), *([] if current is None else [current])]:
            connection.client.close()

    # Where we are

    @property
    def connection(self) -> Connection:
        """To the node that we talk to. :raises ConnectionInterrupted: to none, at the moment."""
        if self._current is None:
            raise ConnectionInterrupted("there is no connection")
        return self._current

    @property
    def client(self) -> NodeClient:
        """The connection, as it is now."""
        return self.connection.client

    @property
    def address(self) -> Address:
        """Where the node is that we talk to."""
        return self.connection.address

    @property
    def instead_of(self) -> Address | None:
        """The address that was named, if another node stands in for the one there."""
        return self.connection.instead_of

    # Carrying out

    async def _follow(
        self,
        state: State,
        question: Question[T],
        connection: Connection,
        tried: set[str],
        about: JobId | None = None,
    ) -> tuple[T, Connection]:
        """A request to its end; its answer, and the connection that it came on."""
        while True:
            match state:
                case Sent():
                    try:
                        answer = await question(connection.client)
                    except CloudMyTaskError as problem:
                        state = state.failed(problem)
                    else:
                        if self._discovery is not None:
                            self._discovery.begin(connection)
                        return answer, connection
                case Returning():
                    try:
                        connection = await self._return_to(connection.address, connection.asked)
                    except UNREACHABLE as problem:
                        state = state.gone(problem)
                    else:
                        state = state.reached()
                case Moving():
                    found = await self._move(connection, state.why, tried)
                    connection = found or connection
                    state = state.alone() if found is None else state.found()
                case Failed():
                    raise self._in_words(state.problem, connection, about)

    def _in_words(self, problem: CloudMyTaskError, connection: Connection, about: JobId | None) -> CloudMyTaskError:
        """What becomes of a job whose node is gone, and what to do."""
        if about is None or not isinstance(problem, ConnectionInterrupted):
            return problem
        return ConnectionInterrupted(
            f"{problem}; job {about} is kept there and goes on when that node is back; ask again then"
            f"{self.habits.ask_again(about, connection)}"
        )

    async def _attach(self, tried: set[str]) -> Connection:
        async with self._connecting:
            current = self._current
            if current is None or not (current.client.connected or self.habits.loyal):
                current = self._current = await self._reach(tried)
            return current

    async def _reach(self, tried: set[str]) -> Connection:
        try:
            return await self.connector.to_first(self.named)
        except NoNode:
            if self._discovery is None:
                raise
            tried.update(each.key for each in self.named)
            for each in self.named:
                found = await self._stand_in(each, each, "does not answer", tried)
                if found is not None:
                    return found
            raise

    async def _to(self, address: Address) -> Connection:
        """The connection to that address, made if need be; raises like ``Connector.to``."""
        async with self._connecting:
            return await self._connected(address)

    async def _connected(self, address: Address) -> Connection:
        current = self._current
        for each in (current, self._others.get(address.key)):
            if each is not None and each.address.key == address.key and each.client.connected:
                return each
        made = Connection(address, await self.connector.to(address))
        if current is not None and current.address.key == address.key:
            made = self._current = Connection(address, made.client, current.instead_of, current.name)
        else:
            self._others[address.key] = made
        return made

    async def _return_to(self, lost: Address, asked: Address) -> Connection:
        """Reach a node again. :raises ConnectionInterrupted: it does not come back, or the others have moved on."""
        reason: object = "the client has moved on"
        for delay in self.habits.patience:
            await pause(self.connector.clock, delay)
            current = self._current
            if current is not None and current.address.key != lost.key and current.asked == asked:
                break
            try:
                return await self._to(lost)
            except UNREACHABLE as problem:
                reason = problem
        raise ConnectionInterrupted(
            f"the connection to {lost.text} was lost and could not be made again within"
            f" {sum(self.habits.patience):.0f} s: {reason}"
        )

    async def _move(self, gone: Connection, why: str, tried: set[str]) -> Connection | None:
        """Another node to talk to from now on, if there is one."""
        tried.add(gone.address.key)
        if self._discovery is None:
            return None
        async with self._connecting:
            current = self._current
            if current is not None and current.address.key != gone.address.key and current.client.connected:
                return current  # another request has moved before
            found = await self._stand_in(gone.asked, gone.address, why, tried)
            if found is not None:
                gone.client.close()
                self._current = found
            return found

    async def _stand_in(self, asked: Address, left: Address, why: str, tried: set[str]) -> Connection | None:
        assert self._discovery is not None
        found = await self.connector.to_stand_in(self._discovery.nodes(asked), asked, tried)
        if found is not None:
            self.habits.moved(left, why, found)
        return found
