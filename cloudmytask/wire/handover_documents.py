"""A job that changes its owner, as a JSON document: its spec and its record.

Invariant: decoding raises nothing but :class:`~cloudmytask.model.errors.InvalidArgument`; what it gives can be stored.
"""

from __future__ import annotations

import json
from typing import Any

from cloudmytask.core.admission import check_client
from cloudmytask.core.records import job_from_record, job_to_record, spec_to_json
from cloudmytask.core.spec_document import mapping, spec_from_document, spec_to_document
from cloudmytask.model.errors import InvalidArgument
from cloudmytask.model.job import Job
from cloudmytask.wire.peer_documents import job_id

Json = dict[str, Any]


def job_to_handover(job: Job) -> Json:
    """What ``HandOverJob`` sends."""
    return {"spec": spec_to_document(job.spec), "record": json.loads(job_to_record(job))}


def job_from_handover(document: object) -> Job:
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
    return job
