"""What an instance sees of its cluster, and the history of load, as the JSON documents that cross the wire and that
``--json`` prints.

Invariant: fields are only ever added; what was encoded decodes to an equal value, and a malformed document is an
:class:`~cloudmytask.model.errors.InvalidArgument` that names the field.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from cloudmytask.core.explain import format_time
from cloudmytask.core.spec_document import boolean, integer, mapping, member, number, text, texts, typed
from cloudmytask.model.cluster import (
    Announcement,
    Backlog,
    BootId,
    BusStatistics,
    Capacity,
    ClusterView,
    LoadSample,
    MemberStatus,
    NodeId,
    Role,
    RootKey,
    Standing,
    TreePosition,
)
from cloudmytask.model.errors import InvalidArgument
from cloudmytask.model.job import ClientId, QoS

Document = Mapping[str, Any]

DRAINING = "draining"
"""The state of a node that is alive and takes no new work; every other state is a :class:`Standing`."""
FOREIGN_MAX = 32
"""Foreign clusters that are named, those first of which most was heard."""


def view_to_document(view: ClusterView) -> dict[str, Any]:
    """``{"nodes": […], "by": …, "cluster": …, "interval": …, "bus": {…}}``."""
    return {
        "nodes": [member_to_document(member, member.announcement.node_id == view.by) for member in view.members],
        "by": view.by,
        "cluster": view.cluster,
        "interval": view.interval,
        "bus": _bus_to_document(view.bus),
    }


def view_from_document(document: object) -> ClusterView:
    """:raises InvalidArgument:"""
    fields = mapping("cluster", document)
    cluster = typed(fields, "cluster", text, "")
    return ClusterView(
        by=NodeId(text("by", fields.get("by"))),
        cluster=cluster,
        members=tuple(member_from_document(each, cluster) for each in listed(fields, "nodes")),
        bus=_bus_from_document(fields.get("bus") or {}),
        interval=typed(fields, "interval", number, 0.0),
    )


def state_of(member: MemberStatus) -> str:
    """One word for people: what is believed of it, or that it drains."""
    alive = member.standing is Standing.ALIVE
    return DRAINING if alive and member.announcement.draining else member.standing.value


def member_to_document(member: MemberStatus, is_self: bool) -> dict[str, Any]:
    """The stable JSON form of an instance; ``self``: it is the one that was asked."""
    said, capacity, tree = member.announcement, member.announcement.capacity, member.announcement.tree
    waiting = {qos.value: said.backlog.waiting.get(qos, 0) for qos in QoS}
    return {
        "name": said.name,
        "id": said.node_id,
        "role": said.role.value,
        "state": state_of(member),
        "address": said.address,
        "load": capacity.load,
        "cpu": capacity.cpu,
        "threshold": capacity.threshold,
        "slots": capacity.slots,
        "free": capacity.free,
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
        "disk_short": said.disk_short,
        "insecure": said.insecure,
        "conflict": member.conflict,
        "bans": said.bans,
        "version": said.version,
        "boot": said.boot_id,
        "incarnation": said.incarnation,
        "sequence": said.sequence,
        "stamp": capacity.stamp,
    }


def member_from_document(document: object, cluster: str) -> MemberStatus:
    """:raises InvalidArgument:"""
    fields = mapping("nodes", document)
    state = text("state", fields.get("state"))
    waiting = mapping("waiting", fields.get("waiting") or {})
    said = Announcement(
        cluster=cluster,
        role=member(Role, "role", fields.get("role")),
        node_id=NodeId(text("id", fields.get("id"))),
        boot_id=BootId(typed(fields, "boot", text, "")),
        incarnation=typed(fields, "incarnation", integer, 0),
        sequence=typed(fields, "sequence", integer, 0),
        name=text("name", fields.get("name")),
        address=typed(fields, "address", text, ""),
        interval=typed(fields, "interval", number, 0.0),
        capacity=Capacity(
            slots=typed(fields, "slots", integer, 0),
            free=typed(fields, "free", integer, 0),
            load=typed(fields, "load", number, None),
            cpu=typed(fields, "cpu", number, None),
            threshold=typed(fields, "threshold", number, Capacity(0, 0).threshold),
            stamp=typed(fields, "stamp", integer, 0),
        ),
        backlog=Backlog(
            waiting={qos: typed(waiting, qos.value, integer, 0, "waiting.") for qos in QoS},
            head_age=typed(fields, "head_age", number, 0.0),
            running=tuple(_running(each) for each in listed(fields, "running")),
        ),
        tree=_tree_from_document(fields),
        draining=typed(fields, "draining", boolean, state == DRAINING),
        disk_short=typed(fields, "disk_short", boolean, False),
        leaving=typed(fields, "leaving", boolean, False),
        insecure=typed(fields, "insecure", boolean, False),
        bans=typed(fields, "bans", text, ""),
        version=typed(fields, "version", text, ""),
    )
    return MemberStatus(
        announcement=said,
        standing=Standing.ALIVE if state == DRAINING else member(Standing, "state", state),
        heard=typed(fields, "heard", number, 0.0),
        linked=typed(fields, "linked", boolean, False),
        conflict=typed(fields, "conflict", boolean, False),
    )


def _tree_from_document(fields: Document) -> TreePosition | None:
    root = typed(fields, "root", text, None)
    if root is None:
        return None
    parent = typed(fields, "parent", text, None)
    neighbors = texts("neighbors", fields.get("neighbors") or [])
    return TreePosition(
        root=RootKey(typed(fields, "root_term", integer, 0), NodeId(root)),
        depth=typed(fields, "depth", integer, 0),
        parent=None if parent is None else NodeId(parent),
        children=tuple(NodeId(each) for each in neighbors[0 if parent is None else 1 :]),
    )


def _running(pair: object) -> tuple[ClientId, int]:
    if not isinstance(pair, list) or len(pair) != 2:
        raise InvalidArgument(f"running: {pair!r} is not a client and a number")
    return ClientId(text("running", pair[0])), integer("running", pair[1])


def _bus_to_document(bus: BusStatistics) -> dict[str, Any]:
    most = sorted(bus.foreign.items(), key=lambda item: (-item[1], item[0]))[:FOREIGN_MAX]
    return {
        "group": bus.group,
        "joined": bus.joined,
        "error": bus.error,
        "sent": bus.sent,
        "heard": bus.heard,
        "unsent": bus.unsent,
        "malformed": bus.malformed,
        "forged": bus.forged,
        "foreign": dict(most),
        "receive_buffer": bus.receive_buffer,
    }


def _bus_from_document(document: object) -> BusStatistics:
    fields = mapping("bus", document)
    counts = ("sent", "heard", "unsent", "malformed", "forged", "receive_buffer")
    foreign = mapping("bus.foreign", fields.get("foreign") or {})
    return BusStatistics(
        group=typed(fields, "group", text, "", "bus."),
        joined=typed(fields, "joined", boolean, False, "bus."),
        error=typed(fields, "error", text, "", "bus."),
        foreign={name: integer("bus.foreign", count) for name, count in foreign.items()},
        **{each: typed(fields, each, integer, 0, "bus.") for each in counts},
    )


def sample_to_document(sample: LoadSample) -> dict[str, Any]:
    """The stable JSON form of one point of the history."""
    return {
        "at": format_time(sample.at),
        "node": sample.node,
        "load": sample.load,
        "slots": sample.slots,
        "free": sample.free,
        "waiting": sample.waiting,
    }


def sample_from_document(document: object) -> LoadSample:
    """:raises InvalidArgument:"""
    fields = mapping("samples", document)
    at = text("at", fields.get("at"))
    try:
        moment = datetime.fromisoformat(at).timestamp()
    except (ValueError, OverflowError):
        raise InvalidArgument(f"at: {at[:60]!r} is not a time in ISO 8601") from None
    return LoadSample(
        at=moment,
        node=text("node", fields.get("node")),
        load=typed(fields, "load", number, None),
        slots=typed(fields, "slots", integer, 0),
        free=typed(fields, "free", integer, 0),
        waiting=typed(fields, "waiting", integer, 0),
    )


def listed(fields: Document, field: str) -> Sequence[object]:
    """A list, empty where it is absent. :raises InvalidArgument: it is something else."""
    value = fields.get(field)
    if value is not None and not isinstance(value, list):
        raise InvalidArgument(f"{field}: not a list")
    return value or []
