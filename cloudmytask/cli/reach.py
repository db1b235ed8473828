"""Where a verb finds its node, or a CSU for what only a CSU keeps; what a person is told when it is another one than
was named.

Invariant: nothing moves away from an address that was given with ``--via``. What is learned of other nodes costs the
verb a moment at most.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from twisted.internet.defer import Deferred

from cloudmytask.addresses import Address
from cloudmytask.cli.invocation import Invocation, conduct
from cloudmytask.cli.terminal.cluster import serves
from cloudmytask.cli.terminal.console import Console
from cloudmytask.client.connection import Connection, Connector, default_client
from cloudmytask.client.known_nodes import KnownNodes, candidates
from cloudmytask.client.node_session import Habits, NodeSession
from cloudmytask.directories import known_nodes_file
from cloudmytask.model.cluster import ClusterView, LoadSample, Role
from cloudmytask.model.errors import ConfigurationError, NoNode, NoSuchJob, NotSupervised
from cloudmytask.model.job import JobId

PATIENCE = (0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0)
"""Seconds between attempts to reach a node again that we had spoken to."""
LEARN_TIMEOUT = 0.03
"""Seconds for which a verb that has done its work waits to hear which other nodes there are."""
START_A_NODE = 'start one with "twistd -n cmt-node"'
START_A_CSU = 'start one with "twistd -n cmt-csu"'


def habits(console: Console | None = None) -> Habits:
    """Make the habits of a verb: it stays with its node, and says so if it moves.

    :param console: None if it never moves.
    """

    def moved(left: Address, why: str, found: Connection) -> None:
        if console is not None:
            console.note(f"{left.text} {why}; talking to {found.name} at {found.address.text}")

    def ask_again(job_id: JobId, at: Connection) -> str:
        via = f"--via {at.address.text} " if console is None or at.instead_of is not None else ""
        return f": cmt {via}wait {job_id}"

    return Habits(PATIENCE, loyal=True, moved=moved, ask_again=ask_again)


def _connector(reactor: Any) -> Connector:
    return Connector(lambda address: address.endpoint(reactor), reactor, default_client())


async def reach_one(reactor: Any, addresses: Sequence[Address]) -> NodeSession:
    """Connect to the first of ``addresses`` that answers, and to no other node.

    :raises NoNode: none does; the sentence says what was tried.
    :raises CloudMyTaskError: one answered and declined.
    """
    return await NodeSession(_connector(reactor), addresses, None, habits()).reach()


async def reach(reactor: Any, console: Console) -> NodeSession:
    """Connect to the first address that answers: ``--via``, ``$CMT_NODE``, the local node, the configuration file; or,
    unless it was given with ``--via``, to a node that is known from there. Raises like :func:`reach_one`.
    """
    addresses = candidates(console.via, os.environ)
    if console.via is not None:
        return await reach_one(reactor, addresses)
    known = KnownNodes(known_nodes_file(os.environ))
    return await NodeSession(_connector(reactor), addresses, known, habits(console)).reach()


def at_node(console: Console, work: Callable[[Invocation, NodeSession], Coroutine[Deferred[Any], Any, int]]) -> int:
    """Do a verb's work with a node, which is left at its end.

    :returns: the exit code.
    :raises NoNode: none answers; the sentence says how to start one.
    """

    async def conducted(invocation: Invocation) -> int:
        try:
            node = await reach(invocation.reactor, console)
        except NoNode as problem:
            raise NoNode(f"{problem} ({START_A_NODE})") from None
        try:
            code = await work(invocation, node)
            await node.learn(LEARN_TIMEOUT)
            return code
        except NoSuchJob as problem:
            raise node.elsewhere(problem) from None
        finally:
            node.close()

    return conduct(conducted)


async def history(reactor: Any, node: NodeSession, seconds: float) -> tuple[LoadSample, ...]:
    """Fetch the load of all nodes over the last ``seconds``: from the instance that we speak to, if it keeps it,
    otherwise from any CSU that it knows.

    :raises NotSupervised: it knows none.
    :raises NoNode: none of them answers.
    """
    try:
        return await node.ask(lambda client: client.history(seconds))
    except NotSupervised:
        addresses = supervisors(await node.ask(lambda client: client.cluster()))
    if not addresses:
        raise NotSupervised(f"history is kept by a CSU, and {node.address.text} knows none; {START_A_CSU}")
    other = await reach_one(reactor, addresses)
    try:
        return await other.ask(lambda client: client.history(seconds))
    finally:
        other.close()


def supervisors(view: ClusterView) -> list[Address]:
    """List the addresses of the CSUs that are thought alive; one that makes no sense is left out."""
    found: list[Address] = []
    for each in view.members:
        if each.announcement.role is Role.CSU and serves(each):
            try:
                found.append(Address.parse(each.announcement.address, "CSU"))
            except ConfigurationError:
                continue
    return found
