"""Names of attempts, terms of owners, and what of a record no other node can read."""

from __future__ import annotations

import itertools

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from cloudmytask.codec import encode
from cloudmytask.core.job import End, Event, Stage, Start, next_attempt, step, take_over
from cloudmytask.core.job_id import ALPHABET, job_id
from cloudmytask.core.peer_records import attempt_id, traveling_job_of
from cloudmytask.core.retention import arrive, depart
from cloudmytask.model.errors import InvalidArgument
from cloudmytask.model.job import (
    TERMINAL_STATES,
    AttemptId,
    ClientId,
    Job,
    JobId,
    JobState,
    NodeId,
    Outcome,
    Owner,
    Reason,
)
from tests.store_conformance import make_job

A, B, C = (Owner.alone(NodeId(letter * 32), letter) for letter in "abc")
COUNTS = st.integers(1, 10**18 - 1)
ATTEMPTS = st.builds(AttemptId, st.text(ALPHABET, min_size=1, max_size=17).map(JobId), COUNTS, COUNTS)
DONE = Outcome(Reason.EXIT, exit_code=0)


@given(ATTEMPTS)
def test_a_name_is_read_back_equal(attempt: AttemptId) -> None:
    assert AttemptId.parse(str(attempt)) == attempt


@given(ATTEMPTS, ATTEMPTS)
def test_two_attempts_never_share_a_text(one: AttemptId, other: AttemptId) -> None:
    assert (str(one) == str(other)) is (one == other)


def test_names_that_differ_by_where_the_dots_are() -> None:
    digits = ("1", "2", "11", "12", "21")
    names = [AttemptId(JobId(j), int(e), int(n)) for j, e, n in itertools.product(digits, repeat=3)]
    assert len({str(name) for name in names}) == len(names) == 125


@given(st.text(alphabet=st.sampled_from("a0129.-+ ٣²\n"), max_size=12))
def test_no_attempt_has_two_texts(text: str) -> None:
    try:
        found = AttemptId.parse(text)
    except ValueError:
        return
    assert str(found) == text


@pytest.mark.parametrize(
    "text",
    ["", "a", "a.1", "a.1.2.3", ".1.1", "a.0.1", "a.1.0", "a.01.1", "a.1.", "a.1.²", "a.-1.1", "a.1.1\n"],
)
def test_what_is_no_name(text: str) -> None:
    with pytest.raises(ValueError, match=r"JOB\.EPOCH\.NUMBER"):
        AttemptId.parse(text)
    with pytest.raises(InvalidArgument, match=r"^attempt: "):
        attempt_id("attempt", text)


def test_a_name_from_the_wire_has_a_job_id_in_its_one_form() -> None:
    job = job_id(ClientId("ann"), "key")
    assert attempt_id("attempt", f"{job}.2.3") == AttemptId(job, 2, 3)
    for other in (job.upper(), f"{job[:4]}-{job[4:]}", job[:-1]):
        with pytest.raises(InvalidArgument, match=r"^attempt: "):
            attempt_id("attempt", f"{other}.2.3")


def test_the_newer_of_two_attempts_is_the_one_of_the_later_owner() -> None:
    job = JobId("j")
    names = [AttemptId(job, epoch, number) for epoch in (1, 2, 3) for number in (1, 2, 10)]
    assert sorted(set(names)) == names


# epochs


def _taken_over(job: Job, owner: Owner) -> Job:
    return take_over(job, owner, 7, 9.0)


def _failed(job: Job) -> Job:
    """After one more attempt, which is to be followed by another."""
    name = next_attempt(job)
    job = step(step(job, Stage(1.0, job.owner.name)), Start(2.0, job.owner.name, name))
    return step(job, End(3.0, job.owner.name, name, Outcome(Reason.EXIT, exit_code=1), retry=True))


def _new(owner: Owner = A) -> Job:
    return evolve(make_job(1), owner=owner)


def test_the_number_of_an_attempt_goes_on_through_all_terms() -> None:
    job, names = _new(), []
    for owner in (None, B, C, A):
        if owner is not None:
            job = _taken_over(job, owner)
        for _ in range(2):
            names.append(next_attempt(job))
            job = _failed(job)
            assert job.attempt_id == names[-1] == job.assignment.id
    assert [(name.epoch, name.number) for name in names] == [
        (epoch, number) for number, epoch in enumerate((1, 1, 2, 2, 3, 3, 4, 4), 1)
    ]
    assert len(set(names)) == len(names)
    assert [AttemptId(job.id, each.epoch, each.number) for each in job.attempts] == names


def test_a_term_begins_when_a_job_is_taken_over() -> None:
    taken = _taken_over(_failed(_new()), evolve(B, epoch=99))
    assert taken.owner == Owner(B.node_id, "b", 2, (B.node_id,))
    assert (taken.state, taken.sequence, len(taken.attempts)) == (JobState.PENDING, 7, 1)
    assert (taken.trail[-1].stage, taken.trail[-1].node, taken.trail[-1].note) == ("taken over", "b", "from a")


def test_what_two_owners_number_is_kept_apart() -> None:
    """Both sides of a partition believe that they own the job, and run its next attempt."""
    job = _failed(_new())
    here, there = step(job, Stage(4.0, "a")), step(_taken_over(job, B), Stage(4.0, "b"))
    assert here.attempt_id.number == there.attempt_id.number
    assert here.attempt_id != there.attempt_id
    assert {str(here.attempt_id), str(there.attempt_id)} == {f"{job.id}.1.2", f"{job.id}.2.2"}


def _words(name: AttemptId) -> tuple[Event, ...]:
    return (
        Start(5.0, "x", name),
        End(6.0, "x", name, DONE),
        End(6.0, "x", name, DONE, retry=True),
    )


def _states(owner: Owner) -> list[Job]:
    """A job in each state in which it has an attempt, or had one, of the second term."""
    job = _taken_over(_failed(_new()), owner)
    staged = step(job, Stage(4.0, owner.name))
    running = step(staged, Start(5.0, owner.name, staged.attempt_id))
    ended = [
        step(running, End(6.0, owner.name, staged.attempt_id, outcome))
        for outcome in (
            DONE,
            Outcome(Reason.EXIT, exit_code=1),
            Outcome(Reason.TIMEOUT),
            Outcome(Reason.CANCELLED),
            Outcome(Reason.LOST),
        )
    ]
    waiting = step(running, End(6.0, owner.name, staged.attempt_id, Outcome(Reason.SIGNAL, signal=9), retry=True))
    return [staged, running, waiting, *ended]


def test_a_word_on_any_other_attempt_than_the_latest_comes_late() -> None:
    jobs = _states(B)
    assert {job.state for job in jobs} >= (TERMINAL_STATES - {JobState.EXPIRED}) | {JobState.STAGING, JobState.RUNNING}
    for job in jobs:
        latest = job.attempt_id
        for epoch, number in itertools.product(range(1, 5), range(1, 5)):
            name = AttemptId(job.id, epoch, number)
            for word in _words(name):
                assert name == latest or step(job, word) is job, (job.state, word)


def test_a_word_on_another_jobs_attempt_comes_late() -> None:
    for job in _states(B):
        for word in _words(evolve(job.attempt_id, job=JobId("other"))):
            assert step(job, word) is job


# the clock of a node's retention is its own


@given(st.floats(0, 1e9), st.floats(0, 1e9), st.floats(0, 1e7))
def test_what_travels_says_how_many_seconds_remain(here: float, there: float, remaining: float) -> None:
    job = evolve(make_job(1), expires=here + remaining)
    traveling = depart(job, here)
    assert traveling.job.expires is None
    arrived = arrive(traveling, there)
    assert arrived.expires is not None
    assert arrived.expires - there == pytest.approx(remaining, abs=1e-5)
    assert evolve(arrived, expires=job.expires) == job


def test_what_is_overdue_arrives_as_just_due() -> None:
    assert arrive(depart(evolve(make_job(1), expires=5.0), 9.0), 100.0).expires == 100.0


def test_a_job_without_outcome_travels_without_any() -> None:
    assert arrive(depart(make_job(1), 5.0), 7.0) == make_job(1)


def test_no_reading_of_a_clock_is_taken_from_the_wire() -> None:
    job = evolve(make_job(1, client=ClientId("ann")), id=job_id(ClientId("ann"), "k"))
    assert traveling_job_of(encode(depart(evolve(job, expires=9.0), 4.0))) == depart(evolve(job, expires=9.0), 4.0)
    document = encode(depart(job, 4.0))
    with pytest.raises(InvalidArgument, match="expires"):
        traveling_job_of({**document, "job": {**document["job"], "expires": 9.0}})
    with pytest.raises(InvalidArgument, match="remaining"):
        traveling_job_of({**document, "remaining": "soon"})
