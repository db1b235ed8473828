"""Finding a CSU, for what only a CSU keeps.

Invariant: whichever CSU answers is as good as any other.
"""

from __future__ import annotations

from typing import Any

from cloudmytask.addresses import Address
from cloudmytask.cli.reach import reach_one
from cloudmytask.cli.terminal.cluster import serves
from cloudmytask.client.node_session import NodeSession
from cloudmytask.model.cluster import ClusterView, LoadSample, Role
from cloudmytask.model.errors import ConfigurationError, NotSupervised

START_A_CSU = 'start one with "twistd -n cmt-csu"'


async def history(reactor: Any, node: NodeSession, seconds: float) -> tuple[LoadSample, ...]:
    """The load of all nodes over the last ``seconds``: from the instance that we speak to, if it keeps it, otherwise
    from a CSU that it knows.

    :raises NotSupervised: it knows none. :raises NoNode: none of them answers.
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
    """Where the CSUs are that are thought alive; one whose address makes no sense is left out."""
    found: list[Address] = []
    for each in view.members:
        if each.announcement.role is Role.CSU and serves(each):
            try:
                found.append(Address.parse(each.announcement.address, "CSU"))
            except ConfigurationError:
                continue
    return found
