"""AMP arguments beside Twisted's: JSON documents of more than one value's length, and numbers that do not trip.

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
        for start in range(0, len(encoded), VALUE_MAX):
            part = b"%b.%d" % (name, start // VALUE_MAX) if start else name
            strings[part] = encoded[start : start + VALUE_MAX]

    def fromBox(self, name: bytes, strings: amp.AmpBox, objects: dict[str, Any], proto: object) -> None:  # noqa: ARG002
        parts: list[bytes] = []
        part = name
        while (value := strings.pop(part, None)) is not None:
            parts.append(value)
            part = b"%b.%d" % (name, len(parts))
        document: Any = None
        if parts:
            try:
                document = load(b"".join(parts))
            except InvalidArgument as problem:
                raise InvalidArgument(f"{name.decode()}: {problem}") from None
            if not isinstance(document, dict):
                raise InvalidArgument(f"{name.decode()}: it is not a JSON object")
        elif not self.optional:
            raise InvalidArgument(f"{name.decode()}: it is missing")
        objects[name.decode()] = document


class Flag(amp.Boolean):
    """A boolean that has no other forms than the two that AMP writes."""

    def fromString(self, inString: bytes) -> bool:  # noqa: N803 - Twisted's name
        if inString not in (b"True", b"False"):
            raise ValueError("neither True nor False")
        return inString == b"True"
