"""What instances tell each other, as JSON documents.

Invariant: decoding checks every field and raises nothing but :class:`~cloudmytask.model.errors.InvalidArgument`, which
names it. Fields are only ever added.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, TypeVar

from cloudmytask.core.admission import check_client
from cloudmytask.core.job_id import LENGTH, normalize
from cloudmytask.core.spec_document import (
    blob_from_document,
    blob_to_document,
    boolean,
    count,
    integer,
    mapping,
    member,
    number,
    spec_from_document,
    spec_to_document,
    text,
    typed,
)
from cloudmytask.model.cluster import (
    AttachAnswer,
    BootId,
    Capacity,
    NodeId,
    Offer,
    OfferAnswer,
    PeerIdentity,
    RemoteEnd,
    Role,
    RootKey,
)
from cloudmytask.model.errors import InvalidArgument
from cloudmytask.model.job import AttemptId, JobId, Outcome, Reason, Stamp, StreamName, Usage

T = TypeVar("T")
Json = dict[str, Any]

VISITED_MAX = 65
"""Nodes in one trail: the origin and as many hops as may be configured."""
STAMPS_MAX = 100
"""Entries of a trail that one answer may bring."""

_NODE_ID = re.compile(r"[0-9a-f]{32}\Z")
_BOOT_ID = re.compile(r"[0-9a-f]{16}\Z")


def node_id(field: str, value: object) -> NodeId:
    """:raises InvalidArgument: not a node id."""
    if not _NODE_ID.match(text(field, value)):
        raise InvalidArgument(f"{field}: {str(value)[:60]!r} is not 32 lowercase hexadecimal digits")
    return NodeId(text(field, value))


def boot_id(field: str, value: object) -> BootId:
    """:raises InvalidArgument: not a boot id."""
    if not _BOOT_ID.match(text(field, value)):
        raise InvalidArgument(f"{field}: {str(value)[:60]!r} is not 16 lowercase hexadecimal digits")
    return BootId(text(field, value))


def job_id(field: str, value: object) -> JobId:
    """:raises InvalidArgument: not a whole job id."""
    found = normalize(text(field, value))
    if len(found) != LENGTH:
        raise InvalidArgument(f"{field}: {found!r} has {len(found)} symbols, a job id has {LENGTH}")
    return JobId(found)


def attempt_id(field: str, value: object) -> AttemptId:
    """:raises InvalidArgument: not the text of an attempt's id."""
    try:
        found = AttemptId.parse(text(field, value))
    except ValueError as problem:
        raise InvalidArgument(f"{field}: {problem}") from None
    if job_id(field, found.job) != found.job:
        raise InvalidArgument(f"{field}: {found.job!r} is not a job id in its canonical form")
    return found


def finite(field: str, value: object) -> float:
    """:raises InvalidArgument: not a number that is finite."""
    found = number(field, value)
    if not math.isfinite(found):
        raise InvalidArgument(f"{field}: {found} is not finite")
    return found


def several(field: str, value: object, decode: Callable[[str, object], T], limit: int) -> tuple[T, ...]:
    """:raises InvalidArgument: not a list, or one of more than ``limit`` entries."""
    if not isinstance(value, list):
        raise InvalidArgument(f"{field}: not a list")
    if len(value) > limit:
        raise InvalidArgument(f"{field}: {len(value)} entries are more than the limit, {limit}")
    return tuple(decode(field, each) for each in value)


def identity_to_document(identity: PeerIdentity) -> Json:
    """What ``PeerHello`` sends."""
    return {
        "cluster": identity.cluster,
        "role": identity.role.value,
        "id": identity.node_id,
        "boot": identity.boot_id,
        "name": identity.name,
        "address": identity.address,
    }


def identity_from_document(document: object) -> PeerIdentity:
    """:raises InvalidArgument:"""
    fields = mapping("identity", document)
    return PeerIdentity(
        cluster=name("cluster", fields.get("cluster")),
        role=member(Role, "role", fields.get("role")),
        node_id=node_id("id", fields.get("id")),
        boot_id=boot_id("boot", fields.get("boot")),
        name=name("name", fields.get("name")),
        address=printable("address", fields.get("address"), 300),
    )


def capacity_to_document(capacity: Capacity) -> Json:
    """What answers carry of their sender."""
    return {
        "slots": capacity.slots,
        "free": capacity.free,
        "load": capacity.load,
        "cpu": capacity.cpu,
        "threshold": capacity.threshold,
        "stamp": capacity.stamp,
    }


def capacity_from_document(document: object) -> Capacity:
    """:raises InvalidArgument:"""
    fields = mapping("capacity", document)
    return Capacity(
        slots=count("slots", fields.get("slots")),
        free=count("free", fields.get("free")),
        load=typed(fields, "load", finite, None),
        cpu=typed(fields, "cpu", finite, None),
        threshold=typed(fields, "threshold", finite, 0.75),
        stamp=count("stamp", fields.get("stamp")),
    )


def offer_to_document(offer: Offer) -> Json:
    """What ``OfferJob`` sends."""
    return {
        "attempt": str(offer.attempt),
        "client": offer.client,
        "spec": spec_to_document(offer.spec),
        "origin": identity_to_document(offer.origin),
        "hops": offer.hops,
        "visited": list(offer.visited),
        "may_wait": offer.may_wait,
    }


def offer_from_document(document: object) -> Offer:
    """:raises InvalidArgument:"""
    fields = mapping("offer", document)
    return Offer(
        attempt=attempt_id("attempt", fields.get("attempt")),
        client=check_client(text("client", fields.get("client"))),
        spec=spec_from_document(fields.get("spec")),
        origin=identity_from_document(fields.get("origin")),
        hops=typed(fields, "hops", count, 0),
        visited=several("visited", fields.get("visited"), node_id, VISITED_MAX),
        may_wait=typed(fields, "may_wait", boolean, False),
    )


def answer_to_document(answer: OfferAnswer) -> Json:
    """What ``OfferJob`` answers."""
    return {
        "accepted": answer.accepted,
        "capacity": capacity_to_document(answer.capacity),
        "why": answer.why,
        "lasting": answer.lasting,
        "missing": [blob_to_document(blob) for blob in answer.missing],
    }


def answer_from_document(document: object) -> OfferAnswer:
    """:raises InvalidArgument:"""
    fields = mapping("answer", document)
    return OfferAnswer(
        accepted=boolean("accepted", fields.get("accepted")),
        capacity=capacity_from_document(fields.get("capacity")),
        why=printable("why", fields.get("why", ""), 1000),
        lasting=typed(fields, "lasting", boolean, False),
        missing=several("missing", fields.get("missing", []), blob_from_document, 2),
    )


def end_to_document(end: RemoteEnd) -> Json:
    """What ``AttemptEnded`` sends."""
    outcome, usage = end.outcome, end.outcome.usage
    return {
        "reason": outcome.reason.value,
        "exit_code": outcome.exit_code,
        "signal": outcome.signal,
        "detail": outcome.detail,
        "wall_seconds": usage.wall_seconds,
        "cpu_seconds": usage.cpu_seconds,
        "peak_memory": usage.peak_memory,
        "discarded": dict(end.discarded),
        "interrupted": end.interrupted,
        "executor": end.executor,
        "capacity": capacity_to_document(end.capacity),
        "trail": [[stamp.at, stamp.stage, stamp.node, stamp.note] for stamp in end.trail],
    }


def end_from_document(document: object) -> RemoteEnd:
    """:raises InvalidArgument:"""
    fields = mapping("end", document)
    reason = member(Reason, "reason", fields.get("reason"))
    usage = Usage(
        wall_seconds=typed(fields, "wall_seconds", finite, None),
        cpu_seconds=typed(fields, "cpu_seconds", finite, None),
        peak_memory=typed(fields, "peak_memory", count, None),
    )
    discarded = mapping("discarded", fields.get("discarded", {}))
    return RemoteEnd(
        outcome=Outcome(
            reason=reason,
            exit_code=typed(fields, "exit_code", integer, None),
            signal=typed(fields, "signal", integer, None),
            usage=usage,
            detail=printable("detail", fields.get("detail", ""), 10_000),
        ),
        discarded={stream: typed(discarded, stream, count, 0) for stream in StreamName},
        interrupted=boolean("interrupted", fields.get("interrupted")),
        executor=name("executor", fields.get("executor")),
        capacity=capacity_from_document(fields.get("capacity")),
        trail=several("trail", fields.get("trail", []), _stamp, STAMPS_MAX),
    )


def attach_to_document(answer: AttachAnswer) -> Json:
    """What ``Attach`` answers."""
    return {
        "accepted": answer.accepted,
        "term": answer.root.term,
        "root": answer.root.node_id,
        "path": list(answer.path),
        "why": answer.why,
        "try_next": [list(each) for each in answer.try_next],
    }


def attach_from_document(document: object) -> AttachAnswer:
    """:raises InvalidArgument:"""
    fields = mapping("answer", document)
    return AttachAnswer(
        accepted=boolean("accepted", fields.get("accepted")),
        root=RootKey(count("term", fields.get("term")), node_id("root", fields.get("root"))),
        path=several("path", fields.get("path", []), node_id, 1000),
        why=printable("why", fields.get("why", ""), 1000),
        try_next=several("try_next", fields.get("try_next", []), _other, 2),
    )


def _stamp(field: str, value: object) -> Stamp:
    if not isinstance(value, list) or len(value) != 4:
        raise InvalidArgument(f"{field}: an entry is not a list of 4")
    at, stage, node, note = value
    return Stamp(
        finite("trail.at", at),
        printable("trail.stage", stage, 40),
        name("trail.node", node),
        printable("trail.note", note, 1000),
    )


def _other(field: str, value: object) -> tuple[NodeId, str]:
    if not isinstance(value, list) or len(value) != 2:
        raise InvalidArgument(f"{field}: an entry is not a list of 2")
    return node_id(field, value[0]), printable(field, value[1], 300)


def name(field: str, value: object) -> str:
    found = printable(field, value, 64)
    if not found:
        raise InvalidArgument(f"{field}: it is empty")
    return found


def printable(field: str, value: object, limit: int) -> str:
    found = text(field, value)
    if len(found) > limit:
        raise InvalidArgument(f"{field}: {len(found)} characters are more than the limit, {limit}")
    return found if found.isprintable() else found.encode("unicode_escape").decode("ascii")
