"""What clients ask of the cluster: answered, page by page, and bans only for whoever works on the machine."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import define, evolve, field
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.protocol import Factory
from twisted.internet.testing import StringTransport

from cloudmytask.api.client_api import PAGE, SAMPLES_MAX, thinned
from cloudmytask.api.principals import client_principal
from cloudmytask.client.connection import connect
from cloudmytask.client.node_client import NodeClient
from cloudmytask.model.access import AccessRole
from cloudmytask.model.cluster import LoadSample, Role
from cloudmytask.model.errors import InvalidArgument, NoSuchBan, NotPermitted, NotSupervised
from cloudmytask.model.job import ClientId
from cloudmytask.net.client_session import ClientSession
from cloudmytask.simulation.clock import VirtualClock
from cloudmytask.simulation.network import Network
from cloudmytask.wire.commands import PROTOCOL_VERSION, AddBan, LoadHistory
from cloudmytask.wire.guard import GuardedAMP
from tests.cluster_fakes import FakeCluster, member, small_view, view
from tests.virtual import Place, result_of

HERE = "127.0.0.1"
ELSEWHERE = "10.0.0.5"


@define(eq=False)
class Instance:
    """One that answers only what every instance does, like a CSU."""

    door: FakeCluster = field(factory=FakeCluster)
    clock: VirtualClock = field(factory=VirtualClock)
    network: Network = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.network = Network(self.clock)
        self.network.listen("instance", Factory.forProtocol(self._accept))

    def _accept(self) -> GuardedAMP:
        return ClientSession(self.door, self.clock).protocol

    def client(self, host: str = HERE) -> NodeClient:
        """A connection from a host."""
        return result_of(connect(self.network.endpoint(host, "instance"), self.clock, "ann"), self.clock)

    def result(self, deferred: Any) -> Any:
        """See :func:`result_of`."""
        return result_of(deferred, self.clock)


@pytest.fixture
def instance() -> Instance:
    return Instance()


def test_the_cluster_as_it_is_seen(instance: Instance) -> None:
    seen = instance.result(instance.client(ELSEWHERE).cluster())
    assert (seen.by, seen.cluster, seen.bus) == (small_view().by, "lab", small_view().bus)
    assert {each.announcement.name for each in seen.members} == {"a", "b", "c", "d", "e", "csu"}


@pytest.mark.parametrize("count", [1, PAGE - 1, PAGE, PAGE + 1, 3 * PAGE + 7])
def test_a_large_cluster_comes_in_pages_and_complete(instance: Instance, count: int) -> None:
    long = "\u20ac" * 300  # as long as a datagram allows, and in JSON twice as long again
    instance.door.seen = view(*(member(f"n{number}", address=long) for number in range(count)))
    seen = instance.result(instance.client().cluster())
    names = sorted(each.announcement.name for each in seen.members)
    assert names == sorted(f"n{number}" for number in range(count))


def test_a_ban_is_made_listed_and_lifted(instance: Instance) -> None:
    client = instance.client()
    made = instance.result(client.ban("mallory", "floods us", 3600.0))
    assert (made.client, made.reason, made.by, made.term) == ("mallory", "floods us", "ann", 3600.0)
    assert [each.client for each in instance.result(client.bans())] == ["mallory"]
    assert instance.result(client.lift_ban("mallory")).lifted
    assert instance.result(client.bans()) == ()
    with pytest.raises(NoSuchBan):
        instance.result(client.lift_ban("mallory"))


def test_many_bans_come_in_pages(instance: Instance) -> None:
    client = instance.client()
    first = instance.result(client.ban("c0", "x" * 500, 60.0))
    instance.door.entries = {each: evolve(first, client=each) for each in (ClientId(f"c{n}") for n in range(2 * PAGE))}
    assert len(instance.result(client.bans())) == 2 * PAGE


def test_from_another_machine_bans_can_only_be_seen(instance: Instance) -> None:
    instance.result(instance.client().ban("mallory", "floods us", 60.0))
    client = instance.client(ELSEWHERE)
    for wish in (client.ban("bob", "spite", 60.0), client.lift_ban("mallory")):
        with pytest.raises(NotPermitted, match=r"ann is connected from 10\.0\.0\.5"):
            instance.result(wish)
    assert [each.client for each in instance.result(client.bans())] == ["mallory"]


@pytest.mark.parametrize(
    ("client", "reason", "term", "names"),
    [
        ("no such client", "x", 60.0, "client: "),
        ("bob", "", 60.0, "reason: "),
        ("bob", "   ", 60.0, "reason: "),
        ("bob", "x" * 501, 60.0, "reason: "),
        ("bob", "a\x1b[2J", 60.0, "reason: "),
        ("bob", "x", 0.0, "term: "),
        ("bob", "x", -5.0, "term: "),
        ("bob", "x", float("inf"), "term: "),
        ("bob", "x", float("nan"), "term: "),
        ("bob", "x", 4e9, "term: "),
    ],
)
def test_a_ban_that_cannot_be_meant(instance: Instance, client: str, reason: str, term: float, names: str) -> None:
    with pytest.raises(InvalidArgument, match=f"^{names}"):
        instance.result(instance.client().ban(client, reason, term))
    assert not instance.door.entries


@pytest.mark.parametrize(("command", "argument"), [(AddBan, b"term"), (LoadHistory, b"seconds")])
def test_a_number_that_is_none_is_named(command: Any, argument: bytes) -> None:
    session = ClientSession(FakeCluster(), clock := VirtualClock())
    session.protocol.makeConnection(StringTransport(peerAddress=UNIXAddress(None)))
    session.hello([PROTOCOL_VERSION], "client", "ann", None)
    box: Any = {b"client": b"bob", b"reason": b"x", argument: b"soon"}
    failed = session.protocol.locator.locateResponder(command.commandName)
    assert failed is not None
    with pytest.raises(Exception, match=f"{argument.decode()}: b'soon' is not a number"):
        result_of(failed(box), clock)


def _samples(nodes: int, each: int) -> tuple[LoadSample, ...]:
    moments = [1000.0 + 10 * number for number in range(each)]
    return tuple(LoadSample(at, f"n{node}", 0.5, 2, 1, 0) for at in moments for node in range(nodes))


def test_the_history_of_a_csu(instance: Instance) -> None:
    client = instance.client()
    with pytest.raises(NotSupervised):
        instance.result(client.history(60.0))
    instance.door.samples = _samples(2, 100)
    assert instance.result(client.history(50.0)) == _samples(2, 100)[-12:]
    instance.door.samples = _samples(100, 400)
    assert len(instance.result(client.history(1e6))) <= SAMPLES_MAX
    for seconds in (0.0, -1.0, float("nan")):
        with pytest.raises(InvalidArgument, match=r"^seconds: "):
            instance.result(client.history(seconds))


@pytest.mark.parametrize(("nodes", "each"), [(1, 5000), (7, 1000), (100, 360), (1999, 3), (2001, 2), (5000, 1)])
def test_a_thinned_history_still_covers_the_time(nodes: int, each: int) -> None:
    samples = _samples(nodes, each)
    kept = thinned(samples)
    assert 0.4 * SAMPLES_MAX <= len(kept) <= SAMPLES_MAX
    assert [one.at for one in kept] == sorted(one.at for one in kept)
    assert kept[-1].at == samples[-1].at
    if nodes <= SAMPLES_MAX:
        assert {one.node for one in kept} == {one.node for one in samples}
        stretch = (samples[-1].at - samples[0].at) / (SAMPLES_MAX // nodes)
        assert kept[0].at <= samples[0].at + stretch


def test_a_short_history_is_left_alone() -> None:
    assert thinned(_samples(10, 200)) == _samples(10, 200)
    assert thinned(()) == ()
    at_once = tuple(evolve(each, at=5.0) for each in _samples(1, 3000))
    assert tuple(thinned(at_once)) == at_once[-1:]


@pytest.mark.parametrize(
    ("peer", "local"),
    [
        (UNIXAddress(b"/run/node.sock"), True),
        (UNIXAddress(None), True),
        (IPv4Address("TCP", "127.0.0.1", 5), True),
        (IPv4Address("TCP", "127.9.9.9", 5), True),
        (IPv6Address("TCP", "::1", 5), True),
        (IPv6Address("TCP", "::ffff:127.0.0.1", 5), True),
        (IPv4Address("TCP", "10.0.0.5", 5), False),
        (IPv6Address("TCP", "::ffff:10.0.0.5", 5), False),
        (IPv6Address("TCP", "fe80::1%eth0", 5), False),
        (IPv4Address("TCP", "localhost", 5), False),
        (None, False),
    ],
)
def test_who_is_on_this_machine(peer: object, local: bool) -> None:
    assert (AccessRole.ADMIN in client_principal("ann", peer).roles) is local


def test_a_real_node_answers_like_that(place: Place) -> None:
    ann = place.result(place.host.connect(HERE, "ann"))
    seen = place.result(ann.cluster())
    assert [(each.announcement.name, each.announcement.role) for each in seen.members] == [("node", Role.NODE)]
    assert (seen.members[0].announcement.node_id, seen.members[0].announcement.capacity.slots) == (seen.by, 2)
    with pytest.raises(NotSupervised):
        place.result(ann.history(60.0))
    made = place.result(ann.ban("mallory", "floods us", 3600.0))
    assert (made.client, made.by) == ("mallory", "ann")
    assert made.until == pytest.approx(3600.0, abs=1)
    place.clock.advance(600.0)
    (found,) = place.result(ann.bans())
    assert found.until == pytest.approx(3000.0, abs=1)
    assert place.result(ann.lift_ban("mallory")).lifted
    with pytest.raises(NoSuchBan):
        place.result(ann.lift_ban("mallory"))


def test_nothing_is_told_before_hello(place: Place) -> None:
    stranger = place.stranger()
    for command in (b"DescribeCluster", b"ListBans"):
        assert stranger.refused(command)[0] == "HelloRequired"
    ban = {b"client": b"bob", b"reason": b"spite", b"term": b"60"}
    assert stranger.refused(b"AddBan", ban)[0] == "HelloRequired"
    stranger.hello()
    assert stranger.refused(b"AddBan", ban)[0] == "NotPermitted"
