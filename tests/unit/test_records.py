"""The text of records: nothing is lost, additions of later versions are ignored, equal specs have equal digests."""

from __future__ import annotations

import json
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from cloudmytask.core.records import body_digest, job_from_record, job_to_record, spec_from_json, spec_to_json
from cloudmytask.model.job import (
    Attempt,
    Blob,
    Cancellation,
    Job,
    JobSpec,
    JobState,
    Limits,
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
SIZES = st.integers(0, 2**63 - 1)
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
    variables=st.dictionaries(TEXT, TEXT, max_size=3).map(lambda variables: tuple(variables.items())),
)
OUTPUTS = st.builds(Output, _maybe(BLOBS), SIZES)
USAGES = st.builds(Usage, _maybe(FLOATS), _maybe(FLOATS), _maybe(SIZES))
OUTCOMES = st.builds(Outcome, st.sampled_from(Reason), _maybe(SIZES), _maybe(SIZES), USAGES, TEXT)
ATTEMPTS = st.builds(
    Attempt,
    SIZES,
    TEXT,
    FLOATS,
    _maybe(FLOATS),
    _maybe(FLOATS),
    _maybe(OUTCOMES),
    stdout=OUTPUTS,
    stderr=OUTPUTS,
    executor_id=_maybe(TEXT),
    epoch=SIZES,
)
OWNERS = st.builds(Owner, TEXT, TEXT, SIZES, st.lists(TEXT, max_size=3).map(tuple))
JOBS = st.builds(
    Job,
    id=TEXT,
    client=TEXT,
    spec=SPECS,
    body=TEXT,
    sequence=SIZES,
    owner=OWNERS,
    state=st.sampled_from(JobState),
    submitted_at=FLOATS,
    retention=FLOATS,
    attempts=st.lists(ATTEMPTS, max_size=3).map(tuple),
    trail=st.lists(st.builds(Stamp, FLOATS, TEXT, TEXT, TEXT), max_size=3).map(tuple),
    cancellation=_maybe(st.builds(Cancellation, FLOATS, TEXT, TEXT)),
    ended_at=_maybe(FLOATS),
    expires=_maybe(FLOATS),
    removed=st.booleans(),
)


@given(JOBS)
def test_a_job_is_read_back_equal(job: Job) -> None:
    spec_text, record_text = spec_to_json(job.spec), job_to_record(job)
    assert spec_text.isascii()
    assert record_text.isascii()
    assert job_from_record(spec_text, record_text) == job


@given(SPECS, SPECS)
def test_the_digest_is_the_same_exactly_for_equal_specs(one: JobSpec, other: JobSpec) -> None:
    assert body_digest(one) == body_digest(spec_from_json(spec_to_json(one)))
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
        {"variables": (("A", "1"),)},
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
    assert json.loads(spec_to_json(evolve(spec, arguments=()))) == {
        "script": {"digest": spec.script.digest, "size": spec.script.size},
        "script_name": "script.py",
        "qos": "batch",
    }


def _grown(value: Any) -> Any:
    """``value`` as a later version may write it: a further key in each object, a further element in each fixed list."""
    if isinstance(value, dict):
        lists_of_any_length = {"attempts", "trail", "arguments", "custodians"}
        grown = {
            key: [_grown(entry) for entry in each] if key in lists_of_any_length else _grown(each)
            for key, each in value.items()
            if key != "variables"
        }
        grown |= {key: each for key, each in value.items() if key == "variables"}  # its keys are the job's own
        return {**grown, "zz_new": {"a": [1]}}
    if isinstance(value, list):
        return [*(_grown(each) for each in value), "new"]
    return value


def test_what_later_versions_add_is_ignored() -> None:
    job = evolve(
        ended(make_job(1), *[]),
        spec=JobSpec(make_job(1).spec.script, arguments=("a",), limits=Limits(cpu_seconds=1), variables=(("A", "1"),)),
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
    spec_text = json.dumps(_grown(json.loads(spec_to_json(job.spec))))
    record_text = json.dumps(_grown(json.loads(job_to_record(job))))
    assert job_from_record(spec_text, record_text) == job
