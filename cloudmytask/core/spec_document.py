"""A job's spec as a JSON document: what clients send, and what the store keeps.

Invariant: decoding checks every type and names the field that is wrong; fields of a later version are ignored, absent
ones have their defaults, so that old and new nodes understand each other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, TypeVar

from cloudmytask.model.errors import InvalidArgument
from cloudmytask.model.job import Blob, Digest, JobSpec, Limits, QoS

Document = Mapping[str, Any]

T = TypeVar("T")
D = TypeVar("D")
E = TypeVar("E", bound=StrEnum)

INTEGER_MAX = 2**63 - 1

_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
_LIMITS = ("cpu_seconds", "address_space", "file_size", "open_files")


def spec_to_document(spec: JobSpec) -> dict[str, Any]:
    """JSON-able; what has its default value is left out."""
    document: dict[str, Any] = {
        "script": blob_to_document(spec.script),
        "script_name": spec.script_name,
        "qos": spec.qos.value,
    }
    if spec.arguments:
        document["arguments"] = list(spec.arguments)
    if spec.stdin is not None:
        document["stdin"] = blob_to_document(spec.stdin)
    if spec.name is not None:
        document["name"] = spec.name
    if spec.timeout is not None:
        document["timeout"] = float(spec.timeout)
    if spec.retries:
        document["retries"] = spec.retries
    if spec.retention is not None:
        document["retention"] = float(spec.retention)
    if spec.at_most_once:
        document["at_most_once"] = True
    limits = {field: value for field in _LIMITS if (value := getattr(spec.limits, field)) is not None}
    if limits:
        document["limits"] = limits
    if spec.variables:
        document["variables"] = dict(spec.variables)
    if spec.node is not None:
        document["node"] = spec.node
    if spec.avoid:
        document["avoid"] = list(spec.avoid)
    if spec.local:
        document["local"] = True
    return document


def spec_from_document(document: object) -> JobSpec:
    """The spec that a document describes.

    :raises InvalidArgument: naming the field, and what it should have been.
    """
    fields = mapping("spec", document)
    if "script" not in fields:
        raise InvalidArgument("script: it is missing")
    variables = mapping("variables", fields.get("variables", {}))
    limits = mapping("limits", fields.get("limits", {}))
    stdin = fields.get("stdin")
    return JobSpec(
        script=blob_from_document("script", fields["script"]),
        script_name=typed(fields, "script_name", text, "script.py"),
        arguments=texts("arguments", fields.get("arguments", [])),
        stdin=None if stdin is None else blob_from_document("stdin", stdin),
        qos=typed(fields, "qos", qos, QoS.BATCH),
        name=typed(fields, "name", text, None),
        timeout=typed(fields, "timeout", number, None),
        retries=typed(fields, "retries", integer, 0),
        retention=typed(fields, "retention", number, None),
        at_most_once=typed(fields, "at_most_once", boolean, False),
        limits=Limits(**{field: typed(limits, field, integer, None, "limits.") for field in _LIMITS}),
        variables=tuple((variable, text(f"variables.{variable}", value)) for variable, value in variables.items()),
        node=typed(fields, "node", text, None),
        avoid=texts("avoid", fields.get("avoid", [])),
        local=typed(fields, "local", boolean, False),
    )


def blob_to_document(blob: Blob) -> dict[str, Any]:
    """``{"digest": …, "size": …}``."""
    return {"digest": blob.digest, "size": blob.size}


def blob_from_document(field: str, document: object) -> Blob:
    """:raises InvalidArgument:"""
    fields = mapping(field, document)
    size = count(f"{field}.size", fields.get("size"))
    return Blob(digest(f"{field}.digest", fields.get("digest")), size)


def typed(fields: Document, field: str, decode: Callable[[str, object], T], default: D, prefix: str = "") -> T | D:
    """A field decoded, or ``default`` where it is absent or null."""
    value = fields.get(field)
    return default if value is None else decode(prefix + field, value)


def mapping(field: str, value: object) -> Document:
    """:raises InvalidArgument: not a JSON object."""
    if not isinstance(value, dict):
        raise _wrong(field, value, "an object")
    return value


def text(field: str, value: object) -> str:
    """:raises InvalidArgument: not a string."""
    if not isinstance(value, str):
        raise _wrong(field, value, "a string")
    return value


def texts(field: str, value: object) -> tuple[str, ...]:
    """:raises InvalidArgument: not a list of strings."""
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise InvalidArgument(f"{field}: not a list of strings")
    return tuple(value)


def number(field: str, value: object) -> float:
    """:raises InvalidArgument: not a number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong(field, value, "a number")
    try:
        return float(value)
    except OverflowError:
        raise _wrong(field, value, "a number within the range of a double") from None


def integer(field: str, value: object) -> int:
    """:raises InvalidArgument: not a whole number, or one that no database column holds."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise _wrong(field, value, "a whole number")
    if abs(value) > INTEGER_MAX:
        raise InvalidArgument(f"{field}: {_shown(value)} is more than the limit, {INTEGER_MAX}")
    return value


def count(field: str, value: object) -> int:
    """:raises InvalidArgument: not a whole number of at least 0."""
    found = integer(field, value)
    if found < 0:
        raise InvalidArgument(f"{field}: {found} is negative")
    return found


def boolean(field: str, value: object) -> bool:
    """:raises InvalidArgument: not true or false."""
    if not isinstance(value, bool):
        raise _wrong(field, value, "true or false")
    return value


def member(kind: type[E], field: str, value: object) -> E:
    """:raises InvalidArgument: not the value of one of ``kind``."""
    try:
        return kind(text(field, value))
    except ValueError:
        raise InvalidArgument(f"{field}: {_shown(value)} is none of {', '.join(kind)}") from None


def qos(field: str, value: object) -> QoS:
    """:raises InvalidArgument: no QoS class has that name."""
    return member(QoS, field, value)


def digest(field: str, value: object) -> Digest:
    """:raises InvalidArgument: not a lowercase hexadecimal sha256."""
    if not _DIGEST.match(text(field, value)):
        raise InvalidArgument(f"{field}: {_shown(value)} is not a sha256 of 64 lowercase hexadecimal digits")
    return Digest(text(field, value))


def _wrong(field: str, value: object, expected: str) -> InvalidArgument:
    return InvalidArgument(f"{field}: {_shown(value)} is not {expected}")


def _shown(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:60] + "..."
