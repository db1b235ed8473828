"""How many connections an instance takes, and which of them make room for others."""

from __future__ import annotations

import pytest
from twisted.protocols import amp

from cloudmytask.model.errors import NoNode
from cloudmytask.net.client_session import ANONYMOUS_MAX
from cloudmytask.net.connections import LEAST, MOST, NodeFactory, room_for_connections
from tests.virtual import Place, Stranger


@pytest.fixture
def place() -> Place:
    return Place()


@pytest.fixture
def factory(place: Place) -> NodeFactory:
    """The node's, with room for four."""
    factory = place.network._listening["node"]
    assert isinstance(factory, NodeFactory)
    factory.most = 4
    return factory


def test_row_06_silent_connections_make_room_for_those_who_say_who_they_are(place: Place, factory: NodeFactory) -> None:
    ann = place.connect("ann")
    silent = [place.stranger() for _ in range(10)]
    place.clock.advance(1.0)
    assert len(factory._sessions) == 4
    assert [each.lost for each in silent] == [True] * 7 + [False] * 3, "the oldest go first, and ann does not"
    ben = place.connect("ben")
    assert place.result(ann.describe())["name"] == place.result(ben.describe())["name"] == "node"


def test_where_all_have_said_who_they_are_nobody_is_dropped(place: Place, factory: NodeFactory) -> None:
    clients = [place.connect(f"client{number}") for number in range(4)]
    place.refused(place.host.connect("late", "late"), NoNode)
    assert all(place.result(each.describe()) for each in clients)
    clients[0].close()
    place.clock.advance(1.0)
    assert place.result(place.connect("late").describe())


def test_row_21_requests_without_hello_end_the_connection(place: Place) -> None:
    stranger, legal = place.stranger(), place.connect("ann")
    _flood(stranger, ANONYMOUS_MAX)
    place.clock.advance(1.0)
    assert (stranger.lost, len(stranger.boxes)) == (False, ANONYMOUS_MAX)
    _flood(stranger, 10_000)
    place.clock.advance(1.0)
    assert (stranger.lost, len(stranger.boxes) <= ANONYMOUS_MAX + 1) == (True, True)
    assert place.result(legal.describe())["state"] == "up"


def _flood(stranger: Stranger, count: int) -> None:
    box = amp.AmpBox({amp.COMMAND: b"DescribeNode", amp.ASK: b"1"}).serialize()
    stranger.write(box * count)


@pytest.mark.parametrize(
    ("descriptors", "slots", "most"),
    [(1024, 2, 1024 - 128), (1024, 64, 1024 - 64 - 512), (20, 1, LEAST), (2**20, 4, MOST), (-1, 4, MOST)],
)
def test_descriptors_are_kept_for_everything_else(descriptors: int, slots: int, most: int) -> None:
    assert room_for_connections(descriptors, slots) == most
