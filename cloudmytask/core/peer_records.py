"""What other nodes send of jobs: offers, jobs that change hands, last words on attempts.

Invariant: what passes can be stored, read back, listed and shown, from any node, and goes on counting: none of its
numbers is near the end of its type. A job id is whole and in its canonical form, a state is one that can travel, and no
reading of a foreign clock passes.
"""

from __future__ import annotations

from attrs import evolve

from cloudmytask.codec import decode
from cloudmytask.core.admission import DURATION_MAX
from cloudmytask.core.job import ATTEMPTS_MAX, DETAIL_MAX, TRAIL_MAX
from cloudmytask.core.job_id import LENGTH, normalize
from cloudmytask.model.cluster import Offer, RemoteEnd
from cloudmytask.model.errors import InvalidArgument
from cloudmytask.model.fields import NAME_MAX
from cloudmytask.model.job import AttemptId, Client, Job, JobId, JobState, Outcome, Stamp, TravelingJob, Usage

EPOCH_MAX = 2**31
"""Owners that one job may have had."""
BYTES_MAX = 2**60
"""Bytes that a peer may say were thrown away."""
STAMP_NOTE_MAX = 2000
"""Characters in one note of a trail: a refusal's sentence and who refused."""
CUSTODIANS_MAX = 100
TRAVELING = (JobState.PENDING, JobState.WAITING)
"""The states in which a job may change hands."""


def attempt_id(field: str, text: str) -> AttemptId:
    """The attempt that a text names.

    :raises InvalidArgument: not the text of an attempt's id.
    """
    try:
        found = AttemptId.parse(text)
    except ValueError as problem:
        raise InvalidArgument(f"{field}: {problem}") from None
    _check_attempt(field, field, found)
    return found


def offer_of(document: object) -> Offer:
    """What ``OfferJob`` sends.

    :raises InvalidArgument: it is malformed.
    """
    offer = decode(Offer, document)
    _check_attempt("attempt", "attempt.job", offer.attempt)
    return offer


def traveling_job_of(document: object) -> TravelingJob:
    """What ``HandOverJob`` sends; it can be stored.

    :raises InvalidArgument: it is malformed, or no job that waits.
    """
    traveling = decode(TravelingJob, document)
    job = traveling.job
    _check_job_id("job.id", job.id)
    decode(Client, job.client, "job.client")
    if job.expires is not None:
        raise InvalidArgument("job.expires: it is by the clock of its sender; remaining was expected")
    if traveling.remaining is not None and not 0 <= traveling.remaining <= DURATION_MAX:
        raise InvalidArgument(f"remaining: {traveling.remaining:g} is not within 0 and {DURATION_MAX:.0f} seconds")
    if job.retention < 0:
        raise InvalidArgument(f"job.retention: {job.retention:g} is negative")
    if job.state not in TRAVELING:
        raise InvalidArgument(f"job.state: {job.state.value} does not travel, only {' and '.join(TRAVELING)} do")
    for field in ("ended_at", "moved_to", "removed"):
        if getattr(job, field):
            raise InvalidArgument(f"job.{field}: it is {getattr(job, field)!r} in a job that waits")
    _check_most("job.owner.epoch", job.owner.epoch, EPOCH_MAX)
    _check_most("job.owner.custodians", len(job.owner.custodians), CUSTODIANS_MAX)
    _check_length("job.owner.name", job.owner.name, NAME_MAX)
    if job.cancellation is not None:
        _check_length("job.cancellation.by", job.cancellation.by, NAME_MAX)
        _check_length("job.cancellation.note", job.cancellation.note, STAMP_NOTE_MAX)
    _check_most("job.attempts", len(job.attempts), ATTEMPTS_MAX - 1)
    _check_attempts(job)
    _check_most("job.trail", len(job.trail), TRAIL_MAX)
    for place, stamp in enumerate(job.trail):
        _check_stamp(f"job.trail[{place}]", stamp)
    return traveling


def end_of(document: object) -> RemoteEnd:
    """What ``AttemptEnded`` sends. What is out of all proportion in it is cut to measure: its attempt has ended in any
    case.

    :raises InvalidArgument: it is malformed.
    """
    end = decode(RemoteEnd, document)
    return evolve(
        end,
        outcome=_measured(end.outcome),
        discarded={stream: min(size, BYTES_MAX) for stream, size in end.discarded.items()},
        trail=tuple(_cut(stamp) for stamp in end.trail),
    )


def _measured(outcome: Outcome) -> Outcome:
    usage = outcome.usage
    wall, cpu = usage.wall_seconds, usage.cpu_seconds
    usage = Usage(
        None if wall is None else min(max(wall, 0.0), DURATION_MAX),
        None if cpu is None else min(max(cpu, 0.0), DURATION_MAX),
        None if usage.peak_memory is None else min(usage.peak_memory, BYTES_MAX),
    )
    return evolve(outcome, usage=usage, detail=outcome.detail[: DETAIL_MAX + 1])


def _cut(stamp: Stamp) -> Stamp:
    note = stamp.note[:STAMP_NOTE_MAX]
    return evolve(stamp, stage=stamp.stage[:NAME_MAX], node=stamp.node[:NAME_MAX], note=note)


def _check_attempts(job: Job) -> None:
    """All attempts of a job that waits have ended, and are numbered as they came."""
    for place, attempt in enumerate(job.attempts):
        where = f"job.attempts[{place}]"
        if attempt.number != place + 1:
            raise InvalidArgument(f"{where}.number: {attempt.number} is not {place + 1}")
        _check_most(f"{where}.epoch", attempt.epoch, job.owner.epoch)
        _check_length(f"{where}.executor", attempt.executor, NAME_MAX)
        if attempt.outcome is None:
            raise InvalidArgument(f"{where}.outcome: it is missing, and the job waits")
        _check_length(f"{where}.outcome.detail", attempt.outcome.detail, DETAIL_MAX)
        for stream in ("stdout", "stderr"):
            output = getattr(attempt, stream)
            _check_most(f"{where}.{stream}.discarded", output.discarded, BYTES_MAX)
            _check_most(f"{where}.{stream}.blob.size", output.size, BYTES_MAX)
        if _measured(attempt.outcome) != attempt.outcome:
            raise InvalidArgument(f"{where}.outcome.usage: it is out of all proportion")


def _check_stamp(field: str, stamp: Stamp) -> None:
    _check_length(f"{field}.stage", stamp.stage, NAME_MAX)
    _check_length(f"{field}.node", stamp.node, NAME_MAX)
    _check_length(f"{field}.note", stamp.note, STAMP_NOTE_MAX)


def _check_length(field: str, text: str, limit: int) -> None:
    _check_most(field, len(text), limit, " characters are")


def _check_most(field: str, number: int, limit: int, unit: str = " is") -> None:
    if number > limit:
        raise InvalidArgument(f"{field}: {number}{unit} more than the limit, {limit}")


def _check_attempt(field: str, job_field: str, attempt: AttemptId) -> None:
    _check_job_id(job_field, attempt.job)
    _check_most(f"{field}.epoch", attempt.epoch, EPOCH_MAX)
    _check_most(f"{field}.number", attempt.number, ATTEMPTS_MAX)


def _check_job_id(field: str, job_id: JobId) -> None:
    try:
        canonical = normalize(job_id)
    except InvalidArgument as problem:
        raise InvalidArgument(f"{field}: {problem}") from None
    if canonical != job_id or len(job_id) != LENGTH:
        raise InvalidArgument(f"{field}: {job_id!r} is not a job id of {LENGTH} symbols in its canonical form")
