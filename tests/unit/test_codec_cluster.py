"""What is seen of the cluster, through JSON and back."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from cloudmytask.codec import decode, encode, from_text, to_text
from cloudmytask.codec.people import FOREIGN_MAX, sample_to_document, view_to_document
from cloudmytask.model.cluster import (
    Announcement,
    Backlog,
    BootId,
    BusStatistics,
    Capacity,
    ClusterView,
    LoadSample,
    MemberStatus,
    NodeId,
    Role,
    RootKey,
    Standing,
    TreePosition,
)
from cloudmytask.model.errors import InvalidArgument
from cloudmytask.model.job import ClientId, QoS, Resource
from tests.cluster_fakes import BUS, id_of, member, small_view, view

node_ids = st.integers(0, 2**128 - 1).map(lambda number: NodeId(f"{number:032x}"))
words = st.text('aZ0 ~"\\', max_size=5)
names = st.text('aZ0 ~"\\', min_size=1, max_size=5)
clients = st.text("aZ0._@+-", min_size=1, max_size=5).map(ClientId)
addresses = st.integers(1, 65_535).map(lambda port: f"[fd00::1]:{port}")
counts = st.integers(0, 2**40)
slots = st.integers(0, 2**16)
seconds = st.floats(0, 1e9)
shares = st.none() | st.floats(0, 1)


@st.composite
def positions(draw: st.DrawFn) -> TreePosition:
    return TreePosition(
        root=RootKey(draw(counts), draw(node_ids)),
        depth=draw(st.integers(0, 50)),
        parent=draw(st.none() | node_ids),
        children=tuple(draw(st.lists(node_ids, max_size=4))),
    )


@st.composite
def members(draw: st.DrawFn) -> MemberStatus:
    said = Announcement(
        cluster="lab",
        role=draw(st.sampled_from(Role)),
        node_id=draw(node_ids),
        boot_id=BootId("0" * 16),
        incarnation=draw(counts),
        sequence=draw(counts),
        name=draw(names),
        address=draw(addresses),
        interval=draw(st.floats(0.05, 120)),
        capacity=Capacity(draw(slots), draw(slots), draw(shares), draw(shares), draw(st.floats(0, 1)), draw(counts)),
        backlog=Backlog(
            {qos: draw(counts) for qos in QoS},
            draw(seconds),
            tuple((client, draw(counts)) for client in draw(st.lists(clients, max_size=3))),
        ),
        tree=draw(st.none() | positions()),
        draining=draw(st.booleans()),
        short=draw(st.lists(st.sampled_from(Resource), max_size=5).map(tuple)),
        leaving=draw(st.booleans()),
        insecure=draw(st.booleans()),
        bans=draw(words),
        version="0.1.0",
    )
    return MemberStatus(
        said, draw(st.sampled_from(Standing)), draw(seconds), linked=draw(st.booleans()), conflict=draw(st.booleans())
    )


@given(st.lists(members(), max_size=3), node_ids, seconds)
def test_a_view_comes_back_as_it_was(found: list[MemberStatus], by: NodeId, interval: float) -> None:
    bus = BusStatistics("239.0.0.1:1", False, "no route", 1, 2, 3, 4, 5, {"other": 6}, 7)
    seen = ClusterView(by, "lab", tuple(found), bus, interval)
    assert from_text(ClusterView, to_text(seen)) == decode(ClusterView, json.loads(json.dumps(encode(seen)))) == seen


def test_the_fields_that_people_rely_on() -> None:
    document = view_to_document(small_view())
    by_name = {node["name"]: node for node in document["nodes"]}
    b = by_name["b"]
    assert (
        b.items()
        >= {
            "name": "b",
            "id": id_of("b"),
            "state": "alive",
            "address": "10.0.0.1:7000",
            "load": 0.5,
            "slots": 2,
            "free": 0,
            "waiting": {"interactive": 0, "batch": 3, "idle": 0, "total": 3},
            "neighbors": [id_of("a"), id_of("d")],
            "role": "node",
            "parent": id_of("a"),
            "depth": 1,
            "root": id_of("a"),
            "self": False,
        }.items()
    )
    assert [name for name, node in by_name.items() if node["self"]] == ["a"]
    assert {name: node["state"] for name, node in by_name.items()} == {
        "a": "alive",
        "b": "alive",
        "c": "draining",
        "d": "alive",
        "e": "dead",
        "csu": "alive",
    }
    assert by_name["csu"]["neighbors"] == []
    assert by_name["csu"]["depth"] is None


def test_what_a_later_version_adds_is_ignored_and_what_has_its_default_may_be_absent() -> None:
    said: dict[str, Any] = {"cluster": "lab", "role": "node", "node_id": id_of("a"), "boot_id": "0" * 16}
    said |= {"incarnation": 0, "sequence": 1}
    said |= {"name": "a", "address": "h:1", "interval": 1.0, "capacity": {"slots": 1, "free": 0, "new": 1}, "new": 1}
    member = {"announcement": said, "standing": "alive", "heard": 0.5, "linked": False, "new": 1}
    document = {"by": id_of("a"), "cluster": "lab", "members": [member], "bus": {"new": 1}, "interval": 1, "new": 1}
    (found,) = decode(ClusterView, document).members
    assert found.announcement.capacity == Capacity(1, 0)
    assert found.announcement.tree is None
    assert (found.announcement.draining, found.conflict, found.announcement.backlog) == (False, False, Backlog())


@pytest.mark.parametrize(
    ("place", "change", "names"),
    [
        ((), {"standing": "asleep"}, "standing: 'asleep' is none of alive, suspect, left, dead"),
        (("announcement",), {"role": "king"}, "announcement.role: 'king' is none of node, csu"),
        (("announcement",), {"node_id": 7}, "announcement.node_id: 7 is not a string"),
        (("announcement", "capacity"), {"slots": "many"}, "announcement.capacity.slots: 'many' is not a whole number"),
        (("announcement", "capacity"), {"slots": -1}, "announcement.capacity.slots: -1 is negative"),
        (("announcement", "capacity"), {"load": 1.5}, "announcement.capacity.load: 1.5 is more than the limit, 1.0"),
        (("announcement", "backlog"), {"waiting": [1]}, "announcement.backlog.waiting: [1] is not an object"),
        (
            ("announcement", "backlog"),
            {"waiting": {"idle": 1, "batch": "x"}},
            "announcement.backlog.waiting.batch: 'x' is not a whole number",
        ),
        (
            ("announcement", "backlog"),
            {"waiting": {"idle": 1, "later": 1}},
            "announcement.backlog.waiting: 'later' is none of interactive, batch, idle",
        ),
        (
            ("announcement", "backlog"),
            {"running": [["ann"]]},
            "announcement.backlog.running[0]: ['ann'] is not a list of 2",
        ),
        (("announcement", "tree"), {"children": "b"}, "announcement.tree.children: 'b' is not a list"),
        (("announcement",), {"draining": 1}, "announcement.draining: 1 is not true or false"),
    ],
)
def test_a_malformed_member_is_named(place: tuple[str, ...], change: dict[str, Any], names: str) -> None:
    document = json.loads(to_text(view(member("a", small_view().members[0].announcement.tree))))
    changed = document["members"][0]
    for step in place:
        changed = changed[step]
    changed |= change
    with pytest.raises(InvalidArgument) as raised:
        decode(ClusterView, document)
    assert str(raised.value) == f"members[0].{names}"


@pytest.mark.parametrize("document", [None, [], {}, {"by": "x", "nodes": 3}, {"by": "x", "bus": {"sent": "1"}}])
def test_a_malformed_view_is_refused(document: object) -> None:
    with pytest.raises(InvalidArgument):
        decode(ClusterView, document)


def test_a_flood_of_foreign_clusters_does_not_fill_the_answer() -> None:
    foreign = {f"cluster{number}": number for number in range(1000)}
    named = view_to_document(view(member("a"), bus=evolve(BUS, foreign=foreign)))["bus"]["foreign"]
    assert len(named) == FOREIGN_MAX
    assert "cluster999" in named
    assert "cluster0" not in named


@given(st.floats(0, 4e9), shares, counts)
def test_a_sample_comes_back_as_it_was(at: float, load: float | None, count: int) -> None:
    sample = LoadSample(at, "a", load, count, count, count)
    assert from_text(LoadSample, to_text(sample)) == sample
    assert datetime.fromisoformat(sample_to_document(sample)["at"]).timestamp() == pytest.approx(at, abs=0.001)


@pytest.mark.parametrize("at", ["yesterday", "", "9999999-01-01", -1, 1e308, float("nan"), None, True])
def test_a_sample_of_no_time_is_refused(at: object) -> None:
    with pytest.raises(InvalidArgument, match=r"^at: "):
        decode(LoadSample, {"at": at, "node": "a", "load": None, "slots": 1, "free": 1, "waiting": 0})
