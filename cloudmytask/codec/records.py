"""Jobs as the store keeps them: the spec once, since it never changes, and beside it the record of all the rest.

Invariant: what was written is read back equal. A record of version 1 of the store is read once, when
the store is upgraded, and becomes a job in today's form, whose owner is the node whose store it is.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec

from cloudmytask.codec.decoding import decode
from cloudmytask.codec.encoding import encode
from cloudmytask.codec.text import dump, load
from cloudmytask.model.errors import InternalError, InvalidArgument
from cloudmytask.model.job import FIRST_EPOCH, Job, NodeId

_decode_whole = msgspec.json.Decoder(Job).decode


def job_to_record(job: Job) -> str:
    """All of a job but its spec."""
    document = encode(job)
    del document["spec"]
    return dump(document).decode("ascii")


def job_from_record(spec: bytes | str, record: bytes | str) -> Job:
    """The job that its two texts describe.

    :raises InvalidArgument: a text is not that of a spec, or not that of a record.
    """
    with suppress(ValueError, RecursionError):
        return _decode_whole(_joined(spec, record))
    found = load(record)
    if not isinstance(found, dict):
        raise InvalidArgument("job: the record is not an object")
    return decode(Job, {**found, "spec": load(spec)})


def check_record(job: Job, spec: str, record: str) -> None:
    """Check that the two texts of ``job`` can be read back.

    :raises InternalError: they cannot, or describe another job.
    """
    try:
        found = job_from_record(spec, record)
    except InvalidArgument as problem:
        raise InternalError(f"the record of job {job.id} could not be read back: {problem}") from problem
    if found != job:
        raise InternalError(f"the record of job {job.id} would not be read back as it is")


def _joined(spec: bytes | str, record: bytes | str) -> bytes:
    """Both as one text; it is JSON only if they are."""
    first = record.encode() if isinstance(record, str) else record
    last = spec.encode() if isinstance(spec, str) else spec
    return b'%s,"spec":%s}' % (first.removesuffix(b"}"), last) if first.endswith(b"}") else b""


def job_from_version_1(spec: bytes | str, record: bytes | str, node_id: NodeId) -> Job:
    """The job of a spec and a record, which had lists where there are objects now, and of their owner the name only.

    :param node_id: of the node whose store it is.
    :raises InvalidArgument: a text is not that of a spec, or not that of a record.
    """
    document, told = load(record), load(spec)
    if not isinstance(document, dict) or not isinstance(told, dict):
        raise InvalidArgument("job: the record or its spec is not an object")
    owner = {"node_id": node_id, "name": document.get("origin"), "epoch": FIRST_EPOCH, "custodians": [node_id]}
    changed = {
        **document,
        "owner": owner,
        "spec": {**told, "variables": told.get("environment", {})},
        "cancellation": _named(document.get("cancellation"), "at", "by", "note"),
        "trail": _each(document.get("trail", []), lambda stamp: _named(stamp, "at", "stage", "node", "note")),
        "attempts": _each(document.get("attempts", []), _attempt),
    }
    return decode(Job, changed)


def _each(value: Any, change: Callable[[Any], Any]) -> Any:
    return [change(part) for part in value] if isinstance(value, list) else value


def _named(value: Any, *names: str) -> Any:
    return dict(zip(names, value, strict=False)) if isinstance(value, list) else value


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
