"""Values as documents: what JSON has words for, and nothing that stands at its default.

Invariant: the document of a value follows from its class alone. A field that a class gets later, and that is at its
default, changes no document; a field whose metadata says :data:`~cloudmytask.model.fields.ALWAYS` is never left out.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, NewType, Union, cast, get_args, get_origin, get_type_hints

import attrs

Document = dict[str, Any]
Encode = Callable[[Any], Any]

_REQUIRED = object()
"""Equals nothing that a field can hold."""


def encode(value: object) -> Document:
    """The document of a value of the model.

    Documents are for reading: they share no mutable part with the value.
    """
    encoded: Document = _of_class(type(value))(value)  # type: ignore[arg-type]  # a class can be hashed
    return encoded


@cache
def field_types(kind: type) -> Mapping[str, Any]:
    """The declared types of a class's fields, in order, limits included."""
    hints = get_type_hints(kind, include_extras=True)
    return {each.name: hints[each.name] for each in attrs.fields(kind)}


def bare(declared: Any) -> Any:
    """A declared type without its limits, its name and its "or null"."""
    while True:
        if isinstance(declared, NewType):
            declared = declared.__supertype__
        elif get_origin(declared) is Annotated:
            declared = get_args(declared)[0]
        elif get_origin(declared) in (Union, UnionType):
            (declared,) = (each for each in get_args(declared) if each is not NoneType)
        else:
            return declared


@cache
def _of_class(kind: type) -> Encode:
    """The function that encodes a class: written out field by field, as attrs writes ``__init__``, since a loop over
    the fields takes three times as long."""
    names: dict[str, object] = {}
    always: list[str] = []
    others: list[str] = []
    for number, (each, declared) in enumerate(zip(attrs.fields(kind), field_types(kind).values(), strict=True)):
        inner = _of_type(declared)
        told = f"value.{each.name}"
        if inner is not None:
            names[f"encode_{number}"] = inner
            told = f"None if {told} is None else encode_{number}({told})"
        if each.default is attrs.NOTHING or each.metadata.get("always"):
            always.append(f"{each.name!r}: {told}")
            continue
        default = each.default.factory() if isinstance(each.default, attrs.Factory) else each.default  # type: ignore[arg-type]
        # a class whose fields are all at their defaults is an empty document, which costs less to compare
        names[f"default_{number}"], names[f"left_out_{number}"] = default, _applied(inner, default)
        others += [
            f" if value.{each.name} is not default_{number}:",
            f"  told = {told}",
            f"  if told != left_out_{number}: document[{each.name!r}] = told",
        ]
    source = ["def encoded(value):", f" document = {{{', '.join(always)}}}", *others, " return document"]
    exec("\n".join(source), names)  # noqa: S102 - of field names only
    return cast(Encode, names["encoded"])


def _of_type(declared: Any) -> Encode | None:
    """How a value of a declared type is encoded; None if it is its own document."""
    kind = bare(declared)
    origin, inner = get_origin(kind), [each for each in get_args(kind) if each is not Ellipsis]
    if origin is None:
        if attrs.has(kind):
            return _of_class(kind)
        if issubclass(kind, enum.StrEnum):
            return str
        return float if kind is float else None  # equal numbers have one text
    encoders = [_of_type(each) for each in inner]
    if origin is tuple and get_args(kind)[-1] is not Ellipsis:
        return lambda value: [_applied(each, part) for each, part in zip(encoders, value, strict=True)]
    (first, *_), last = encoders, encoders[-1]
    if origin is tuple:
        return list if last is None else lambda value: [last(part) for part in value]
    if origin is frozenset:
        return lambda value: sorted(_applied(first, part) for part in value)
    return lambda value: {_applied(first, key): _applied(last, value[key]) for key in sorted(value)}


def _applied(encoder: Encode | None, value: Any) -> Any:
    return value if encoder is None or value is None else encoder(value)
