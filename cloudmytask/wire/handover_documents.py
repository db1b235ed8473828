"""A job that changes its owner, as a JSON document: its spec and its record.

Invariant: decoding raises nothing but :class:`~cloudmytask.model.errors.InvalidArgument`; what it gives can be stored.
"""

from __future__ import annotations

import json
from typing import Any

from cloudmytask.core.admission import check_client
from cloudmytask.core.records import job_from_record, job_to_record, spec_to_json
from cloudmytask.core.spec_document import mapping, spec_from_document, spec_to_document, typed
from cloudmytask.model.errors import InvalidArgument
from cloudmytask.model.job import TravelingJob
from cloudmytask.wire.peer_documents import finite, job_id

Json = dict[str, Any]


def job_to_handover(traveling: TravelingJob) -> Json:
    """What ``HandOverJob`` sends."""
    job = traveling.job
    return {
        "spec": spec_to_document(job.spec),
        "record": json.loads(job_to_record(job)),
        "remaining": traveling.remaining,
    }


def job_from_handover(document: object) -> TravelingJob:
    """:raises InvalidArgument:"""
    fields = mapping("job", document)
    spec = spec_from_document(fields.get("spec"))
    try:
        job = job_from_record(spec_to_json(spec), json.dumps(mapping("record", fields.get("record"))))
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as problem:
        raise InvalidArgument(f"job: its record is malformed: {problem!r}"[:300]) from None
    check_client(job.client)
    if job_id("job", job.id) != job.id:
        raise InvalidArgument(f"job: {job.id!r} is not in its canonical form")
    if job.expires is not None:
        raise InvalidArgument("job: expires is by the clock of its sender; remaining was expected")
    return TravelingJob(job, typed(fields, "remaining", finite, None))
