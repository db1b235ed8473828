"""Messages of the multicast group and their bytes: announcements and obituaries.

The body, inside its :mod:`envelope <cloudmytask.wire.envelope>`, is a JSON array, short because every field has its
place; a later version may add fields at the end of each array, which this one ignores.

Invariant: a message has at most ``MESSAGE_MAX`` bytes; decoding raises nothing but
:class:`~cloudmytask.wire.envelope.Unreadable`, and what it returns is of the right types and within its limits.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from attrs import evolve

from cloudmytask.model.cluster import (
    Announcement,
    Backlog,
    BootId,
    BusMessage,
    Capacity,
    NodeId,
    Obituary,
    Role,
    RootKey,
    TreePosition,
)
from cloudmytask.model.job import ClientId, QoS
from cloudmytask.wire.envelope import MESSAGE_MAX, Foreign, Forged, Malformed, Unreadable, envelope

__all__ = [
    "MESSAGE_MAX",
    "Foreign",
    "Forged",
    "Malformed",
    "Unreadable",
    "decode_message",
    "encode_message",
]

TEXT_MAX = 64
"""Characters of a name, a client, a digest, a version."""
CHILDREN_TOLD = 16
"""Children that an announcement may name; more than our overlay allows, for versions that allow more."""
RUNNING_TOLD = 8
INTERVAL = (0.05, 120.0)
"""Seconds."""
COUNT_MAX = 2**63 - 1

_ANNOUNCEMENT, _OBITUARY = 0, 1
_ROLES = tuple(Role)
_CLASSES = tuple(QoS)
_FLAGS = ("draining", "disk_short", "leaving", "insecure")

_node_id = re.compile(r"[0-9a-f]{32}").fullmatch
_boot_id = re.compile(r"[0-9a-f]{16}").fullmatch
_address = re.compile(r"[A-Za-z0-9._:%\[\]-]{1,253}:(?P<port>[0-9]{1,5})", re.ASCII).fullmatch
_json = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


def encode_message(message: BusMessage, key: bytes | None) -> bytes:
    """The datagram. What does not fit is left out: first clients of ``running``, the last first, then children.

    :param key: the cluster's secret; None if it has none.
    """
    sealed = envelope(message.cluster, key)
    if isinstance(message, Obituary):
        fields = [_OBITUARY, message.reporter, message.subject, message.boot_id, message.incarnation]
        return sealed.seal(_json(fields).encode())
    body = _announcement(message)
    while len(body) > sealed.room:
        message = _shortened(message)
        body = _announcement(message)
    return sealed.seal(body)


def _shortened(message: Announcement) -> Announcement:
    if message.backlog.running:
        return evolve(message, backlog=evolve(message.backlog, running=message.backlog.running[:-1]))
    assert message.tree is not None and message.tree.children, "names of at most TEXT_MAX characters fit"
    return evolve(message, tree=evolve(message.tree, children=message.tree.children[:-1]))


def _announcement(message: Announcement) -> bytes:
    capacity, backlog, tree = message.capacity, message.backlog, message.tree
    fields = [
        _ANNOUNCEMENT,
        _ROLES.index(message.role),
        message.node_id,
        message.boot_id,
        message.incarnation,
        message.sequence,
        message.name,
        message.address,
        message.interval,
        [capacity.slots, capacity.free, capacity.load, capacity.cpu, capacity.threshold, capacity.stamp],
        [[backlog.waiting.get(qos) for qos in _CLASSES], backlog.head_age, backlog.running],
        None if tree is None else [tree.root.term, tree.root.node_id, tree.depth, tree.parent, tree.children],
        sum(getattr(message, flag) << bit for bit, flag in enumerate(_FLAGS)),
        message.bans,
        message.version,
    ]
    return _json(fields).encode()


def decode_message(data: bytes, cluster: str, key: bytes | None) -> BusMessage:
    """The message in a datagram.

    :param cluster: ours.
    :param key: the cluster's secret; None if it has none.
    :raises Malformed: it is truncated, oversized or not what we write.
    :raises Forged: it was not made with the key.
    :raises Foreign: it is of another cluster.
    """
    body = envelope(cluster, key).open(data)
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        raise Malformed("its body is not JSON") from None
    kind, *rest = _list(fields, 1)
    if kind == _ANNOUNCEMENT and type(kind) is int:
        return _to_announcement(cluster, _list(rest, 14))
    if kind == _OBITUARY and type(kind) is int:
        reporter, subject, boot_id, incarnation, *_ = _list(rest, 4)
        return Obituary(cluster, _id(reporter), _id(subject), _boot(boot_id), _count(incarnation))
    raise Malformed("it is neither an announcement nor an obituary")


def _to_announcement(cluster: str, fields: list[Any]) -> Announcement:
    role, node_id, boot_id, incarnation, sequence, name, address, interval, capacity, backlog, tree, flags, *more = (
        fields
    )
    bans, version, *_ = more
    if type(role) is not int or not 0 <= role < len(_ROLES):
        raise Malformed("role: there is no such")
    marks = _count(flags)
    return Announcement(
        cluster,
        _ROLES[role],
        _id(node_id),
        _boot(boot_id),
        _count(incarnation),
        _count(sequence),
        _text(name, 1),
        _reachable(address),
        _number(interval, *INTERVAL),
        _capacity(*_list(capacity, 6)[:6]),
        _backlog(*_list(backlog, 3)[:3]),
        None if tree is None else _tree(*_list(tree, 5)[:5]),
        bool(marks & 1),
        bool(marks & 2),
        bool(marks & 4),
        bool(marks & 8),
        _text(bans),
        _text(version),
    )


def _capacity(slots: object, free: object, load: object, cpu: object, threshold: object, stamp: object) -> Capacity:
    return Capacity(
        _count(slots),
        _count(free),
        None if load is None else _number(load, 0.0, 1.0),
        None if cpu is None else _number(cpu, 0.0, 1.0),
        _number(threshold, 0.0, 1.0),
        _count(stamp),
    )


def _backlog(waiting: object, head_age: object, running: object) -> Backlog:
    counts = zip(_CLASSES, _list(waiting, len(_CLASSES)), strict=False)
    return Backlog(
        {qos: _count(count) for qos, count in counts if count is not None},
        _number(head_age, 0.0, math.inf),
        tuple([_running(*_list(each, 2)[:2]) for each in _list(running, 0, RUNNING_TOLD)]),
    )


def _running(client: object, jobs: object) -> tuple[ClientId, int]:
    return ClientId(_text(client, 1)), _count(jobs)


def _tree(term: object, root: object, depth: object, parent: object, children: object) -> TreePosition:
    return TreePosition(
        RootKey(_count(term), _id(root)),
        _count(depth),
        None if parent is None else _id(parent),
        tuple([_id(child) for child in _list(children, 0, CHILDREN_TOLD)]),
    )


def _list(value: object, least: int, most: int = MESSAGE_MAX) -> list[Any]:
    if not isinstance(value, list) or not least <= len(value) <= most:
        raise Malformed(f"{_shown(value)} is not a list of {least} to {most} values")
    return value


def _count(value: object) -> int:
    # a bool is an int, but not this one
    if type(value) is not int or not 0 <= value <= COUNT_MAX:
        raise Malformed(f"{_shown(value)} is not a count")
    return value


def _number(value: object, least: float, most: float) -> float:
    # nan is within no limits; what is an int is compared before it becomes a float that it may be too large for
    if type(value) not in (int, float) or not least <= value <= most or value == math.inf:  # type: ignore[operator]
        raise Malformed(f"{_shown(value)} is not a number within {least:g} and {most:g}")
    try:
        return float(value)  # type: ignore[arg-type]
    except OverflowError:
        raise Malformed(f"{_shown(value)} is not a number of this world") from None


def _text(value: object, least: int = 0) -> str:
    # ASCII, so that whatever passes here fits into a datagram
    if not (isinstance(value, str) and least <= len(value) <= TEXT_MAX and value.isascii() and value.isprintable()):
        raise Malformed(f"{_shown(value)} is not a text of {least} to {TEXT_MAX} printable ASCII characters")
    return value


def _id(value: object) -> NodeId:
    if not isinstance(value, str) or not _node_id(value):
        raise Malformed(f"{_shown(value)} is not the id of a node")
    return NodeId(value)


def _boot(value: object) -> BootId:
    if not isinstance(value, str) or not _boot_id(value):
        raise Malformed(f"{_shown(value)} is not the id of a boot")
    return BootId(value)


def _reachable(value: object) -> str:
    found = _address(value) if isinstance(value, str) and len(value) <= 2 * TEXT_MAX else None
    if found is None or not 0 < int(found["port"]) <= 65_535:
        raise Malformed(f"{_shown(value)} is not HOST:PORT")
    return found[0]


def _shown(value: object) -> str:
    # a list may be nested too deep to be shown
    return ascii(value)[:60] if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"
