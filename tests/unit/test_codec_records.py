"""The text of records: nothing is lost, additions of later versions are ignored, equal specs have equal digests."""

from __future__ import annotations

import json
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from cloudmytask.codec import body_digest, from_text, to_text
from cloudmytask.codec.records import job_from_record, job_from_version_1, job_to_record
from cloudmytask.model.errors import InvalidArgument
from cloudmytask.model.fields import YEAR_9999
from cloudmytask.model.job import (
    Attempt,
    Blob,
    Cancellation,
    ClientId,
    Digest,
    Job,
    JobId,
    JobSpec,
    JobState,
    Limits,
    NodeId,
    Outcome,
    Output,
    Owner,
    QoS,
    Reason,
    Stamp,
    Usage,
)
from tests.store_conformance import ended, make_job

# bytes that are not UTF-8 become these lone surrogates (PEP 383)
TEXT = st.text(
    st.one_of(st.characters(exclude_categories=["Cs"]), st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF))
)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
MOMENTS = st.floats(0, YEAR_9999)
CLIENTS = st.from_regex(r"[A-Za-z0-9._@+-]{1,64}", fullmatch=True)
SIZES = st.integers(0, 2**63 - 1)
TERMS = st.integers(1, 2**63 - 1)
NODES = st.from_regex(r"[0-9a-f]{32}", fullmatch=True)
DIGESTS = st.text("0123456789abcdef", min_size=64, max_size=64)
BLOBS = st.builds(Blob, DIGESTS, SIZES)


def _maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


SPECS = st.builds(
    JobSpec,
    script=BLOBS,
    script_name=TEXT,
    arguments=st.lists(TEXT, max_size=3).map(tuple),
    stdin=_maybe(BLOBS),
    qos=st.sampled_from(QoS),
    name=_maybe(TEXT),
    timeout=_maybe(FLOATS),
    retries=st.integers(0, 9),
    retention=_maybe(FLOATS),
    at_most_once=st.booleans(),
    limits=st.builds(Limits, *[_maybe(SIZES)] * 4),
    variables=st.dictionaries(TEXT, TEXT, max_size=3),
)
OUTPUTS = st.builds(Output, _maybe(BLOBS), SIZES)
USAGES = st.builds(Usage, _maybe(FLOATS), _maybe(FLOATS), _maybe(SIZES))
OUTCOMES = st.builds(Outcome, st.sampled_from(Reason), _maybe(SIZES), _maybe(SIZES), USAGES, TEXT)
ATTEMPTS = st.builds(
    Attempt,
    SIZES,
    TEXT,
    MOMENTS,
    _maybe(MOMENTS),
    _maybe(MOMENTS),
    _maybe(OUTCOMES),
    stdout=OUTPUTS,
    stderr=OUTPUTS,
    executor_id=_maybe(NODES),
    epoch=TERMS,
)
OWNERS = st.builds(Owner, NODES, TEXT, TERMS, st.lists(NODES, max_size=3).map(tuple))
JOBS = st.builds(
    Job,
    id=TEXT,
    client=CLIENTS,
    spec=SPECS,
    body=DIGESTS,
    sequence=SIZES,
    owner=OWNERS,
    state=st.sampled_from(JobState),
    submitted_at=MOMENTS,
    retention=FLOATS,
    attempts=st.lists(ATTEMPTS, max_size=3).map(tuple),
    trail=st.lists(st.builds(Stamp, MOMENTS, TEXT, TEXT, TEXT), max_size=3).map(tuple),
    cancellation=_maybe(st.builds(Cancellation, MOMENTS, TEXT, TEXT)),
    ended_at=_maybe(MOMENTS),
    expires=_maybe(FLOATS),
    removed=st.booleans(),
)


@given(JOBS)
def test_a_job_is_read_back_equal(job: Job) -> None:
    spec_text, record_text = to_text(job.spec), job_to_record(job)
    assert spec_text.isascii()
    assert record_text.isascii()
    assert job_from_record(spec_text, record_text) == job


@given(SPECS, SPECS)
def test_the_digest_is_the_same_exactly_for_equal_specs(one: JobSpec, other: JobSpec) -> None:
    assert body_digest(one) == body_digest(from_text(JobSpec, to_text(one)))
    assert (body_digest(one) == body_digest(other)) is (one == other)


def test_numbers_that_are_equal_give_one_digest() -> None:
    spec = make_job(1).spec
    assert body_digest(evolve(spec, timeout=10, retention=5)) == body_digest(evolve(spec, timeout=10.0, retention=5.0))


@pytest.mark.parametrize(
    "change",
    [
        {"script_name": "b.py"},
        {"arguments": ("1", "2")},
        {"arguments": ("12",)},
        {"stdin": Blob(make_job(1).body, 3)},
        {"qos": QoS.IDLE},
        {"name": "script.py"},
        {"timeout": 1.0},
        {"retries": 1},
        {"retention": 1.0},
        {"at_most_once": True},
        {"limits": Limits(cpu_seconds=1)},
        {"limits": Limits(open_files=1)},
        {"variables": {"A": "1"}},
    ],
)
def test_every_field_is_in_the_digest(change: dict[str, Any]) -> None:
    spec = evolve(make_job(1).spec, arguments=("1",))
    assert body_digest(evolve(spec, **change)) != body_digest(spec)


def test_the_digest_of_a_spec_never_changes() -> None:
    # jobs that were accepted by earlier versions are found again by it: never adapt this value
    spec = JobSpec(Blob(make_job(1).spec.script.digest, 15), arguments=("\udcff",), timeout=10)
    assert body_digest(spec) == "5e27e0c2a4fe1d4ed5e11a61a773e9710a304bee2a513cad150f66929f52abaf"


def test_a_plain_spec_is_short() -> None:
    spec = make_job(1).spec
    assert json.loads(to_text(evolve(spec, arguments=()))) == {
        "script": {"digest": spec.script.digest, "size": spec.script.size},
        "script_name": "script.py",
        "qos": "batch",
    }


def _grown(value: Any) -> Any:
    """``value`` as a later version may write it: a further key in each object."""
    if isinstance(value, dict):
        grown = {key: each if key == "variables" else _grown(each) for key, each in value.items()}
        return {**grown, "zz_new": {"a": [1]}}
    return [_grown(each) for each in value] if isinstance(value, list) else value


def test_what_later_versions_add_is_ignored() -> None:
    job = evolve(
        ended(make_job(1), *[]),
        spec=JobSpec(make_job(1).spec.script, arguments=("a",), limits=Limits(cpu_seconds=1), variables={"A": "1"}),
        cancellation=Cancellation(1.0, "ann", "enough"),
        attempts=(
            Attempt(
                1,
                "a",
                1.0,
                outcome=Outcome(Reason.SIGNAL, signal=9, usage=Usage(1.0, 0.5, 10)),
                stdout=Output(make_job(1).spec.script, 7),
                stderr=Output(None, 9),
            ),
        ),
    )
    spec_text = json.dumps(_grown(json.loads(to_text(job.spec))))
    record_text = json.dumps(_grown(json.loads(job_to_record(job))))
    assert job_from_record(spec_text, record_text) == job


DIGEST = Digest("0123456789abcdef" * 4)
SPEC_1 = f'''{{"script":{{"digest":"{DIGEST}","size":15}},"script_name":"fit.py","qos":"batch","arguments":["1"],
"environment":{{"A":"1","B":"2"}}}}'''
RECORD_1 = f'''{{"id":"abc","client":"ann","body":"{DIGEST}","sequence":7,"origin":"a","state":"failed",
"submitted_at":1.0,"retention":60.0,"attempts":[{{"number":1,"executor":"b","staged_at":2.0,
"outcome":{{"reason":"signal","signal":9,"usage":[1.0,0.5,10]}},"stdout":[["{DIGEST}",15],7],"stderr":[null,9]}}],
"trail":[[1.0,"accepted","a",""],[2.0,"staging","b","no slot"]],"cancellation":[3.0,"ann","enough"],"ended_at":4.0}}'''


def test_a_record_of_version_1_is_read() -> None:
    script, node = Blob(DIGEST, 15), NodeId("a" * 32)
    assert job_from_version_1(SPEC_1, RECORD_1, node) == Job(
        id=JobId("abc"),
        client=ClientId("ann"),
        spec=JobSpec(script, "fit.py", arguments=("1",), variables={"A": "1", "B": "2"}),
        body=DIGEST,
        sequence=7,
        owner=Owner.alone(node, "a"),
        state=JobState.FAILED,
        submitted_at=1.0,
        retention=60.0,
        attempts=(
            Attempt(
                1,
                "b",
                2.0,
                outcome=Outcome(Reason.SIGNAL, signal=9, usage=Usage(1.0, 0.5, 10)),
                stdout=Output(script, 7),
                stderr=Output(None, 9),
            ),
        ),
        trail=(Stamp(1.0, "accepted", "a"), Stamp(2.0, "staging", "b", "no slot")),
        cancellation=Cancellation(3.0, "ann", "enough"),
        ended_at=4.0,
    )


@pytest.mark.parametrize("record", ["", "[]", "7", "{", "[" * 9999, '{"id": "abc"}', RECORD_1.replace("7,", '"x",', 1)])
def test_a_record_that_has_rotted_is_refused(record: str) -> None:
    with pytest.raises(InvalidArgument):
        job_from_record(SPEC_1, record)
    with pytest.raises(InvalidArgument):
        job_from_version_1(SPEC_1, record, NodeId("a" * 32))


@pytest.mark.parametrize("field", ["trail", "attempts"])
@pytest.mark.parametrize("value", [None, 5, True, "x"])
def test_a_record_of_version_1_without_its_lists_is_refused(field: str, value: object) -> None:
    """Anything but a refusal would keep the whole store from being upgraded."""
    with pytest.raises(InvalidArgument):
        job_from_version_1(SPEC_1, json.dumps({**json.loads(RECORD_1), field: value}), NodeId("a" * 32))
