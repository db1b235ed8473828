"""A node whose disk fills, whose process dies, whose clock steps, and whose scripts do not end when asked to."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from attrs import evolve
from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from cloudmytask.client.node_client import NodeClient
from cloudmytask.client.sources import Source
from cloudmytask.codec.people import JobStatus
from cloudmytask.core.blobs import blob_of
from cloudmytask.core.job_id import job_id as id_of
from cloudmytask.model.errors import InternalError, NodeDraining, NoSuchJob, QueueFull, StoreFailed
from cloudmytask.model.job import ClientId, Content, Job, JobId, JobQuery, JobState, Loss, QoS, Reason, StreamName
from cloudmytask.node.running.outputs import Outputs
from cloudmytask.simulation.runner import ScriptPlan
from cloudmytask.simulation.store import MemoryStore
from tests.conftest import ExpectFailures
from tests.virtual import FOREVER, Place

OUT, ERR = StreamName.STDOUT, StreamName.STDERR
HOUR = 3600.0
LARGE = b"o" * 100_000
"""More than is saved along with a record."""


RARE_SWEEPS = {"sweep_interval": HOUR}
"""So that what is logged is what a test is about."""


def _nothing_left(place: Place) -> bool:
    disk, node = place.host.disk, place.host.node
    return not (disk.jobs or disk.spools or disk.directories or place.host.machine.live or node._ledger._entries)


def _at_rest(place: Place) -> bool:
    """No slot is taken, nothing waits, and nothing is kept of what has ended but its record."""
    place.clock.advance(1.0)  # for what is done after an outcome was told
    node, disk = place.host.node, place.host.disk
    queue = node._queue
    leftovers = (node._outputs._live, node._origin._pauses, queue._entries, queue._running, *queue._classes.values())
    return not (place.host.machine.live or node._executor.running or any(leftovers) or disk.spools or disk.directories)


# The disk


def test_the_disk_is_full_when_a_job_is_accepted() -> None:
    place = Place(RARE_SWEEPS)
    ann = place.connect("ann")
    place.host.disk.full = True
    for once_only in (False, True):
        submitting = place.begin(ann, FOREVER, at_most_once=once_only, key=f"k{once_only}")
        assert "full" in place.refused(submitting, StoreFailed)
    place.clock.advance(20.0)
    assert _nothing_left(place) and _at_rest(place)
    assert len(place.launches) <= 1, "at most once means: not before it is durable"
    place.host.disk.full = False
    spec, source = place.spec()
    assert place.wait(ann, place.result(ann.submit(spec, source, key="kFalse"))).state is JobState.SUCCEEDED
    assert place.result(ann.jobs(JobQuery()))[0].attempt == 1


@pytest.mark.parametrize("duration", [0.001, 0.01, 5.0])
def test_a_job_that_was_refused_is_not_on_disk_later(duration: float) -> None:
    """The commit of its acceptance fails, and the next, with what was noted of it since, does not."""
    place = Place(RARE_SWEEPS)
    ann = place.connect("ann")
    place.commit = 0.2
    submitting = place.begin(ann, ScriptPlan(duration=duration), key="k")
    place.until(lambda: place.host.machine.started == 1)
    place.host.disk.full = True
    place.clock.advance(0.15)
    assert not submitting.called
    entry = place.host.node._ledger._entries[id_of(ClientId("ann"), "k")]
    place.until(lambda: entry.refused)
    place.host.disk.full = False
    place.refused(submitting, StoreFailed)
    place.clock.advance(20.0)
    assert _nothing_left(place) and _at_rest(place)
    place.restart()
    assert _nothing_left(place)


def test_a_twin_of_a_refused_job_is_accepted_on_its_own(place: Place, ann: NodeClient) -> None:
    other = place.connect("ann")
    spec, source = place.spec()
    place.commit = 0.2
    first, second = ann.submit(spec, source, key="k"), other.submit(spec, source, key="k")
    place.until(lambda: bool(place.launches))  # its script runs, and has to be ended first
    place.host.disk.full = True
    entries = place.host.node._ledger._entries
    place.until(lambda: any(entry.refused for entry in entries.values()))
    place.host.disk.full = False
    place.refused(first, StoreFailed)
    job = place.result(second)
    assert place.wait(other, job).state is JobState.SUCCEEDED
    assert place.record(job).state is JobState.SUCCEEDED


@pytest.mark.parametrize("output", [b"small", LARGE], ids=["small output", "large output"])
def test_the_disk_is_full_when_a_job_ends(output: bytes, expected_failures: ExpectFailures) -> None:
    place = Place(RARE_SWEEPS)
    ann = place.connect("ann")
    job = place.submit(ann, ScriptPlan(duration=1.0, exit_code=3, output=((0.1, OUT, output),)))
    told: list[JobStatus] = []
    place.clock.advance(0.5)
    place.result(ann.watch(job.id, told.append))
    place.host.disk.full = True
    place.clock.advance(60.0)
    expected_failures()
    assert not told and place.record(job).state is JobState.RUNNING
    assert place.result(ann.getScriptJobStatus(job.id)).state is JobState.RUNNING, "nobody is told of it yet"
    assert place.host.machine.live == 0
    place.host.disk.full = False
    done = place.wait(ann, job, patience=40.0)
    assert (done.state, done.exit_code) == (JobState.FAILED, 3) == (place.record(job).state, 3)
    assert [status.state for status in told] == [JobState.FAILED]
    out, _, end = place.read(ann, job)
    assert out == output and not end.missing(OUT)
    assert _at_rest(place)


def test_row_03_the_work_directory_goes_before_the_outcome_is_durable(expected_failures: ExpectFailures) -> None:
    """What a script has filled the disk with is there, or the outcome would never have room."""
    place = Place(RARE_SWEEPS)
    ann = place.connect("ann")
    job = place.submit(ann, ScriptPlan(duration=1.0, output=((0.1, OUT, LARGE),)))
    place.clock.advance(0.5)
    assert [*place.host.disk.directories]
    place.host.disk.full = True
    place.clock.advance(10.0)
    assert place.record(job).state is JobState.RUNNING and not place.host.disk.directories
    place.host.disk.full = False
    assert place.wait(ann, job, patience=40.0).state is JobState.SUCCEEDED
    expected_failures()


@pytest.mark.parametrize("at_most_once", [False, True])
def test_row_03_a_kill_between_directory_and_outcome_is_as_any_other(
    at_most_once: bool, expected_failures: ExpectFailures
) -> None:
    place = Place(RARE_SWEEPS)
    ann = place.connect("ann")
    job = place.submit(ann, ScriptPlan(duration=1.0), ScriptPlan(), at_most_once=at_most_once)
    place.clock.advance(0.5)
    place.host.disk.full = True
    place.clock.advance(10.0)
    assert not place.host.disk.directories and place.record(job).state is JobState.RUNNING
    place.host.kill()
    place.host.disk.full = False
    place.host.start()
    ended = place.wait(place.connect("ann"), job, patience=40.0)
    assert (ended.state, ended.attempt) == ((JobState.LOST, 1) if at_most_once else (JobState.SUCCEEDED, 2))
    expected_failures()


def test_row_17_an_end_that_cannot_be_recorded_ends_the_job_nevertheless(
    monkeypatch: pytest.MonkeyPatch, expected_failures: ExpectFailures
) -> None:
    """By a bug of ours its record would not be read back: the job does not run for ever because of that."""
    place = Place(RARE_SWEEPS)
    ann = place.connect("ann")
    job = place.submit(ann, ScriptPlan(duration=1.0, exit_code=3))
    save = MemoryStore.save

    def refuse(store: MemoryStore, job: Job, contents: Sequence[Content] = ()) -> Deferred[None]:
        if job.outcome is not None and job.outcome.exit_code == 3:
            return fail(InternalError("it would not be read back"))
        return save(store, job, contents)

    monkeypatch.setattr(MemoryStore, "save", refuse)
    ended = place.wait(ann, job)
    assert (ended.state, ended.reason) == (JobState.FAILED, Reason.LAUNCH)
    assert "would not be read back" in place.result(ann.explain(job.id)).sentence
    assert _at_rest(place)
    expected_failures(InternalError)


def test_row_05_what_was_on_the_disk_when_it_was_full_is_shown_and_the_rest_is_told() -> None:
    place = Place(RARE_SWEEPS)
    ann = place.connect("ann")
    pieces = ((0.1, OUT, LARGE), (1.0, OUT, b"more"), (2.0, OUT, b"later"))
    job = place.submit(ann, ScriptPlan(duration=3.0, output=pieces))
    place.clock.advance(0.5)
    place.host.disk.full = True
    place.clock.advance(1.0)
    place.host.disk.full = False
    done = place.wait(ann, job)
    assert (done.state, done.exit_code) == (JobState.SUCCEEDED, 0)
    out, _, end = place.read(ann, job)
    node = place.host.name
    assert out == LARGE and end.lost == {OUT: Loss(node, len(LARGE), 9)} and not end.discarded[OUT]
    why = place.result(ann.explain(job.id))
    for line in (why.sentence, why.details[-1]):
        assert f"the disk of node {node} was full after" in line and "9 bytes of stdout are missing" in line
        assert "output_max" not in line


def test_a_full_disk_delays_a_retry_but_does_not_lose_it(expected_failures: ExpectFailures) -> None:
    place = Place(RARE_SWEEPS)
    ann = place.connect("ann")
    job = place.submit(ann, ScriptPlan(exit_code=1, output=((0.1, OUT, b"first"),)), ScriptPlan(), retries=1)
    place.clock.advance(0.5)
    place.host.disk.full = True
    place.clock.advance(30.0)
    expected_failures()
    assert len(place.launches) == 1
    place.host.disk.full = False
    assert place.wait(ann, job).attempt == 2
    assert place.read(ann, job, attempt=1)[0] == b"first"
    assert _at_rest(place)


@pytest.mark.parametrize("retries", [0, 1])
def test_a_cancel_while_an_outcome_waits_for_room(retries: int, expected_failures: ExpectFailures) -> None:
    """Whichever of the two becomes durable, the output is not lost, and nothing breaks."""
    place = Place(RARE_SWEEPS)
    ann = place.connect("ann")
    job = place.submit(ann, ScriptPlan(exit_code=1, output=((0.1, OUT, b"first"),)), retries=retries)
    place.clock.advance(0.5)
    place.host.disk.full = True
    place.until(lambda: place.host.machine.live == 0)
    place.clock.advance(0.1)
    if retries:
        place.refused(ann.cancel(job.id), StoreFailed)
    else:
        assert place.result(ann.cancel(job.id)).state is JobState.RUNNING, "as far as anybody was told"
    place.host.disk.full = False
    place.result(ann.cancel(job.id))
    done = place.wait(ann, job)
    expected_failures()
    assert done.state is (JobState.CANCELLED if retries else JobState.FAILED)
    place.clock.advance(60.0)
    assert place.read(ann, job)[0] == b"first"
    assert len(place.launches) == 1 and _at_rest(place)


def test_a_node_that_stops_with_a_full_disk_runs_the_job_again(expected_failures: ExpectFailures) -> None:
    place = Place()
    ann = place.connect("ann")
    job = place.submit(ann, ScriptPlan(duration=1.0))
    place.clock.advance(0.5)
    place.host.disk.full = True
    place.clock.advance(2.0)
    stopping = place.host.stop()
    with pytest.raises(StoreFailed):
        place.result(stopping)
    expected_failures()
    place.host.kill()
    place.host.disk.full = False
    place.host.start()
    done = place.wait(place.connect("ann"), job)
    assert (done.state, done.attempt) == (JobState.SUCCEEDED, 2)


@pytest.mark.parametrize("part", ["script", "stdin"])
def test_bytes_that_have_rotted(place: Place, ann: NodeClient, part: str) -> None:
    for _ in range(2):
        place.submit(ann, ScriptPlan(duration=5.0))
    spec, source = place.spec()
    stdin = Source.of_bytes(b"input")
    job = place.result(ann.submit(spec, source, stdin))
    place.host.disk.corrupt[{"script": source, "stdin": stdin}[part].blob.digest] = None
    done = place.wait(ann, job)
    assert (done.state, done.reason, done.exit_code) == (JobState.FAILED, Reason.LAUNCH, None)
    assert len(place.launches) == 2 and _at_rest(place)
    sentence = place.result(ann.explain(job.id)).sentence
    assert "could not be started" in sentence and "do not match" in sentence


# The process


@pytest.mark.parametrize("once_only", [False, True])
def test_killed_before_the_commit_of_an_acceptance(once_only: bool) -> None:
    place = Place(commit=0.5)
    ann = place.connect("ann")
    submitting = place.begin(ann, FOREVER, at_most_once=once_only, key="k")
    place.clock.advance(0.3)
    assert place.host.machine.live == (not once_only)
    place.host.kill()
    place.clock.advance(1.0)
    assert submitting.called
    submitting.addErrback(lambda failure: None)
    assert not place.host.disk.jobs
    place.host.start()
    assert _nothing_left(place)
    place.commit = 0.003
    ann = place.connect("ann")
    spec, source = place.spec()
    assert place.wait(ann, place.result(ann.submit(spec, source, key="k"))).attempt == 1


@pytest.mark.parametrize("once_only", [False, True])
def test_killed_after_the_commit_of_an_acceptance_nobody_heard_of(once_only: bool) -> None:
    place = Place(commit=0.5)
    ann = place.connect("ann")
    spec, source = place.spec(ScriptPlan(duration=5.0), at_most_once=once_only)
    submitting = ann.submit(spec, source, key="k")
    place.clock.advance(0.3)
    place.restart(flushed=True)
    place.clock.advance(0.1)
    submitting.addErrback(lambda failure: None)
    ann = place.connect("ann")
    again = place.result(ann.submit(spec, source, key="k"))
    assert place.wait(ann, again).state is JobState.SUCCEEDED
    assert place.result(ann.jobs(JobQuery()))[0].id == again.id
    assert len(place.host.disk.jobs) == 1 and place.host.machine.peak == 1


def test_acknowledged_jobs_survive_and_run_in_their_order() -> None:
    place = Place({"slots": 1, "queue_max": 10})
    ann = place.connect("ann")
    jobs = [place.submit(ann, ScriptPlan(duration=2.0)) for _ in range(5)]
    place.restart()
    ann = place.connect("ann")
    assert [place.wait(ann, job).state for job in jobs] == [JobState.SUCCEEDED] * 5
    order = [launch.id.job for _, launch in place.launches]
    assert order[0] == jobs[0].id and order.count(jobs[0].id) == 2
    assert [job_id for job_id in order if job_id != jobs[0].id] == [job.id for job in jobs[1:]]
    assert place.host.machine.peak == 1, "nothing runs twice at once"


def test_an_interrupted_attempt_is_kept_with_its_output(place: Place, ann: NodeClient) -> None:
    for size in (10, 200_000):
        plan = ScriptPlan(duration=10.0, output=((0.5, OUT, b"1" * size), (0.6, ERR, b"e"), (5.0, OUT, b"never")))
        job = place.submit(ann, plan, ScriptPlan(output=((0.5, OUT, b"second"),)))
        place.clock.advance(1.0)
        place.restart()
        ann = place.connect("ann")
        done = place.wait(ann, job)
        assert (done.state, done.attempt) == (JobState.SUCCEEDED, 2)
        first, second = done.document["attempts"]
        assert (first["reason"], first["detail"], second["reason"]) == ("lost", "the node died", "exit")
        assert place.read(ann, job, attempt=1)[:2] == (b"1" * size, b"e")
        assert place.read(ann, job)[0] == b"second"
        assert _at_rest(place)


@pytest.mark.parametrize("once_only", [False, True])
def test_killed_while_the_inputs_are_laid_out(once_only: bool) -> None:
    """Staging promises nothing, so even a job that must run at most once may be taken up again."""
    place = Place()
    ann = place.connect("ann")
    blockers = [place.submit(ann, ScriptPlan(duration=5.0)) for _ in range(2)]
    job = place.submit(ann, at_most_once=once_only)
    place.commit = 0.5
    place.until(lambda: place.host.node._ledger.live(JobId(job.id)).state is JobState.STAGING)  # type: ignore[union-attr]
    place.restart()
    ann = place.connect("ann")
    assert place.wait(ann, job).state is JobState.SUCCEEDED
    assert [launch.id.job for _, launch in place.launches].count(JobId(job.id)) == 1
    for blocker in blockers:
        place.wait(ann, blocker)


@pytest.mark.parametrize("flushed", [False, True])
def test_killed_while_the_start_of_an_at_most_once_job_is_written_down(flushed: bool) -> None:
    place = Place()
    ann = place.connect("ann")
    place.commit = 0.5
    submitting = place.begin(ann, at_most_once=True)
    job = place.result(submitting)
    place.clock.advance(0.2)
    assert not place.launches, "it starts only when its start is on disk"
    place.restart(flushed=flushed)
    place.commit = 0.003
    done = place.wait(place.connect("ann"), job)
    assert done.state is (JobState.LOST if flushed else JobState.SUCCEEDED)
    assert len(place.launches) == (0 if flushed else 1)


def test_at_most_once_means_at_most_once(place: Place, ann: NodeClient) -> None:
    plan = ScriptPlan(duration=10.0, output=((0.5, OUT, b"half"), (9.0, OUT, b" whole")))
    job = place.submit(ann, plan, at_most_once=True, retries=3)
    place.clock.advance(1.0)
    place.restart()
    ann = place.connect("ann")
    done = place.wait(ann, job)
    assert (done.state, done.reason, done.exit_code, done.attempt) == (JobState.LOST, Reason.LOST, None, 1)
    assert place.read(ann, job)[0] == b"half"
    assert len(place.launches) == 1 and _at_rest(place)
    assert "at-most-once" in place.result(ann.explain(job.id)).sentence
    place.restart()
    assert place.result(place.connect("ann").getScriptJobStatus(job.id)).state is JobState.LOST


def test_a_retry_of_an_at_most_once_job_that_failed_by_itself(place: Place, ann: NodeClient) -> None:
    job = place.submit(ann, ScriptPlan(exit_code=1), ScriptPlan(), at_most_once=True, retries=1)
    assert place.wait(ann, job).attempt == 2


def test_killed_between_the_end_and_its_commit(place: Place, ann: NodeClient) -> None:
    for flushed in (False, True):
        job = place.submit(ann, ScriptPlan(duration=1.0, output=((0.5, OUT, b"out"),)))
        told: list[JobStatus] = []
        place.result(ann.watch(job.id, told.append))
        place.commit = 0.5
        place.reach(ann, job, JobState.RUNNING)
        place.until(lambda: place.host.machine.live == 0)
        place.clock.advance(0.2)
        assert not [status for status in told if status.state.terminal], "told only when it is durable"
        place.commit = 0.003
        place.restart(flushed=flushed)
        ann = place.connect("ann")
        done = place.wait(ann, job)
        assert (done.state, done.attempt) == (JobState.SUCCEEDED, 1 if flushed else 2)
        assert place.read(ann, job)[0] == b"out"
    place.clock.advance(2 * HOUR)  # nobody was left to give up the spools of the attempt whose end was flushed
    assert _at_rest(place)


def test_results_are_there_after_a_restart(place: Place, ann: NodeClient) -> None:
    job = place.submit(ann, ScriptPlan(exit_code=7, output=((0.1, OUT, LARGE), (0.2, ERR, b"err"))))
    before = place.wait(ann, job)
    place.restart()
    ann = place.connect("ann")
    after = place.result(ann.getScriptJobStatus(job.id))
    assert after.document == before.document
    assert place.read(ann, job)[:2] == (LARGE, b"err")
    assert len(place.launches) == 1


def test_a_cancel_survives_a_kill(place: Place, ann: NodeClient) -> None:
    job = place.submit(ann, ScriptPlan(duration=None, term_delay=None))
    place.reach(ann, job, JobState.RUNNING)
    place.result(ann.cancel(job.id))
    place.restart()
    done = place.wait(place.connect("ann"), job)
    assert done.state is JobState.CANCELLED and len(place.launches) == 1
    assert _at_rest(place)


def test_a_node_that_dies_again_and_again() -> None:
    place = Place({"poison_max": 8})
    ann = place.connect()
    job = place.submit(ann, ScriptPlan(duration=5.0))
    for _ in range(7):
        place.reach(place.connect("ann"), job, JobState.RUNNING)
        place.clock.advance(1.0)
        place.restart()
    done = place.wait(place.connect("ann"), job)
    assert (done.state, done.attempt) == (JobState.SUCCEEDED, 8)
    assert [attempt["reason"] for attempt in done.document["attempts"]] == ["lost"] * 7 + ["exit"]
    assert place.host.machine.peak == 1


# Shutting down


def test_a_drain_waits_for_what_runs_and_keeps_what_waits() -> None:
    place = Place({"slots": 1, "drain_timeout": 30.0})
    ann = place.connect("ann")
    running, waiting = place.submit(ann, ScriptPlan(duration=20.0)), place.submit(ann)
    place.clock.advance(1.0)
    began = place.clock.seconds()
    stopping = place.host.stop()
    assert "shutting down" in place.refused(place.begin(ann), NodeDraining)
    assert "shutting down" in place.result(ann.explain(waiting.id)).sentence
    assert place.result(ann.describe())["state"] == "draining"
    place.result(stopping)
    assert place.clock.seconds() - began == pytest.approx(19.0, abs=0.2)
    assert place.record(running).state is JobState.SUCCEEDED
    assert not place.record(waiting).state.terminal
    place.host.start()
    ann = place.connect("ann")
    assert place.wait(ann, waiting).attempt == 1
    assert place.wait(ann, running).attempt == 1


def test_a_drain_has_a_patience_and_requeues_what_it_interrupts() -> None:
    place = Place({"drain_timeout": 30.0, "kill_grace": 10.0})
    ann = place.connect("ann")
    willing = place.submit(ann, ScriptPlan(duration=None, output=((0.5, OUT, b"so far"),)), ScriptPlan())
    stubborn = place.submit(ann, ScriptPlan(duration=None, term_delay=None), ScriptPlan())
    once = place.submit(ann, ScriptPlan(), at_most_once=True)
    place.clock.advance(1.0)
    began = place.clock.seconds()
    place.result(place.host.stop())
    assert place.clock.seconds() - began == pytest.approx(40.0, abs=0.2)
    assert place.host.machine.live == 0
    for job in (willing, stubborn):
        assert place.record(job).state is JobState.WAITING
    place.host.start()
    ann = place.connect("ann")
    for job in (willing, stubborn):
        done = place.wait(ann, job)
        assert (done.state, done.attempt) == (JobState.SUCCEEDED, 2)
        assert done.document["attempts"][0]["detail"] == "the node shut down"
    assert place.read(ann, willing, attempt=1)[0] == b"so far"
    assert place.wait(ann, once).state is JobState.SUCCEEDED


def test_a_drain_that_interrupts_an_at_most_once_job() -> None:
    place = Place({"drain_timeout": 5.0})
    ann = place.connect("ann")
    job = place.submit(ann, FOREVER, at_most_once=True)
    place.clock.advance(1.0)
    place.result(place.host.stop())
    assert place.record(job).state is JobState.LOST
    place.host.start()
    assert place.wait(place.connect("ann"), job).state is JobState.LOST


def test_a_second_stop_does_not_wait(place: Place, ann: NodeClient) -> None:
    job = place.submit(ann, ScriptPlan(duration=None, term_delay=None), ScriptPlan())
    place.clock.advance(1.0)
    began = place.clock.seconds()
    stopping = place.host.stop()
    place.clock.advance(1.0)
    place.host.node.stop_now()
    place.result(stopping)
    assert place.clock.seconds() - began < 1.1
    assert place.record(job).state is JobState.WAITING
    place.host.start()
    assert place.wait(place.connect("ann"), job).attempt == 2


def test_an_idle_node_stops_at_once_and_keeps_a_job_that_pauses(place: Place, ann: NodeClient) -> None:
    job = place.submit(ann, *[ScriptPlan(exit_code=1)] * 3, ScriptPlan(), retries=5)
    place.until(lambda: len(place.launches) == 3 and place.host.machine.live == 0)
    place.clock.advance(0.1)
    began = place.clock.seconds()
    place.result(place.host.stop())
    assert place.clock.seconds() - began < 0.1
    place.clock.advance(60.0)
    assert len(place.launches) == 3
    place.host.start()
    assert place.wait(place.connect("ann"), job).attempt == 4


def test_a_cancel_during_a_drain(place: Place, ann: NodeClient) -> None:
    job = place.submit(ann, FOREVER)
    place.clock.advance(1.0)
    stopping = place.host.stop()
    place.result(ann.cancel(job.id))
    place.result(stopping, patience=5.0)
    assert place.record(job).state is JobState.CANCELLED


# The wall clock


@pytest.mark.parametrize("step", [HOUR, -HOUR])
def test_the_wall_clock_steps_under_running_jobs(step: float) -> None:
    place = Place({"retention": 100.0, "sweep_interval": 5.0})
    ann = place.connect("ann")
    old = place.submit(ann)
    place.wait(ann, old)
    ended_at = place.clock.seconds()
    timed = place.submit(ann, FOREVER, timeout=30.0)
    normal = place.submit(ann, ScriptPlan(duration=20.0))
    retried = place.submit(ann, ScriptPlan(duration=1.0, exit_code=1), ScriptPlan(), retries=1)
    began = place.clock.seconds()
    place.clock.advance(5.0)
    place.clock.offset += step
    assert place.wait(ann, normal).state is JobState.SUCCEEDED
    assert place.clock.seconds() - began == pytest.approx(20.0, abs=0.2)
    assert place.wait(ann, timed).state is JobState.TIMED_OUT
    assert place.clock.seconds() - began == pytest.approx(30.0, abs=0.2)
    assert place.wait(ann, retried).attempt == 2
    place.clock.advance(ended_at + 99.0 - place.clock.seconds())
    assert place.result(ann.getScriptJobStatus(old.id)).state is JobState.SUCCEEDED
    place.clock.advance(2.0)
    assert place.result(ann.getScriptJobStatus(old.id)).state is JobState.EXPIRED
    usage = place.result(ann.getScriptJobStatus(normal.id)).document["wall_seconds"]
    assert usage == pytest.approx(20.0)


@pytest.mark.parametrize(("step", "slack"), [(HOUR, 0.0), (-HOUR, 12.0)])
def test_the_wall_clock_steps_while_the_node_is_down(step: float, slack: float) -> None:
    """A step forward may be taken for downtime, for nobody can tell; a step back takes nothing away."""
    place = Place({"retention": 100.0, "sweep_interval": 5.0})
    ann = place.connect("ann")
    job = place.submit(ann)
    place.wait(ann, job)
    place.clock.advance(20.0)
    place.host.kill()
    place.clock.offset += step
    place.clock.advance(10.0)
    place.host.start()
    ann = place.connect("ann")
    if step > 0:
        assert place.result(ann.getScriptJobStatus(job.id)).state is JobState.EXPIRED
        return
    place.clock.advance(65.0)
    assert place.result(ann.getScriptJobStatus(job.id)).state is JobState.SUCCEEDED
    place.clock.advance(10.0 + slack)
    assert place.result(ann.getScriptJobStatus(job.id)).state is JobState.EXPIRED


# Retention


def test_what_expires_is_swept_and_then_forgotten() -> None:
    place = Place({"retention": 50.0, "tombstones": 100.0, "sweep_interval": 5.0})
    ann = place.connect("ann")
    job = place.submit(ann, ScriptPlan(output=((0.1, OUT, LARGE),)))
    short = place.submit(ann, ScriptPlan(output=((0.1, OUT, b"s"),)), retention=10.0)
    place.wait(ann, job)
    place.wait(ann, short)
    place.clock.advance(16.0)
    assert place.record(short).state is JobState.EXPIRED
    assert blob_of(b"s").digest not in place.host.disk.blobs
    assert place.read(ann, job)[0] == LARGE
    place.clock.advance(40.0)
    assert place.record(job).state is JobState.EXPIRED
    place.clock.advance(110.0)
    assert place.result(ann.jobs(JobQuery(states=frozenset({JobState.EXPIRED})))) == []
    place.refused(ann.getScriptJobStatus(job.id), NoSuchJob)
    assert not place.host.disk.jobs


def test_a_sweep_that_fails_does_not_end_the_sweeping(expected_failures: ExpectFailures) -> None:
    place = Place({"retention": 10.0, "sweep_interval": 5.0})
    ann = place.connect("ann")
    job = place.submit(ann)
    place.wait(ann, job)
    place.host.disk.full = True
    place.clock.advance(30.0)
    assert len(expected_failures(StoreFailed)) >= 3
    assert place.record(job).state is JobState.SUCCEEDED
    place.host.disk.full = False
    place.clock.advance(6.0)
    assert place.record(job).state is JobState.EXPIRED


def test_retention_is_granted_within_the_nodes_maximum() -> None:
    place = Place({"retention": 50.0, "retention_max": 60.0, "sweep_interval": 1.0})
    ann = place.connect("ann")
    job = place.submit(ann, retention=1e6)
    done = place.wait(ann, job)
    assert done.document["retention"] == 60.0
    place.clock.advance(58.0)
    assert place.record(job).state is JobState.SUCCEEDED
    place.clock.advance(4.0)
    assert place.record(job).state is JobState.EXPIRED


# The queue


def test_a_full_queue_recovers() -> None:
    place = Place({"slots": 1, "queue_max": 2})
    ann = place.connect("ann")
    jobs = [place.submit(ann, ScriptPlan(duration=2.0)) for _ in range(3)]
    spec, source = place.spec()
    place.refused(ann.submit(spec, source, key="k"), QueueFull)
    place.wait(ann, jobs[0])
    job = place.result(ann.submit(spec, source, key="k"))
    assert place.wait(ann, job).state is JobState.SUCCEEDED
    assert [place.wait(ann, each).state for each in jobs] == [JobState.SUCCEEDED] * 3
    assert _at_rest(place)


def test_what_was_accepted_fits_back_in() -> None:
    """After a restart more may wait than a client may add to."""
    place = Place({"slots": 2, "queue_max": 1})
    ann = place.connect("ann")
    jobs = [place.submit(ann, ScriptPlan(duration=3.0)) for _ in range(3)]
    place.restart()
    place.clock.advance(0.1)
    ann = place.connect("ann")
    place.refused(place.begin(ann), QueueFull)
    assert [place.wait(ann, job).state for job in jobs] == [JobState.SUCCEEDED] * 3


def test_idle_jobs_wait_for_a_quiet_machine() -> None:
    place = Place()
    probe: Any = place.host.node._world.probe

    def sample(load: float) -> None:
        probe.load = lambda: load
        probe.sampled.tell()

    sample(0.9)
    ann = place.connect("ann")
    idle = place.submit(ann, qos=QoS.IDLE)
    batch = place.submit(ann)
    assert place.wait(ann, batch).state is JobState.SUCCEEDED
    place.clock.advance(30.0)
    assert place.result(ann.getScriptJobStatus(idle.id)).state is JobState.WAITING
    sentence = place.result(ann.explain(idle.id)).sentence
    assert "idle" in sentence and "0.90" in sentence and "0.50" in sentence
    sample(0.1)
    assert place.wait(ann, idle, patience=5.0).state is JobState.SUCCEEDED


# Cancel


def test_cancel_in_every_state() -> None:
    place = Place({"slots": 1})
    ann = place.connect("ann")
    running = place.submit(ann, FOREVER)
    waiting = place.submit(ann, FOREVER)
    place.reach(ann, running, JobState.RUNNING)
    cancelled = place.result(ann.cancel(waiting.id, "not needed"))
    assert (cancelled.state, cancelled.attempt) == (JobState.CANCELLED, 0)
    assert place.record(waiting).state is JobState.CANCELLED
    assert place.result(ann.cancel(running.id)).state is JobState.RUNNING
    done = place.wait(ann, running)
    assert (done.state, done.reason, done.signal) == (JobState.CANCELLED, Reason.CANCELLED, signal.SIGTERM)
    for ended in (waiting, running):
        before = place.record(ended)
        assert place.result(ann.cancel(ended.id)).state is JobState.CANCELLED
        assert place.record(ended) == before, "a late cancel changes nothing"
    finished = place.submit(ann)
    place.wait(ann, finished)
    assert place.result(ann.cancel(finished.id)).state is JobState.SUCCEEDED
    assert len(place.launches) == 2 and _at_rest(place)


@pytest.mark.parametrize("moment", [0.0, 0.0001, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.05, 0.2])
@pytest.mark.parametrize("once_only", [False, True])
def test_cancel_at_every_moment_of_the_start(moment: float, once_only: bool) -> None:
    place = Place(commit=0.002)
    ann = place.connect("ann")
    job = place.submit(ann, FOREVER, at_most_once=once_only)
    place.clock.advance(moment)
    place.result(ann.cancel(job.id))
    done = place.wait(ann, job)
    assert done.state is JobState.CANCELLED
    place.clock.advance(30.0)
    assert _at_rest(place) and place.record(job).state is JobState.CANCELLED


@pytest.mark.parametrize("moment", [number / 1000 for number in range(0, 60, 3)])
@pytest.mark.parametrize("retries", [0, 1])
def test_cancel_at_every_moment_of_the_end(moment: float, retries: int) -> None:
    """The script fails by itself just before, while or after the cancel arrives, and each commit takes its time."""
    place = Place(commit=0.02)
    ann = place.connect("ann")
    job = place.submit(ann, ScriptPlan(duration=1.0, exit_code=1, output=((0.5, OUT, b"out"),)), retries=retries)
    place.until(lambda: bool(place.launches))
    place.clock.advance(0.99 + moment)
    place.result(ann.cancel(job.id))
    done = place.wait(ann, job)
    assert done.state in ((JobState.CANCELLED,) if retries else (JobState.CANCELLED, JobState.FAILED))
    place.clock.advance(30.0)
    assert len(place.launches) == 1 and _at_rest(place)
    assert place.record(job).state is done.state and place.read(ann, job)[0] == b"out"
    assert place.wait(ann, place.submit(ann)).state is JobState.SUCCEEDED, "the node places on"


def test_a_cancel_gives_grace_and_a_second_one_none(place: Place, ann: NodeClient) -> None:
    stubborn = ScriptPlan(duration=None, term_delay=None)
    job = place.submit(ann, stubborn)
    place.reach(ann, job, JobState.RUNNING)
    began = place.clock.seconds()
    place.result(ann.cancel(job.id))
    done = place.wait(ann, job)
    assert place.clock.seconds() - began == pytest.approx(10.0, abs=0.1)
    assert (done.state, done.signal) == (JobState.CANCELLED, signal.SIGKILL)
    job = place.submit(ann, stubborn)
    place.reach(ann, job, JobState.RUNNING)
    began = place.clock.seconds()
    place.result(ann.cancel(job.id))
    place.clock.advance(1.0)
    place.result(ann.cancel(job.id))
    done = place.wait(ann, job)
    assert place.clock.seconds() - began == pytest.approx(1.0, abs=0.1)
    assert (done.state, done.signal) == (JobState.CANCELLED, signal.SIGKILL)
    assert place.record(job).cancellation is not None
    assert [stamp.stage for stamp in place.record(job).trail].count("cancel") == 1


def test_a_cancelled_script_that_exits_well_is_cancelled_all_the_same(place: Place, ann: NodeClient) -> None:
    job = place.submit(ann, ScriptPlan(duration=None, term_delay=0.5, term_exit_code=0))
    place.reach(ann, job, JobState.RUNNING)
    place.result(ann.cancel(job.id))
    done = place.wait(ann, job)
    assert (done.state, done.reason, done.exit_code) == (JobState.CANCELLED, Reason.CANCELLED, 0)


def test_a_cancel_that_the_disk_refuses_is_not_forgotten(
    place: Place, ann: NodeClient, expected_failures: ExpectFailures
) -> None:
    job = place.submit(ann, ScriptPlan(duration=None, term_delay=5.0))
    place.reach(ann, job, JobState.RUNNING)
    place.clock.advance(1.0)
    place.host.disk.full = True
    place.refused(ann.cancel(job.id), StoreFailed)
    place.host.disk.full = False
    assert place.wait(ann, job, patience=10.0).state is JobState.CANCELLED
    expected_failures()


@pytest.mark.parametrize("pausing", [False, True])
def test_a_cancel_of_a_waiting_job_that_the_disk_refuses(
    place: Place, ann: NodeClient, expected_failures: ExpectFailures, pausing: bool
) -> None:
    if pausing:
        job = place.submit(ann, ScriptPlan(duration=0.1, exit_code=1), retries=1)
        place.until(lambda: bool(place.host.node._origin._pauses))
    else:
        for _ in range(2):
            place.submit(ann, FOREVER)
        job = place.submit(ann)
    place.host.disk.full = True
    place.refused(ann.cancel(job.id), StoreFailed)
    place.host.disk.full = False
    assert place.wait(ann, job, patience=10.0).state is JobState.CANCELLED
    assert all(len(where) == 1 for where in place.host.node.whereabouts().values())
    expected_failures()


def test_a_directory_that_cannot_be_deleted_keeps_no_job_back(
    place: Place, ann: NodeClient, monkeypatch: pytest.MonkeyPatch, expected_failures: ExpectFailures
) -> None:
    def resists(_store: MemoryStore, name: str) -> Deferred[None]:
        return fail(StoreFailed(f"{name} resists"))

    monkeypatch.setattr(MemoryStore, "unstage", resists)
    job = place.submit(ann, ScriptPlan(duration=1.0, exit_code=1), ScriptPlan(duration=1.0), retries=1)
    assert (place.wait(ann, job).state, len(place.launches)) == (JobState.SUCCEEDED, 2)
    expected_failures()


def test_queue_max_holds_for_jobs_that_run_at_most_once() -> None:
    place = Place({"slots": 1, "queue_max": 5})
    ann = place.connect("ann")
    asked = [place.begin(ann, FOREVER, at_most_once=True, key=f"k{number}") for number in range(50)]
    place.clock.advance(1.0)
    refused = sum(isinstance(each.result, Failure) for each in asked)
    assert 5 <= 50 - refused <= 6, "one with the slot, and five that wait"
    for each in asked:
        each.addErrback(lambda failure: failure.trap(QueueFull))


def test_a_job_cancelled_between_its_commit_and_its_acknowledgment(place: Place, ann: NodeClient) -> None:
    place.commit = 0.5
    submitting = place.begin(ann, at_most_once=True, key="k")
    cancelling = place.connect("ann").cancel(id_of(ClientId("ann"), "k"))
    assert place.result(submitting).state is JobState.PENDING
    assert place.result(cancelling).state is JobState.CANCELLED
    place.clock.advance(5.0)
    assert not place.launches and _at_rest(place)


def test_a_timeout_in_its_grace_stays_a_timeout_when_the_node_stops() -> None:
    place = Place({"kill_grace": 60.0, "drain_timeout": 1.0})
    ann = place.connect("ann")
    job = place.submit(ann, ScriptPlan(duration=None, term_delay=30.0), timeout=5.0)
    place.clock.advance(10.0)
    place.result(place.host.stop())
    place.host.start()
    assert place.wait(place.connect("ann"), job).state is JobState.TIMED_OUT
    assert len(place.launches) == 1


def test_a_node_that_stops_does_not_sit_out_the_pause_before_the_next_try(expected_failures: ExpectFailures) -> None:
    place = Place()
    ann = place.connect("ann")
    place.submit(ann, ScriptPlan(duration=1.0))
    place.clock.advance(0.5)
    place.host.disk.full = True
    place.clock.advance(20.0)
    began = place.clock.seconds()
    with pytest.raises(StoreFailed):
        place.result(place.host.stop())
    assert place.clock.seconds() - began < 1.0
    expected_failures()


def test_a_script_that_bears_the_name_of_its_input(place: Place, ann: NodeClient) -> None:
    spec, source = place.spec()
    stdin = Source.of_bytes(b"input")
    place.result(ann.submit(evolve(spec, script_name=".cmt-stdin"), source, stdin))
    place.until(lambda: bool(place.launches))
    [files] = place.host.disk.directories.values()
    assert files[".cmt-stdin"] == place.host.disk.blobs[source.blob.digest] and b"input" in files.values()


def test_after_a_restart_the_most_urgent_job_goes_first_and_the_interrupted_one_before_its_like() -> None:
    place = Place({"slots": 1})
    ann = place.connect("ann")
    running = place.submit(ann, FOREVER)
    batch = place.submit(ann, ScriptPlan(duration=1.0))
    urgent = place.submit(ann, ScriptPlan(duration=1.0), qos=QoS.INTERACTIVE)
    place.clock.advance(1.0)
    place.restart()
    place.clock.advance(1.5)
    assert [launch.id.job for _, launch in place.launches] == [running.id, urgent.id, running.id]
    place.wait(place.connect("ann"), urgent)
    place.result(place.connect("ann").cancel(running.id))
    place.wait(place.connect("ann"), batch)


# Timeout and retry


def test_a_timeout_is_the_attempts_own(place: Place, ann: NodeClient) -> None:
    blockers = [place.submit(ann, ScriptPlan(duration=8.0)) for _ in range(2)]
    job = place.submit(ann, ScriptPlan(duration=None, term_delay=None), timeout=5.0, retries=3)
    place.wait(ann, blockers[0])
    began = place.clock.seconds()
    done = place.wait(ann, job)
    assert place.clock.seconds() - began == pytest.approx(15.0, abs=0.1), "five seconds, and the grace"
    assert (done.state, done.reason, done.signal, done.attempt) == (
        JobState.TIMED_OUT,
        Reason.TIMEOUT,
        signal.SIGKILL,
        1,
    )
    assert _at_rest(place)


def test_a_timeout_that_comes_after_the_end_does_nothing(place: Place, ann: NodeClient) -> None:
    job = place.submit(ann, ScriptPlan(duration=1.0, exit_code=1), ScriptPlan(duration=6.0), timeout=7.0, retries=1)
    done = place.wait(ann, job)
    assert (done.state, done.attempt) == (JobState.SUCCEEDED, 2)


def test_pauses_between_attempts_grow(place: Place, ann: NodeClient) -> None:
    job = place.submit(ann, ScriptPlan(duration=1.0, exit_code=2), retries=3)
    place.until(lambda: len(place.launches) == 2 and place.host.machine.live == 0)
    place.clock.advance(0.1)
    paused = place.result(ann.getScriptJobStatus(job.id))
    assert (paused.state, paused.attempt) == (JobState.WAITING, 2)
    sentence = place.result(ann.explain(job.id)).sentence
    assert "Attempt 2 failed" in sentence and "code 2" in sentence and "next one starts in about" in sentence
    assert place.result(ann.describe())["free"] == 2, "a pause takes no slot"
    done = place.wait(ann, job)
    assert (done.state, done.attempt, done.exit_code) == (JobState.FAILED, 4, 2)
    starts = [at for at, _ in place.launches]
    pauses = [later - earlier - 1.0 for earlier, later in pairwise(starts)]
    for pause, longest in zip(pauses, (1.0, 2.0, 4.0), strict=True):
        assert 0.75 * longest <= pause <= longest + 0.1
    assert [launch.id.number for _, launch in place.launches] == [1, 2, 3, 4]
    assert _at_rest(place)


def test_a_cancel_during_the_pause(place: Place, ann: NodeClient) -> None:
    job = place.submit(ann, ScriptPlan(exit_code=1), retries=3)
    place.until(lambda: bool(place.launches) and place.host.machine.live == 0)
    place.clock.advance(0.2)
    assert place.result(ann.cancel(job.id)).state is JobState.CANCELLED
    place.clock.advance(60.0)
    assert len(place.launches) == 1 and _at_rest(place)


def test_a_kill_during_the_pause(place: Place, ann: NodeClient) -> None:
    job = place.submit(ann, ScriptPlan(exit_code=1), ScriptPlan(), retries=3)
    place.until(lambda: bool(place.launches) and place.host.machine.live == 0)
    place.clock.advance(0.2)
    place.restart()
    done = place.wait(place.connect("ann"), job)
    assert (done.state, done.attempt) == (JobState.SUCCEEDED, 2)


def test_interruptions_cost_no_retry(place: Place, ann: NodeClient) -> None:
    plans = [ScriptPlan(duration=5.0, exit_code=1)] * 3 + [ScriptPlan()]
    job = place.submit(ann, *plans, retries=2)
    place.clock.advance(1.0)
    place.restart()
    done = place.wait(place.connect("ann"), job)
    assert (done.state, done.attempt) == (JobState.SUCCEEDED, 4)


def test_a_script_that_cannot_be_started(place: Place, ann: NodeClient) -> None:
    job = place.submit(ann, ScriptPlan(launch_failure="no such interpreter"))
    done = place.wait(ann, job)
    assert (done.state, done.reason, done.document["detail"]) == (
        JobState.FAILED,
        Reason.LAUNCH,
        "no such interpreter",
    )
    assert _at_rest(place)


def test_a_bug_in_the_plan_of_an_attempt_ends_the_job_and_nothing_else(
    place: Place, ann: NodeClient, expected_failures: ExpectFailures
) -> None:
    class Odd:
        """Not a plan."""

    job = place.submit(ann, Odd())  # type: ignore[arg-type]  # the point of it
    done = place.wait(ann, job)
    expected_failures(AttributeError)
    assert (done.state, done.reason) == (JobState.FAILED, Reason.LAUNCH)
    assert "the node failed" in done.document["detail"]
    assert place.wait(ann, place.submit(ann)).state is JobState.SUCCEEDED
    assert _at_rest(place)


def test_a_job_whose_inputs_take_long_holds_up_no_other(
    place: Place, ann: NodeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an environment that is built for minutes would."""
    stage, held = MemoryStore.stage, list[Deferred[str]]()

    def slowly(self: MemoryStore, name: str, *arguments: Any) -> Deferred[str]:
        if len(held) == place.host.config.slots:
            return stage(self, name, *arguments)
        held.append(Deferred())
        return held[-1].addCallback(lambda _: stage(self, name, *arguments))

    monkeypatch.setattr(MemoryStore, "stage", slowly)
    slow = [place.submit(ann, ScriptPlan(duration=1.0)) for _ in range(place.host.config.slots)]
    quick = place.submit(ann, ScriptPlan(duration=5.0))
    assert place.reach(ann, quick, JobState.RUNNING)
    long = place.submit(ann, ScriptPlan(duration=5.0))
    place.reach(ann, long, JobState.RUNNING)
    for each in held:
        each.callback("")
    place.clock.advance(1.0)
    assert len(place.launches) == 2, "the slots are lent"
    for job in (*slow, quick, long):
        assert place.wait(ann, job).state is JobState.SUCCEEDED
    assert place.host.machine.peak <= place.host.config.slots and _at_rest(place)


def test_a_cancel_while_inputs_are_laid_out_is_quick(
    place: Place, ann: NodeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[Deferred[str]] = []

    def never(self: MemoryStore, name: str, *_: Any) -> Deferred[str]:
        held.append(Deferred())
        return held[-1]

    monkeypatch.setattr(MemoryStore, "stage", never)
    job = place.submit(ann)
    place.clock.advance(1.0)
    place.result(ann.cancel(job.id))
    done = place.wait(ann, job, patience=0.5)
    assert (done.state, len(held), place.launches) == (JobState.CANCELLED, 1, [])
    held[0].callback("/simulated/late")
    assert _at_rest(place)


def test_a_bug_on_the_way_of_an_attempt_ends_its_job(
    place: Place, ann: NodeClient, monkeypatch: pytest.MonkeyPatch, expected_failures: ExpectFailures
) -> None:
    monkeypatch.setattr(Outputs, "open", lambda self, attempt: 1 / 0)
    job = place.submit(ann)
    done = place.wait(ann, job, patience=5.0)
    assert (done.state, done.reason) == (JobState.FAILED, Reason.LAUNCH)
    assert "ZeroDivisionError" in place.result(ann.explain(job.id)).sentence
    expected_failures(ZeroDivisionError)


def test_why_names_the_threshold_of_a_node_that_runs_nothing() -> None:
    place = Place(options={"threshold": 0.0})
    ann = place.connect("ann")
    sentence = place.result(ann.explain(place.submit(ann).id)).sentence
    assert sentence == "node runs nothing (threshold 0), and no other node is known."
