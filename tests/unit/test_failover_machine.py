"""What becomes of a request when its node does not answer: every state, every event."""

from __future__ import annotations

import pytest

from cloudmytask.addresses import Address
from cloudmytask.client.connection import Connection
from cloudmytask.client.failover import LOSSES_MAX, Failed, Moving, Recourse, Returning, Sent, nodes_to_ask
from cloudmytask.client.node_client import NodeClient
from cloudmytask.model.errors import Banned, ConnectionInterrupted, NodeDraining, RequestTimeout
from cloudmytask.simulation.clock import VirtualClock

LOST, LATE, DRAINING = ConnectionInterrupted("lost"), RequestTimeout("late"), NodeDraining("draining")
A, B, C = (Address.parse(f"{name}:7001", "the test") for name in "abc")


@pytest.mark.parametrize("recourse", [Recourse.REPEAT, Recourse.MOVE, Recourse.MOVE_UNSENT])
def test_a_lost_connection_is_made_again_first(recourse: Recourse) -> None:
    state = Sent(recourse).failed(LOST)
    assert state == Returning(recourse, 1)
    assert isinstance(state, Returning) and state.reached() == Sent(recourse, 1)


def test_a_question_fails_with_its_connection() -> None:
    assert Sent(Recourse.NONE).failed(LOST) == Failed(LOST)


@pytest.mark.parametrize(
    ("recourse", "moves"), [(Recourse.REPEAT, False), (Recourse.MOVE, True), (Recourse.MOVE_UNSENT, False)]
)
def test_a_node_that_does_not_come_back(recourse: Recourse, moves: bool) -> None:
    gone = Returning(recourse, 3).gone(LOST)
    assert gone == (Moving(recourse, 3, LOST, "does not answer") if moves else Failed(LOST))


@pytest.mark.parametrize(
    ("state", "moves"),
    [
        (Sent(Recourse.NONE), False),
        (Sent(Recourse.REPEAT), False),
        (Sent(Recourse.MOVE), True),
        (Sent(Recourse.MOVE, 1), True),
        (Sent(Recourse.MOVE_UNSENT), True),
        (Sent(Recourse.MOVE_UNSENT, 1), False),
    ],
)
def test_a_node_that_takes_no_new_work(state: Sent, moves: bool) -> None:
    """One that lost the connection before may have the job already: it must not run twice."""
    after = state.failed(DRAINING)
    assert after == (Moving(state.recourse, state.losses, DRAINING, "takes no new work") if moves else Failed(DRAINING))


@pytest.mark.parametrize("recourse", list(Recourse))
def test_a_node_that_hangs_may_have_the_work(recourse: Recourse) -> None:
    after = Sent(recourse).failed(LATE)
    moves = recourse is Recourse.MOVE
    assert after == (Moving(recourse, 0, LATE, "does not answer") if moves else Failed(LATE))


@pytest.mark.parametrize("recourse", list(Recourse))
def test_what_a_node_declines_it_has_answered(recourse: Recourse) -> None:
    declined = Banned("banned")
    assert Sent(recourse).failed(declined) == Failed(declined)


def test_where_moving_ends() -> None:
    moving = Moving(Recourse.MOVE, 2, LOST, "does not answer")
    assert moving.found() == Sent(Recourse.MOVE, 2)
    assert moving.alone() == Failed(LOST)


@pytest.mark.parametrize("recourse", [Recourse.REPEAT, Recourse.MOVE, Recourse.MOVE_UNSENT])
def test_a_request_that_costs_every_connection_ends(recourse: Recourse) -> None:
    state = Sent(recourse)
    for _ in range(LOSSES_MAX - 1):
        returning = state.failed(LOST)
        assert isinstance(returning, Returning)
        state = returning.reached()
    end = state.failed(LOST)
    assert isinstance(end, Failed) and f"{LOSSES_MAX} times" in str(end.problem)


def test_which_nodes_may_know_a_job() -> None:
    client = NodeClient(VirtualClock(), lambda: "key")
    at_named, standing_in = Connection(A, client), Connection(C, client, instead_of=A)
    assert nodes_to_ask(B, at_named, [A]) == (B,), "the node that accepted it, and no other"
    assert nodes_to_ask(None, at_named, [A, B]) == (A,)
    assert nodes_to_ask(None, standing_in, [A, B]) == (C, A, B)
    assert nodes_to_ask(None, None, [A, B]) == (A, B)
