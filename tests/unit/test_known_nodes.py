"""Which nodes a client takes for stand-ins, and in which order."""

from __future__ import annotations

from typing import Any

import pytest

from cloudmytask.addresses import Address
from cloudmytask.client.known_nodes import NODES_MAX, KnownNode, nodes_of
from cloudmytask.model.cluster import (
    ClusterView,
    MemberStatus,
    NodeId,
    Role,
    Standing,
)
from cloudmytask.model.errors import ConfigurationError
from tests import cluster_fakes


def _member(number: int, standing: Standing = Standing.ALIVE, **fields: Any) -> MemberStatus:
    own = {"node_id": NodeId(f"{number:032x}"), "address": f"10.0.0.{number}:7001"}
    return cluster_fakes.member(f"n{number}", standing=standing, **{**own, **fields})


def _names(view: ClusterView, identity: str = "ann", *, with_teller: bool = False) -> list[str]:
    return [each.name for each in nodes_of(view, identity, with_teller=with_teller)]


def test_only_nodes_that_take_new_work() -> None:
    view = cluster_fakes.view(
        _member(1),
        _member(2),
        _member(3, Standing.SUSPECT),
        _member(4, Standing.LEFT),
        _member(5, Standing.DEAD),
        _member(6, role=Role.CSU),
        _member(7, draining=True),
        _member(8, conflict=True),
        _member(9, address=""),
        _member(10, address="unix:/run/node.sock"),
    )
    assert _names(view) == ["n2"]
    assert _names(view, with_teller=True) == ["n1", "n2"]


def test_a_client_has_them_in_one_order_and_clients_differ() -> None:
    members = [_member(number) for number in range(1, 9)]
    order = _names(cluster_fakes.view(*members))
    assert sorted(order) == [f"n{number}" for number in range(2, 9)]
    assert _names(cluster_fakes.view(members[0], *reversed(members[1:]))) == order
    assert len({tuple(_names(cluster_fakes.view(*members), f"client{n}")) for n in range(10)}) > 5
    assert _names(cluster_fakes.view(*members), with_teller=True) == ["n1", *order]


def test_there_are_never_too_many() -> None:
    assert len(_names(cluster_fakes.view(*(_member(number) for number in range(1, 60))))) == NODES_MAX


@pytest.mark.parametrize("address", ["", "nowhere", "unix:/x", "10.0.0.1:0", "10.0.0.1:65536", ":7001"])
def test_an_address_that_leads_nowhere(address: str) -> None:
    with pytest.raises(ConfigurationError):
        KnownNode("b", address, "b" * 32)


def test_the_key_of_an_address() -> None:
    def key(text: str) -> str:
        return Address.parse(text, "test").key

    assert key("Host.Example:7001") == key("host.example:07001") == "host.example:7001"
    assert key("[::1]:7001") == "::1:7001"
    assert key("unix:/run//./node.sock") == key("unix:/run/node.sock") == "unix:/run/node.sock"
