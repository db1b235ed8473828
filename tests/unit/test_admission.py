"""What no node accepts: each refusal names the field, the value and the limit."""

from __future__ import annotations

import math
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from cloudmytask.core.admission import (
    ARGUMENT_MAX,
    ARGUMENTS_MAX,
    DURATION_MAX,
    FILE_NAME_MAX,
    LIMIT_MAX,
    NAME_MAX,
    NOTE_MAX,
    RETRIES_MAX,
    check_client,
    check_file_name,
    check_key,
    check_note,
    check_spec,
)
from cloudmytask.model.errors import CloudMyTaskError, EmptyScript, ExitCode, InvalidArgument, ScriptTooLarge
from cloudmytask.model.fields import CLIENT_MAX
from cloudmytask.model.job import Blob, Digest, JobSpec, Limits, QoS

SCRIPT_MAX = 64 * 1024**2
MIB = 1024**2
SCRIPT = Blob(Digest("a" * 64), 100)
GOOD = JobSpec(script=SCRIPT)


def _refusal(error: type[CloudMyTaskError] = InvalidArgument, /, **fields: Any) -> str:
    with pytest.raises(error) as raised:
        check_spec(evolve(GOOD, **fields), SCRIPT_MAX)
    assert type(raised.value) is error and raised.value.exit_code is ExitCode.USAGE
    sentence = str(raised.value)
    assert len(sentence) < 300 and sentence.isprintable(), sentence
    return sentence


def test_a_plain_spec_is_accepted() -> None:
    check_spec(GOOD, SCRIPT_MAX)


def test_everything_at_its_limit_is_accepted() -> None:
    spec = JobSpec(
        script=Blob(SCRIPT.digest, SCRIPT_MAX),
        script_name="ä" * 127 + "x",
        arguments=("x" * ARGUMENT_MAX, "", "ü", "\udcff", *["a"] * 10_000),
        stdin=Blob(SCRIPT.digest, 0),
        qos=QoS.IDLE,
        name="n" * NAME_MAX,
        timeout=DURATION_MAX,
        retries=RETRIES_MAX,
        retention=1e-9,
        limits=Limits(1, LIMIT_MAX, 1, 1),
        variables={"_A1": "", "PATH": "x" * 1000},
    )
    check_spec(spec, SCRIPT_MAX)


def test_an_empty_script() -> None:
    assert _refusal(EmptyScript, script=Blob(SCRIPT.digest, 0)).startswith("script: ")


def test_a_script_of_65_mib() -> None:
    sentence = _refusal(ScriptTooLarge, script=Blob(SCRIPT.digest, 65 * MIB))
    assert sentence.startswith("script: ")
    assert str(65 * MIB) in sentence and str(64 * MIB) in sentence and "script_max" in sentence


def test_a_nul_in_an_argument() -> None:
    sentence = _refusal(arguments=("fine", "with\0nul"))
    assert sentence.startswith("argument 2: ") and r"'with\x00nul'" in sentence and "NUL" in sentence
    assert "argument 1:" in _refusal(arguments=("\0",))


def test_ten_thousand_arguments_are_no_problem_and_too_many_bytes_are() -> None:
    check_spec(evolve(GOOD, arguments=("x" * 50,) * 10_000), SCRIPT_MAX)
    sentence = _refusal(arguments=("x" * 60,) * 10_000)
    assert sentence.startswith("arguments: ") and "610000" in sentence and str(ARGUMENTS_MAX) in sentence
    half = "x" * (ARGUMENT_MAX - 10)
    _refusal(arguments=(half, half), variables={"A": half, "B": half, "C": "x" * 1000})


def test_an_argument_that_execve_does_not_take() -> None:
    sentence = _refusal(arguments=("x", "ä" * 70_000))
    assert sentence.startswith("argument 2: ") and "140000" in sentence and str(ARGUMENT_MAX) in sentence


@pytest.mark.parametrize("text", ["\ud800", "a\udfff b", "\udc00"])
def test_a_surrogate_that_stands_for_no_byte(text: str) -> None:
    assert _refusal(arguments=(text,)).startswith("argument 1: ")
    assert _refusal(variables={"A": text}).startswith("variables A: ")
    assert _refusal(script_name=text).startswith("script_name: ")


@pytest.mark.parametrize("field", ["timeout", "retention"])
@pytest.mark.parametrize("value", [-1.0, 0.0, -0.0, math.nan, math.inf, -math.inf, DURATION_MAX * 1.01, 1e300])
def test_a_duration_that_none_is(field: str, value: float) -> None:
    fields: dict[str, Any] = {field: value}
    sentence = _refusal(**fields)
    assert sentence.startswith(f"{field}: {value:g} ") and f"{DURATION_MAX:.0f}" in sentence


@pytest.mark.parametrize("value", [-1, 101, 10**18])
def test_retries(value: int) -> None:
    assert _refusal(retries=value) == f"retries: {value} is not within 0 and 100"


@pytest.mark.parametrize("name", ["", "n" * 129, "two\nlines", "\x1b[31mred", "\u202eflipped", "\ud800", "nul\0"])
def test_a_name_that_nobody_could_read(name: str) -> None:
    sentence = _refusal(name=name)
    assert sentence.startswith("name: ") and str(NAME_MAX) in sentence


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc/passwd", "nul\0", "x" * 256, "ä" * 128])
def test_a_file_name_that_names_no_file(name: str) -> None:
    sentence = _refusal(script_name=name)
    assert sentence.startswith("script_name: ") and str(FILE_NAME_MAX) in sentence
    with pytest.raises(InvalidArgument):
        check_file_name(name)


@pytest.mark.parametrize("name", ["a.py", "...", "-c", "with space.py", "käse.py", "\udcff.py", "x" * 255])
def test_a_file_name_that_does(name: str) -> None:
    check_file_name(name)


@pytest.mark.parametrize("variable", ["", "1A", "A B", "A=B", "Ä", "A-B", "A\n", "nul\0"])
def test_a_variable_that_none_is(variable: str) -> None:
    assert _refusal(variables={variable: "x"}).startswith("variables: ")


@pytest.mark.parametrize("variable", ["CMT_JOB_ID", "CMT_", "CMT_ANYTHING"])
def test_variables_that_belong_to_the_node(variable: str) -> None:
    sentence = _refusal(variables={"FINE": "x", variable: "x"})
    assert sentence.startswith(f"variables: {variable} ") and "belong to the node" in sentence
    check_spec(evolve(GOOD, variables={"XCMT_A": "x", "CMT": "x", "cmt_a": "x"}), SCRIPT_MAX)


def test_a_nul_in_a_variable() -> None:
    assert _refusal(variables={"A": "x\0y"}).startswith("variables A: ")


@pytest.mark.parametrize("field", ["cpu_seconds", "address_space", "file_size", "open_files"])
@pytest.mark.parametrize("value", [0, -1, LIMIT_MAX + 1])
def test_limits(field: str, value: int) -> None:
    assert _refusal(limits=Limits(**{field: value})) == f"limits.{field}: {value} is not within 1 and {LIMIT_MAX}"


@pytest.mark.parametrize("claim", ["a", "ann", "Ann.B_c@host+x-1", "x" * CLIENT_MAX, "-", "."])
def test_who_a_client_may_be(claim: str) -> None:
    assert check_client(claim) == claim


@pytest.mark.parametrize("claim", ["", "two words", "x" * 65, "käthe", "a/b", "a\n", "nul\0", "x" * 100_000, "٣"])
def test_who_a_client_may_not_be(claim: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        check_client(claim)
    sentence = str(raised.value)
    assert sentence.startswith("client: ") and repr(claim)[:20] in sentence and str(CLIENT_MAX) in sentence
    assert len(sentence) < 300


@pytest.mark.parametrize("key", ["k", "!~", "x" * 128, "0f3a-9", "<script>"])
def test_keys(key: str) -> None:
    check_key(key)


@pytest.mark.parametrize("key", ["", " ", "a b", "x" * 129, "ä", "a\n", "\0", "\x7f"])
def test_keys_that_none_are(key: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        check_key(key)
    assert str(raised.value).startswith("key: ") and "128" in str(raised.value)


@given(st.text(), st.lists(st.text(max_size=30), max_size=5), st.text(max_size=200), st.floats(), st.integers())
def test_every_spec_is_accepted_or_refused_and_nothing_else(
    file_name: str, arguments: list[str], name: str, timeout: float, retries: int
) -> None:
    spec = evolve(
        GOOD,
        script_name=file_name,
        arguments=tuple(arguments),
        name=name,
        timeout=timeout,
        retries=retries,
        variables={argument: argument for argument in arguments},
    )
    try:
        check_spec(spec, SCRIPT_MAX)
    except InvalidArgument as refusal:
        assert ": " in str(refusal)
    else:
        assert 0 <= retries <= RETRIES_MAX and 0 < timeout <= DURATION_MAX and name.isprintable()


@pytest.mark.parametrize("note", ["x" * (NOTE_MAX + 1), "two\nlines", "\x1b[2J"])
def test_a_note_that_does_not_fit_on_a_line(note: str) -> None:
    with pytest.raises(InvalidArgument, match=r"^note: .*500 printable"):
        check_note(note)


def test_a_note_may_be_absent_or_of_any_script() -> None:
    check_note("")
    check_note("zu langsam — später")
