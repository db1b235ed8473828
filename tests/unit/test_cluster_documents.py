"""What is seen of the cluster, through JSON and back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

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
from cloudmytask.model.job import ClientId, QoS
from cloudmytask.wire.cluster_documents import (
    FOREIGN_MAX,
    sample_from_document,
    sample_to_document,
    view_from_document,
    view_to_document,
)
from tests.cluster_fakes import BUS, id_of, member, small_view, view

node_ids = st.integers(0, 2**128 - 1).map(lambda number: NodeId(f"{number:032x}"))
words = st.text("aZ0é\u20ac\n\x1b", max_size=5)
counts = st.integers(0, 2**40)
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
        name=draw(words),
        address=draw(words),
        interval=draw(seconds),
        capacity=Capacity(draw(counts), draw(counts), draw(shares), draw(shares), draw(st.floats(0, 1)), draw(counts)),
        backlog=Backlog(
            {qos: draw(counts) for qos in QoS},
            draw(seconds),
            tuple((ClientId(name), draw(counts)) for name in draw(st.lists(words, max_size=3))),
        ),
        tree=draw(st.none() | positions()),
        draining=draw(st.booleans()),
        disk_short=draw(st.booleans()),
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
    assert view_from_document(json.loads(json.dumps(view_to_document(seen)))) == seen


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


def test_what_a_later_version_adds_is_ignored_and_what_an_earlier_lacks_has_its_default() -> None:
    document: dict[str, Any] = {"by": id_of("a"), "new": 1, "nodes": [{"name": "a", "id": id_of("a"), "new": 1}]}
    document["nodes"][0] |= {"role": "node", "state": "draining"}
    seen = view_from_document(document)
    assert seen.members[0].standing is Standing.ALIVE
    assert seen.members[0].announcement.draining
    assert seen.members[0].announcement.tree is None


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"state": "asleep"}, "state: 'asleep' is none of alive, suspect, left, dead"),
        ({"role": "king"}, "role: 'king' is none of node, csu"),
        ({"id": 7}, "id: 7 is not a string"),
        ({"slots": "many"}, "slots: 'many' is not a whole number"),
        ({"waiting": [1]}, "waiting: [1] is not an object"),
        ({"waiting": {"batch": "x"}}, "waiting.batch: 'x' is not a whole number"),
        ({"running": [["ann"]]}, "running: ['ann'] is not a client and a number"),
        ({"neighbors": "b"}, "neighbors: not a list of strings"),
        ({"draining": 1}, "draining: 1 is not true or false"),
    ],
)
def test_a_malformed_member_is_named(change: dict[str, Any], names: str) -> None:
    document = view_to_document(view(member("a", small_view().members[0].announcement.tree)))
    document["nodes"][0] |= change
    with pytest.raises(InvalidArgument) as raised:
        view_from_document(document)
    assert str(raised.value) == names


@pytest.mark.parametrize("document", [None, [], {}, {"by": "x", "nodes": 3}, {"by": "x", "bus": {"sent": "1"}}])
def test_a_malformed_view_is_refused(document: object) -> None:
    with pytest.raises(InvalidArgument):
        view_from_document(document)


def test_a_flood_of_foreign_clusters_does_not_fill_the_answer() -> None:
    foreign = {f"cluster{number}": number for number in range(1000)}
    named = view_to_document(view(member("a"), bus=evolve(BUS, foreign=foreign)))["bus"]["foreign"]
    assert len(named) == FOREIGN_MAX
    assert "cluster999" in named
    assert "cluster0" not in named


@given(st.integers(0, 4_000_000_000_000), shares, counts)
def test_a_sample_comes_back_as_it_was(milliseconds: int, load: float | None, count: int) -> None:
    sample = LoadSample(milliseconds / 1000, "a", load, count, count, count)
    back = sample_from_document(json.loads(json.dumps(sample_to_document(sample))))
    assert back.at == pytest.approx(sample.at, abs=0.001)
    assert evolve(back, at=sample.at) == sample


@pytest.mark.parametrize("at", ["yesterday", "", "9999999-01-01", 3])
def test_a_sample_of_no_time_is_refused(at: object) -> None:
    with pytest.raises(InvalidArgument, match=r"^at: "):
        sample_from_document({"at": at, "node": "a"})
