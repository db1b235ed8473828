"""Messages of the group and their bytes: exact round trips, limits, and that no input raises anything unforeseen."""

from __future__ import annotations

import json
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from cloudmytask.model.cluster import (
    COUNTER_MAX,
    SLOTS_MAX,
    Announcement,
    Backlog,
    BootId,
    BusMessage,
    Capacity,
    NodeId,
    Obituary,
    Role,
    RootKey,
    TreePosition,
)
from cloudmytask.model.fields import INTEGER_MAX as COUNT_MAX
from cloudmytask.model.fields import NAME_MAX as TEXT_MAX
from cloudmytask.model.job import ClientId, QoS, Resource
from cloudmytask.wire.announcement import (
    MESSAGE_MAX,
    Foreign,
    Forged,
    Malformed,
    Unreadable,
    decode_message,
    encode_message,
)
from cloudmytask.wire.envelope import envelope

CLUSTER = "lab"
ENTRY_MAX = 160
"""Bytes of a client in ``running``, and some."""
KEY = b"0123456789abcdef"

names = st.from_regex(r"[A-Za-z0-9._-]{1,64}", fullmatch=True)
printable = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=TEXT_MAX)
node_ids = st.from_regex(r"[0-9a-f]{32}", fullmatch=True).map(NodeId)
boot_ids = st.from_regex(r"[0-9a-f]{16}", fullmatch=True).map(BootId)
counts = st.integers(0, COUNT_MAX)
counters = st.integers(0, COUNTER_MAX)
slots = st.integers(0, SLOTS_MAX)
shares = st.floats(0, 1)
addresses = st.tuples(st.sampled_from(["127.0.0.1", "[fd00::1]", "lab-7.example.org"]), st.integers(1, 65_535)).map(
    lambda pair: f"{pair[0]}:{pair[1]}"
)
capacities = st.builds(Capacity, slots, slots, st.none() | shares, st.none() | shares, shares, counts)
clients = st.from_regex(r"[A-Za-z0-9._@+-]{1,64}", fullmatch=True).map(ClientId)
runs = st.lists(st.tuples(clients, counts), max_size=8).map(tuple)
backlogs = st.builds(Backlog, st.dictionaries(st.sampled_from(QoS), counts), st.floats(0, 1e9), runs)
trees = st.builds(
    TreePosition,
    st.builds(RootKey, counters, node_ids),
    counts,
    st.none() | node_ids,
    st.lists(node_ids, max_size=4).map(tuple),
)
announcements = st.builds(
    Announcement,
    cluster=names,
    role=st.sampled_from(Role),
    node_id=node_ids,
    boot_id=boot_ids,
    incarnation=counters,
    sequence=counters,
    name=names,
    address=addresses,
    interval=st.floats(0.05, 120),
    capacity=capacities,
    backlog=backlogs,
    tree=st.none() | trees,
    draining=st.booleans(),
    short=st.lists(st.sampled_from(Resource), unique=True).map(tuple),
    leaving=st.booleans(),
    insecure=st.booleans(),
    bans=printable,
    version=printable,
)
obituaries = st.builds(Obituary, names, node_ids, node_ids, boot_ids, counters)
keys = st.none() | st.binary(min_size=16, max_size=100)

PLAIN = Announcement(
    cluster=CLUSTER,
    role=Role.NODE,
    node_id=NodeId("0" * 31 + "a"),
    boot_id=BootId("00000001deadbeef"),
    incarnation=0,
    sequence=7,
    name="lab-7",
    address="127.0.0.1:7001",
    interval=1.25,
    capacity=Capacity(4, 2, 0.125, None, 0.75, 3),
    backlog=Backlog({QoS.BATCH: 3}, 1.5, ((ClientId("ann"), 2),)),
    tree=TreePosition(RootKey(1, NodeId("b" * 32)), 1, NodeId("b" * 32), (NodeId("c" * 32),)),
    insecure=True,
    bans="00ff00ff00ff00ff",
    version="0.1.0",
)
LONG_SHARE = 0.12345678901234567
LONGEST = evolve(
    PLAIN,
    cluster="x" * 64,
    name="n" * 64,
    address="h" * 122 + ":65535",
    incarnation=COUNTER_MAX,
    sequence=COUNTER_MAX,
    interval=LONG_SHARE,
    capacity=Capacity(SLOTS_MAX, SLOTS_MAX, LONG_SHARE, LONG_SHARE, LONG_SHARE, COUNT_MAX),
    backlog=Backlog(
        dict.fromkeys(QoS, COUNT_MAX),
        1234567.8901234567,
        tuple((ClientId(f"{number}".rjust(64, "@")), COUNT_MAX) for number in range(8)),
    ),
    tree=TreePosition(RootKey(COUNTER_MAX, NodeId("b" * 32)), COUNT_MAX, NodeId("b" * 32), (NodeId("c" * 32),) * 4),
    bans='"' * 64,
    version="\\" * 64,
)


def fields_of(message: BusMessage, key: bytes | None = None) -> list[Any]:
    found: list[Any] = json.loads(envelope(message.cluster, key).open(encode_message(message, key)))
    return found


def datagram(fields: object, key: bytes | None = None) -> bytes:
    return envelope(CLUSTER, key).seal(json.dumps(fields, separators=(",", ":")).encode())


def without_what_may_be_left_out(message: BusMessage) -> BusMessage:
    if isinstance(message, Obituary):
        return message
    tree = None if message.tree is None else evolve(message.tree, children=())
    return evolve(message, backlog=evolve(message.backlog, running=()), tree=tree)


@given(announcements | obituaries, keys)
def test_a_round_trip_is_exact_and_fits(message: BusMessage, key: bytes | None) -> None:
    data = encode_message(message, key)
    assert len(data) <= MESSAGE_MAX
    found = decode_message(data, message.cluster, key)
    if isinstance(message, Announcement) and isinstance(found, Announcement):
        running = message.backlog.running
        assert found.backlog.running == running[: len(found.backlog.running)]
        assert found == message or len(data) > MESSAGE_MAX - ENTRY_MAX, "what fits is not left out"
        if message.tree is not None and found.backlog.running:
            assert found.tree == message.tree, "children go last"
    assert without_what_may_be_left_out(found) == without_what_may_be_left_out(message)


def test_an_ordinary_announcement_keeps_all_and_is_short() -> None:
    data = encode_message(PLAIN, KEY)
    assert decode_message(data, CLUSTER, KEY) == PLAIN
    assert len(data) < 400


def test_the_longest_announcement_loses_clients_before_children() -> None:
    data = encode_message(LONGEST, KEY)
    assert len(data) <= MESSAGE_MAX
    found = decode_message(data, LONGEST.cluster, KEY)
    assert isinstance(found, Announcement)
    assert found.backlog.running == ()
    assert without_what_may_be_left_out(found) == without_what_may_be_left_out(LONGEST)

    shorter = evolve(LONGEST, address="h:1", bans="", version="")
    found = decode_message(encode_message(shorter, KEY), LONGEST.cluster, KEY)
    assert isinstance(found, Announcement)
    assert found.tree == LONGEST.tree
    assert 0 < len(found.backlog.running) < 8


@given(st.binary(max_size=1500), keys)
def test_arbitrary_bytes_are_unreadable(data: bytes, key: bytes | None) -> None:
    with pytest.raises(Unreadable):
        decode_message(data, CLUSTER, key)


@given(announcements | obituaries, keys, st.data())
def test_one_changed_byte_is_noticed(message: BusMessage, key: bytes | None, data: st.DataObject) -> None:
    encoded = bytearray(encode_message(message, key))
    at = data.draw(st.integers(0, len(encoded) - 1))
    encoded[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(Unreadable):
        decode_message(bytes(encoded), message.cluster, key)


@given(announcements | obituaries, keys, st.data())
def test_a_part_is_unreadable(message: BusMessage, key: bytes | None, data: st.DataObject) -> None:
    encoded = encode_message(message, key)
    size = data.draw(st.integers(0, len(encoded) - 1))
    with pytest.raises(Unreadable):
        decode_message(encoded[:size], message.cluster, key)


json_values: st.SearchStrategy[object] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=80),
    lambda children: st.lists(children, max_size=6) | st.dictionaries(st.text(max_size=3), children, max_size=2),
    max_leaves=20,
)


@given(st.lists(json_values, max_size=16) | json_values)
def test_a_body_of_any_json_is_a_message_or_malformed(fields: object) -> None:
    try:
        decode_message(datagram(fields), CLUSTER, None)
    except Malformed as problem:
        assert str(problem).isprintable()


@given(st.binary(max_size=1100))
def test_a_body_of_any_bytes_is_a_message_or_malformed(body: bytes) -> None:
    with pytest.raises(Malformed):
        decode_message(envelope(CLUSTER, KEY).seal(body), CLUSTER, KEY)


@given(st.lists(st.integers(0, 17), min_size=1, max_size=2), json_values)
def test_any_field_may_be_wrong(path: list[int], value: object) -> None:
    fields = fields_of(PLAIN)
    place = fields
    for index in path[:-1]:
        if isinstance(place[index], list) and place[index]:
            place = place[index]
    place[path[-1] % len(place)] = value
    try:
        found = decode_message(datagram(fields), CLUSTER, None)
    except Malformed:
        return
    assert decode_message(encode_message(found, None), CLUSTER, None) == found, "what is taken can be said again"


@pytest.mark.parametrize(
    ("index", "value"),
    [
        (0, 2),
        (0, True),
        (1, 2),
        (1, True),
        (2, "A" * 32),
        (2, "a" * 33),
        (2, "a" * 32 + "\n"),
        (3, "a" * 15),
        (4, -1),
        (4, 1.0),
        (4, True),
        (5, 2**63),
        (6, ""),
        (6, "n" * 65),
        (6, "a\nb"),
        (6, "é"),
        (6, "\ud800"),
        (7, ""),
        (7, "127.0.0.1"),
        (7, "127.0.0.1:0"),
        (7, "127.0.0.1:65536"),
        (7, "a b:1"),
        (7, "h" * 200 + ":1"),
        (8, 0.049),
        (8, 120.1),
        (8, float("nan")),
        (8, "1"),
        (9, [4, 2, 1.5, None, 0.75, 3]),
        (9, [4, 2, float("nan"), None, 0.75, 3]),
        (9, [4, -2, 0.5, None, 0.75, 3]),
        (9, [4, 2, 0.5, None, None, 3]),
        (9, [4, 2, 0.5, None, 0.75]),
        (10, [[0, 0], 0, []]),
        (10, [[0, 0, -1], 0, []]),
        (10, [[0, 0, 0], -1, []]),
        (10, [[0, 0, 0], float("inf"), []]),
        (10, [[0, 0, 0], 10**400, []]),
        (10, [[0, 0, 0], 0, [["ann"]]]),
        (10, [[0, 0, 0], 0, [["ann", 1]] * 9]),
        (11, [1, "b" * 32, 1, "b" * 31, []]),
        (11, [1, "b" * 32, 1, None, ["c" * 32] * 17]),
        (11, {}),
        (12, "x" * 65),
        (13, None),
        (14, -1),
        (14, 2),
        (15, None),
        (16, "1"),
        (17, 1.0),
    ],
)
def test_each_field_is_checked(index: int, value: object) -> None:
    fields = fields_of(PLAIN)
    fields[index] = value
    with pytest.raises(Malformed):
        decode_message(datagram(fields), CLUSTER, None)


def test_fields_of_a_later_version_are_ignored() -> None:
    fields = [*fields_of(PLAIN), {"more": 1}]
    fields[9] = [*fields[9], "more"]
    assert decode_message(datagram(fields), CLUSTER, None) == PLAIN


@pytest.mark.parametrize("depth", [100, 500, 580])
def test_deep_nesting_is_malformed(depth: int) -> None:
    for body in (b"[" * depth + b"]" * depth, b"[0," + b"[" * depth + b"]" * depth + b"]"):
        with pytest.raises(Malformed):
            decode_message(envelope(CLUSTER, None).seal(body), CLUSTER, None)


def test_an_oversized_datagram_is_malformed_before_anything_else() -> None:
    sealed = envelope(CLUSTER, None)
    with pytest.raises(Malformed, match="1201 bytes"):
        decode_message(sealed.seal(b" " * (sealed.room + 1)), CLUSTER, None)


@pytest.mark.parametrize(
    ("made_with", "read_with", "raised"),
    [
        (KEY, b"fedcba9876543210", Forged),
        (None, KEY, Forged),
        (KEY, None, Forged),
        (KEY, KEY[:-1], Forged),
    ],
)
def test_another_key_is_a_forgery(made_with: bytes | None, read_with: bytes | None, raised: type[Unreadable]) -> None:
    with pytest.raises(raised):
        decode_message(encode_message(PLAIN, made_with), CLUSTER, read_with)


def test_a_copied_key_id_does_not_help() -> None:
    keyed, plain = encode_message(PLAIN, KEY), encode_message(PLAIN, None)
    with pytest.raises(Forged, match="MAC is wrong"):
        decode_message(plain[:12] + keyed[12:16] + plain[16:], CLUSTER, KEY)


def test_a_changed_body_is_a_forgery_with_a_key_and_malformed_without() -> None:
    def changed(data: bytes) -> bytes:
        return data.replace(b"lab-7", b"lab-8")

    with pytest.raises(Forged):
        decode_message(changed(encode_message(PLAIN, KEY)), CLUSTER, KEY)
    with pytest.raises(Malformed, match="checksum"):
        decode_message(changed(encode_message(PLAIN, None)), CLUSTER, None)


@given(names.filter(lambda name: name != CLUSTER), keys)
def test_another_cluster_is_named_whatever_its_key(name: str, key: bytes | None) -> None:
    with pytest.raises(Foreign) as caught:
        decode_message(encode_message(evolve(PLAIN, cluster=name), key), CLUSTER, KEY)
    assert caught.value.name == name


def test_another_cluster_without_a_proper_name_is_named_by_its_tag() -> None:
    data = bytearray(encode_message(evolve(PLAIN, cluster="other"), None))
    data[33] = 0x1B
    with pytest.raises(Foreign) as caught:
        decode_message(bytes(data), CLUSTER, None)
    assert caught.value.name == data[4:12].hex()


def test_a_foreign_name_under_our_tag_is_foreign() -> None:
    ours, other = encode_message(PLAIN, None), encode_message(evolve(PLAIN, cluster="lub"), None)
    with pytest.raises(Foreign) as caught:
        decode_message(ours[:12] + other[12:], CLUSTER, None)
    assert caught.value.name == "lub"


def test_resources_of_a_later_version_are_ignored() -> None:
    fields = fields_of(PLAIN)
    place = next(
        index for index, value in enumerate(fields_of(evolve(PLAIN, short=(Resource.MEMORY,)))) if value == [3]
    )
    fields[place] = [0, 99, 4]
    found = decode_message(datagram(fields), CLUSTER, None)
    assert isinstance(found, Announcement)
    assert found.short == (Resource.DISK, Resource.INTERPRETER)
