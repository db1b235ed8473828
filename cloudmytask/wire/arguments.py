"""AMP arguments of our own: JSON documents of more than one value's length, and numbers that do not trip.

Invariant: decoding a document raises nothing but :class:`~cloudmytask.model.errors.InvalidArgument`, which names it.
"""

from __future__ import annotations

from typing import Any

from twisted.protocols import amp

from cloudmytask.codec import dump, load
from cloudmytask.model.errors import InvalidArgument

VALUE_MAX = 65_535
"""Bytes in one AMP value."""
DOCUMENT_MAX = 880 * 1024
"""Bytes in one document; it fits into the guard's box together with a script and an input that ride along."""


class Document(amp.Argument):
    """A JSON object, split over as many values as it needs: ``name``, ``name.1``, ``name.2`` …"""

    def toBox(self, name: bytes, strings: amp.AmpBox, objects: dict[str, Any], proto: object) -> None:
        value = self.retrieve(objects, name.decode(), proto)
        if value is None:
            if not self.optional:
                raise InvalidArgument(f"{name.decode()}: it is missing")
            return
        encoded = dump(value)
        if len(encoded) > DOCUMENT_MAX:
            raise InvalidArgument(
                f"{name.decode()}: {len(encoded)} bytes are more than the limit, {DOCUMENT_MAX} bytes"
            )
        for index, start in enumerate(range(0, len(encoded), VALUE_MAX)):
            strings[_part(name, index)] = encoded[start : start + VALUE_MAX]

    def fromBox(self, name: bytes, strings: amp.AmpBox, objects: dict[str, Any], proto: object) -> None:  # noqa: ARG002
        parts: list[bytes] = []
        while (part := strings.pop(_part(name, len(parts)), None)) is not None:
            parts.append(part)
        if not parts:
            if not self.optional:
                raise InvalidArgument(f"{name.decode()}: it is missing")
            objects[name.decode()] = None
            return
        objects[name.decode()] = _decoded(name, b"".join(parts))


class Flag(amp.Boolean):
    """A boolean that has no other forms than the two that AMP writes."""

    def fromString(self, inString: bytes) -> bool:  # noqa: N803 - Twisted's name
        if inString not in (b"True", b"False"):
            raise ValueError("neither True nor False")
        return inString == b"True"


def _part(name: bytes, index: int) -> bytes:
    return name if index == 0 else b"%b.%d" % (name, index)


def _decoded(name: bytes, encoded: bytes) -> dict[str, Any]:
    try:
        value = load(encoded)
    except InvalidArgument as problem:
        raise InvalidArgument(f"{name.decode()}: {problem}") from None
    if not isinstance(value, dict):
        raise InvalidArgument(f"{name.decode()}: it is not a JSON object")
    return value
