"""Jobs as the store keeps them: the spec once, since it never changes, and beside it the record of all the rest.

Invariant: what was written is read back equal.
"""

from __future__ import annotations

from cloudmytask.codec.decoding import decode
from cloudmytask.codec.encoding import encode
from cloudmytask.codec.text import dump, load
from cloudmytask.model.errors import InvalidArgument
from cloudmytask.model.job import Job


def job_to_record(job: Job) -> str:
    """All of a job but its spec."""
    document = encode(job)
    del document["spec"]
    return dump(document).decode("ascii")


def job_from_record(spec: bytes | str, record: bytes | str) -> Job:
    """
    :raises InvalidArgument: a text is not that of a spec, or not that of a record.
    """
    found = load(record)
    if not isinstance(found, dict):
        raise InvalidArgument("job: the record is not an object")
    return decode(Job, {**found, "spec": load(spec)})
