"""Who is there, by boot, incarnation and sequence."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudmytask.core.membership import REMEMBERED, Heard, Member, Membership
from cloudmytask.model.cluster import Announcement, BootId, Capacity, NodeId, Role, Standing

ANN = NodeId("a" * 32)
OLD, NEW = BootId("00000001" + "f" * 8), BootId("00000002" + "0" * 8)


def word(sequence: int, *, node_id: NodeId = ANN, boot_id: BootId = OLD, **other: Any) -> Announcement:
    fields: dict[str, Any] = {
        "cluster": "lab",
        "role": Role.NODE,
        "incarnation": 0,
        "name": "ann",
        "address": "10.0.0.1:7000",
        "interval": 1.0,
        "capacity": Capacity(2, 2),
        **other,
    }
    return Announcement(node_id=node_id, boot_id=boot_id, sequence=sequence, **fields)


def member_of(table: Membership, node_id: NodeId = ANN) -> Member:
    member = table.get(node_id)
    assert member is not None
    return member


def tick(table: Membership, begin: float, end: float) -> list[tuple[float, NodeId]]:
    """Tick as often as it wants; when who became due."""
    due, now = [], begin
    while now <= end:
        due += [(now, member.node_id) for member in table.tick(now)]
        now += table.period
    return due


@pytest.fixture
def table() -> Membership:
    return Membership()


def test_the_first_word_makes_a_member_and_the_next_refreshes_it(table: Membership) -> None:
    assert table.hear(word(1), 10.0) is Heard.NEW
    assert table.hear(word(2), 11.0) is Heard.FRESH
    assert (member_of(table).heard, member_of(table).standing) == (11.0, Standing.ALIVE)


def test_a_replay_changes_nothing(table: Membership) -> None:
    table.hear(word(5, capacity=Capacity(2, 0)), 10.0)
    for sequence in (5, 4, 1):
        assert table.hear(word(sequence, capacity=Capacity(2, 2)), 20.0) is Heard.STALE
    assert (member_of(table).heard, member_of(table).announcement.capacity.free) == (10.0, 0)


def test_a_replayed_older_boot_changes_nothing(table: Membership) -> None:
    table.hear(word(100), 1.0)
    assert table.hear(word(1, boot_id=NEW), 2.0) is Heard.NEW, "it returned"
    assert table.hear(word(101), 3.0) is Heard.STALE
    assert member_of(table).announcement.boot_id == NEW


@given(st.permutations(range(12)))
def test_whatever_the_order_the_newest_word_of_the_newest_boot_stays(order: list[int]) -> None:
    table = Membership()
    words = [word(n, boot_id=boot) for boot in (OLD, NEW) for n in range(6)]
    for now, index in enumerate(order):
        table.hear(words[index], float(now))
    assert member_of(table).announcement == words[-1]


def test_silence_for_three_and_a_half_announced_intervals_is_suspicious(table: Membership) -> None:
    table.hear(word(1, interval=2.0), 0.0)
    assert tick(table, 0.0, 6.9) == []
    assert [node for _, node in tick(table, 7.0, 7.3)] == [ANN]
    assert member_of(table).standing is Standing.SUSPECT
    assert table.hear(word(2), 8.0) is Heard.CHANGED
    assert member_of(table).standing is Standing.ALIVE


def test_a_suspect_about_whom_nothing_was_found_out_is_due_again(table: Membership) -> None:
    table.hear(word(1), 0.0)
    assert [round(now, 1) for now, _ in tick(table, 0.0, 8.0)] == [3.5, 7.0]


def test_a_lost_link_with_silence_is_suspicious_sooner(table: Membership) -> None:
    table.hear(word(1), 0.0)
    table.lose_link(ANN, 0.2)
    assert tick(table, 0.25, 1.25)[0] == (1.0, ANN)


def test_a_lost_link_without_silence_is_not(table: Membership) -> None:
    table.hear(word(1), 0.0)
    table.lose_link(ANN, 0.2)
    table.hear(word(2), 0.9)
    assert tick(table, 1.0, 4.3) == []


@pytest.mark.parametrize("interval", [0.0, -5.0, 1e9, float("inf")])
def test_an_absurd_interval_is_taken_within_reason(table: Membership, interval: float) -> None:
    table.hear(word(1, interval=interval), 0.0)
    assert 0.25 <= member_of(table).interval <= 60.0


def test_after_a_pause_of_our_own_nobody_is_suspected_at_once(table: Membership) -> None:
    """What they said meanwhile may still be in our buffer."""
    table.hear(word(1), 0.0)
    table.tick(0.0)
    assert table.tick(30.0) == []
    table.hear(word(31), 30.4)
    assert tick(table, 30.25, 33.5) == []


def test_after_such_a_pause_the_dead_are_found_all_the_same(table: Membership) -> None:
    table.hear(word(1), 0.0)
    table.tick(0.0)
    assert table.tick(30.0) == []
    assert tick(table, 30.25, 31.5)[0] == (31.0, ANN)


def test_goodbye(table: Membership) -> None:
    table.hear(word(1), 0.0)
    assert table.hear(word(2, leaving=True), 1.0) is Heard.CHANGED
    assert member_of(table).standing is Standing.LEFT
    assert table.hear(word(3, leaving=True), 1.1) is Heard.STALE, "it says so several times"
    assert table.hear(word(1), 1.2) is Heard.STALE
    assert not table.bury(ANN, OLD, 0, 2.0), "whoever left is not dead"
    assert tick(table, 2.0, 60.0) == []


def test_an_obituary_buries_and_a_higher_incarnation_refutes_it(table: Membership) -> None:
    table.hear(word(1), 0.0)
    assert table.bury(ANN, OLD, 0, 1.0)
    assert member_of(table).standing is Standing.DEAD
    assert table.hear(word(2), 1.001) is Heard.STALE, "it was under way"
    assert table.hear(word(3, incarnation=1), 1.002) is Heard.CHANGED
    assert member_of(table).standing is Standing.ALIVE


def test_an_obituary_of_a_refuted_incarnation_is_void(table: Membership) -> None:
    table.hear(word(1, incarnation=1), 0.0)
    assert not table.bury(ANN, OLD, 0, 1.0)
    assert not table.bury(ANN, NEW, 5, 1.0), "of another boot"
    assert not table.bury(NodeId("b" * 32), OLD, 5, 1.0), "of a stranger"


def test_whoever_was_heard_since_the_question_is_not_dead(table: Membership) -> None:
    table.hear(word(7), 0.0)
    table.hear(word(8), 0.4)
    assert not table.bury(ANN, OLD, 0, 0.5, sequence=7)


def test_the_dead_who_go_on_talking_are_alive(table: Membership) -> None:
    """After a partition neither side has heard its own obituary."""
    table.hear(word(1), 0.0)
    table.bury(ANN, OLD, 0, 1.0)
    assert table.hear(word(50), 50.0) is Heard.CHANGED
    assert member_of(table).standing is Standing.ALIVE


def test_an_answer_over_a_link_clears_a_suspect(table: Membership) -> None:
    table.hear(word(1), 0.0)
    tick(table, 0.0, 4.0)
    assert table.confirm(ANN, OLD, 4.1)
    assert member_of(table).standing is Standing.ALIVE
    assert tick(table, 4.25, 7.4) == []


def test_the_forgotten_are_not_revived_by_a_replay(table: Membership) -> None:
    table.hear(word(9), 0.0)
    table.bury(ANN, OLD, 0, 1.0)
    table.tick(1.0 + REMEMBERED)
    assert table.get(ANN) is None
    assert table.hear(word(9), 700.0) is Heard.STALE
    assert table.hear(word(8), 700.0) is Heard.STALE
    assert table.hear(word(1, boot_id=NEW), 700.0) is Heard.NEW


def test_two_instances_with_one_id_are_a_conflict_and_never_take_turns(table: Membership) -> None:
    standings = []
    for n in range(1, 20):
        now = float(n)
        table.hear(word(n, boot_id=NEW), now)
        table.hear(word(n, boot_id=OLD, address="10.0.0.2:7000"), now + 0.5)
        standings.append((member_of(table).announcement.boot_id, member_of(table).conflict_until > now))
    assert {boot for boot, _ in standings} == {NEW}
    assert standings[-1][1]


def test_a_restart_is_no_conflict(table: Membership) -> None:
    for n in range(1, 10):
        table.hear(word(n), float(n))
    table.hear(word(1, boot_id=NEW, address="10.0.0.1:7001"), 12.0)
    table.hear(word(10), 12.1)  # late
    for n in range(1, 10):
        table.hear(word(n), 13.0)  # replayed
    assert member_of(table).conflict_until < 0


def test_it_is_bounded_and_the_gone_make_room() -> None:
    table = Membership(capacity=3)
    ids = [NodeId(f"{n:032x}") for n in range(5)]
    for node_id in ids[:3]:
        table.hear(word(1, node_id=node_id), 0.0)
    assert table.hear(word(1, node_id=ids[3]), 1.0) is Heard.DOUBTED and table.get(ids[3]) is None
    table.bury(ids[1], OLD, 0, 2.0)
    assert table.hear(word(1, node_id=ids[3]), 3.0) is Heard.NEW
    assert len(table) == 3 and table.get(ids[1]) is None


@given(st.integers(0, 2**32))
def test_the_living_are_never_declared_dead_by_old_obituaries(seed: int) -> None:
    """Whatever is lost, doubled and reordered: after the last word of a living instance it is alive."""
    rng, table = random.Random(seed), Membership()
    incarnation = 0
    for n in range(1, 30):
        now = float(n)
        if rng.random() < 0.3:
            table.bury(ANN, OLD, rng.randint(0, incarnation), now)
            incarnation += 1
        if rng.random() < 0.8:
            table.hear(word(n, incarnation=incarnation), now + 0.5)
        if rng.random() < 0.5:
            table.hear(word(rng.randint(1, n)), now + 0.6)
    table.hear(word(31, incarnation=incarnation), 31.0)
    assert member_of(table).standing is Standing.ALIVE
