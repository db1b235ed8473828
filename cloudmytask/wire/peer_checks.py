"""What the documents of peers must hold to beyond the types and limits of their fields.

Invariant: a job id that passes is whole and in its canonical form, and no reading of a foreign clock passes.
"""

from __future__ import annotations

from cloudmytask.codec import decode
from cloudmytask.core.job_id import LENGTH, normalize
from cloudmytask.model.cluster import Offer
from cloudmytask.model.errors import InvalidArgument
from cloudmytask.model.job import AttemptId, Client, JobId, TravelingJob


def attempt_id(field: str, text: str) -> AttemptId:
    """The attempt that a text names.

    :raises InvalidArgument: not the text of an attempt's id.
    """
    try:
        found = AttemptId.parse(text)
    except ValueError as problem:
        raise InvalidArgument(f"{field}: {problem}") from None
    _check_job_id(field, found.job)
    return found


def offer_of(document: object) -> Offer:
    """What ``OfferJob`` sends.

    :raises InvalidArgument: it is malformed.
    """
    offer = decode(Offer, document)
    _check_job_id("attempt.job", offer.attempt.job)
    return offer


def traveling_job_of(document: object) -> TravelingJob:
    """What ``HandOverJob`` sends; it can be stored.

    :raises InvalidArgument: it is malformed.
    """
    traveling = decode(TravelingJob, document)
    _check_job_id("job.id", traveling.job.id)
    decode(Client, traveling.job.client, "job.client")
    if traveling.job.expires is not None:
        raise InvalidArgument("job.expires: it is by the clock of its sender; remaining was expected")
    return traveling


def _check_job_id(field: str, job_id: JobId) -> None:
    try:
        canonical = normalize(job_id)
    except InvalidArgument as problem:
        raise InvalidArgument(f"{field}: {problem}") from None
    if canonical != job_id or len(job_id) != LENGTH:
        raise InvalidArgument(f"{field}: {job_id!r} is not a job id of {LENGTH} symbols in its canonical form")
