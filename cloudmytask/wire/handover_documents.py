"""A job that changes its owner, as a JSON document.

Invariant: decoding raises nothing but :class:`~cloudmytask.model.errors.InvalidArgument`; what it gives can be stored.
"""

from __future__ import annotations

from cloudmytask.codec import Document, decode, encode
from cloudmytask.model.errors import InvalidArgument
from cloudmytask.model.job import Job
from cloudmytask.wire.peer_documents import job_id


def job_to_handover(job: Job) -> Document:
    """What ``HandOverJob`` sends."""
    return encode(job)


def job_from_handover(document: object) -> Job:
    """:raises InvalidArgument:"""
    job = decode(Job, document)
    if job_id("id", job.id) != job.id:
        raise InvalidArgument(f"id: {job.id!r} is not in its canonical form")
    return job
