"""The life of a job: a state machine over frozen values, read as a table.

``step(job, event)`` gives the job after the event. The states are those of design section 2:

``pending``    accepted, not yet placed
``waiting``    no free slot, or the pause before another attempt
``staging``    a slot is taken; inputs are laid out
``running``    the script runs
``succeeded`` ``failed`` ``timed_out`` ``cancelled`` ``lost``    the one outcome
``expired``    a tombstone: outcome and output are gone

Invariant: a job reaches exactly one terminal state and never leaves it, but for ``expired``. Events that come late,
because two things happened at once, change nothing and are listed as ``late``, as does a word on an attempt that is not
the latest, or that another owner ordered; an event that cannot happen at all is an :class:`ImpossibleTransition`, which
is a bug.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import evolve, frozen

from cloudmytask.model.job import (
    Attempt,
    AttemptId,
    Cancellation,
    Interruption,
    Job,
    JobState,
    NodeId,
    Outcome,
    Output,
    Owner,
    Reason,
    Stamp,
    Usage,
)

_NOTHING = Output()

ATTEMPTS_MAX = 1000
"""Attempts of one job whose script may have started, interrupted ones included; beyond it the job is ``lost``."""
REMARKS_MAX = 100
"""Entries of a trail beyond which no remarks are added."""
TRAIL_MAX = 240
"""Entries that a trail keeps: the first and the last ones, so that a job of a thousand attempts fits into an answer."""
TRAIL_HEAD = 40
"""How many of them are the first ones."""
OMITTED = "omitted"
"""The stage of the entry that stands for those which a trail has not kept."""
DETAIL_MAX = 240
"""Characters of an outcome's detail that are kept."""


class ImpossibleTransition(Exception):
    """An event in a state in which it cannot occur."""


@frozen
class Wait:
    """There is no free slot for it."""

    at: float
    node: str
    note: str


@frozen
class Stage:
    """A slot was taken for a new attempt: on ``node`` itself, or on the ``executor`` that accepted it."""

    at: float
    node: str
    executor: str | None = None
    executor_id: NodeId | None = None
    note: str = ""
    """Why there."""


@frozen
class Remark:
    """Something on its way that people may want to know, such as a target's refusal."""

    at: float
    node: str
    stage: str
    note: str


@frozen
class Start:
    """The script of that attempt was started."""

    at: float
    node: str
    attempt: AttemptId


@frozen
class End:
    """That attempt ended with an outcome and its output is safe. ``retry``: a further attempt is to follow."""

    at: float
    node: str
    attempt: AttemptId
    outcome: Outcome
    stdout: Output = _NOTHING
    stderr: Output = _NOTHING
    retry: bool = False
    trail: tuple[Stamp, ...] = ()
    """What other nodes noted of it."""


@frozen
class Cancel:
    """A client wants it to end."""

    at: float
    node: str
    by: str
    note: str = ""


@frozen
class Interrupt:
    """The node stops, was short of something, or came back after it died: the script has no end of its own."""

    at: float
    node: str
    note: str
    stdout: Output = _NOTHING
    stderr: Output = _NOTHING
    trail: tuple[Stamp, ...] = ()
    interruption: Interruption | None = None
    deaths_max: int = ATTEMPTS_MAX
    """With so many attempts during which their nodes died the job is ``lost``."""


@frozen
class Died:
    """The node of that attempt, which was believed gone, is back in another life: it did die."""

    at: float
    node: str
    attempt: AttemptId


@frozen
class Move:
    """Another node owns it from now on."""

    at: float
    node: str
    to: str
    """Its name, and where it is reached."""


@frozen
class Expire:
    """Retention ended, or the client removed the job."""

    at: float
    node: str
    removed: bool = False


Event = Wait | Stage | Remark | Start | End | Cancel | Interrupt | Died | Move | Expire


def next_attempt(job: Job) -> AttemptId:
    """The name of the attempt that a :class:`Stage` would begin now: the one place where attempts get their numbers."""
    number = job.attempts[-1].number + 1 if job.attempts else 1
    return AttemptId(job.id, job.owner.epoch, number)


def take_over(job: Job, owner: Owner, sequence: int, at: float) -> Job:
    """A waiting job of another node as the one of ``owner``, whose term is the next.

    :param owner: its epoch is not looked at. :param sequence: of the new owner.
    """
    return evolve(
        job,
        sequence=sequence,
        owner=evolve(owner, epoch=job.owner.epoch + 1),
        state=JobState.PENDING,
        trail=_extended(job, Stamp(at, "taken over", owner.name, f"from {job.owner.name}")),
    )


def retriable(job: Job, outcome: Outcome) -> bool:
    """Whether a failed attempt is followed by another: the script failed by itself and tries are left.

    A timeout is not retried, it would only time out again; nor is anything after a client's cancel.
    """
    if outcome.success or job.cancellation is not None:
        return False
    if outcome.reason not in (Reason.EXIT, Reason.SIGNAL, Reason.MEMORY, Reason.ENVIRONMENT, Reason.LAUNCH):
        return False
    return failures(job) < job.spec.retries


def failures(job: Job) -> int:
    """Attempts that ended by a failure of their own, interruptions not counted."""
    return sum(
        1
        for a in job.attempts
        if a.outcome is not None and a.outcome.reason is not Reason.LOST and not a.outcome.success
    )


def terminal_state(outcome: Outcome) -> JobState:
    """The state in which ``outcome`` leaves the job, if no further attempt follows."""
    if outcome.reason is Reason.CANCELLED:
        return JobState.CANCELLED
    if outcome.reason is Reason.TIMEOUT:
        return JobState.TIMED_OUT
    if outcome.reason is Reason.LOST:
        return JobState.LOST
    return JobState.SUCCEEDED if outcome.success else JobState.FAILED


def _wait(job: Job, event: Wait) -> Job:
    return evolve(job, state=JobState.WAITING, trail=_stamped(job, event, "waiting", event.note))


def _stage(job: Job, event: Stage) -> Job:
    name = next_attempt(job)
    attempt = Attempt(
        number=name.number,
        executor=event.executor or event.node,
        staged_at=event.at,
        executor_id=event.executor_id,
        epoch=name.epoch,
    )
    note = f"attempt {attempt.number}" + (f" {event.note}" if event.note else "")
    return evolve(
        job,
        state=JobState.STAGING,
        attempts=(*job.attempts, attempt),
        trail=_stamped(job, event, "placed" if event.executor is None else "forwarded", note),
    )


def _remark(job: Job, event: Remark) -> Job:
    if len(job.trail) >= REMARKS_MAX:
        return job
    return evolve(job, trail=_stamped(job, event, event.stage, event.note))


def _start(job: Job, event: Start) -> Job:
    attempts = _latest_evolved(job, started_at=event.at)
    stamp = Stamp(at=event.at, stage="started", node=_latest(job).executor)
    return evolve(job, state=JobState.RUNNING, attempts=attempts, trail=_extended(job, stamp))


def _end(job: Job, event: End) -> Job:
    job = _told_elsewhere(job, event.trail)
    attempts = _latest_evolved(
        job, ended_at=event.at, outcome=_shortened(event.outcome), stdout=event.stdout, stderr=event.stderr
    )
    if event.retry and _count(attempts) < ATTEMPTS_MAX:
        trail = _stamped(job, event, "failed", "another attempt follows")
        return evolve(job, state=JobState.WAITING, attempts=attempts, trail=trail)
    state = terminal_state(event.outcome)
    ended = Stamp(at=event.at, stage="ended", node=_latest(job).executor, note=state.value)
    return evolve(job, state=state, ended_at=event.at, attempts=attempts, trail=_extended(job, ended))


def _cancel_unstarted(job: Job, event: Cancel) -> Job:
    job = _cancel_started(job, event)
    trail = _stamped(job, event, "ended", JobState.CANCELLED.value)
    return evolve(job, state=JobState.CANCELLED, ended_at=event.at, trail=trail)


def _cancel_started(job: Job, event: Cancel) -> Job:
    if job.cancellation is not None:
        return job
    wish = Cancellation(at=event.at, by=event.by, note=event.note)
    return evolve(job, cancellation=wish, trail=_stamped(job, event, "cancel", event.note))


def _interrupt_attempt(job: Job, event: Interrupt) -> Job:
    job = _told_elsewhere(job, event.trail)
    unstarted = event.interruption is Interruption.UNSTARTED
    began = None if unstarted else _latest(job).started_at  # it was told to start, and then could not
    usage = Usage(wall_seconds=None if began is None else max(0.0, event.at - began))
    outcome = Outcome(reason=Reason.LOST, detail=event.note[:DETAIL_MAX], usage=usage)
    attempts = _latest_evolved(
        job,
        started_at=began,
        ended_at=event.at,
        outcome=outcome,
        stdout=event.stdout,
        stderr=event.stderr,
        interruption=event.interruption,
    )
    interrupted = evolve(job, attempts=attempts)
    if job.cancellation is not None:
        state = JobState.CANCELLED
    elif unstarted:
        return _wait_again(interrupted, event)
    elif len(interrupted.died_on) >= event.deaths_max:
        state, interrupted = JobState.LOST, _given_up(interrupted)
    elif (job.spec.at_most_once and job.state is JobState.RUNNING) or _count(attempts) >= ATTEMPTS_MAX:
        state = JobState.LOST
    else:
        return _wait_again(interrupted, event)
    trail = _stamped(job, event, "ended", f"{state.value}: {event.note}")
    return evolve(interrupted, state=state, ended_at=event.at, trail=trail)


def _died(job: Job, event: Died) -> Job:
    """It counts from now on; what runs meanwhile may end."""
    named, died = (event.attempt.epoch, event.attempt.number), Interruption.NODE_DIED
    found = [each for each in job.attempts if (each.epoch, each.number) == named and each.ended_at is not None]
    if not found or found[0].interruption is not None:
        return job
    return evolve(job, attempts=tuple(evolve(e, interruption=died) if e is found[0] else e for e in job.attempts))


def _wait_again(job: Job, event: Interrupt) -> Job:
    """Of attempts that never started the latest is kept, so that a long shortage makes no long record."""
    earlier = tuple(each for each in job.attempts[:-1] if each.interruption is not Interruption.UNSTARTED)
    trail = _stamped(job, event, "interrupted", event.note)
    return evolve(job, state=JobState.WAITING, attempts=(*earlier, _latest(job)), trail=trail)


def _given_up(job: Job) -> Job:
    """Its last attempt says which nodes have died during which attempts."""
    died = [each for each in job.attempts if each.interruption is Interruption.NODE_DIED]
    told = ", ".join(f"attempt {each.number} on {each.executor}" for each in died)
    outcome = Outcome(reason=Reason.LOST, detail=f"its node died during {told}"[:DETAIL_MAX])
    last = _latest(job).outcome
    return evolve(job, attempts=_latest_evolved(job, outcome=evolve(outcome, usage=last.usage if last else Usage())))


def _count(attempts: tuple[Attempt, ...]) -> int:
    """Those whose script may have started."""
    return sum(1 for each in attempts if each.interruption is not Interruption.UNSTARTED)


def _expire(job: Job, event: Expire) -> Job:
    trail = _stamped(job, event, "expired", "removed by its client" if event.removed else "")
    return evolve(job, state=JobState.EXPIRED, removed=event.removed, trail=trail)


def _move(job: Job, event: Move) -> Job:
    trail = _stamped(job, event, "moved", f"to {event.to}")
    return evolve(job, state=JobState.EXPIRED, moved_to=event.to, trail=trail)


def _unchanged(job: Job, _event: Event) -> Job:
    return job


_late = _unchanged


def _told_elsewhere(job: Job, trail: tuple[Stamp, ...]) -> Job:
    return evolve(job, trail=_extended(job, *trail)) if trail else job


def _latest(job: Job) -> Attempt:
    return job.attempts[-1]


def _latest_evolved(job: Job, **changes: Any) -> tuple[Attempt, ...]:
    return (*job.attempts[:-1], evolve(_latest(job), **changes))


def _stamped(job: Job, event: Event, stage: str, note: str = "") -> tuple[Stamp, ...]:
    return _extended(job, Stamp(at=event.at, stage=stage, node=event.node, note=note))


def _extended(job: Job, *stamps: Stamp) -> tuple[Stamp, ...]:
    """The trail with ``stamps`` at its end; beyond :data:`TRAIL_MAX` one entry stands for those in the middle."""
    trail = (*job.trail, *stamps)
    if len(trail) <= TRAIL_MAX:
        return trail
    tail = trail[TRAIL_HEAD - TRAIL_MAX + 1 :]
    gap = trail[TRAIL_HEAD]
    if gap.stage != OMITTED:
        gap = evolve(gap, stage=OMITTED, note="the entries between the first and the last ones are not kept")
    return (*trail[:TRAIL_HEAD], gap, *tail)


def _shortened(outcome: Outcome) -> Outcome:
    if len(outcome.detail) <= DETAIL_MAX:
        return outcome
    return evolve(outcome, detail=outcome.detail[: DETAIL_MAX - 1] + "…")


_P, _W, _S, _R, _X = JobState.PENDING, JobState.WAITING, JobState.STAGING, JobState.RUNNING, JobState.EXPIRED
_ENDED = (JobState.SUCCEEDED, JobState.FAILED, JobState.TIMED_OUT, JobState.CANCELLED, JobState.LOST)

# (state, event): what happens. What is not in the table cannot happen.
TABLE: dict[tuple[JobState, type], Callable[..., Job]] = {
    (_P, Wait): _wait,
    (_P, Stage): _stage,
    (_P, Cancel): _cancel_unstarted,
    (_P, Interrupt): _unchanged,
    (_P, Remark): _remark,
    (_P, Move): _move,
    (_W, Wait): _unchanged,
    (_W, Stage): _stage,
    (_W, Start): _late,  # of an attempt that was given up meanwhile
    (_W, End): _late,
    (_W, Cancel): _cancel_unstarted,
    (_W, Interrupt): _unchanged,
    (_W, Remark): _remark,
    (_W, Move): _move,
    (_S, Start): _start,
    (_S, End): _end,  # the environment could not be built, or it was cancelled in time
    (_S, Cancel): _cancel_started,  # the executor aborts and reports End
    (_S, Interrupt): _interrupt_attempt,
    (_S, Remark): _remark,
    **{(state, Died): _died for state in (_P, _W, _S, _R)},
    (_R, Start): _late,  # told once more, because the answer was lost
    (_R, End): _end,
    (_R, Cancel): _cancel_started,  # the executor terminates the script and reports End
    (_R, Interrupt): _interrupt_attempt,
    (_R, Remark): _remark,
    **{(state, event): _late for state in _ENDED for event in (Start, End, Cancel, Interrupt, Died, Remark)},
    **{(state, Expire): _expire for state in _ENDED},
    **{(_X, event): _late for event in (Start, End, Cancel, Interrupt, Died, Remark, Expire)},
}


def step(job: Job, event: Event) -> Job:
    """The job after ``event``; the very same object if the event came late.

    :raises ImpossibleTransition: the table has no such entry.
    """
    if isinstance(event, Start | End) and job.attempts and event.attempt != job.attempt_id:
        return _late(job, event)
    transition = TABLE.get((job.state, type(event)))
    if transition is None:
        raise ImpossibleTransition(f"{type(event).__name__} for job {job.id} in state {job.state.value}")
    return transition(job, event)
