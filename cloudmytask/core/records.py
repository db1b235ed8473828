"""Job records as text: what the store writes down, and how it is read back.

Invariant: reading gives back exactly the value that was written, and whatever a later version adds (a key of an
object, a further element at the end of a list) is ignored by this one. A field at its empty value is left out, so that
a field that is added later changes neither old texts nor the digests of old specs.

The text is ASCII: an argument that is not UTF-8 reaches us with lone surrogates (PEP 383), which JSON keeps as escapes.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from cloudmytask.core.spec_document import spec_from_document, spec_to_document
from cloudmytask.model.errors import InvalidArgument
from cloudmytask.model.job import (
    FIRST_EPOCH,
    Attempt,
    Blob,
    Cancellation,
    ClientId,
    Digest,
    Job,
    JobId,
    JobSpec,
    JobState,
    NodeId,
    Outcome,
    Output,
    Owner,
    Reason,
    Stamp,
    Usage,
)

_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode
_decode = json.JSONDecoder().decode

_NO_USAGE = Usage()
_NO_OUTPUT = Output()


def spec_to_json(spec: JobSpec) -> str:
    """The one text of a spec: equal specs give equal texts."""
    return _encode(spec_to_document(spec))


def spec_from_json(text: str) -> JobSpec:
    """
    :raises ValueError: the text was not made by :func:`spec_to_json`.
    """
    try:
        return spec_from_document(_decode(text))
    except InvalidArgument as problem:
        raise ValueError(str(problem)) from None


def body_digest(spec: JobSpec) -> Digest:
    """What makes two submissions under one idempotency key the same: sha256 of the spec's text."""
    return Digest(hashlib.sha256(spec_to_json(spec).encode("ascii")).hexdigest())


def job_to_record(job: Job) -> str:
    """All of a job but its spec, which never changes and is stored once, beside the record."""
    value: dict[str, Any] = {
        "id": job.id,
        "client": job.client,
        "body": job.body,
        "sequence": job.sequence,
        "owner": _owner(job.owner),
        "state": job.state,
        "submitted_at": job.submitted_at,
        "retention": job.retention,
    }
    if job.attempts:
        value["attempts"] = [_attempt(attempt) for attempt in job.attempts]
    if job.trail:
        value["trail"] = [(stamp.at, stamp.stage, stamp.node, stamp.note) for stamp in job.trail]
    if job.cancellation is not None:
        value["cancellation"] = (job.cancellation.at, job.cancellation.by, job.cancellation.note)
    if job.ended_at is not None:
        value["ended_at"] = job.ended_at
    if job.expires is not None:
        value["expires"] = job.expires
    if job.removed:
        value["removed"] = True
    if job.moved_to is not None:
        value["moved_to"] = job.moved_to
    return _encode(value)


def job_from_record(spec_text: str, record_text: str) -> Job:
    """
    :raises ValueError, KeyError: a text was not made by :func:`spec_to_json` or :func:`job_to_record`.
    """
    value: dict[str, Any] = _decode(record_text)
    get = value.get
    cancellation = get("cancellation")
    return Job(
        id=JobId(value["id"]),
        client=ClientId(value["client"]),
        spec=spec_from_json(spec_text),
        body=Digest(value["body"]),
        sequence=value["sequence"],
        owner=_to_owner(value["owner"]),
        state=JobState(value["state"]),
        submitted_at=value["submitted_at"],
        retention=value["retention"],
        attempts=tuple(_to_attempt(attempt) for attempt in get("attempts", ())),
        trail=tuple(Stamp(entry[0], entry[1], entry[2], entry[3]) for entry in get("trail", ())),
        cancellation=Cancellation(cancellation[0], cancellation[1], cancellation[2]) if cancellation else None,
        ended_at=get("ended_at"),
        expires=get("expires"),
        removed=get("removed", False),
        moved_to=get("moved_to"),
    )


def _owner(owner: Owner) -> dict[str, Any]:
    return {"id": owner.node_id, "name": owner.name, "epoch": owner.epoch, "custodians": owner.custodians}


def _to_owner(value: dict[str, Any]) -> Owner:
    return Owner(NodeId(value["id"]), value["name"], value["epoch"], tuple(map(NodeId, value["custodians"])))


def _blob(blob: Blob) -> tuple[str, int]:
    return (blob.digest, blob.size)


def _to_blob(value: list[Any]) -> Blob:
    return Blob(Digest(value[0]), value[1])


def _attempt(attempt: Attempt) -> dict[str, Any]:
    value: dict[str, Any] = {
        "number": attempt.number,
        "executor": attempt.executor,
        "staged_at": attempt.staged_at,
    }
    if attempt.started_at is not None:
        value["started_at"] = attempt.started_at
    if attempt.ended_at is not None:
        value["ended_at"] = attempt.ended_at
    if attempt.outcome is not None:
        value["outcome"] = _outcome(attempt.outcome)
    if attempt.stdout != _NO_OUTPUT:
        value["stdout"] = _output(attempt.stdout)
    if attempt.stderr != _NO_OUTPUT:
        value["stderr"] = _output(attempt.stderr)
    if attempt.executor_id is not None:
        value["executor_id"] = attempt.executor_id
    if attempt.epoch != FIRST_EPOCH:
        value["epoch"] = attempt.epoch
    return value


def _to_attempt(value: dict[str, Any]) -> Attempt:
    get = value.get
    outcome, stdout, stderr = get("outcome"), get("stdout"), get("stderr")
    return Attempt(
        number=value["number"],
        executor=value["executor"],
        staged_at=value["staged_at"],
        started_at=get("started_at"),
        ended_at=get("ended_at"),
        outcome=_to_outcome(outcome) if outcome is not None else None,
        stdout=_to_output(stdout) if stdout is not None else _NO_OUTPUT,
        stderr=_to_output(stderr) if stderr is not None else _NO_OUTPUT,
        executor_id=get("executor_id"),
        epoch=get("epoch", FIRST_EPOCH),
    )


def _outcome(outcome: Outcome) -> dict[str, Any]:
    value: dict[str, Any] = {"reason": outcome.reason}
    if outcome.exit_code is not None:
        value["exit_code"] = outcome.exit_code
    if outcome.signal is not None:
        value["signal"] = outcome.signal
    usage = outcome.usage
    if usage != _NO_USAGE:
        value["usage"] = (usage.wall_seconds, usage.cpu_seconds, usage.peak_memory)
    if outcome.detail:
        value["detail"] = outcome.detail
    return value


def _to_outcome(value: dict[str, Any]) -> Outcome:
    get = value.get
    usage = get("usage")
    return Outcome(
        reason=Reason(value["reason"]),
        exit_code=get("exit_code"),
        signal=get("signal"),
        usage=Usage(usage[0], usage[1], usage[2]) if usage is not None else _NO_USAGE,
        detail=get("detail", ""),
    )


def _output(output: Output) -> tuple[tuple[str, int] | None, int]:
    return (_blob(output.blob) if output.blob is not None else None, output.discarded)


def _to_output(value: list[Any]) -> Output:
    return Output(_to_blob(value[0]) if value[0] is not None else None, value[1])
