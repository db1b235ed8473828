"""How often a client asks to run a small script: it introduces itself, and submits; all else is told by the node."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from itertools import count
from typing import Any, TypeVar

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory

from cloudmytask.addresses import Address
from cloudmytask.client import Client, subscriptions
from cloudmytask.client.connection import Connector
from cloudmytask.client.node_client import NodeClient
from cloudmytask.client.node_session import NodeSession
from cloudmytask.client.watched import Submitted, Watched
from cloudmytask.codec.people import JobStatus
from cloudmytask.model.errors import ConnectionInterrupted, JobFailed, OutputTruncated, WaitTimeout
from cloudmytask.model.job import JobState, StreamName
from cloudmytask.node.running.outputs import Reader
from cloudmytask.simulation.runner import ScriptPlan
from cloudmytask.wire.commands import GetScriptJobStatus, Hello, SubmitJob, WatchJob
from cloudmytask.wire.guard import GuardedAMP
from cloudmytask.wire.vocabulary import Vocabulary
from tests.conftest import ExpectFailures
from tests.virtual import FOREVER, NODE, Place

T = TypeVar("T")
OUT, ERR = StreamName.STDOUT, StreamName.STDERR
SMALL = ScriptPlan(duration=0.01, output=((0.0, OUT, b"out"), (0.0, ERR, b"err")))
LARGE = ScriptPlan(duration=0.01, output=((0.0, OUT, b"x" * 500_000),))


class VirtualClient(Client):
    """The blocking client, of which each call lets virtual time pass."""

    def __init__(self, place: Place, host: str = NODE) -> None:
        self._place = place
        connector = Connector(lambda _address: place.network.endpoint("ann", host), place.clock, "ann")
        self._session = NodeSession(connector, [Address.parse("node:1", "the test")], None)

    def _run(self, work: Callable[[NodeSession], Coroutine[Deferred[Any], Any, T]]) -> T:
        assert self._session is not None
        return self._place.result(Deferred.fromCoroutine(work(self._session)))


def _submit(place: Place, ann: NodeClient, plan: ScriptPlan, key: str = "k") -> tuple[JobStatus, Watched]:
    spec, source = place.spec(plan)
    submitted = place.result(ann.submit_watched(spec, source, key=key, output=True))
    assert submitted.watched is not None
    return submitted.job, submitted.watched


def _wait(place: Place, watched: Watched, timeout: float | None = None) -> JobStatus:
    return place.result(Deferred.fromCoroutine(watched.until(lambda job: job.state.terminal, timeout)))


def test_a_small_script_takes_two(asked: list[str]) -> None:
    place = Place()
    _, watched = _submit(place, place.connect("ann"), SMALL)
    job = _wait(place, watched)
    assert (job.state, watched.output) == (JobState.SUCCEEDED, {OUT: b"out", ERR: b"err"})
    assert asked == ["Hello", "SubmitJob", "JobChanged"], "the last by the node"


def test_a_large_output_does_not_come_along() -> None:
    place = Place()
    _, watched = _submit(place, place.connect("ann"), LARGE)
    assert _wait(place, watched).state is JobState.SUCCEEDED
    assert watched.output is None


def test_an_output_that_a_bug_keeps_from_being_read_does_not_keep_the_outcome(
    monkeypatch: pytest.MonkeyPatch, expected_failures: ExpectFailures
) -> None:
    def broken(_self: object, _size: int) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Reader, "next", broken)
    place = Place()
    ann = place.connect("ann")
    job, watched = _submit(place, ann, SMALL)
    assert (_wait(place, watched, 10.0).state, watched.output) == (JobState.SUCCEEDED, None)
    place._numbers = count(1)  # so that the same is submitted
    again, _ = _submit(place, ann, SMALL)
    assert (again.id, again.state) == (job.id, JobState.SUCCEEDED)
    assert len(expected_failures(ZeroDivisionError)) == 2


def test_a_job_that_has_ended_already_is_answered_with_its_outcome(asked: list[str]) -> None:
    place = Place()
    ann = place.connect("ann")
    spec, source = place.spec(SMALL)

    def submit() -> Submitted:
        return place.result(ann.submit_watched(spec, source, key="k", output=True))

    first = submit()
    assert first.watched is not None
    _wait(place, first.watched)
    asked.clear()
    again = submit()
    assert again.job.state is JobState.SUCCEEDED
    assert again.watched is not None and _wait(place, again.watched) == again.job
    assert again.watched.output == {OUT: b"out", ERR: b"err"}
    assert asked == ["SubmitJob"]


def test_an_outcome_that_takes_too_long_and_comes_later() -> None:
    place = Place()
    _, watched = _submit(place, place.connect("ann"), ScriptPlan(duration=5.0))
    with pytest.raises(WaitTimeout):
        _wait(place, watched, 1.0)
    assert _wait(place, watched, 10.0).state is JobState.SUCCEEDED


def test_a_lost_connection_ends_the_wait() -> None:
    place = Place()
    _, watched = _submit(place, place.connect("ann"), FOREVER)
    waiting = Deferred.fromCoroutine(watched.until(lambda job: job.state.terminal))
    place.restart(flushed=True)
    place.refused(waiting, ConnectionInterrupted)


def test_only_so_many_are_awaited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscriptions, "SUBMITTED_MAX", 1)
    place = Place()
    ann = place.connect("ann")
    _submit(place, ann, FOREVER)
    spec, source = place.spec(SMALL)
    submitted = place.result(ann.submit_watched(spec, source, key="k2"))
    assert submitted.watched is None
    assert place.result(ann.wait(submitted.job.id)).state is JobState.SUCCEEDED


# The blocking client


def test_submit_and_result_are_two_exchanges(asked: list[str]) -> None:
    place = Place(plans={"script.py": (SMALL,)})
    result = VirtualClient(place).submit(b"small").result()
    assert (result.stdout_bytes, result.stderr_bytes, result.status.state) == (b"out", b"err", JobState.SUCCEEDED)
    assert asked == ["Hello", "SubmitJob", "JobChanged"]


@pytest.mark.parametrize("size", [100, 500_000])
def test_output_that_was_cut_is_no_result_however_small(size: int) -> None:
    plan = ScriptPlan(duration=0.01, output=((0.0, OUT, b"x" * size),))
    place = Place({"output_max": size - 10}, plans={"script.py": (plan,)})
    with pytest.raises(OutputTruncated, match="10 bytes"):
        VirtualClient(place).submit(b"large").result()


def test_a_failure_that_was_pushed_is_told_with_its_end_of_standard_error() -> None:
    place = Place(plans={"script.py": (ScriptPlan(exit_code=3, output=((0.0, ERR, b"why\nnot"),)),)})
    with pytest.raises(JobFailed) as raised:
        VirtualClient(place).submit(b"fails").result()
    assert (raised.value.code, raised.value.stderr_tail) == (3, "why\nnot")


@pytest.mark.parametrize("away", [0.0, 2.0])
def test_a_connection_that_is_lost_before_the_outcome_came(asked: list[str], away: float) -> None:
    plan = ScriptPlan(duration=5.0, output=((0.0, OUT, b"out"),))
    place = Place(plans={"script.py": (plan,)})
    job = VirtualClient(place).submit(b"slow")

    def back() -> None:
        place.host.start()

    def die() -> None:
        place.host.kill(flushed=True)
        place.clock.callLater(away, back)

    place.clock.callLater(1.0, die)
    result = job.result()
    assert result.stdout_bytes == b"out"
    assert job.result() == result
    assert asked.count("SubmitJob") == 1 and len(place.host.disk.jobs) == 1


def test_a_time_limit_holds_across_a_lost_connection() -> None:
    place = Place(plans={"script.py": (FOREVER,)})
    job = VirtualClient(place).submit(b"slow")
    began = place.clock.seconds()
    place.clock.callLater(1.0, lambda: place.restart(flushed=True))
    with pytest.raises(WaitTimeout, match="is running after"):
        job.result(timeout=10.0)
    assert place.clock.seconds() - began == pytest.approx(10.0, abs=0.5)


def test_a_wait_that_ends_too_early_says_what_the_job_does() -> None:
    place = Place(plans={"script.py": (FOREVER,)})
    with pytest.raises(WaitTimeout, match="is running after 2 s"):
        VirtualClient(place).submit(b"slow").result(timeout=2.0)


def test_a_node_that_does_not_know_how_to_tell_is_asked(asked: list[str]) -> None:
    """One of another version ignores the numbers that it is given."""
    place = Place()
    ann = place.connect("ann")
    running = place.submit(ann, FOREVER)
    done = place.wait(ann, place.submit(ann, SMALL))
    responders = {
        Hello: lambda **_: {"version": 1, "node": {}},
        SubmitJob: lambda **_: {"job": running.document, "known": False},
        WatchJob: lambda **_: {"job": done.document},
        GetScriptJobStatus: lambda **_: {"job": done.document},
    }
    place.network.listen("old", Factory.forProtocol(lambda: GuardedAMP(Vocabulary(responders), place.clock)))
    asked.clear()
    job = VirtualClient(place, "old").submit(b"x")
    assert job.wait().state is JobState.SUCCEEDED
    assert asked == ["Hello", "SubmitJob", "WatchJob"]
