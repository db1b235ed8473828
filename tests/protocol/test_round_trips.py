"""How often a client asks to run a small script: it introduces itself, and submits; all else is told by the node."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet import defer
from twisted.internet.defer import Deferred

from cloudmytask.client import subscriptions
from cloudmytask.client.node_client import NodeClient
from cloudmytask.client.subscriptions import PushedOutcome
from cloudmytask.model.job import JobState, StreamName
from cloudmytask.simulation.runner import ScriptPlan
from cloudmytask.wire.guard import GuardedAMP
from tests.virtual import FOREVER, Place

OUT, ERR = StreamName.STDOUT, StreamName.STDERR
SMALL = ScriptPlan(duration=0.01, output=((0.0, OUT, b"out"), (0.0, ERR, b"err")))
LARGE = ScriptPlan(duration=0.01, output=((0.0, OUT, b"x" * 500_000),))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The commands that are asked by anybody, in order."""
    commands: list[str] = []
    ask = GuardedAMP.ask

    def noted(self: GuardedAMP, command: Any, *arguments: Any, **values: Any) -> Deferred[dict[str, Any]]:
        commands.append(command.__name__)
        return ask(self, command, *arguments, **values)

    monkeypatch.setattr(GuardedAMP, "ask", noted)
    return commands


def _submit(place: Place, ann: NodeClient, plan: ScriptPlan, key: str = "k") -> tuple[Any, PushedOutcome]:
    spec, source = place.spec(plan)
    job, outcome = place.result(ann.submit_and_watch(spec, source, key=key))
    assert outcome is not None
    return job, outcome


def _wait(place: Place, outcome: PushedOutcome, timeout: float | None = None) -> Any:
    return place.result(Deferred.fromCoroutine(outcome.wait(place.clock, timeout)))


def test_a_small_script_takes_two(asked: list[str]) -> None:
    place = Place()
    _, outcome = _submit(place, place.connect("ann"), SMALL)
    job = _wait(place, outcome)
    assert (job.state, outcome.output) == (JobState.SUCCEEDED, {OUT: b"out", ERR: b"err"})
    assert asked == ["Hello", "SubmitJob", "JobChanged"], "the last by the node"


def test_a_large_output_does_not_come_along() -> None:
    place = Place()
    _, outcome = _submit(place, place.connect("ann"), LARGE)
    assert _wait(place, outcome).state is JobState.SUCCEEDED
    assert outcome.output is None


def test_a_job_that_has_ended_already_is_answered_with_its_outcome(asked: list[str]) -> None:
    place = Place()
    ann = place.connect("ann")
    spec, source = place.spec(SMALL)
    _, first = place.result(ann.submit_and_watch(spec, source, key="k"))
    assert first is not None
    _wait(place, first)
    asked.clear()
    job, outcome = place.result(ann.submit_and_watch(spec, source, key="k"))
    assert job.state is JobState.SUCCEEDED
    assert outcome is not None and _wait(place, outcome) == job
    assert asked == ["SubmitJob"]


def test_an_outcome_that_takes_too_long_and_comes_later() -> None:
    place = Place()
    _, outcome = _submit(place, place.connect("ann"), ScriptPlan(duration=5.0))
    with pytest.raises(defer.TimeoutError):
        _wait(place, outcome, 1.0)
    assert _wait(place, outcome, 10.0).state is JobState.SUCCEEDED


def test_a_lost_connection_ends_the_wait() -> None:
    place = Place()
    ann = place.connect("ann")
    _, outcome = _submit(place, ann, FOREVER)
    waiting = Deferred.fromCoroutine(outcome.wait(place.clock, None))
    place.restart(flushed=True)
    assert place.result(waiting) is None


def test_only_so_many_are_awaited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscriptions, "OUTCOMES_MAX", 1)
    place = Place()
    ann = place.connect("ann")
    _submit(place, ann, FOREVER)
    spec, source = place.spec(SMALL)
    job, outcome = place.result(ann.submit_and_watch(spec, source, key="k2"))
    assert outcome is None
    assert place.result(ann.wait(job.id)).state is JobState.SUCCEEDED
