"""``cmt why``: the sentences themselves, for a reader who sees nothing else."""

from __future__ import annotations

import re
import signal

import pytest
from attrs import evolve

from cloudmytask.codec.people import format_time
from cloudmytask.core.explain import Surroundings, describe_outcome, explain, signal_name
from cloudmytask.core.job import Cancel, End, Event, Expire, Interrupt, Stage, Start, Wait, step
from cloudmytask.model.job import (
    AttemptId,
    Blob,
    ClientId,
    Digest,
    Job,
    JobId,
    JobSpec,
    JobState,
    Limits,
    NodeId,
    Outcome,
    Output,
    Owner,
    QoS,
    Reason,
    Stamp,
    Usage,
)

JOB = JobId("0" * 17)
ONE, TWO = AttemptId(JOB, 1, 1), AttemptId(JOB, 1, 2)
AROUND = Surroundings("alpha", 4, 4, 1, 0, None, 1.0, 0.5, draining=False, retry_in=None)
STAGED: tuple[Event, ...] = (Stage(1.0, "alpha"),)
STARTED: tuple[Event, ...] = (*STAGED, Start(2.0, "alpha", ONE))
WAITING: tuple[Event, ...] = (Wait(0.5, "alpha", "4 of 4 slots taken, 0 jobs before it"),)
CANCEL = Cancel(4.0, "alpha", "ann", "wrong file")
DIED = Interrupt(5.0, "alpha", "the node died")


def _ended(
    reason: Reason, code: int | None = None, *, signal: int | None = None, detail: str = ""
) -> tuple[Event, ...]:
    usage = Usage(wall_seconds=2.5, cpu_seconds=2.25, peak_memory=20 * 1024**2)
    outcome = Outcome(reason, exit_code=code, signal=signal, usage=usage, detail=detail)
    return (
        *STARTED,
        End(4.5, "alpha", ONE, outcome, Output(Blob(Digest("b" * 64), 9), discarded=100)),
    )


def _failed_first(retry: bool = True) -> tuple[Event, ...]:
    return (*STARTED, End(4.5, "alpha", ONE, Outcome(Reason.EXIT, exit_code=2), retry=retry))


def _job(*course: Event, **spec: object) -> Job:
    job = Job(
        id=JOB,
        client=ClientId("ann"),
        spec=JobSpec(script=Blob(Digest("c" * 64), 5), **spec),  # type: ignore[arg-type]  # right in every test
        body=Digest("d" * 64),
        sequence=1,
        owner=Owner.alone(NodeId("a" * 32), "alpha"),
        state=JobState.PENDING,
        submitted_at=0.0,
        retention=90.0,
        trail=(Stamp(0.0, "accepted", "alpha"),),
    )
    for event in course:
        job = step(job, event)
    return job


SECOND: tuple[Event, ...] = (*_failed_first(), Stage(5.0, "alpha"), Start(6.0, "alpha", TWO))

SENTENCES: list[tuple[Job, Surroundings, str]] = [
    (_job(), AROUND, "It was accepted by alpha and is about to be placed."),
    (_job(*WAITING), AROUND, "All 4 slots of alpha are taken."),
    (_job(*WAITING), evolve(AROUND, ahead=1), "All 4 slots of alpha are taken, and 1 job waits before it."),
    (_job(*WAITING), evolve(AROUND, ahead=7), "All 4 slots of alpha are taken, and 7 jobs wait before it."),
    (_job(*WAITING), evolve(AROUND, slots=1, running=1), "The only slot of alpha is taken."),
    (_job(*WAITING), evolve(AROUND, running=3), "alpha has a free slot, so it is about to be placed."),
    (
        _job(*WAITING, qos=QoS.IDLE),
        evolve(AROUND, running=0, load=0.834),
        "It is of class idle, and such jobs start while the machine's load is below 0.50; it is 0.83.",
    ),
    (_job(*WAITING, qos=QoS.IDLE), evolve(AROUND, load=0.9), "All 4 slots of alpha are taken."),
    (
        _job(*WAITING),
        evolve(AROUND, draining=True),
        "alpha is shutting down; the job stays queued and runs when the node is back.",
    ),
    (
        _job(*_failed_first()),
        evolve(AROUND, retry_in=1.7321),
        "Attempt 1 failed (it exited with code 2); the next one starts in about 1.73 s.",
    ),
    (_job(*STARTED, DIED), AROUND, "All 4 slots of alpha are taken."),
    (_job(*STAGED), AROUND, "It has a slot on alpha, where its inputs are being laid out."),
    (_job(*STAGED, CANCEL), AROUND, "It is being cancelled: its script on alpha was asked to end."),
    (
        _job(*STARTED),
        AROUND,
        "It is running on alpha, which had a free slot; it started at 1970-01-01T00:00:02.000Z.",
    ),
    (
        _job(*SECOND),
        AROUND,
        "It is running on alpha, which had a free slot; it started at 1970-01-01T00:00:06.000Z (attempt 2).",
    ),
    (_job(*STARTED, CANCEL), AROUND, "It is being cancelled: its script on alpha was asked to end."),
    (_job(*_ended(Reason.EXIT, 0)), AROUND, "It exited with code 0 on alpha after 2.5 s."),
    (
        _job(*SECOND, End(7.0, "alpha", TWO, Outcome(Reason.EXIT, exit_code=0))),
        AROUND,
        "It exited with code 0 on alpha; 2 attempts were made.",
    ),
    (_job(*_ended(Reason.EXIT, 3)), AROUND, "It exited with code 3 on alpha after 2.5 s."),
    (_job(*_ended(Reason.SIGNAL, signal=9)), AROUND, "It was killed by SIGKILL on alpha after 2.5 s."),
    (_job(*_ended(Reason.SIGNAL, signal=99)), AROUND, "It was killed by signal 99 on alpha after 2.5 s."),
    (_job(*_ended(Reason.MEMORY)), AROUND, "It used more memory than it may on alpha after 2.5 s."),
    (
        _job(*_ended(Reason.LAUNCH, detail="no such interpreter")),
        AROUND,
        "It could not be started on alpha after 2.5 s: no such interpreter.",
    ),
    (
        _job(
            *STAGED,
            End(4.5, "alpha", ONE, Outcome(Reason.LAUNCH, detail="The blob 00aa is not on this node.")),
        ),
        AROUND,
        "It could not be started on alpha: The blob 00aa is not on this node.",
    ),
    (
        _job(*_ended(Reason.TIMEOUT, detail="it ignored SIGTERM"), timeout=2.0),
        AROUND,
        "It ran into its timeout of 2 s on alpha after 2.5 s: it ignored SIGTERM.",
    ),
    (_job(CANCEL), AROUND, "It was cancelled by ann (wrong file) before it started."),
    (
        _job(*STARTED, CANCEL, End(4.5, "alpha", ONE, Outcome(Reason.CANCELLED, signal=15))),
        AROUND,
        "It was cancelled by ann (wrong file) while it ran.",
    ),
    (
        _job(*STARTED, DIED, at_most_once=True),
        AROUND,
        (
            "Its script was interrupted on alpha (the node died), how far it came is not known, "
            "and it must not run twice (--at-most-once)."
        ),
    ),
    (
        evolve(_job(*STARTED, DIED), state=JobState.LOST),
        AROUND,
        "Its script was interrupted on alpha (the node died), and after 1 attempts no further one is made.",
    ),
    (
        _job(*_ended(Reason.EXIT, 0), Expire(99.0, "alpha")),
        AROUND,
        "Its retention of 1 min 30 s ended, so outcome and output were deleted.",
    ),
    (
        _job(*_ended(Reason.EXIT, 0), Expire(99.0, "alpha", removed=True)),
        AROUND,
        "Its client removed it; only this note is left.",
    ),
]


@pytest.mark.parametrize(("job", "around", "sentence"), SENTENCES, ids=[sentence[:50] for _, _, sentence in SENTENCES])
def test_the_sentence(job: Job, around: Surroundings, sentence: str) -> None:
    assert explain(job, around).sentence == sentence


def test_every_state_has_its_answer() -> None:
    assert {job.state for job, _, _ in SENTENCES} == set(JobState)


@pytest.mark.parametrize(("job", "around", "sentence"), SENTENCES, ids=[sentence[:50] for _, _, sentence in SENTENCES])
def test_every_answer_is_one_sentence(job: Job, around: Surroundings, sentence: str) -> None:
    found = explain(job, around)
    assert re.fullmatch(r"[A-Za-z].*[^.\s]\.", found.sentence) and "None" not in found.sentence
    assert ".." not in found.sentence and "  " not in found.sentence and "\n" not in found.sentence
    assert found.details and all("None" not in line for line in found.details)


def test_details_are_the_trail_and_then_the_attempts() -> None:
    job = _job(*SECOND, *_ended(Reason.EXIT, 0)[-1:])
    job = step(
        job,
        End(7.0, "alpha", TWO, Outcome(Reason.EXIT, exit_code=0, usage=Usage(1.0, 0.25, 3 * 1024**2))),
    )
    assert list(explain(job, AROUND).details) == [
        "1970-01-01T00:00:00.000Z accepted on alpha",
        "1970-01-01T00:00:01.000Z placed on alpha: attempt 1",
        "1970-01-01T00:00:02.000Z started on alpha",
        "1970-01-01T00:00:04.500Z failed on alpha: another attempt follows",
        "1970-01-01T00:00:05.000Z placed on alpha: attempt 2",
        "1970-01-01T00:00:06.000Z started on alpha",
        "1970-01-01T00:00:07.000Z ended on alpha: succeeded",
        "attempt 1 on alpha: it exited with code 2",
        "attempt 2 on alpha: it exited with code 0; wall 1 s; CPU 250 ms; peak memory 3 MiB",
    ]


def test_discarded_output_is_told() -> None:
    assert explain(_job(*_ended(Reason.EXIT, 0)), AROUND).details[-1] == (
        "attempt 1 on alpha: it exited with code 0; wall 2.5 s; CPU 2.25 s; peak memory 20 MiB; "
        "100 bytes of stdout discarded beyond output_max"
    )


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_can_be_said(reason: Reason) -> None:
    said = describe_outcome(Outcome(reason, exit_code=1, signal=11, detail="More of it."), Limits())
    assert re.fullmatch(r"its? .*: More of it", said)


@pytest.mark.parametrize(
    ("number", "limits", "said"),
    [
        ("SIGXCPU", Limits(cpu_seconds=1), ": its limit of CPU time is 1 s"),
        ("SIGXCPU", Limits(), ""),
        ("SIGXCPU", Limits(file_size=2048), ""),
        ("SIGKILL", Limits(cpu_seconds=2), ": its limit of CPU time is 2 s"),
        ("SIGKILL", Limits(cpu_seconds=60), ""),
        ("SIGXFSZ", Limits(file_size=2048), ": its limit of the size of a file is 2 KiB"),
        ("SIGXFSZ", Limits(cpu_seconds=1), ""),
        ("SIGSEGV", Limits(1, 2048, 2048, 20), ""),
    ],
)
def test_the_limit_that_killed_a_script_is_named(number: str, limits: Limits, said: str) -> None:
    """The script used 2.25 s of CPU time."""
    job = _job(*_ended(Reason.SIGNAL, signal=signal.Signals[number]), limits=limits)
    found = explain(job, AROUND)
    assert found.sentence == f"It was killed by {number} on alpha after 2.5 s{said}."
    assert f"attempt 1 on alpha: it was killed by {number}{said}; wall 2.5 s" in found.details[-1]


def test_a_limit_is_named_before_the_next_attempt_too() -> None:
    outcome = Outcome(Reason.SIGNAL, signal=signal.SIGXCPU)
    job = _job(*STARTED, End(4.5, "alpha", ONE, outcome, retry=True), limits=Limits(cpu_seconds=1))
    said = explain(job, evolve(AROUND, retry_in=2.0)).sentence
    assert said.startswith("Attempt 1 failed (it was killed by SIGXCPU: its limit of CPU time is 1 s); ")


def test_signals_have_names() -> None:
    assert (signal_name(11), signal_name(15), signal_name(None), signal_name(200)) == (
        "SIGSEGV",
        "SIGTERM",
        "signal None",
        "signal 200",
    )


def test_times_are_utc() -> None:
    assert format_time(1_700_000_000.125) == "2023-11-14T22:13:20.125Z"
