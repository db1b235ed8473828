"""What people and their programs are shown of jobs, nodes and clusters: what ``--json`` prints.

Invariant: fields are only ever added; times are UTC in ISO 8601, a value not known is null (design section 8). These
documents are derived from the values, flatter than those and complete; of them only a job's is read back, by clients.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from attrs import asdict, evolve, field, frozen

from cloudmytask.codec.decoding import decode
from cloudmytask.codec.encoding import Document
from cloudmytask.model.cluster import Ban, ClusterView, LoadSample, MemberStatus, Standing
from cloudmytask.model.fields import Integer
from cloudmytask.model.job import Attempt, Job, JobId, JobState, NodeStatus, Outcome, Output, QoS, Reason

DRAINING = "draining"
"""The state of a node that is alive and takes no new work; every other state is a :class:`Standing`."""
FOREIGN_MAX = 32
"""Foreign clusters that are named, those first of which most was heard."""


@frozen
class JobStatus:
    """A job as a client sees it: the answer of the paper's ``getScriptJobStatus``."""

    id: JobId
    name: str
    state: JobState
    qos: QoS
    exit_code: Integer | None = None
    signal: Integer | None = None
    reason: Reason | None = None
    attempt: Integer = 0
    executor: str | None = None
    document: Mapping[str, Any] = field(factory=dict, repr=False, eq=False)
    """Everything that the node told, as ``cmt status --json`` prints it."""

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> JobStatus:
        """Read what a node told of a job.

        :raises InvalidArgument: the document is not a job's.
        """
        return evolve(decode(cls, document, "job"), document=document)


@lru_cache(4096)
def format_time(at: float) -> str:
    """UTC seconds in ISO 8601, to the millisecond."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _time(at: float | None) -> str | None:
    return None if at is None else format_time(at)


def job_to_document(job: Job) -> Document:
    """A job, as :meth:`JobStatus.from_document` reads it."""
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
        **_outcome_to_document(outcome),
        "isolation": None,
        "script": job.spec.script_name,
        "timeout": job.spec.timeout,
        "retries": job.spec.retries,
        "retention": job.retention,
        "at_most_once": job.spec.at_most_once,
        "cancelled_by": job.cancellation.by if job.cancellation is not None else None,
        "attempts": [_attempt_to_document(each) for each in job.attempts],
        "trail": [
            {"at": format_time(stamp.at), "stage": stamp.stage, "node": stamp.node, "note": stamp.note}
            for stamp in job.trail
        ],
    }


def _attempt_to_document(attempt: Attempt) -> Document:
    return {
        "number": attempt.number,
        "executor": attempt.executor,
        "started": _time(attempt.started_at),
        "ended": _time(attempt.ended_at),
        **_outcome_to_document(attempt.outcome),
        **_output_to_document("stdout", attempt.stdout),
        **_output_to_document("stderr", attempt.stderr),
    }


def _output_to_document(stream: str, output: Output) -> Document:
    return {
        f"{stream}_size": output.size,
        f"{stream}_discarded": output.discarded,
        f"{stream}_lost": None if output.lost is None else asdict(output.lost),
    }


_OUTCOME = ("exit_code", "signal", "reason", "detail", "wall_seconds", "cpu_seconds", "peak_memory")


def _outcome_to_document(outcome: Outcome | None) -> Document:
    if outcome is None:
        return dict.fromkeys(_OUTCOME)
    told = (outcome.exit_code, outcome.signal, outcome.reason.value, outcome.detail or None)
    usage = (outcome.usage.wall_seconds, outcome.usage.cpu_seconds, outcome.usage.peak_memory)
    return dict(zip(_OUTCOME, (*told, *usage), strict=True))


def node_to_document(status: NodeStatus) -> Document:
    """A node's picture of itself."""
    return {
        "name": status.name,
        "id": status.node_id,
        "boot": status.boot_id,
        "version": status.version,
        "state": DRAINING if status.draining else "up",
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
        "short": [str(each) for each in status.short],
    }


def view_to_document(view: ClusterView) -> Document:
    """``{"nodes": […], "by": …, "cluster": …, "interval": …, "bus": {…}}``."""
    return {
        "nodes": [member_to_document(member, member.announcement.node_id == view.by) for member in view.members],
        "by": view.by,
        "cluster": view.cluster,
        "interval": view.interval,
        "bus": {**asdict(view.bus), "foreign": most_heard(view.bus.foreign)},
    }


def state_of(member: MemberStatus) -> str:
    """One word: what is believed of an instance, or that it drains."""
    alive = member.standing is Standing.ALIVE
    return DRAINING if alive and member.announcement.draining else member.standing.value


def member_to_document(member: MemberStatus, is_self: bool) -> Document:
    """An instance; ``self``: it is the one that was asked."""
    said, tree = member.announcement, member.announcement.tree
    waiting = {qos.value: said.backlog.waiting.get(qos, 0) for qos in QoS}
    return {
        "name": said.name,
        "id": said.node_id,
        "role": said.role.value,
        "state": state_of(member),
        "address": said.address,
        **asdict(said.capacity),
        "waiting": {**waiting, "total": said.backlog.total},
        "head_age": said.backlog.head_age,
        "running": [[client, count] for client, count in said.backlog.running],
        "neighbors": list(tree.neighbors) if tree is not None else [],
        "parent": tree.parent if tree is not None else None,
        "depth": tree.depth if tree is not None else None,
        "root": tree.root.node_id if tree is not None else None,
        "root_term": tree.root.term if tree is not None else None,
        "self": is_self,
        "linked": member.linked,
        "heard": member.heard,
        "interval": said.interval,
        "draining": said.draining,
        "leaving": said.leaving,
        "short": [str(each) for each in said.short],
        "insecure": said.insecure,
        "conflict": member.conflict,
        "bans": said.bans,
        "version": said.version,
        "boot": said.boot_id,
        "incarnation": said.incarnation,
        "sequence": said.sequence,
    }


def most_heard(foreign: Mapping[str, int]) -> Mapping[str, int]:
    """Of counts by the names of foreign clusters the greatest ones, as many as one answer names."""
    return dict(sorted(foreign.items(), key=lambda item: (-item[1], item[0]))[:FOREIGN_MAX])


def sample_to_document(sample: LoadSample) -> Document:
    """One point of the history."""
    return {**asdict(sample), "at": format_time(sample.at)}


def ban_to_document(ban: Ban) -> Document:
    """A ban; ``remaining`` in seconds."""
    return {
        "client": ban.client,
        "reason": ban.reason,
        "by": ban.by,
        "term": ban.term,
        "remaining": ban.until,
        "counter": ban.version.counter,
        "admin": ban.version.admin,
        "version_by": ban.version.node_id,
        "lifted": ban.lifted,
        "reporters": list(ban.reporters),
    }
