"""``cmt why``: the reason of a job's state in one sentence, then in detail. It has an answer in every state.

Invariant: pure text over what is recorded; it decides nothing and guesses nothing.
"""

from __future__ import annotations

import signal

from attrs import frozen

from cloudmytask.codec.people import format_time
from cloudmytask.core.units import show_duration, show_size
from cloudmytask.model.job import (
    Attempt,
    Explanation,
    Job,
    JobState,
    Limits,
    Loss,
    Outcome,
    QoS,
    Reason,
    Resource,
    StreamName,
)


@frozen
class Surroundings:
    """What the node knows beyond the job's own record."""

    node: str
    slots: int
    running: int
    free: int
    """Scripts that the node would start at once: load and threshold counted."""
    ahead: int | None
    """Waiting jobs that go first."""
    load: float | None
    threshold: float
    idle_threshold: float
    draining: bool
    retry_in: float | None
    """Seconds until the next attempt may start; None if it is not pausing."""
    elsewhere: str = ""
    """Why no other node runs it, as the end of a sentence."""
    short: tuple[Resource, ...] = ()
    """What the node is short of."""


def explain(job: Job, around: Surroundings) -> Explanation:
    """Why the job is in its state."""
    return Explanation(sentence=_sentence(job, around), details=tuple(_details(job)))


def node_failed(bug: BaseException | None) -> str:
    """What is told of an attempt that a bug of ours has ended; the node's log has the traceback."""
    return f"the node failed: {bug!r}"


def describe_outcome(outcome: Outcome, limits: Limits) -> str:
    """How an attempt ended, as the end of a sentence: "it exited with code 3".

    :param limits: of the job; the one that fits the end is named.
    """
    return _what_happened(outcome) + _in_detail(outcome, limits)


def _what_happened(outcome: Outcome) -> str:
    match outcome.reason:
        case Reason.EXIT:
            return f"it exited with code {outcome.exit_code}"
        case Reason.SIGNAL:
            return f"it was killed by {signal_name(outcome.signal)}"
        case Reason.TIMEOUT:
            return "it ran into its timeout"
        case Reason.CANCELLED:
            return "it was cancelled"
        case Reason.LAUNCH:
            return "it could not be started"
        case Reason.ENVIRONMENT:
            return "its environment could not be built"
        case Reason.MEMORY:
            return "it used more memory than it may"
        case Reason.LOST:
            return "it was interrupted"


def _in_detail(outcome: Outcome, limits: Limits) -> str:
    """What is known beyond the reason; a sentence of its own has to fit into ours."""
    detail = outcome.detail.rstrip(".") or _limit_reached(outcome, limits)
    return f": {detail}" if detail else ""


def describe_loss(stream: str, lost: Loss) -> str:
    """What a disk did not take: "the disk of node b was full after 41.7 MiB: 12 bytes of stdout are missing"."""
    how = "was full" if lost.full else "failed"
    return (
        f"the disk of node {lost.node} {how} after {show_size(lost.after)}: {lost.size} bytes of {stream} are missing"
    )


def _limit_reached(outcome: Outcome, limits: Limits) -> str:
    """The limit that the kernel kills for with that signal; see setrlimit(2)."""
    if outcome.reason is not Reason.SIGNAL:
        return ""
    cpu, size, used = limits.cpu_seconds, limits.file_size, outcome.usage.cpu_seconds
    killed = outcome.signal == signal.SIGKILL and used is not None and cpu is not None and used >= cpu
    if cpu is not None and (outcome.signal == signal.SIGXCPU or killed):
        return f"its limit of CPU time is {show_duration(cpu)}"
    if size is not None and outcome.signal == signal.SIGXFSZ:
        return f"its limit of the size of a file is {show_size(size)}"
    return ""


def signal_name(number: int | None) -> str:
    """``SIGKILL`` for 9; see signal(7)."""
    try:
        return signal.Signals(number or 0).name
    except ValueError:
        return f"signal {number}"


def _sentence(job: Job, around: Surroundings) -> str:
    match job.state:
        case JobState.PENDING:
            return f"It was accepted by {job.owner.name} and is about to be placed."
        case JobState.WAITING:
            return _why_waiting(job, around)
        case JobState.STAGING | JobState.RUNNING if job.cancellation is not None:
            return f"It is being cancelled: its script on {_executor(job)} was asked to end."
        case JobState.STAGING:
            return f"It has a slot on {_executor(job)}, where its inputs are being laid out."
        case JobState.RUNNING:
            return _why_running(job)
        case JobState.SUCCEEDED:
            return f"It exited with code 0 on {_executor(job)}{_after(job)}{_tries(job)}{_lost(job)}."
        case JobState.FAILED | JobState.TIMED_OUT:
            return _why_failed(job)
        case JobState.CANCELLED:
            return _why_cancelled(job)
        case JobState.LOST:
            return _why_lost(job)
        case JobState.EXPIRED if job.removed:
            return "Its client removed it; only this note is left."
        case JobState.EXPIRED:
            return f"Its retention of {show_duration(job.retention)} ended, so outcome and output were deleted."


def _why_waiting(job: Job, around: Surroundings) -> str:
    if around.draining:
        return f"{around.node} is shutting down; the job stays queued and runs when the node is back."
    if around.retry_in is not None:
        last = describe_outcome(job.outcome, job.spec.limits) if job.outcome is not None else "it failed"
        pause = show_duration(around.retry_in)
        return f"Attempt {_number(job)} failed ({last}); the next one starts in about {pause}."
    ahead = ""
    if around.ahead:
        ahead = f", and {around.ahead} {'job waits' if around.ahead == 1 else 'jobs wait'} before it"
    elsewhere = f", {around.elsewhere}" if around.elsewhere else ""
    if job.spec.node not in (None, around.node):
        return f"It waits for {job.spec.node}, where it is to run{elsewhere}{ahead}."
    if around.node in job.spec.avoid:
        return f"It is not to run on {around.node}{elsewhere}{ahead}."
    if around.short:
        lacking = " and ".join(each.words for each in around.short)
        return f"{around.node} is short of {lacking}, and starts nothing until that is over{elsewhere}{ahead}."
    if around.running >= around.slots:
        slots = "The only slot" if around.slots == 1 else f"All {around.slots} slots"
        return f"{slots} of {around.node} {'is' if around.slots == 1 else 'are'} taken{elsewhere}{ahead}."
    if around.threshold <= 0:
        return f"{around.node} runs nothing (threshold 0){elsewhere}{ahead}."
    if around.load is not None and around.free <= 0:
        return (
            f"The load of {around.node} is {around.load:.2f}, and it starts jobs below {around.threshold:.2f}"
            f"{elsewhere}{ahead}."
        )
    if job.spec.qos is QoS.IDLE and around.load is not None and around.load >= around.idle_threshold:
        return (
            f"It is of class idle, and such jobs start while the machine's load is below {around.idle_threshold:.2f}; "
            f"it is {around.load:.2f}{ahead}."
        )
    return f"{around.node} has a free slot, so it is about to be placed{ahead}."


def _why_running(job: Job) -> str:
    started = job.attempt.started_at if job.attempt is not None else None
    since = f"; it started at {format_time(started)}" if started is not None else ""
    nth = f" (attempt {_number(job)})" if _number(job) > 1 else ""
    return f"It is running on {_executor(job)}, which had a free slot{since}{nth}{_why_there(job)}."


def _why_there(job: Job) -> str:
    """Of a job that runs on another node than the one it was handed to."""
    if job.attempt is None or job.attempt.executor_id is None:
        return ""
    forwarded = [stamp for stamp in job.trail if stamp.stage == "forwarded"]
    reason = forwarded[-1].note.partition(" to ")[2] if forwarded else ""
    return f"; {job.owner.name} forwarded it to {reason}" if reason else f"; {job.owner.name} forwarded it"


def _why_failed(job: Job) -> str:
    outcome = job.outcome
    how = _what_happened(outcome) if outcome is not None else "it failed"
    if job.state is JobState.TIMED_OUT and job.spec.timeout is not None:
        how += f" of {show_duration(job.spec.timeout)}"
    detail = _in_detail(outcome, job.spec.limits) if outcome is not None else ""
    return f"{how[0].upper()}{how[1:]} on {_executor(job)}{_after(job)}{_tries(job)}{detail}{_lost(job)}."


def _why_lost(job: Job) -> str:
    why = job.outcome.detail.rstrip(".") if job.outcome is not None else ""
    interrupted = f"Its script was interrupted on {_executor(job)} ({why or 'the node died'})"
    if job.spec.at_most_once:
        return f"{interrupted}, how far it came is not known, and it must not run twice (--at-most-once)."
    return f"{interrupted}, and after {len(job.attempts)} attempts no further one is made."


def _why_cancelled(job: Job) -> str:
    wish = job.cancellation
    by = f" by {wish.by}" if wish is not None else ""
    note = f" ({wish.note})" if wish is not None and wish.note else ""
    when = "while it ran" if job.attempts and job.attempts[-1].started_at is not None else "before it started"
    return f"It was cancelled{by}{note} {when}."


def _details(job: Job) -> list[str]:
    lines = [f"{format_time(s.at)} {s.stage} on {s.node}" + (f": {s.note}" if s.note else "") for s in job.trail]
    lines.extend(_attempt_line(a, a.outcome, job.spec.limits) for a in job.attempts if a.outcome is not None)
    return lines


def _attempt_line(attempt: Attempt, outcome: Outcome, limits: Limits) -> str:
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
    cut = []
    for stream in StreamName:
        output = attempt.output(stream)
        if output.discarded:
            cut.append(f"{output.discarded} bytes of {stream} discarded beyond output_max")
        if output.lost is not None:
            cut.append(describe_loss(stream, output.lost))
    how = describe_outcome(outcome, limits)
    return "; ".join([f"attempt {attempt.number} on {attempt.executor}: {how}", *figures, *cut])


def _lost(job: Job) -> str:
    if job.attempt is None:
        return ""
    outputs = [(stream, job.attempt.output(stream).lost) for stream in StreamName]
    return "".join(f"; {describe_loss(stream, lost)}" for stream, lost in outputs if lost is not None)


def _tries(job: Job) -> str:
    return f"; {len(job.attempts)} attempts were made" if len(job.attempts) > 1 else ""


def _number(job: Job) -> int:
    """Of the latest attempt."""
    return job.attempts[-1].number if job.attempts else 0


def _executor(job: Job) -> str:
    return job.attempt.executor if job.attempt is not None else job.owner.name


def _after(job: Job) -> str:
    wall = job.outcome.usage.wall_seconds if job.outcome is not None else None
    return f" after {show_duration(wall)}" if wall is not None else ""
