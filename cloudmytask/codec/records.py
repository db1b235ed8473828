"""Jobs as the store keeps them: the spec once, since it never changes, and beside it the record of all the rest.

Invariant: what was written is read back equal. Records of the first version are read, too; they are written anew in
today's form whenever their job changes.
"""

from __future__ import annotations

from typing import Any

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
    document = {**found, "spec": load(spec)}
    try:
        return decode(Job, document)
    except InvalidArgument:
        earlier = _of_version_1(document)
        if earlier == document:
            raise
    return decode(Job, earlier)


def _of_version_1(document: dict[str, Any]) -> dict[str, Any]:
    """The document of a job as version 1 wrote it, in today's form: it had lists where there are objects now."""
    changed = {
        **document,
        "spec": _spec(document["spec"]),
        "cancellation": _named(document.get("cancellation"), "at", "by", "note"),
    }
    if isinstance(trail := document.get("trail"), list):
        changed["trail"] = [_named(stamp, "at", "stage", "node", "note") for stamp in trail]
    if isinstance(attempts := document.get("attempts"), list):
        changed["attempts"] = [_attempt(attempt) for attempt in attempts]
    return changed


def _named(value: Any, *names: str) -> Any:
    return dict(zip(names, value, strict=False)) if isinstance(value, list) else value


def _spec(spec: Any) -> Any:
    if not isinstance(spec, dict) or not isinstance(spec.get("environment"), dict):
        return spec
    return {**spec, "environment": [list(pair) for pair in spec["environment"].items()]}


def _attempt(attempt: Any) -> Any:
    if not isinstance(attempt, dict):
        return attempt
    changed = {**attempt}
    for stream in ("stdout", "stderr"):
        if isinstance(output := attempt.get(stream), list):
            named = _named(output, "blob", "discarded")
            changed[stream] = {**named, "blob": _named(named.get("blob"), "digest", "size")}
    if isinstance(outcome := attempt.get("outcome"), dict):
        usage = _named(outcome.get("usage"), "wall_seconds", "cpu_seconds", "peak_memory")
        changed["outcome"] = {**outcome, "usage": usage}
    return changed
