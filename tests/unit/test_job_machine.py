"""The life of a job, entry by entry of its table, and at random."""

from __future__ import annotations

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from cloudmytask.codec import dump
from cloudmytask.codec.people import job_to_document
from cloudmytask.codec.records import job_to_record
from cloudmytask.core import job as machine
from cloudmytask.core.job import (
    ATTEMPTS_MAX,
    TRAIL_HEAD,
    TRAIL_MAX,
    Cancel,
    Died,
    End,
    Event,
    Expire,
    ImpossibleTransition,
    Interrupt,
    Move,
    Remark,
    Stage,
    Start,
    Wait,
    failures,
    retriable,
    step,
    terminal_state,
)
from cloudmytask.model.job import (
    AttemptId,
    Blob,
    ClientId,
    Digest,
    Interruption,
    Job,
    JobId,
    JobSpec,
    JobState,
    NodeId,
    Outcome,
    Output,
    Owner,
    Reason,
    Stamp,
)
from cloudmytask.wire.arguments import DOCUMENT_MAX

P, W, S, R, X = JobState.PENDING, JobState.WAITING, JobState.STAGING, JobState.RUNNING, JobState.EXPIRED
OK, FAILED, TIMED_OUT = JobState.SUCCEEDED, JobState.FAILED, JobState.TIMED_OUT
CANCELLED, LOST = JobState.CANCELLED, JobState.LOST
ENDED = (OK, FAILED, TIMED_OUT, CANCELLED, LOST)

NODE = "alpha"
JOB = JobId("0" * 17)
OWNER = Owner.alone(NodeId("a" * 32), NODE)


def _attempt(number: int) -> AttemptId:
    return AttemptId(JOB, 1, number)


FIRST = _attempt(1)
GOOD, BAD = Outcome(Reason.EXIT, exit_code=0), Outcome(Reason.EXIT, exit_code=3)
OUT = Output(Blob(Digest("a" * 64), 3))
ERR = Output(Blob(Digest("b" * 64), 4), discarded=7)


def _new(**spec: object) -> Job:
    fields: dict[str, object] = {"script": Blob(Digest("c" * 64), 5), **spec}
    return Job(
        id=JOB,
        client=ClientId("ann"),
        spec=JobSpec(**fields),  # type: ignore[arg-type]  # of the right types in every test
        body=Digest("d" * 64),
        sequence=1,
        owner=OWNER,
        state=P,
        submitted_at=0.0,
        retention=60.0,
    )


def _end(job: Job, outcome: Outcome = GOOD, at: float = 5.0, stdout: Output = OUT, *, retry: bool = False) -> End:
    return End(at, NODE, job.attempt_id if job.attempts else FIRST, outcome, stdout, ERR, retry)


def _in(state: JobState, **spec: object) -> Job:
    """A job that has come into a state in the shortest way."""
    job = _new(**spec)
    ways: dict[JobState, tuple[Event, ...]] = {
        P: (),
        W: (Stage(1.0, NODE), Start(2.0, NODE, FIRST), End(3.0, NODE, FIRST, BAD, retry=True)),
        S: (Stage(1.0, NODE),),
        R: (Stage(1.0, NODE), Start(2.0, NODE, FIRST)),
        OK: (Stage(1.0, NODE), Start(2.0, NODE, FIRST), End(3.0, NODE, FIRST, GOOD)),
        FAILED: (Stage(1.0, NODE), Start(2.0, NODE, FIRST), End(3.0, NODE, FIRST, BAD)),
        TIMED_OUT: (Stage(1.0, NODE), Start(2.0, NODE, FIRST), End(3.0, NODE, FIRST, Outcome(Reason.TIMEOUT))),
        CANCELLED: (Stage(1.0, NODE), Start(2.0, NODE, FIRST), End(3.0, NODE, FIRST, Outcome(Reason.CANCELLED))),
        LOST: (Stage(1.0, NODE), Start(2.0, NODE, FIRST), End(3.0, NODE, FIRST, Outcome(Reason.LOST))),
        X: (Stage(1.0, NODE), Start(2.0, NODE, FIRST), End(3.0, NODE, FIRST, GOOD), Expire(4.0, NODE)),
    }
    for event in ways[state]:
        job = step(job, event)
    assert job.state is state
    return job


EVENTS: dict[str, Event] = {
    "wait": Wait(5.0, NODE, "no free slot"),
    "stage": Stage(5.0, NODE),
    "start": Start(5.0, NODE, FIRST),
    "end": End(5.0, NODE, FIRST, GOOD, OUT, ERR),
    "cancel": Cancel(5.0, NODE, "ann", "enough"),
    "interrupt": Interrupt(5.0, NODE, "the node died", OUT, ERR),
    "expire": Expire(5.0, NODE),
    "move": Move(5.0, NODE, "b at 127.0.0.2:7001"),
    "remark": Remark(5.0, NODE, "refused", "by b: busy"),
    "died": Died(5.0, NODE, FIRST),
}
SAME = "the very same object"
CHANGES: dict[tuple[JobState, str], JobState | str] = {
    (P, "wait"): W,
    (P, "stage"): S,
    (P, "cancel"): CANCELLED,
    (P, "interrupt"): SAME,
    (P, "remark"): P,
    (P, "move"): X,
    (W, "wait"): SAME,
    (W, "stage"): S,
    (W, "start"): SAME,
    (W, "end"): SAME,
    (W, "cancel"): CANCELLED,
    (W, "interrupt"): SAME,
    (W, "remark"): W,
    (W, "move"): X,
    (S, "start"): R,
    (S, "end"): OK,
    (S, "cancel"): S,
    (S, "interrupt"): W,
    (S, "remark"): S,
    (R, "start"): SAME,
    (R, "end"): OK,
    (R, "cancel"): R,
    (R, "interrupt"): W,
    (R, "remark"): R,
    **{
        (state, event): SAME
        for state in (*ENDED, X)
        for event in ("start", "end", "cancel", "interrupt", "remark", "died")
    },
    **{(state, "died"): SAME for state in (P, S, R)},  # of an attempt that has not ended
    (W, "died"): W,
    **{(state, "expire"): X for state in ENDED},
    (X, "expire"): SAME,
}


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("state", JobState)
def test_every_event_in_every_state(state: JobState, event: str) -> None:
    job = _in(state)
    expected = CHANGES.get((state, event))
    if expected is None:
        with pytest.raises(ImpossibleTransition, match=state.value):
            step(job, EVENTS[event])
    elif expected is SAME:
        assert step(job, EVENTS[event]) is job
    else:
        after = step(job, EVENTS[event])
        assert after.state is expected and after is not job
        assert (len(after.trail) > len(job.trail)) is (event != "died") and after.trail[: len(job.trail)] == job.trail
        assert all(stamp.at == 5.0 and stamp.node == NODE for stamp in after.trail[len(job.trail) :])


def test_the_table_has_no_other_entries() -> None:
    names = {type(event): name for name, event in EVENTS.items()}
    assert {(state, names[event]) for state, event in machine.TABLE} == set(CHANGES)


@pytest.mark.parametrize("state", [S, R, W, *ENDED])
def test_news_of_an_earlier_attempt_changes_nothing(state: JobState) -> None:
    job = _in(state)
    job = evolve(job, attempts=(*job.attempts, evolve(job.attempts[0], number=2)))
    for late in (Start(9.0, NODE, FIRST), End(9.0, NODE, FIRST, BAD, OUT)):
        assert step(job, late) is job


def test_attempts_are_numbered_and_kept_apart() -> None:
    job = _new(retries=2)
    for number in (1, 2, 3):
        job = step(step(job, Stage(float(number), f"node{number}")), Start(number + 0.5, NODE, _attempt(number)))
        assert job.attempt is not None and job.attempt.number == number
        outcome = Outcome(Reason.EXIT, exit_code=number)
        job = step(job, _end(job, outcome, number + 0.7, evolve(OUT, discarded=number), retry=number < 3))
    assert job.state is FAILED and job.ended_at == 3.7
    assert [(a.number, a.executor, a.staged_at, a.started_at, a.ended_at) for a in job.attempts] == [
        (1, "node1", 1.0, 1.5, 1.7),
        (2, "node2", 2.0, 2.5, 2.7),
        (3, "node3", 3.0, 3.5, 3.7),
    ]
    assert [(a.outcome.exit_code if a.outcome else None, a.stdout.discarded) for a in job.attempts] == [
        (1, 1),
        (2, 2),
        (3, 3),
    ]
    assert job.outcome == Outcome(Reason.EXIT, exit_code=3)


def test_an_end_carries_the_output() -> None:
    job = step(_in(R), _end(_in(R)))
    assert job.attempt is not None and (job.attempt.stdout, job.attempt.stderr) == (OUT, ERR)


def test_a_retry_waits_and_has_no_end() -> None:
    job = step(_in(R), _end(_in(R), BAD, retry=True))
    assert (job.state, job.ended_at) == (W, None)
    assert job.attempt is not None and job.attempt.outcome == BAD


@pytest.mark.parametrize(
    ("reason", "state"),
    [
        (Reason.SIGNAL, FAILED),
        (Reason.MEMORY, FAILED),
        (Reason.ENVIRONMENT, FAILED),
        (Reason.LAUNCH, FAILED),
        (Reason.TIMEOUT, TIMED_OUT),
        (Reason.CANCELLED, CANCELLED),
        (Reason.LOST, LOST),
    ],
)
def test_what_an_outcome_makes_of_a_job(reason: Reason, state: JobState) -> None:
    assert terminal_state(Outcome(reason)) is state
    assert terminal_state(Outcome(reason, exit_code=0)) is state, "a killed script that exits with 0 has not succeeded"
    assert terminal_state(GOOD) is OK and terminal_state(BAD) is FAILED


@pytest.mark.parametrize("reason", Reason)
def test_what_is_worth_another_attempt(reason: Reason) -> None:
    outcome = Outcome(reason, exit_code=1 if reason is Reason.EXIT else None)
    again = reason not in (Reason.TIMEOUT, Reason.CANCELLED, Reason.LOST)
    assert retriable(_in(R, retries=1), outcome) is again
    assert not retriable(_in(R), outcome)
    assert not retriable(step(_in(R, retries=1), EVENTS["cancel"]), outcome)


def test_success_needs_no_retry() -> None:
    assert not retriable(_in(R, retries=5), GOOD)


def test_interruptions_do_not_use_up_retries() -> None:
    job = _new(retries=1)
    for _ in range(5):
        job = step(
            step(step(job, Stage(1.0, NODE)), Start(2.0, NODE, _attempt(len(job.attempts) + 1))), EVENTS["interrupt"]
        )
    assert (job.state, failures(job), len(job.attempts)) == (W, 0, 5)
    job = step(step(job, Stage(1.0, NODE)), Start(2.0, NODE, _attempt(6)))
    assert retriable(job, BAD)
    job = step(job, _end(job, BAD, retry=True))
    assert failures(job) == 1
    job = step(step(job, Stage(1.0, NODE)), Start(2.0, NODE, _attempt(7)))
    assert not retriable(job, BAD)


def test_an_interrupted_attempt_keeps_its_output_and_says_why() -> None:
    job = step(_in(R), EVENTS["interrupt"])
    attempt = job.attempt
    assert attempt is not None and attempt.outcome is not None
    assert (attempt.outcome.reason, attempt.outcome.detail) == (Reason.LOST, "the node died")
    assert (attempt.stdout, attempt.stderr, attempt.ended_at) == (OUT, ERR, 5.0)
    assert attempt.outcome.usage.wall_seconds == 3.0


def test_a_clock_that_went_back_makes_no_negative_time() -> None:
    job = step(_in(R), Interrupt(-100.0, NODE, "the node died"))
    assert job.outcome is not None and job.outcome.usage.wall_seconds == 0.0


def test_at_most_once_is_lost_once_it_has_started() -> None:
    job = step(_in(R, at_most_once=True), EVENTS["interrupt"])
    assert (job.state, job.ended_at) == (LOST, 5.0)
    assert job.attempt is not None and job.attempt.stdout == OUT
    assert step(_in(S, at_most_once=True), EVENTS["interrupt"]).state is W, "it had not started"
    assert step(_in(P, at_most_once=True), EVENTS["interrupt"]).state is P


@pytest.mark.parametrize("once_only", [False, True])
@pytest.mark.parametrize("state", [S, R])
def test_a_cancel_wins_over_an_interruption(state: JobState, once_only: bool) -> None:
    job = step(_in(state, at_most_once=once_only), EVENTS["cancel"])
    assert job.state is state and job.cancellation is not None
    job = step(job, EVENTS["interrupt"])
    assert (job.state, job.ended_at) == (CANCELLED, 5.0)


@pytest.mark.parametrize("state", [P, W, S, R])
def test_a_cancel_says_who_and_why(state: JobState) -> None:
    wish = step(_in(state), EVENTS["cancel"]).cancellation
    assert wish is not None and (wish.by, wish.note, wish.at) == ("ann", "enough", 5.0)


def test_a_second_cancel_changes_nothing() -> None:
    job = step(_in(R), EVENTS["cancel"])
    assert step(job, Cancel(9.0, NODE, "ann", "now!")) is job


def test_a_script_that_ended_before_its_cancel_arrived_keeps_its_outcome() -> None:
    job = step(_in(R), EVENTS["cancel"])
    assert step(job, _end(job, GOOD)).state is OK


def test_attempts_have_an_end() -> None:
    job = _in(R)
    full = evolve(job, attempts=tuple(evolve(job.attempts[0], number=n) for n in range(1, ATTEMPTS_MAX + 1)))
    assert step(full, Interrupt(5.0, NODE, "the node died")).state is LOST
    assert step(full, _end(full, BAD, retry=True)).state is FAILED


def test_removal_is_told_from_age() -> None:
    assert step(_in(OK), Expire(5.0, NODE, removed=True)).removed
    assert not step(_in(OK), Expire(5.0, NODE)).removed


number = st.integers(1, 4)
outcomes = st.builds(Outcome, st.sampled_from(Reason), st.sampled_from([None, 0, 1]))
events = st.one_of(
    st.just(EVENTS["wait"]),
    st.just(EVENTS["stage"]),
    st.builds(Start, st.just(1.0), st.just(NODE), number),
    st.builds(End, st.just(1.0), st.just(NODE), number, outcomes, retry=st.booleans()),
    st.just(EVENTS["cancel"]),
    st.just(EVENTS["interrupt"]),
    st.builds(Expire, st.just(1.0), st.just(NODE), st.booleans()),
)


@given(st.lists(events, max_size=60), st.booleans())
def test_whatever_happens_there_is_one_outcome(course: list[Event], once_only: bool) -> None:
    job = _new(at_most_once=once_only, retries=2)
    terminal: list[JobState] = []
    for event in course:
        before = job
        try:
            job = step(job, event)
        except ImpossibleTransition:
            assert job is before
            continue
        assert [attempt.number for attempt in job.attempts] == list(range(1, len(job.attempts) + 1))
        assert job.trail[: len(before.trail)] == before.trail, "the trail only grows"
        assert job.attempts[: len(before.attempts) - 1] == before.attempts[:-1], "what has ended stays as it was"
        assert (job.spec, job.id, job.client) == (before.spec, before.id, before.client)
        if job.state.terminal and job.state is not before.state:
            terminal.append(job.state)
        assert job.state.terminal == (job.ended_at is not None)
        if before.state.terminal:
            assert job.state in (before.state, X)
            assert evolve(job, state=before.state, trail=before.trail, removed=before.removed) == before
    assert terminal in ([], [*terminal[:1]], [*terminal[:1], X])
    running = [attempt for attempt in job.attempts if attempt.outcome is None]
    assert len(running) == (job.state in (S, R))


def test_a_job_of_a_thousand_attempts_fits_into_an_answer_and_keeps_the_first_and_the_last() -> None:
    job = _new()
    for number in range(1, ATTEMPTS_MAX + 1):
        relayed = tuple(Stamp(float(number), "forwarded", f"relay{n}", "2 of 4 slots free " + "." * 80) for n in (1, 2))
        job = step(
            job, Stage(float(number), NODE, "beta", NodeId("b" * 32), "to beta, which had a free slot " + "." * 80)
        )
        job = step(job, Start(float(number), NODE, job.attempt_id))
        job = step(job, Interrupt(float(number), NODE, "node beta died " + "!" * 2000, OUT, ERR, relayed))
    assert job.state is LOST and len(job.attempts) == ATTEMPTS_MAX
    assert len(job.trail) == TRAIL_MAX
    assert [(stamp.at, stamp.stage) for stamp in job.trail[:2]] == [(1.0, "forwarded"), (1.0, "started")]
    assert (job.trail[-1].at, job.trail[-1].stage) == (float(ATTEMPTS_MAX), "ended")
    [omitted] = [stamp for stamp in job.trail if stamp.stage == "omitted"]
    assert job.trail.index(omitted) == TRAIL_HEAD
    assert len(dump(job_to_document(job))) < DOCUMENT_MAX
    assert len(job_to_record(job)) < DOCUMENT_MAX


UNSTARTED, NODE_DIED = Interruption.UNSTARTED, Interruption.NODE_DIED


def _interrupted(job: Job, interruption: Interruption | None, *, deaths_max: int = 3) -> Job:
    """One attempt more that is interrupted."""
    job = step(job, Stage(at=1.0, node=NODE))
    job = step(job, Start(at=2.0, node=NODE, attempt=job.attempt_id))
    return step(job, Interrupt(5.0, NODE, "so it was", interruption=interruption, deaths_max=deaths_max))


@pytest.mark.parametrize("once_only", [False, True])
def test_a_job_whose_script_certainly_never_started_goes_back_to_the_queue(once_only: bool) -> None:
    job = _interrupted(_new(at_most_once=once_only), UNSTARTED)
    assert job.state is W and failures(job) == 0 and job.died_on == ()
    (attempt,) = job.attempts
    assert attempt.started_at is None and attempt.outcome is not None and attempt.outcome.usage.wall_seconds is None


def test_shortages_never_end_a_job_and_make_no_long_record() -> None:
    job = _new()
    for _ in range(ATTEMPTS_MAX + 10):
        job = _interrupted(job, UNSTARTED)
    assert job.state is W and [each.number for each in job.attempts] == [ATTEMPTS_MAX + 10]
    assert machine.next_attempt(job).number == ATTEMPTS_MAX + 11, "no name is given twice"


@pytest.mark.parametrize("deaths_max", [1, 3, 5])
def test_row_08_a_job_is_given_up_after_so_many_deaths_of_its_nodes(deaths_max: int) -> None:
    job = _new()
    for _ in range(deaths_max - 1):
        job = _interrupted(job, NODE_DIED, deaths_max=deaths_max)
        job = _interrupted(job, None, deaths_max=deaths_max)
        job = _interrupted(job, UNSTARTED, deaths_max=deaths_max)
        assert job.state is W, "a drain and a shortage do not count"
    job = _interrupted(job, NODE_DIED, deaths_max=deaths_max)
    assert job.state is LOST and job.outcome is not None
    assert job.outcome.detail.startswith(f"its node died during attempt 1 on {NODE}")
    assert job.outcome.detail.count(" on ") == deaths_max


def test_a_cancelled_job_whose_node_dies_is_cancelled() -> None:
    job = step(_new(), Stage(at=1.0, node=NODE))
    job = step(job, Cancel(2.0, NODE, "ann"))
    assert step(job, Interrupt(3.0, NODE, "died", interruption=NODE_DIED, deaths_max=1)).state is CANCELLED
    assert step(job, Interrupt(3.0, NODE, "short", interruption=UNSTARTED)).state is CANCELLED


def test_a_death_that_is_heard_of_late_counts_once() -> None:
    job = _interrupted(_new(), None)
    job = step(job, Stage(at=6.0, node=NODE))
    for _ in range(2):
        job = step(job, Died(7.0, NODE, FIRST))
        assert job.died_on == (NODE,) and job.state is S
    assert step(job, Died(7.0, NODE, _attempt(2))) is job, "that one is under way"
    assert step(job, Interrupt(8.0, NODE, "gone", deaths_max=1)).state is LOST
