"""A job that changes its owner, as a JSON document.

Invariant: decoding raises nothing but :class:`~cloudmytask.model.errors.InvalidArgument`; what it gives can be stored.
"""

from __future__ import annotations

from cloudmytask.codec import Document, decode, encode
from cloudmytask.model.errors import InvalidArgument
from cloudmytask.model.job import TravelingJob
from cloudmytask.wire.peer_documents import job_id


def job_to_handover(traveling: TravelingJob) -> Document:
    """What ``HandOverJob`` sends."""
    return encode(traveling)


def job_from_handover(document: object) -> TravelingJob:
    """:raises InvalidArgument:"""
    traveling = decode(TravelingJob, document)
    job = traveling.job
    if job_id("job.id", job.id) != job.id:
        raise InvalidArgument(f"job.id: {job.id!r} is not in its canonical form")
    if job.expires is not None:
        raise InvalidArgument("job.expires: it is by the clock of its sender; remaining was expected")
    return traveling
