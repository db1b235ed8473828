"""The other nodes of a cluster, as a client remembers them for the time when the one that it talks to is gone.

Invariant: they are places to try, nothing more: whoever answers there counts only if it is the node that we were told
of.
"""

from __future__ import annotations

import hashlib

from attrs import frozen

from cloudmytask.client.addresses import Address
from cloudmytask.model.cluster import ClusterView, MemberStatus, Role, Standing
from cloudmytask.model.errors import ConfigurationError

PEERS_MAX = 16
"""Nodes that are remembered for one address."""


@frozen
class Peer:
    """A node that may stand in for another one."""

    name: str
    address: Address
    node_id: str


def peer(name: str, address: str, node_id: str) -> Peer:
    """:raises ConfigurationError: the address is none that another host could give."""
    parsed = Address.parse(address, f"node {name}")
    if parsed.host is None:
        raise ConfigurationError(f"node {name}: {address!r} is not HOST:PORT")
    return Peer(name, parsed, node_id)


def peers_of(view: ClusterView, identity: str, *, with_teller: bool = False) -> tuple[Peer, ...]:
    """The nodes that take new work, as the node sees it that told us, at most ``PEERS_MAX``. Clients of different
    identity have them in different orders, and one client always in the same: so they spread over the nodes, and come
    back to the one that they were with.

    :param with_teller: begin with the one that told us; otherwise it is left out.
    """
    found: list[Peer] = []
    for each in view.members:
        if _serves(each) and (with_teller or each.announcement.node_id != view.by):
            said = each.announcement
            try:
                found.append(peer(said.name, said.address, said.node_id))
            except ConfigurationError:
                continue  # it listens to no network
    found.sort(key=lambda each: (each.node_id != view.by, _rank(identity, each.node_id)))
    return tuple(found[:PEERS_MAX])


def _serves(member: MemberStatus) -> bool:
    said = member.announcement
    return said.role is Role.NODE and member.standing is Standing.ALIVE and not (said.draining or member.conflict)


def _rank(identity: str, node_id: str) -> bytes:
    return hashlib.sha256(f"{identity}\0{node_id}".encode()).digest()
