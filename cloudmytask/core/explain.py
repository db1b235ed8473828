"""``cmt why``: the reason of a job's state in one sentence, then in detail. It has an answer in every state.

Invariant: pure text over what is recorded; it decides nothing and guesses nothing.
"""

from __future__ import annotations

import signal
from datetime import UTC, datetime
from functools import lru_cache

from attrs import frozen

from cloudmytask.core.units import show_duration, show_size
from cloudmytask.model import Attempt, Explanation, Job, JobState, Outcome, QoS, Reason


@frozen
class Surroundings:
    """What the node knows beyond the job's own record."""

    node: str
    slots: int
    running: int
    ahead: int | None
    """Waiting jobs that go first."""
    load: float | None
    idle_threshold: float
    draining: bool
    retry_in: float | None
    """Seconds until the next attempt may start; None if it is not pausing."""


def explain(job: Job, around: Surroundings) -> Explanation:
    """Why the job is in its state."""
    return Explanation(sentence=_sentence(job, around), details=tuple(_details(job)))


def describe_outcome(outcome: Outcome) -> str:
    """How an attempt ended, as the end of a sentence: "it exited with code 3"."""
    match outcome.reason:
        case Reason.EXIT:
            text = f"it exited with code {outcome.exit_code}"
        case Reason.SIGNAL:
            text = f"it was killed by {signal_name(outcome.signal)}"
        case Reason.TIMEOUT:
            text = "it ran into its timeout"
        case Reason.CANCELLED:
            text = "it was cancelled"
        case Reason.LAUNCH:
            text = "it could not be started"
        case Reason.ENVIRONMENT:
            text = "its environment could not be built"
        case Reason.MEMORY:
            text = "it used more memory than it may"
        case Reason.LOST:
            text = "its end is not known"
    return f"{text}: {outcome.detail}" if outcome.detail else text


def signal_name(number: int | None) -> str:
    """``SIGKILL`` for 9; see signal(7)."""
    try:
        return signal.Signals(number or 0).name
    except ValueError:
        return f"signal {number}"


def _sentence(job: Job, around: Surroundings) -> str:
    match job.state:
        case JobState.PENDING:
            return f"It was accepted by {job.origin} and is about to be placed."
        case JobState.WAITING:
            return _why_waiting(job, around)
        case JobState.STAGING:
            return f"It has a slot on {_executor(job)}, where its inputs are being laid out."
        case JobState.RUNNING:
            return _why_running(job)
        case JobState.SUCCEEDED:
            return f"It exited with code 0 on {_executor(job)}{_after(job)}."
        case JobState.FAILED | JobState.TIMED_OUT:
            return _why_failed(job)
        case JobState.CANCELLED:
            return _why_cancelled(job)
        case JobState.LOST:
            detail = job.outcome.detail if job.outcome is not None else ""
            return f"Its end is not known ({detail or 'the node died'}) and it must not run twice (--at-most-once)."
        case JobState.EXPIRED if job.removed:
            return "Its client removed it; only this note is left."
        case JobState.EXPIRED:
            return f"Its retention of {show_duration(job.retention)} ended, so outcome and output were deleted."


def _why_waiting(job: Job, around: Surroundings) -> str:
    if around.draining:
        return f"{around.node} is shutting down; the job stays queued and runs when the node is back."
    if around.retry_in is not None:
        last = describe_outcome(job.outcome) if job.outcome is not None else "it failed"
        pause = show_duration(around.retry_in)
        return f"Attempt {len(job.attempts)} failed ({last}); the next one starts in about {pause}."
    ahead = f", {around.ahead} waiting before it" if around.ahead else ""
    if around.running < around.slots and job.spec.qos is QoS.IDLE and around.load is not None:
        return (
            f"It is of class idle and the machine's load is {around.load:.2f}: "
            f"such jobs start while it is below {around.idle_threshold:.2f}{ahead}."
        )
    return f"All {around.slots} slots of {around.node} are taken ({around.running} running{ahead})."


def _why_running(job: Job) -> str:
    started = job.attempt.started_at if job.attempt is not None else None
    since = f" since {format_time(started)}" if started is not None else ""
    if job.cancellation is not None:
        return f"It is being cancelled: its script on {_executor(job)} was asked to end."
    nth = f" (attempt {len(job.attempts)})" if len(job.attempts) > 1 else ""
    return f"It runs on {_executor(job)}{since}{nth}, which had a free slot."


def _why_failed(job: Job) -> str:
    outcome = job.outcome
    how = describe_outcome(outcome) if outcome is not None else "it failed"
    if job.state is JobState.TIMED_OUT and job.spec.timeout is not None:
        how += f" of {show_duration(job.spec.timeout)}"
    tries = f"; {len(job.attempts)} attempts were made" if len(job.attempts) > 1 else ""
    return f"{how[0].upper()}{how[1:]} on {_executor(job)}{_after(job)}{tries}."


def _why_cancelled(job: Job) -> str:
    wish = job.cancellation
    by = f" by {wish.by}" if wish is not None else ""
    note = f" ({wish.note})" if wish is not None and wish.note else ""
    when = "while it ran" if job.attempts and job.attempts[-1].started_at is not None else "before it started"
    return f"It was cancelled{by}{note} {when}."


def _details(job: Job) -> list[str]:
    lines = [f"{format_time(s.at)} {s.stage} on {s.node}" + (f": {s.note}" if s.note else "") for s in job.trail]
    lines.extend(_attempt_line(a, a.outcome) for a in job.attempts if a.outcome is not None)
    return lines


def _attempt_line(attempt: Attempt, outcome: Outcome) -> str:
    usage = outcome.usage
    figures = [
        f"{label} {text}"
        for label, text in (
            ("wall", None if usage.wall_seconds is None else show_duration(usage.wall_seconds)),
            ("CPU", None if usage.cpu_seconds is None else show_duration(usage.cpu_seconds)),
            ("peak memory", None if usage.peak_memory is None else show_size(usage.peak_memory)),
        )
        if text is not None
    ]
    cut = [
        f"{discarded} bytes of {stream} discarded beyond output_max"
        for stream, discarded in (("stdout", attempt.stdout.discarded), ("stderr", attempt.stderr.discarded))
        if discarded
    ]
    return "; ".join([f"attempt {attempt.number} on {attempt.executor}: {describe_outcome(outcome)}", *figures, *cut])


def _executor(job: Job) -> str:
    return job.attempt.executor if job.attempt is not None else job.origin


def _after(job: Job) -> str:
    wall = job.outcome.usage.wall_seconds if job.outcome is not None else None
    return f" after {show_duration(wall)}" if wall is not None else ""


@lru_cache(4096)
def format_time(at: float) -> str:
    """UTC in ISO 8601 with milliseconds."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
