"""The codec itself: every value there and back, as its class declares it, and the sentences of its refusals."""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, NewType, Union, get_args, get_origin

import attrs
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloudmytask.boundaries import OutputEnd
from cloudmytask.codec import decode, dump, encode, from_text, load, to_text
from cloudmytask.codec.encoding import field_types
from cloudmytask.model.cluster import (
    Announcement,
    AttachAnswer,
    BanPage,
    BanReport,
    Capacity,
    ClusterView,
    LoadSample,
    NodeId,
    Obituary,
    Offer,
    OfferAnswer,
    PeerIdentity,
    RemoteEnd,
)
from cloudmytask.model.errors import InvalidArgument
from cloudmytask.model.fields import Count, Number
from cloudmytask.model.job import (
    Assignment,
    Explanation,
    Job,
    JobPage,
    JobQuery,
    JobSpec,
    JobState,
    NodeStatus,
    Offsets,
    Outcome,
    Reason,
    StreamName,
    TravelingJob,
)

KINDS = [
    *(Announcement, Assignment, AttachAnswer, BanPage, BanReport, ClusterView, Explanation, Job, JobPage, JobQuery),
    *(LoadSample, NodeStatus, Obituary, Offer, OfferAnswer, OutputEnd, PeerIdentity, RemoteEnd, TravelingJob),
]
# bytes that are not UTF-8 become lone surrogates (PEP 383)
CHARACTERS = st.characters(exclude_categories=["Cs"]) | st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF)


FEW = settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])


def values(declared: Any, *limits: msgspec.Meta) -> st.SearchStrategy[Any]:
    """What a declared type allows."""
    if isinstance(declared, NewType):
        return values(declared.__supertype__, *limits)
    origin, inner = get_origin(declared), get_args(declared)
    if origin is Annotated:
        return values(inner[0], *inner[1:], *limits)
    if origin in (Union, UnionType):
        return st.one_of(*(st.none() if each is NoneType else values(each, *limits) for each in inner))
    bounds = {
        name: bound
        for limit in limits
        for name in ("ge", "le", "min_length", "max_length", "pattern")
        if (bound := getattr(limit, name)) is not None
    }
    if origin is tuple and inner[-1] is not Ellipsis:
        return st.tuples(*map(values, inner))
    if origin is tuple:
        return st.lists(values(inner[0]), max_size=min(2, bounds.get("max_length", 2))).map(tuple)
    if origin is frozenset:
        return st.frozensets(values(inner[0]))
    if origin is not None:
        assert issubclass(origin, Mapping)
        return st.dictionaries(values(inner[0]), values(inner[1]), max_size=3)
    if attrs.has(declared):
        # deferred, since it is asked for often and few of them are drawn
        return st.deferred(lambda: _built(declared))
    if issubclass(declared, enum.Enum):
        return st.sampled_from(declared)
    if declared is str and "pattern" in bounds:
        if digits := re.search(r"\[0-9a-f\]\{(\d+)\}", bounds["pattern"]):
            size = int(digits[1]) // 2
            return st.binary(min_size=size, max_size=size).map(bytes.hex)  # drawn faster than by the pattern
        return st.from_regex(bounds["pattern"])
    if declared is str:
        return st.text(CHARACTERS, min_size=bounds.get("min_length", 0), max_size=bounds.get("max_length", 20))
    if declared is bool:
        return st.booleans()
    limit = st.integers if declared is int else st.floats
    return limit(bounds["ge"], bounds["le"]) if bounds else limit(0, 2**40)


def _built(kind: type) -> st.SearchStrategy[Any]:
    return st.builds(kind, **{name: values(declared) for name, declared in field_types(kind).items()})


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_value_comes_back_as_it_was(kind: type[Any]) -> None:
    @FEW
    @given(values(kind))
    def comes_back(value: Any) -> None:
        text = to_text(value)
        assert text.isascii()
        assert from_text(kind, text) == decode(kind, encode(value)) == decode(kind, json.loads(text)) == value

    comes_back()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_equal_values_have_one_text_and_what_later_versions_add_is_ignored(kind: type[Any]) -> None:
    @FEW
    @given(values(kind))
    def holds(value: Any) -> None:
        text = to_text(value)
        assert to_text(from_text(kind, text)) == text
        assert decode(kind, {**encode(value), "zz_new": [{"a": None}]}) == value

    holds()


def test_lone_surrogates_survive() -> None:
    explanation = Explanation("\udcff", ("a", "é\udc80", "\U0001f600"))
    text = to_text(explanation)
    assert text == '{"sentence":"\\udcff","details":["a","\\u00e9\\udc80","\\ud83d\\ude00"]}'
    assert from_text(Explanation, text) == from_text(Explanation, text.encode()) == explanation


def test_a_text_is_the_one_of_the_standard_library_whatever_way_it_came() -> None:
    document = {"a": "é", "b": [1.0, 0.1, 12, True, None], "c": {"d": "x"}}
    assert dump(document).decode() == json.dumps(document, separators=(",", ":"))
    assert dump({"c": {"d": "x"}}) == b'{"c":{"d":"x"}}'
    assert load(dump(document)) == document
    for number in (float("nan"), float("inf")):
        with pytest.raises(ValueError):
            dump({"a": number})


def test_a_whole_number_will_do_for_a_number() -> None:
    assert decode(Number, 5) == 5.0
    assert type(decode(Number, 5)) is float
    assert to_text(decode(Outcome, {"reason": "exit", "usage": {"wall_seconds": 1}})) == (
        '{"reason":"exit","usage":{"wall_seconds":1.0}}'
    )


@pytest.mark.parametrize(
    ("kind", "document", "sentence"),
    [
        (Outcome, {"reason": "exit", "exit_code": "x"}, "exit_code: 'x' is not a whole number"),
        (Outcome, {"reason": "exit", "exit_code": True}, "exit_code: True is not a whole number"),
        (Outcome, {"reason": "exit", "exit_code": 1.0}, "exit_code: 1.0 is not a whole number"),
        (Outcome, {"reason": "exit", "signal": 2**63}, f"signal: {2**63} is more than the limit, {2**63 - 1}"),
        (Outcome, {"reason": "whim"}, f"reason: 'whim' is none of {', '.join(Reason)}"),
        (Outcome, {"reason": 7}, "reason: 7 is not a string"),
        (Outcome, {}, "reason: it is missing"),
        (Outcome, [], "outcome: [] is not an object"),
        (Outcome, None, "outcome: None is not an object"),
        (Outcome, {"reason": "exit", "usage": {"peak_memory": -1}}, "usage.peak_memory: -1 is negative"),
        (Outcome, {"reason": "exit", "usage": {"wall_seconds": float("nan")}}, "usage.wall_seconds: nan is not finite"),
        (Outcome, {"reason": "exit", "usage": {"cpu_seconds": "1"}}, "usage.cpu_seconds: '1' is not a number"),
        (
            JobSpec,
            {"script": {"digest": "a" * 64, "size": 1}, "arguments": ["a", 1]},
            "arguments[1]: 1 is not a string",
        ),
        (JobQuery, {"limit": 0}, "limit: 0 is less than the limit, 1"),
        (JobQuery, {"states": ["running", "asleep"]}, f"states[1]: 'asleep' is none of {', '.join(JobState)}"),
        (Offsets, {"stdout": 1, "stderr": -1}, "offsets.stderr: -1 is negative"),
        (Offsets, {"stdlog": 1}, "offsets: 'stdlog' is none of stdout, stderr"),
        (Capacity, {"slots": 1, "free": 1, "load": 1.5}, "load: 1.5 is more than the limit, 1.0"),
        (NodeId, "x", "offsets: 'x' is not 32 lowercase hexadecimal digits"),
        (Count, "x" * 100, f"offsets: {repr('x' * 100)[:60]}... is not a whole number"),
        (BanPage, {"bans": [{}] * 2001}, "bans: 2001 entries are more than the limit, 2000"),
        (PeerIdentity, {"cluster": ""}, "cluster: it is empty"),
        (OfferAnswer, {"why": "x" * 1001}, "why: 1001 characters are more than the limit, 1000"),
        (
            tuple[Outcome, ...],
            [{"reason": "exit"}, {"reason": "exit", "signal": []}],
            "offsets[1].signal: [] is not a whole",
        ),
    ],
)
def test_a_refusal_names_path_value_and_limit(kind: Any, document: object, sentence: str) -> None:
    named_itself = not (isinstance(kind, type) and attrs.has(kind))
    with pytest.raises(InvalidArgument) as raised:
        decode(kind, document, "offsets" if named_itself else "")
    assert str(raised.value).startswith(sentence)
    if not named_itself and isinstance(document, dict):
        with pytest.raises(InvalidArgument) as raised:
            decode(kind, document, "end")
        assert str(raised.value).startswith(f"end.{sentence}")


@pytest.mark.parametrize("depth", [100, 5000, 100_000])
def test_what_is_nested_too_deep_is_refused(depth: int) -> None:
    for text in (
        "[" * depth,
        "[" * depth + "]" * depth,
        '{"sentence":' * depth,
        '{"sentence":' * depth + "1" + "}" * depth,
    ):
        with pytest.raises(InvalidArgument):
            from_text(Explanation, text)


def test_discarded_bytes_are_told_by_stream() -> None:
    end = OutputEnd(1, {StreamName.STDERR: 1, StreamName.STDOUT: 2}, {})
    assert encode(end) == {"attempt": 1, "sizes": {"stderr": 1, "stdout": 2}, "discarded": {}}
    assert [*decode(OutputEnd, encode(end)).sizes] == [StreamName.STDERR, StreamName.STDOUT]


@pytest.mark.parametrize("part", [{"\ud800": 1}, {"qos": "\ud800"}, {"limits": {"\ud800": 1}}])
def test_a_lone_surrogate_in_a_name_or_a_word_is_refused(part: dict[str, Any]) -> None:
    document = {"script": {"digest": "0" * 64, "size": 1}, **part}
    with pytest.raises(InvalidArgument, match=r"^spec: '\\ud800' is no name"):
        decode(JobSpec, document)
    with pytest.raises(InvalidArgument, match=r"^spec: '\\ud800' is no name"):
        from_text(JobSpec, json.dumps(document))
