"""Documents as values, checked against the types and limits that the classes of the model declare.

Invariant: what comes out is of the declared types and within the declared limits, and nothing is raised but
:class:`~cloudmytask.model.errors.InvalidArgument`, which names the field by its path, the value and the limit. A field
that a later version adds is ignored; one that is absent, or null, has its default.

msgspec does the work. If it refuses, the sentence is made here, from its path and from our declared types.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NewType, TypeVar, get_args, get_origin, overload

import attrs
import msgspec

from cloudmytask.codec.encoding import bare, field_types
from cloudmytask.model.errors import InvalidArgument

T = TypeVar("T")
Step = str | int
"""A part of a path: a field or a key, or a place in a list."""

_AT = re.compile(r" - at (?P<key>`key` in )?`\$(?P<path>.*)`\Z", re.DOTALL)
_STEPS = re.compile(r"\.(?P<name>\w+)|\[(?P<place>\d+)\]|(?P<each>\[\.\.\.\])")
_MISSING = re.compile(r"Object missing required field `(\w+)`")
_KINDS: Mapping[Any, tuple[type | tuple[type, ...], str]] = {
    str: (str, "a string"),
    int: (int, "a whole number"),
    float: ((int, float), "a number"),
    bool: (bool, "true or false"),
    tuple: (list, "a list"),
    frozenset: (list, "a list"),
    dict: (dict, "an object"),
}


@overload
def decode(kind: type[T], document: object, where: str = "", *, nulls: bool = True) -> T: ...
@overload
def decode(kind: Any, document: object, where: str = "", *, nulls: bool = True) -> Any: ...
def decode(kind: Any, document: object, where: str = "", *, nulls: bool = True) -> Any:
    """The value that a document describes.

    :param kind: a class of the model, or any type that is made of them.
    :param where: what the document itself is called, if it is a field of something.
    :param nulls: whether a field of one value that is null is as good as absent.
    :raises InvalidArgument: naming the field, the value and what it should have been.
    """
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as problem:
        refusal = str(problem)
    except RecursionError:
        raise InvalidArgument(f"{where or _called(kind)}: it is nested too deep") from None
    except UnicodeEncodeError as problem:
        # msgspec looks fields and words up by their UTF-8, which a lone surrogate does not have
        wrong = _shown(problem.object)
        raise InvalidArgument(f"{where or _called(kind)}: {wrong} is no name of a field, and no word for one") from None
    if nulls and (without := _without_nulls(kind, document)) != document:
        return decode(kind, without, where, nulls=False)
    raise InvalidArgument(_sentence(kind, document, refusal, where))


def _without_nulls(declared: Any, document: Any) -> Any:
    """The document without the fields that are null and would hold one value; equal to it if there are none. Of a later
    version's fields nothing is known, and in place of a list or an object null is wrong."""
    kind = bare(declared)
    if isinstance(document, list) and get_origin(kind) is tuple and get_args(kind)[-1] is Ellipsis:
        return [_without_nulls(get_args(kind)[0], each) for each in document]
    if not isinstance(document, dict) or not attrs.has(kind):
        return document
    types = field_types(kind)
    return {
        key: _without_nulls(types[key], each) if key in types else each
        for key, each in document.items()
        if each is not None or key not in types or not _holds_one(bare(types[key]))
    }


def _holds_one(kind: Any) -> bool:
    return isinstance(kind, type) and get_origin(kind) is None and not attrs.has(kind)


def _sentence(kind: Any, document: object, refusal: str, where: str) -> str:
    steps, is_key = _path(kind, document, refusal)
    missing = _MISSING.match(refusal)
    if missing is not None:
        return f"{_shown_path(kind, [*steps, missing[1]], where)}: it is missing"
    declared = _type_at(kind, steps)
    value = _value_at(document, steps)
    if is_key:
        declared, value = next(
            (get_args(bare(declared))[0], key) for key in value if not _fits(get_args(bare(declared))[0], key)
        )
    return f"{_shown_path(kind, steps, where)}: {_wrong(declared, value)}"


def _path(kind: Any, document: object, refusal: str) -> tuple[list[Step], bool]:
    """Where msgspec found the problem, and whether it is a key there. Of a mapping it does not tell which value it was,
    so each is tried alone."""
    found = _AT.search(refusal)
    steps: list[Step] = []
    if found is None:
        return steps, False
    for step in _STEPS.finditer(found["path"]):
        if not step["each"]:
            steps.append(step["name"] or int(step["place"]))
            continue
        for key in _value_at(document, steps):
            alone = _with_only(document, steps, key)
            try:
                msgspec.convert(alone, kind)
            except msgspec.ValidationError:
                steps.append(key)
                break
    return steps, found["key"] is not None


def _with_only(document: Any, steps: Sequence[Step], key: Step) -> Any:
    if not steps:
        return {key: document[key]}
    changed = document.copy()
    changed[steps[0]] = _with_only(document[steps[0]], steps[1:], key)
    return changed


def _fits(declared: Any, value: object) -> bool:
    try:
        msgspec.convert(value, declared)
    except msgspec.ValidationError:
        return False
    return True


def _type_at(declared: Any, steps: Sequence[Step]) -> Any:
    for step in steps:
        kind = bare(declared)
        inner = get_args(kind)
        if attrs.has(kind):
            declared = field_types(kind)[str(step)]
        elif get_origin(kind) is tuple and inner[-1] is not Ellipsis:
            declared = inner[int(step)]
        else:
            declared = inner[0] if get_origin(kind) in (tuple, frozenset) else inner[1]
    return declared


def _value_at(document: Any, steps: Sequence[Step]) -> Any:
    for step in steps:
        document = document[step]
    return document


def _wrong(declared: Any, value: object) -> str:
    """What is wrong with a value that is not of a declared type."""
    kind = bare(declared)
    if isinstance(kind, type) and issubclass(kind, enum.StrEnum):
        if isinstance(value, str):
            return f"{_shown(value)} is none of {', '.join(kind)}"
        kind = str
    origin = get_origin(kind) or kind
    expected, words = _KINDS.get(origin, _KINDS[dict])
    if not isinstance(value, expected) or (isinstance(value, bool) and origin is not bool):
        return f"{_shown(value)} is not {words}"
    if origin is tuple and get_args(kind)[-1] is not Ellipsis:
        return f"{_shown(value)} is not a list of {len(get_args(kind))}"
    for limit in _limits(declared):
        if said := _beyond(limit, value):
            return said
    return f"{_shown(value)} is not {words} within the range of a double"


def _limits(declared: Any) -> list[msgspec.Meta]:
    found: list[msgspec.Meta] = []
    for each in get_args(declared) if get_origin(declared) is not Annotated else ():
        found += _limits(each) if get_origin(declared) is not tuple else []
    if isinstance(declared, NewType):
        found += _limits(declared.__supertype__)
    if get_origin(declared) is Annotated:
        inner, *metas = get_args(declared)
        found += [*metas, *_limits(inner)]
    return found


def _beyond(limit: msgspec.Meta, value: Any) -> str | None:
    """Why a value is not within a limit; None if it is."""
    if isinstance(value, str | list):
        unit = "characters" if isinstance(value, str) else "entries"
        if limit.max_length is not None and len(value) > limit.max_length:
            return f"{len(value)} {unit} are more than the limit, {limit.max_length}"
        if limit.min_length is not None and len(value) < limit.min_length:
            return "it is empty"
        if limit.pattern is not None and not re.search(limit.pattern, str(value)):
            return f"{_shown(value)} is not {limit.description}"
        return None
    if value != value or value in (float("inf"), float("-inf")):
        return f"{value} is not finite"
    if limit.ge is not None and value < limit.ge:
        return (
            f"{_shown(value)} is negative" if limit.ge == 0 else f"{_shown(value)} is less than the limit, {limit.ge}"
        )
    if limit.le is not None and value > limit.le:
        return f"{_shown(value)} is more than the limit, {limit.le}"
    return None


def _shown_path(kind: Any, steps: Sequence[Step], where: str) -> str:
    shown = where
    for step in steps:
        shown += f"[{step}]" if isinstance(step, int) else f".{step}"
    return shown.removeprefix(".") or _called(kind)


def _called(kind: Any) -> str:
    """The last word of a class's name."""
    *_, last = re.findall("[A-Z][a-z]*", getattr(kind, "__name__", "Document"))
    return str(last).lower()


def _shown(value: object) -> str:
    # a list may be nested too deep to be shown
    try:
        shown = repr(value)
    except RecursionError:
        return f"a {type(value).__name__}"
    return shown if len(shown) <= 60 else shown[:60] + "..."
