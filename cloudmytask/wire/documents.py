"""Jobs, nodes and queries as the JSON documents that cross the wire and that ``--json`` prints.

Invariant: fields are only ever added; times are UTC in ISO 8601, a value not known is null (design section 8).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

from cloudmytask.boundaries import OutputEnd
from cloudmytask.core.explain import format_time
from cloudmytask.core.job_id import normalize
from cloudmytask.core.spec_document import count, integer, mapping, member, text, typed
from cloudmytask.model.errors import InvalidArgument
from cloudmytask.model.job import (
    Attempt,
    Explanation,
    Job,
    JobId,
    JobQuery,
    JobState,
    NodeStatus,
    Outcome,
    QoS,
    Reason,
    StreamName,
)

QUERY_MAX = 1000
"""Jobs in one page at the most."""


@frozen
class JobStatus:
    """A job as a client sees it: the answer of the paper's ``getScriptJobStatus``."""

    id: JobId
    name: str
    state: JobState
    qos: QoS
    exit_code: int | None
    signal: int | None
    reason: Reason | None
    attempt: int
    executor: str | None
    document: Mapping[str, Any] = field(repr=False, eq=False)
    """Everything that the node told, as ``cmt status --json`` prints it."""

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> JobStatus:
        """:raises InvalidArgument: the document is not a job's."""
        try:
            reason = typed(document, "reason", text, None)
            return cls(
                id=JobId(text("id", document.get("id"))),
                name=text("name", document.get("name")),
                state=JobState(text("state", document.get("state"))),
                qos=QoS(text("qos", document.get("qos"))),
                exit_code=typed(document, "exit_code", integer, None),
                signal=typed(document, "signal", integer, None),
                reason=None if reason is None else Reason(reason),
                attempt=typed(document, "attempt", integer, 0),
                executor=typed(document, "executor", text, None),
                document=document,
            )
        except ValueError as problem:
            raise InvalidArgument(f"job: {problem}") from None


def job_to_document(job: Job) -> dict[str, Any]:
    """The stable JSON form of a job."""
    attempt, outcome = job.attempt, job.outcome
    return {
        "id": job.id,
        "name": job.spec.label,
        "client": job.client,
        "qos": job.spec.qos.value,
        "state": job.state.value,
        "origin": job.owner.name,
        "executor": attempt.executor if attempt is not None else None,
        "attempt": attempt.number if attempt is not None else 0,
        "submitted": format_time(job.submitted_at),
        "started": _time(attempt.started_at if attempt is not None else None),
        "ended": _time(job.ended_at),
        **_outcome_document(outcome),
        "isolation": None,
        "script": job.spec.script_name,
        "timeout": job.spec.timeout,
        "retries": job.spec.retries,
        "retention": job.retention,
        "at_most_once": job.spec.at_most_once,
        "cancelled_by": job.cancellation.by if job.cancellation is not None else None,
        "attempts": [_attempt_document(a) for a in job.attempts],
        "trail": [
            {"at": format_time(stamp.at), "stage": stamp.stage, "node": stamp.node, "note": stamp.note}
            for stamp in job.trail
        ],
    }


def _attempt_document(attempt: Attempt) -> dict[str, Any]:
    return {
        "number": attempt.number,
        "executor": attempt.executor,
        "started": _time(attempt.started_at),
        "ended": _time(attempt.ended_at),
        **_outcome_document(attempt.outcome),
        "stdout_size": attempt.stdout.size,
        "stdout_discarded": attempt.stdout.discarded,
        "stderr_size": attempt.stderr.size,
        "stderr_discarded": attempt.stderr.discarded,
    }


def _outcome_document(outcome: Outcome | None) -> dict[str, Any]:
    usage = outcome.usage if outcome is not None else None
    return {
        "exit_code": outcome.exit_code if outcome is not None else None,
        "signal": outcome.signal if outcome is not None else None,
        "reason": outcome.reason.value if outcome is not None else None,
        "detail": (outcome.detail or None) if outcome is not None else None,
        "wall_seconds": usage.wall_seconds if usage is not None else None,
        "cpu_seconds": usage.cpu_seconds if usage is not None else None,
        "peak_memory": usage.peak_memory if usage is not None else None,
    }


def _time(at: float | None) -> str | None:
    return None if at is None else format_time(at)


def node_to_document(status: NodeStatus) -> dict[str, Any]:
    """The stable JSON form of a node's picture of itself."""
    return {
        "name": status.name,
        "id": status.node_id,
        "boot": status.boot_id,
        "version": status.version,
        "state": "draining" if status.draining else "up",
        "slots": status.slots,
        "running": status.running,
        "free": max(0, status.slots - status.running),
        "waiting": {qos.value: count for qos, count in status.waiting.items()},
        "queue_max": status.queue_max,
        "load": status.load,
        "uptime": round(status.uptime, 3),
        "script_max": status.script_max,
        "role": status.role,
        "cluster": status.cluster or None,
        "address": status.address or None,
        "insecure": status.insecure,
    }


def query_to_document(query: JobQuery) -> dict[str, Any]:
    """What ``ListJobs`` sends."""
    return {
        "prefix": query.prefix,
        "name": query.name,
        "states": sorted(query.states),
        "before": query.before,
        "limit": query.limit,
    }


def query_from_document(document: object) -> JobQuery:
    """:raises InvalidArgument: naming the field."""
    fields = mapping("query", document)
    states = fields.get("states") or []
    if not isinstance(states, list):
        raise InvalidArgument("states: not a list")
    limit = typed(fields, "limit", integer, JobQuery().limit)
    if not 1 <= limit <= QUERY_MAX:
        raise InvalidArgument(f"limit: {limit} is not within 1 and {QUERY_MAX}")
    prefix = typed(fields, "prefix", text, "")
    return JobQuery(
        prefix=normalize(prefix) if prefix else "",
        name=typed(fields, "name", text, None),
        states=frozenset(state("states", value) for value in states),
        before=typed(fields, "before", count, None),
        limit=limit,
    )


def state(field_name: str, value: object) -> JobState:
    """:raises InvalidArgument: no state has that name."""
    return member(JobState, field_name, value)


def offsets_from_document(document: object) -> dict[StreamName, int]:
    """Where to start in which streams. :raises InvalidArgument:"""
    offsets: dict[StreamName, int] = {}
    for name, offset in mapping("offsets", document).items():
        offsets[member(StreamName, "offsets", name)] = count(f"offsets.{name}", offset)
    return offsets


def end_to_document(end: OutputEnd) -> dict[str, Any]:
    """What ``OutputEnded`` sends."""
    return {"attempt": end.attempt, "sizes": dict(end.sizes), "discarded": dict(end.discarded)}


def end_from_document(document: object) -> OutputEnd:
    """:raises InvalidArgument:"""
    fields = mapping("end", document)
    counts = {
        kind: {name: integer(f"{kind}.{name}", mapping(kind, fields.get(kind)).get(name)) for name in StreamName}
        for kind in ("sizes", "discarded")
    }
    attempt = integer("attempt", fields.get("attempt"))
    return OutputEnd(attempt=attempt, sizes=counts["sizes"], discarded=counts["discarded"])


def explanation_to_document(explanation: Explanation) -> dict[str, Any]:
    """What ``ExplainJob`` answers."""
    return {"sentence": explanation.sentence, "details": list(explanation.details)}


def explanation_from_document(document: object) -> Explanation:
    """:raises InvalidArgument:"""
    fields = mapping("explanation", document)
    details = fields.get("details") or []
    return Explanation(text("sentence", fields.get("sentence")), tuple(text("details", line) for line in details))
