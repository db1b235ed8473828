"""A bug of ours ends a job visibly, or is noticed: no job stays as it is for ever, at either end."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from cloudmytask.client.sources import Source
from cloudmytask.model.errors import InternalError
from cloudmytask.model.job import JobId, JobSpec, JobState, Reason
from cloudmytask.node.jobs.attempts import Attempts
from cloudmytask.node.jobs.handover import Handover
from cloudmytask.node.jobs.ledger import Ledger
from cloudmytask.node.placing.placer import Placer
from cloudmytask.node.remote.delivery import Delivery
from cloudmytask.node.remote.guest import Guest
from cloudmytask.node.remote.remote import Remote
from cloudmytask.node.running.executor import Executor
from cloudmytask.node.running.outputs import LiveOutput
from cloudmytask.simulation.runner import ScriptPlan
from cloudmytask.simulation.store import MemoryStore
from tests.conftest import ExpectFailures
from tests.virtual import FOREVER, Place
from tests.virtual_cluster import Company

SHORT = ScriptPlan(duration=0.5)


class Bug(Exception):
    """What nobody foresaw."""


def broken(*_: object, **__: object) -> Any:
    raise Bug("it broke")


def once(monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> None:
    """The first call breaks, later ones do what they did."""
    honest, calls = getattr(owner, name), []

    def planted(self: object, *arguments: Any, **named: Any) -> Any:
        calls.append(True)
        return broken() if len(calls) == 1 else honest(self, *arguments, **named)

    async def planted_later(self: object, *arguments: Any, **named: Any) -> Any:
        return await planted(self, *arguments, **named)

    monkeypatch.setattr(owner, name, planted_later if inspect.iscoroutinefunction(honest) else planted)


@pytest.mark.parametrize(
    ("owner", "name"), [(LiveOutput, "seal"), (Ledger, "record"), (Executor, "_clear"), (Attempts, "_attempt")]
)
def test_an_own_job_ends_with_a_reason(
    monkeypatch: pytest.MonkeyPatch, expected_failures: ExpectFailures, owner: type, name: str
) -> None:
    place = Place()
    ann = place.connect()
    once(monkeypatch, owner, name)
    job = place.submit(ann, SHORT)
    ended = place.wait(ann, job)
    if name == "_clear":  # nothing of the job waits for it
        assert ended.state is JobState.SUCCEEDED
    else:
        assert (ended.state, ended.reason) == (JobState.FAILED, Reason.LAUNCH)
        assert "the node failed: Bug('it broke')" in place.result(ann.explain(job.id)).sentence
    assert expected_failures(Bug)
    assert place.host.node.whereabouts() == {}
    assert place.wait(ann, place.submit(ann, SHORT)).state is JobState.SUCCEEDED, "the slot is free again"


@pytest.mark.parametrize("at_most_once", [False, True])
def test_a_job_whose_acceptance_broke_is_nowhere(
    monkeypatch: pytest.MonkeyPatch, expected_failures: ExpectFailures, at_most_once: bool
) -> None:
    place = Place()
    ann = place.connect()
    source = Source.of_bytes(b"x")
    spec = JobSpec(script=source.blob, at_most_once=at_most_once)
    once(monkeypatch, MemoryStore, "save")
    place.refused(ann.submit(spec, source, key="once"), InternalError)
    assert expected_failures(Bug)
    assert place.host.node.whereabouts() == {}
    again = place.result(ann.submit(spec, source, key="once"))
    assert place.wait(ann, again).state is JobState.SUCCEEDED, "its key is free again, and nobody waits for ever"


def test_a_running_script_whose_attempt_broke_is_killed(
    monkeypatch: pytest.MonkeyPatch, expected_failures: ExpectFailures
) -> None:
    place = Place()
    ann = place.connect()
    job = place.submit(ann, FOREVER)
    place.reach(ann, job, JobState.RUNNING)
    place.host.node._origin._break_off(JobId(job.id), "the node failed: Bug()")
    assert place.wait(ann, job).reason is Reason.LAUNCH
    place.until(lambda: place.host.machine.live == 0)


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (Guest, "_conclude"),
        (Guest, "_run_here"),
        (Delivery, "_pushed_all"),
        (LiveOutput, "seal"),
        (Remote, "_ended"),
    ],
)
def test_a_forwarded_job_ends_with_a_reason(
    monkeypatch: pytest.MonkeyPatch, expected_failures: ExpectFailures, owner: type, name: str
) -> None:
    among = Company(2)
    among.acquainted()
    ann = among.connect("a")
    once(monkeypatch, owner, name)
    job = among.submit(ann, ScriptPlan(duration=0.5), node="b")
    ended = among.wait(ann, job, patience=200.0)
    assert ended.state.terminal
    assert ended.state is JobState.SUCCEEDED or "the node failed" in among.why(ann, job)
    assert expected_failures(Bug)
    among.clock.advance(120.0)
    assert all(host.node.whereabouts() == {} for host in among.hosts.values())
    assert not among.hosts["b"].node._guests.present
    assert among.wait(ann, among.submit(ann, SHORT, node="b")).state is JobState.SUCCEEDED


@pytest.mark.parametrize("accepted", [False, True])
def test_a_job_whose_offer_broke_is_ended(
    monkeypatch: pytest.MonkeyPatch, expected_failures: ExpectFailures, accepted: bool
) -> None:
    among = Company(2)
    among.acquainted()
    ann = among.connect("a")
    once(monkeypatch, Remote, "_accepted" if accepted else "offer")
    job = among.submit(ann, SHORT, node="b")
    ended = among.wait(ann, job)
    assert (ended.state, ended.reason) == (JobState.FAILED, Reason.LAUNCH)
    assert "lost track" in among.why(ann, job)
    assert expected_failures(Bug)
    expected_failures()
    placer = among.hosts["a"].node._placer
    assert not placer._works
    assert placer.holds(JobId(job.id)) is None


def test_a_hand_over_that_broke_does_not_keep_the_node_from_draining(
    monkeypatch: pytest.MonkeyPatch, expected_failures: ExpectFailures
) -> None:
    among = Company(2, options={"drain_timeout": 1.0})
    among.acquainted()
    ann = among.connect("a")
    for name in "ab":
        among.submit(ann, FOREVER, node=name)
    kept, moved = among.submit(ann, SHORT), among.submit(ann, SHORT)
    among.clock.advance(1.0)
    once(monkeypatch, Handover, "_to")
    node = among.hosts["a"].node
    among.result(node.drain())
    assert expected_failures(Bug)
    assert among.hosts["a"].machine.live == 0
    assert not node._origin._moving
    assert node._placer.holds(JobId(kept.id)) == "queue"
    assert among.hosts["b"].node._ledger.live(JobId(moved.id)) is not None


def test_a_job_that_is_nowhere_is_noticed_and_ended(
    monkeypatch: pytest.MonkeyPatch, expected_failures: ExpectFailures
) -> None:
    place = Place()
    ann = place.connect()
    job = place.submit(ann, ScriptPlan(duration=0.5), FOREVER)
    place.reach(ann, job, JobState.RUNNING)
    placer = place.host.node._placer
    monkeypatch.setattr(Placer, "enqueue", lambda self, work: None)
    found = place.submit(ann, SHORT)
    assert placer.holds(JobId(found.id)) is None
    ended = place.wait(ann, found)
    assert ended.reason is Reason.LAUNCH
    assert "lost track" in place.result(ann.explain(found.id)).sentence
    expected_failures()
