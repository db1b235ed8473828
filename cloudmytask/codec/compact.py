"""Messages of the multicast group in as few bytes as they need: arrays, in which every field has its place.

Invariant: a field's place is declared here, once. A later version may add others at the end of an array, and resources
that an instance may be short of; this one ignores them. What is read is within the limits of a datagram.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any

from attrs import frozen
from msgspec import Meta

from cloudmytask.codec.decoding import decode
from cloudmytask.codec.encoding import Document, bare, field_types
from cloudmytask.codec.text import dump, load
from cloudmytask.model.cluster import (
    Announcement,
    Backlog,
    BootId,
    BusMessage,
    Capacity,
    Obituary,
    Resource,
    Role,
    RootKey,
    TreePosition,
)
from cloudmytask.model.errors import InvalidArgument
from cloudmytask.model.fields import NAME_MAX, Count
from cloudmytask.model.job import QoS

_PLACES: Mapping[type, tuple[str, ...]] = {
    Announcement: (
        *("role", "node_id", "boot_id", "incarnation", "sequence", "name", "address", "interval"),
        *("capacity", "backlog", "tree", "bans", "version", "insecure", "draining", "short", "leaving"),
    ),
    Obituary: ("reporter", "subject", "boot_id", "incarnation"),
    Capacity: ("slots", "free", "load", "cpu", "threshold", "stamp"),
    Backlog: ("waiting", "head_age", "running"),
    TreePosition: ("root", "depth", "parent", "children"),
    RootKey: ("term", "node_id"),
}
_ROLES, _RESOURCES = tuple(Role), tuple(Resource)
_COUNTS = Mapping[QoS, Count]
_SHORT = tuple[Resource, ...]
_KINDS = (Announcement, Obituary)
"""Which kind a message is stands first, as its number here."""

Word = Annotated[
    str, Meta(pattern=rf"^[ -~]{{1,{NAME_MAX}}}\Z", description=f"1 to {NAME_MAX} printable ASCII characters")
]
Words = Annotated[
    str, Meta(pattern=rf"^[ -~]{{0,{NAME_MAX}}}\Z", description=f"up to {NAME_MAX} printable ASCII characters")
]
_PORT = r"0*(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"


@frozen
class _Limits:
    """What an announcement in a datagram is held to beyond its class: in ASCII, so that what passes here fits."""

    name: Word
    boot_id: Annotated[BootId, Meta(min_length=16)]
    address: Annotated[
        str, Meta(pattern=rf"^[A-Za-z0-9._:%\[\]-]{{1,122}}:{_PORT}\Z", max_length=128, description="HOST:PORT")
    ]
    interval: Annotated[float, Meta(ge=0.05, le=120.0)]
    bans: Words = ""
    version: Words = ""


def to_compact(message: BusMessage) -> bytes:
    """A message's text but for its cluster, which stands outside."""
    return dump([_KINDS.index(type(message)), *_placed(type(message), message)])


def from_compact(text: bytes, cluster: str) -> BusMessage:
    """The message of a cluster that a text holds.

    :raises InvalidArgument: it is no message.
    """
    fields = load(text)
    if not isinstance(fields, list) or not fields or type(fields[0]) is not int or fields[0] not in (0, 1):
        raise InvalidArgument("message: it is neither an announcement nor an obituary")
    kind = _KINDS[fields[0]]
    document = {**_named(kind, fields[1:]), "cluster": cluster}
    if kind is Obituary:
        return decode(Obituary, document, nulls=False)
    decode(_Limits, document, nulls=False)
    return decode(Announcement, document, nulls=False)


@cache
def _places(kind: type) -> tuple[tuple[str, Any], ...]:
    """The fields of a class in the order of their places, with their types."""
    types = field_types(kind)
    return tuple((name, bare(types[name])) for name in _PLACES[kind])


def _placed(kind: type, value: object) -> list[Any]:
    return [_told(inner, getattr(value, name)) for name, inner in _places(kind)]


def _told(kind: Any, value: Any) -> Any:
    """A member of an enumeration is told by its number, and so is a truth."""
    if value is None:
        return None
    if kind in _PLACES:
        return _placed(kind, value)
    if kind is Role:
        return _ROLES.index(value)
    if kind == _COUNTS:
        return [value.get(each) for each in QoS]
    if kind == _SHORT:
        return [_RESOURCES.index(each) for each in value]
    return int(value) if kind is bool else value


def _named(kind: type, placed: list[Any]) -> Document:
    places = _places(kind)
    if len(placed) < len(places):
        raise InvalidArgument(f"message: {len(placed)} fields are less than the {len(places)} of {kind.__name__}")
    return {name: _read(inner, value) for (name, inner), value in zip(places, placed, strict=False)}


def _read(kind: Any, value: Any) -> Any:
    """The inverse of :func:`_told`; what is nothing of its kind is left to be refused by its field."""
    if isinstance(value, list):
        if kind in _PLACES:
            return _named(kind, value)
        if kind == _COUNTS and len(value) >= len(QoS):
            return {qos.value: count for qos, count in zip(QoS, value, strict=False) if count is not None}
        if kind == _SHORT and all(type(each) is int and each >= 0 for each in value):
            return [_RESOURCES[each] for each in value if each < len(_RESOURCES)]
    elif type(value) is int:
        if kind is Role and 0 <= value < len(_ROLES):
            return _ROLES[value].value
        if kind is bool and value in (0, 1):
            return bool(value)
    return value
