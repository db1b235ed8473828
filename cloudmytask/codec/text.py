"""Documents as JSON text.

Invariant: the text is ASCII and equal documents with their fields in the same order have the same text. Text that is
not UTF-8 reaches us with lone surrogates (PEP 383): JSON keeps them as escapes, which msgspec neither writes nor reads,
so that such a document goes the slower way through the standard library.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, TypeVar

import msgspec

from cloudmytask.codec.decoding import decode
from cloudmytask.codec.encoding import Document, encode
from cloudmytask.model.errors import InvalidArgument
from cloudmytask.model.job import Digest, JobSpec

T = TypeVar("T")

_canonical = json.JSONEncoder(separators=(",", ":"), check_circular=False, allow_nan=False).encode
_fast = msgspec.json.Encoder().encode


def dump(document: Document | list[Any]) -> bytes:
    """A document's JSON, in ASCII, or that of a list of them.

    :raises ValueError: it holds a number that is not finite.
    """
    try:
        text = _fast(document)
    except UnicodeEncodeError:
        text = b"null"
    # msgspec makes null of what is not finite
    return text if text.isascii() and b"null" not in text else _canonical(document).encode("ascii")


def load(text: bytes | str) -> Any:
    """What a JSON text says.

    :raises InvalidArgument: it is not JSON.
    """
    try:
        return msgspec.json.decode(text)
    except (ValueError, RecursionError):
        pass
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise InvalidArgument(f"it is not JSON: {problem}") from None


def to_text(value: object) -> str:
    """A value of the model as JSON."""
    return dump(encode(value)).decode("ascii")


def from_text(kind: type[T], text: bytes | str) -> T:
    """The value whose JSON that is.

    :raises InvalidArgument: it is not JSON, or what :func:`~cloudmytask.codec.decoding.decode` says.
    """
    try:
        return msgspec.json.decode(text, type=kind)
    except (ValueError, RecursionError):
        return decode(kind, load(text))


def body_digest(spec: JobSpec) -> Digest:
    """What makes two submissions under one idempotency key the same: sha256 of the spec's text."""
    return Digest(hashlib.sha256(_canonical(encode(spec)).encode("ascii")).hexdigest())
