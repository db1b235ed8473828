"""Specs as JSON documents: there and back, and what is said of documents that are none."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudmytask.codec import decode, encode
from cloudmytask.model.errors import InvalidArgument
from cloudmytask.model.fields import INTEGER_MAX
from cloudmytask.model.job import Blob, Digest, JobSpec, Limits, QoS

digests = st.text("0123456789abcdef", min_size=64, max_size=64).map(Digest)
blobs = st.builds(Blob, digests, st.integers(0, 2**62))
positive = st.integers(1, 2**60)
seconds = st.floats(0.0, 1e9, exclude_min=True)
specs = st.builds(
    JobSpec,
    script=blobs,
    script_name=st.text(min_size=1),
    arguments=st.lists(st.text(), max_size=5).map(tuple),
    stdin=st.none() | blobs,
    qos=st.sampled_from(QoS),
    name=st.none() | st.text(min_size=1),
    timeout=st.none() | seconds,
    retries=st.integers(0, 100),
    retention=st.none() | seconds,
    at_most_once=st.booleans(),
    limits=st.builds(Limits, *[st.none() | positive] * 4),
    variables=st.dictionaries(st.text(min_size=1), st.text(), max_size=4),
)

SCRIPT = {"digest": "a" * 64, "size": 5}
MINIMAL = {"script": SCRIPT}
FULL: dict[str, Any] = {
    **MINIMAL,
    "script_name": "fit.py",
    "arguments": ["--alpha", "0.1"],
    "stdin": {"digest": "b" * 64, "size": 0},
    "qos": "idle",
    "name": "fit",
    "timeout": 60,
    "retries": 2,
    "retention": 3600.0,
    "at_most_once": True,
    "limits": {"cpu_seconds": 10, "open_files": 64},
    "variables": {"A": "1"},
}


@given(specs)
def test_there_and_back(spec: JobSpec) -> None:
    document = json.loads(json.dumps(encode(spec)))
    assert decode(JobSpec, document) == spec


@given(specs)
def test_what_a_later_version_adds_is_ignored(spec: JobSpec) -> None:
    document = encode(spec)
    document["gpu"] = {"count": 1}
    document["script"]["compression"] = "zstd"
    document.setdefault("limits", {})["processes"] = 7
    assert decode(JobSpec, document) == spec


def test_what_has_its_default_is_left_out() -> None:
    spec = JobSpec(script=Blob(Digest("a" * 64), 5))
    assert encode(spec) == {"script": SCRIPT, "script_name": "script.py", "qos": "batch"}
    assert decode(JobSpec, MINIMAL) == spec


def test_every_field_arrives() -> None:
    assert decode(JobSpec, FULL) == JobSpec(
        script=Blob(Digest("a" * 64), 5),
        script_name="fit.py",
        arguments=("--alpha", "0.1"),
        stdin=Blob(Digest("b" * 64), 0),
        qos=QoS.IDLE,
        name="fit",
        timeout=60.0,
        retries=2,
        retention=3600.0,
        at_most_once=True,
        limits=Limits(cpu_seconds=10, open_files=64),
        variables={"A": "1"},
    )


@pytest.mark.parametrize(
    "field",
    ["stdin", "script_name", "qos", "name", "timeout", "retries", "retention", "at_most_once"],
)
def test_null_is_as_good_as_absent(field: str) -> None:
    assert decode(JobSpec, {**MINIMAL, field: None}) == decode(JobSpec, MINIMAL)


EVERYTHING: tuple[Any, ...] = (None, True, False, 0, -1, 1.5, "", "text", [], ["x"], [1], {}, {"a": 1}, 10**400)
ACCEPTED: dict[str, tuple[Any, ...]] = {
    "script_name": (None, "", "text"),
    "arguments": ([], ["x"]),
    "stdin": (None,),
    "qos": (None,),
    "name": (None, "", "text"),
    "timeout": (None, 0, -1, 1.5),
    "retries": (None, 0, -1),
    "retention": (None, 0, -1, 1.5),
    "at_most_once": (None, True, False),
    "limits": ({}, {"a": 1}),
    "variables": ({},),
    "script": (),
}


@pytest.mark.parametrize("field", [*FULL])
@pytest.mark.parametrize("value", EVERYTHING, ids=lambda value: ascii(value)[:20])
def test_a_value_of_another_type_is_refused_by_its_field(field: str, value: Any) -> None:
    document = {**FULL, field: value}
    if any(value is accepted or (type(value), value) == (type(accepted), accepted) for accepted in ACCEPTED[field]):
        decode(JobSpec, document)
        return
    with pytest.raises(InvalidArgument) as raised:
        decode(JobSpec, document)
    sentence = str(raised.value)
    named = sentence.partition(":")[0]
    assert named == field or named.startswith((f"{field}.", f"{field}[")), sentence
    assert len(sentence) < 150


@pytest.mark.parametrize("limit", ["cpu_seconds", "address_space", "file_size", "open_files"])
@pytest.mark.parametrize("value", [1.0, "1", True, [], 2**63, -(2**63)])
def test_a_limit_that_is_no_number(limit: str, value: object) -> None:
    with pytest.raises(InvalidArgument, match=rf"^limits\.{limit}: "):
        decode(JobSpec, {**MINIMAL, "limits": {limit: value}})


@pytest.mark.parametrize("value", [1, None, [], True])
def test_a_variable_whose_value_is_no_text(value: object) -> None:
    with pytest.raises(InvalidArgument, match=r"^variables\.A: "):
        decode(JobSpec, {**MINIMAL, "variables": {"A": value}})


@pytest.mark.parametrize("document", [None, [], "text", 1, True])
def test_what_is_no_document_at_all(document: object) -> None:
    with pytest.raises(InvalidArgument, match=r"^spec: .* is not an object$"):
        decode(JobSpec, document)


def test_a_script_is_needed() -> None:
    with pytest.raises(InvalidArgument, match=r"^script: it is missing$"):
        decode(JobSpec, {})


def test_a_class_that_there_is_not() -> None:
    with pytest.raises(InvalidArgument, match=r"^qos: 'urgent' is none of interactive, batch, idle$"):
        decode(JobSpec, {**MINIMAL, "qos": "urgent"})


@pytest.mark.parametrize(
    ("blob", "named"),
    [
        ({}, "b.digest"),
        ({"digest": "a" * 64}, "b.size"),
        ({"size": 1}, "b.digest"),
        ({"digest": "a" * 63, "size": 1}, "b.digest"),
        ({"digest": "a" * 64 + "\n", "size": 1}, "b.digest"),
        ({"digest": "A" * 64, "size": 1}, "b.digest"),
        ({"digest": "g" * 64, "size": 1}, "b.digest"),
        ({"digest": 7, "size": 1}, "b.digest"),
        ({"digest": "a" * 64, "size": -1}, "b.size"),
        ({"digest": "a" * 64, "size": 1.0}, "b.size"),
        ({"digest": "a" * 64, "size": True}, "b.size"),
        ({"digest": "a" * 64, "size": INTEGER_MAX + 1}, "b.size"),
        ([], "b"),
    ],
)
def test_a_blob_that_none_is(blob: object, named: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        decode(Blob, blob, "b")
    assert str(raised.value).partition(":")[0] == named


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(sorted(FULL)) | st.text(max_size=5), json_values, max_size=8))
def test_a_document_gives_a_spec_or_a_declared_failure(document: dict[str, Any]) -> None:
    try:
        spec = decode(JobSpec, {**MINIMAL, **document})
    except InvalidArgument as refusal:
        assert ": " in str(refusal)
    else:
        assert decode(JobSpec, encode(spec)) == spec
