"""The events of many jobs: complete and in order, or with a gap that is told; bounded for who is slow."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from twisted.internet.address import IPv4Address, UNIXAddress

from cloudmytask.api.principals import client_principal
from cloudmytask.boundaries import JobEvent
from cloudmytask.client.node_client import NodeClient
from cloudmytask.model.errors import NotPermitted
from cloudmytask.model.job import JobState, Reason
from cloudmytask.net import client_session, event_push
from cloudmytask.net.event_push import ANSWER_TIMEOUT
from cloudmytask.simulation.runner import ScriptPlan
from tests.virtual import FOREVER, Place, Stranger


def _states(events: list[JobEvent]) -> list[str]:
    return [event.state.value for event in events]


def _following(place: Place) -> Stranger:
    stranger = place.stranger()
    stranger.hello("ann")
    stranger.accept(b"FollowEvents", {b"watch": b"5"})
    return stranger


def _numbers(call: dict[bytes, bytes]) -> list[int]:
    return [event["sequence"] for event in json.loads(call[b"events"])["jobs"]]


def test_each_state_of_ones_own_jobs_is_told_once_and_in_order(place: Place, ann: NodeClient) -> None:
    before = place.submit(ann, FOREVER)
    seen: list[JobEvent] = []
    end = place.result(ann.events(seen.append))
    place.submit(place.connect("ben"), ScriptPlan())
    job = place.submit(ann, ScriptPlan(exit_code=1), ScriptPlan(), retries=1)
    place.wait(ann, job)
    place.clock.advance(1.0)
    mine = [event for event in seen if event.job == job.id]
    assert {event.job for event in seen} <= {job.id, before.id} and {event.client for event in seen} == {"ann"}
    assert _states(mine)[0] == "waiting" and _states(mine)[-1] == "succeeded"
    assert all((a.state, a.attempt) != (b.state, b.attempt) for a, b in pairwise(mine)), mine
    assert [(event.state, event.attempt, event.reason) for event in mine if event.state is JobState.RUNNING] == [
        (JobState.RUNNING, 1, None),
        (JobState.RUNNING, 2, None),
    ]
    assert (mine[-1].attempt, mine[-1].reason) == (2, Reason.EXIT)
    assert [event.sequence for event in seen] == list(range(1, len(seen) + 1))
    place.result(ann.cancel(before.id))
    place.wait(ann, before)
    place.clock.advance(1.0)
    assert (seen[-1].job, seen[-1].state) == (before.id, JobState.CANCELLED)
    number = len(seen)
    end()
    end()
    place.wait(ann, place.submit(ann, ScriptPlan()))
    place.clock.advance(1.0)
    assert len(seen) == number


@pytest.mark.parametrize("peer", [UNIXAddress(None), IPv4Address("TCP", "10.0.0.5", 5)])
def test_the_jobs_of_everyone_are_for_administrators(
    place: Place, ann: NodeClient, monkeypatch: pytest.MonkeyPatch, peer: object
) -> None:
    monkeypatch.setattr(client_session, "client_principal", lambda claim, _peer, *_: client_principal(claim, peer))
    carl = place.connect("carl")
    seen: list[JobEvent] = []
    if not isinstance(peer, UNIXAddress):
        place.refused(carl.events(seen.append, everyone=True), NotPermitted)
        place.result(carl.events(seen.append))
        return
    place.result(carl.events(seen.append, everyone=True))
    jobs = {name: place.submit(client, ScriptPlan()) for name, client in (("ann", ann), ("carl", carl))}
    for name, client in (("ann", ann), ("carl", carl)):
        place.wait(client, jobs[name])
    place.clock.advance(1.0)
    assert {(event.client, event.job) for event in seen} == {(name, job.id) for name, job in jobs.items()}


def test_the_end_of_the_connection_is_told(place: Place, ann: NodeClient) -> None:
    lost: list[bool] = []
    place.result(ann.events(lambda _event: None, lost=lambda: lost.append(True)))
    place.host.kill()
    place.until(lambda: bool(lost))
    place.clock.advance(1.0)
    assert lost == [True]


def test_a_number_is_in_use_until_it_is_given_back(place: Place) -> None:
    stranger = _following(place)
    assert stranger.refused(b"FollowEvents", {b"watch": b"5"})[0] == "InvalidArgument"
    stranger.accept(b"Unsubscribe", {b"watch": b"5"})
    stranger.accept(b"FollowEvents", {b"watch": b"5"})


def test_a_connection_follows_only_so_often(place: Place) -> None:
    stranger = _following(place)
    for number in range(1, event_push.FOLLOWED_MAX):
        stranger.accept(b"FollowEvents", {b"watch": b"1%d" % number})
    code, sentence = stranger.refused(b"FollowEvents", {b"watch": b"1"})
    assert code == "InvalidArgument" and "already" in sentence
    stranger.accept(b"Unsubscribe", {b"watch": b"5"})
    stranger.accept(b"FollowEvents", {b"watch": b"1"})


def test_a_client_that_is_behind_misses_the_oldest_and_sees_that(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_push, "BATCH", 3)
    monkeypatch.setattr(event_push, "EVENTS_MAX", 10)
    ann = place.connect("ann")
    stranger = _following(place)
    for _ in range(10):
        place.wait(ann, place.submit(ann, ScriptPlan(duration=0.001)))
    (first,) = stranger.calls(b"JobEvents")
    assert _numbers(first)[0] == 1, "the next go when these are answered"
    stranger.answer(first)
    place.clock.advance(0.1)
    (second,) = stranger.calls(b"JobEvents")
    assert _numbers(second)[0] > _numbers(first)[-1] + 1
    numbers: list[int] = []
    while True:
        numbers += _numbers(second)
        stranger.answer(second)
        place.clock.advance(0.1)
        calls = stranger.calls(b"JobEvents")
        if not calls:
            break
        (second,) = calls
    assert numbers == list(range(numbers[0], numbers[0] + 10))


def test_a_client_that_does_not_answer_loses_its_connection(place: Place) -> None:
    ann = place.connect("ann")
    stranger = _following(place)
    place.submit(ann, FOREVER)
    place.clock.advance(ANSWER_TIMEOUT - 3.0)
    before = stranger.lost
    place.clock.advance(4.0)
    assert (before, stranger.lost) == (False, True)
    place.wait(ann, place.submit(ann, ScriptPlan()))
