"""``cmt run`` and ``cmt logs -f`` across the death of a node: each byte of each attempt once, whatever was on disk."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from cloudmytask.addresses import Address
from cloudmytask.cli.follow import attempts
from cloudmytask.cli.reach import habits
from cloudmytask.client.connection import Connector
from cloudmytask.client.node_session import NodeSession
from cloudmytask.codec.people import JobStatus
from cloudmytask.model.job import JobQuery, JobState, StreamName
from cloudmytask.simulation.runner import ScriptPlan
from cloudmytask.wire.commands import WINDOW
from tests.virtual import FOREVER, NODE, Place

OUT, ERR = StreamName.STDOUT, StreamName.STDERR
FIRST = ScriptPlan(duration=None, output=((0.5, OUT, b"first "),))
SECOND = ScriptPlan(duration=1.0, output=((0.5, OUT, b"second"),))


def _session(place: Place) -> NodeSession:
    connector = Connector(lambda _address: place.network.endpoint("ann", NODE), place.clock, "ann")
    return NodeSession(connector, [Address.parse("node:1", "the test")], None, habits())


def _run(place: Place, *plans: ScriptPlan, **fields: Any) -> Deferred[tuple[list[int], list[Any], JobStatus]]:
    """As ``cmt run`` does: submit and follow; the attempts that have ended, what was shown, the job in the end."""
    node, shown = _session(place), list[Any]()
    spec, source = place.spec(*plans, **fields)

    async def run() -> tuple[list[int], list[Any], JobStatus]:
        submitted, _ = await node.submit(
            lambda client: client.submit_watched(spec, source, key="k", every=True, stream=True), once=False
        )
        ended = [
            (end.attempt, job)
            async for end, job in attempts(
                node, submitted.job.id, lambda stream, data: shown.append((stream.value, data)), submitted=submitted
            )
        ]
        return [attempt for attempt, _ in ended], shown, ended[-1][1]

    return Deferred.fromCoroutine(run())


def _follow(place: Place, job: JobStatus, shown: list[bytes], when_shown: Any) -> Deferred[list[int]]:
    """The numbers of the attempts that have ended, once all have; what they write goes to ``shown``."""
    node = _session(place)

    def take(_stream: StreamName, data: bytes) -> None:
        shown.append(data)
        when_shown()

    async def follow() -> list[int]:
        return [end.attempt async for end, _ in attempts(node, job.id, take)]

    return Deferred.fromCoroutine(follow())


def _die(place: Place, *, flushed: bool) -> None:
    place.commit = 0.003
    place.restart(flushed=flushed)


def test_a_node_that_dies_the_moment_output_is_shown() -> None:
    place = Place()
    job = place.submit(place.connect("ann"), FIRST, SECOND)
    shown: list[bytes] = []

    def die_once() -> None:
        if len(shown) == 1:
            place.clock.callLater(0.0, _die, place, flushed=True)

    assert place.result(_follow(place, job, shown, die_once)) == [1, 2]
    assert shown == [b"first ", b"second"]


def test_a_node_that_forgets_an_attempt_gives_its_number_to_another() -> None:
    place = Place({"slots": 1})
    ann = place.connect("ann")
    place.submit(ann, ScriptPlan(duration=1.0), ScriptPlan(duration=0.0))
    job = place.submit(ann, SECOND)
    place.commit = 3600.0  # from here on nothing of it reaches the disk
    shown: list[bytes] = []

    def die_once() -> None:
        if len(shown) == 1:
            place.clock.callLater(0.0, _die, place, flushed=False)

    assert place.result(_follow(place, job, shown, die_once)) == [1]
    assert shown == [b"second", b"second"]


# What a node tells by itself, since it was submitted so


def test_a_small_script_is_run_in_two_exchanges(asked: list[str]) -> None:
    place = Place()
    plan = ScriptPlan(duration=0.1, exit_code=3, output=((0.0, OUT, b"a"), (0.05, ERR, b"b"), (0.06, OUT, b"c")))
    ended, shown, job = place.result(_run(place, plan))
    assert (ended, job.state, job.exit_code) == ([1], JobState.FAILED, 3)
    assert shown == [("stdout", b"a"), ("stderr", b"b"), ("stdout", b"c")]
    assert [each for each in asked if each not in ("JobChanged", "OutputData", "OutputEnded")] == ["Hello", "SubmitJob"]


def test_a_job_that_never_runs_ends_the_following(asked: list[str]) -> None:
    place = Place({"slots": 1})
    ann = place.connect("ann")
    place.submit(ann, FOREVER)
    running = _run(place, ScriptPlan())
    place.clock.advance(1.0)
    waiting = place.result(ann.jobs(JobQuery()))[0]
    place.result(ann.cancel(waiting.id))
    ended, shown, job = place.result(running)
    assert (ended, shown, job.state) == ([0], [], JobState.CANCELLED)


def test_each_attempt_is_shown_also_of_a_job_that_was_known() -> None:
    place = Place()
    plans = (ScriptPlan(exit_code=1, output=((0.0, OUT, b"one"),)), ScriptPlan(output=((0.0, OUT, b"two"),)))
    first = place.result(_run(place, *plans, script=b"x", retries=1))
    assert first[:2] == ([1, 2], [("stdout", b"one"), ("stdout", b"two")])
    assert first[2].state is JobState.SUCCEEDED
    place._numbers = count(1)  # so that the same is submitted
    again = place.result(_run(place, *plans, script=b"x", retries=1))
    assert again == first


def test_output_that_comes_before_anybody_reads_is_held_and_not_lost() -> None:
    place = Place()
    ann = place.connect("ann")
    spec, source = place.spec(ScriptPlan(duration=1.0, output=((0.1, OUT, b"x" * 2_000_000),)))
    submitted = place.result(ann.submit_watched(spec, source, key="k", every=True, stream=True))
    place.clock.advance(60.0)
    assert submitted.output is not None and len(submitted.output._held) == WINDOW
    seen: list[bytes] = []
    end = place.result(Deferred.fromCoroutine(submitted.output.read(lambda _, data: seen.append(data))))
    assert b"".join(seen) == b"x" * 2_000_000 and end.sizes[OUT] == 2_000_000


@pytest.mark.parametrize("at", [0.0, 0.2, 0.7, 1.2])
def test_a_connection_that_is_lost_under_a_run(at: float) -> None:
    place = Place()
    plan = ScriptPlan(duration=1.0, output=((0.5, OUT, b"first "), (0.9, OUT, b"second")))
    running = _run(place, plan, plan)
    place.clock.callLater(at + 0.02, lambda: place.restart(flushed=True))
    ended, shown, job = place.result(running)
    assert job.state is JobState.SUCCEEDED
    written = b"".join(data for _, data in shown)
    assert written.endswith(b"first second") and written.count(b"second") == 1
    assert ended[-1] == job.attempt


def test_a_node_that_forgets_an_attempt_of_a_run_gives_its_number_to_another() -> None:
    place = Place({"slots": 1})
    ann = place.connect("ann")
    place.submit(ann, ScriptPlan(duration=1.0), ScriptPlan(duration=0.0))
    running = _run(place, SECOND)
    place.clock.advance(0.1)
    place.commit = 3600.0  # from here on nothing of it reaches the disk
    place.clock.callLater(1.5, _die, place, flushed=False)
    ended, shown, _ = place.result(running)
    assert (ended, shown) == ([1], [("stdout", b"second"), ("stdout", b"second")])
