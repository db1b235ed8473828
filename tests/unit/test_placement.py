"""Where a job goes: the rule of the paper and what makes it robust."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudmytask.core.placement import (
    ANYWHERE,
    Accounts,
    Course,
    Peer,
    Policy,
    Wish,
    claim_chance,
    is_free,
)
from cloudmytask.model.cluster import Capacity, NodeId
from cloudmytask.model.job import Blob, Digest, JobSpec, QoS
from cloudmytask.model.words import LOCAL, PAPER, RESERVE_PULL

SPEC = JobSpec(script=Blob(Digest("0" * 64), 1))


def _id(number: int) -> NodeId:
    return NodeId(f"{number:032x}")


def _peer(number: int) -> Peer:
    return Peer(_id(number), f"n{number}", f"127.0.0.{number}:7001")


def _accounts(*free: int, **capacity: Any) -> Accounts:
    """Nodes n0, n1 … with so many free slots of four."""
    accounts = Accounts()
    for number, slots in enumerate(free):
        accounts.learn(_peer(number), Capacity(4, slots, **capacity))
    return accounts


def _policy(name: str = RESERVE_PULL, max_hops: int = 8) -> Policy:
    return Policy(name, max_hops, 0.5)


DICE = random.Random(1)


def test_a_node_is_chosen_at_random_among_all_that_are_free() -> None:
    accounts = _accounts(1, 0, 2, 0, 1)
    chosen = [_policy().choose(accounts, ANYWHERE, DICE) for _ in range(300)]
    names = [choice.peer.name for choice in chosen if choice is not None]
    assert set(names) == {"n0", "n2", "n4"} and len(names) == 300
    assert all(names.count(name) > 60 for name in set(names))


def test_what_was_sent_counts_until_it_is_answered() -> None:
    accounts = _accounts(1)
    accounts.reserve(_id(0))
    assert _policy().choose(accounts, ANYWHERE, DICE) is None
    accounts.release(_id(0))
    assert _policy().choose(accounts, ANYWHERE, DICE) is not None


def test_the_paper_does_not_count_what_it_sent() -> None:
    accounts = _accounts(1)
    accounts.reserve(_id(0))
    choice = _policy(PAPER).choose(accounts, ANYWHERE, DICE)
    assert choice is not None and choice.may_wait


def test_the_paper_goes_by_the_whole_cpu_where_it_is_measured() -> None:
    accounts = Accounts()
    accounts.learn(_peer(0), Capacity(4, 4, cpu=0.8))
    accounts.learn(_peer(1), Capacity(4, 0, cpu=0.7))
    choice = _policy(PAPER).choose(accounts, ANYWHERE, DICE)
    assert choice is not None and choice.peer.name == "n1"


def test_an_older_picture_of_a_node_changes_nothing() -> None:
    accounts = Accounts()
    accounts.learn(_peer(0), Capacity(4, 0, stamp=7))
    accounts.update(_id(0), Capacity(4, 3, stamp=6))
    assert accounts.free(_id(0)) == 0
    accounts.update(_id(0), Capacity(4, 3, stamp=8))
    assert accounts.free(_id(0)) == 3


def test_a_node_that_is_forgotten_is_not_learned_of_by_an_answer() -> None:
    accounts = _accounts(2)
    accounts.reserve(_id(0))
    accounts.forget(_id(0))
    accounts.update(_id(0), Capacity(4, 4, stamp=9))
    accounts.release(_id(0))
    assert not accounts.open and _policy().choose(accounts, ANYWHERE, DICE) is None


@pytest.mark.parametrize(
    ("wish", "expected"),
    [
        (Wish(node="n1"), {"n1"}),
        (Wish(avoid=("n1", "n2")), {"n0"}),
        (Wish(local=True), set()),
        (Wish(node="elsewhere"), set()),
    ],
)
def test_wishes(wish: Wish, expected: set[str]) -> None:
    accounts = _accounts(1, 1, 1)
    chosen = [_policy().choose(accounts, Course(wish), DICE) for _ in range(50)]
    assert {choice.peer.name for choice in chosen if choice is not None} == expected


def test_a_job_without_wishes_has_none() -> None:
    assert Wish.of(SPEC) is None
    assert Wish.of(JobSpec(script=SPEC.script, node="b")) == Wish(node="b")
    assert Wish.of(JobSpec(script=SPEC.script, qos=QoS.IDLE)) == Wish(idle=True)


def test_an_idle_job_goes_only_where_the_load_is_low() -> None:
    accounts = Accounts()
    accounts.learn(_peer(0), Capacity(4, 4, load=0.6))
    idle = Course(Wish(idle=True))
    assert _policy().choose(accounts, idle, DICE) is None
    assert _policy().choose(accounts, ANYWHERE, DICE) is not None
    accounts.learn(_peer(1), Capacity(4, 1, load=0.1))
    choice = _policy().choose(accounts, idle, DICE)
    assert choice is not None and choice.peer.name == "n1"


def test_policy_local_chooses_nobody() -> None:
    assert _policy(LOCAL).choose(_accounts(4, 4), ANYWHERE, DICE) is None


def test_a_choice_says_on_what_grounds() -> None:
    accounts = Accounts()
    accounts.learn(_peer(0), Capacity(4, 2, load=0.25))
    choice = _policy().choose(accounts, ANYWHERE, DICE)
    assert choice is not None
    assert choice.note == "to n0: 2 of 4 slots free, load 0.25 below 0.75; the only such node (policy reserve-pull)"


@given(
    name=st.sampled_from([PAPER, RESERVE_PULL]),
    nodes=st.integers(1, 12),
    max_hops=st.integers(1, 8),
    free=st.lists(st.integers(0, 2), min_size=12, max_size=12),
    seed=st.integers(0, 2**32),
)
def test_no_job_visits_a_node_twice_or_hops_more_than_the_limit(
    name: str, nodes: int, max_hops: int, free: list[int], seed: int
) -> None:
    """Whatever the nodes say of themselves, a job that is handed on wherever the rule sends it comes to rest."""
    dice, policy = random.Random(seed), _policy(name, max_hops)
    visited: list[NodeId] = [_id(0)]
    hops = 0
    while True:
        here = visited[-1]
        accounts = Accounts()
        for number in range(nodes):
            if _id(number) != here:  # a node is not its own peer
                accounts.learn(_peer(number), Capacity(2, free[number]))
        choice = policy.choose(accounts, Course(None, tuple(visited), hops), dice)
        if choice is None:
            break
        assert choice.peer.node_id not in visited
        visited.append(choice.peer.node_id)
        hops += 1
    assert hops <= max_hops and len(set(visited)) == len(visited)


@pytest.mark.parametrize(
    ("slots", "load", "threshold", "alone", "free"),
    [
        (1, 0.5, 0.75, False, True),
        (1, 0.75, 0.75, False, False),
        (0, 0.0, 0.75, False, False),
        (1, None, 0.75, False, True),
        (1, 0.0, 0.0, False, False),
        (1, 1.0, 1.0, False, True),
        (1, 0.9, 0.75, True, True),
        (1, 0.0, 0.0, True, False),
    ],
)
def test_free(slots: int, load: float | None, threshold: float, alone: bool, free: bool) -> None:
    assert is_free(slots, load, threshold, alone) is free


def test_of_nodes_that_hear_of_a_free_slot_one_goes_for_it_on_average() -> None:
    assert claim_chance(0) == 1.0
    assert claim_chance(3) * 4 == 1.0
