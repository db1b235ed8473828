"""Every command with every kind of malformed argument: the answer names the field, the connection lives on."""

from __future__ import annotations

import hashlib
import inspect
import json

import pytest
from twisted.protocols import amp

from cloudmytask.wire import commands
from cloudmytask.wire.arguments import Document, Flag
from tests.virtual import Place, Stranger

TO_CLIENT = (commands.JobChanged, commands.JobEvents, commands.OutputData, commands.OutputEnded)
VOCABULARY = [
    command
    for _, command in inspect.getmembers(commands, inspect.isclass)
    if issubclass(command, commands.NodeCommand) and command is not commands.NodeCommand
]
TO_NODE = [command for command in VOCABULARY if command not in TO_CLIENT]

EMPTY_BLOB = {"digest": hashlib.sha256(b"").hexdigest(), "size": 0}
BLOB = {"digest": hashlib.sha256(b"other").hexdigest(), "size": 5}
JOB = b"0" * 5
GOOD: dict[bytes, bytes] = {
    b"versions": b"\x00\x011",
    b"role": b"client",
    b"client": b"stranger",
    b"software": b"test 1",
    b"key": b"key1",
    b"qos": b"batch",
    b"spec": b"{}",
    b"script": b"print()",
    b"stdin": b"",
    b"job": JOB,
    b"query": b"{}",
    b"note": b"",
    b"watch": b"1",
    b"every": b"True",
    b"everyone": b"True",
    b"output": b"True",
    b"stream": b"2",
    b"attempt": b"0",
    b"offsets": b'{"stdout": 0}',
    b"follow": b"False",
    b"upload": b"1",
    b"offset": b"0",
    b"data": b"abc",
    b"blob": json.dumps(BLOB).encode(),
    b"after": b"0" * 32,
    b"reason": b"test",
    b"term": b"60.0",
    b"seconds": b"60.0",
}
"""A value of the right type for each argument."""

SPARING = 10.0
"""Seconds between two malformed requests of a client that is not to be banned for them."""

TEXTS = (b"\xff\xfe", b"\xed\xa0\x80", b"\xc3")
NUMBERS = (b"", b"x", b"1.5", b"0x10", b"\xff", b"--1", b"9" * 5000)
FLAGS = (b"", b"true", b"1", b"yes", b"\xff\x00")
DOCUMENTS = (b"", b"[]", b"1", b"null", b'"text"', b"{", b"\xff", b"[" * 60_000, b'{"a":' * 12_000, b"{} {}")
LISTS = (b"\x00\x01x", b"\x00\x00", b"\x00\x021.\x00\x011")


def _malformed(argument: amp.Argument) -> tuple[bytes, ...]:
    match argument:
        case Document():
            return DOCUMENTS
        case Flag():
            return FLAGS
        case amp.ListOf():
            return LISTS
        case amp.Integer() | amp.Float():
            return tuple(set(NUMBERS) - ({b"1.5", b"9" * 5000} if isinstance(argument, amp.Float) else set()))
        case amp.Unicode():
            return TEXTS
    return ()


@pytest.fixture
def place() -> Place:
    return Place()


@pytest.fixture
def stranger(place: Place) -> Stranger:
    stranger = place.stranger()
    stranger.hello()
    return stranger


def _lives(stranger: Stranger) -> None:
    stranger.accept(b"DescribeNode")
    assert not stranger.lost


def test_the_values_cover_the_vocabulary() -> None:
    assert len(VOCABULARY) > len(TO_CLIENT) + 10
    assert {name for command in TO_NODE for name, _ in command.arguments} == set(GOOD)


@pytest.mark.parametrize("command", TO_NODE, ids=lambda command: command.__name__)
def test_a_malformed_argument_is_answered_by_its_name(stranger: Stranger, command: type[commands.NodeCommand]) -> None:
    good = {name: GOOD[name] for name, _ in command.arguments}
    for name, argument in command.arguments:
        for value in _malformed(argument):
            stranger.clock.advance(SPARING)
            code, sentence = stranger.refused(command.commandName, {**good, name: value})
            assert code == "InvalidArgument", sentence
            assert sentence.startswith(name.decode() + ":"), (value[:20], sentence)
            assert len(sentence) < 250, sentence
        if not argument.optional:
            stranger.clock.advance(SPARING)
            missing = {other: value for other, value in good.items() if other != name}
            code, sentence = stranger.refused(command.commandName, missing)
            assert (code, sentence) == ("InvalidArgument", f"{name.decode()}: it is missing")
    _lives(stranger)
    stranger.hello()


@pytest.mark.parametrize("command", TO_NODE, ids=lambda command: command.__name__)
def test_unknown_arguments_are_ignored(stranger: Stranger, command: type[commands.NodeCommand]) -> None:
    good = {name: GOOD[name] for name, _ in command.arguments}
    plain = stranger.ask(command.commandName, good)
    for number in (b"1", b"2"):
        stranger.ask(b"Unsubscribe", {b"watch": number})
    stranger.ask(b"AbortUpload", {b"upload": b"1"})
    extended = stranger.ask(command.commandName, {**good, b"invented_later": b"\xff"})
    assert (amp.ERROR in plain) == (amp.ERROR in extended)
    assert plain.get(amp.ERROR_DESCRIPTION) == extended.get(amp.ERROR_DESCRIPTION)


@pytest.mark.parametrize("command", [c for c in TO_NODE if c is not commands.Hello], ids=lambda c: c.__name__)
def test_hello_comes_first(place: Place, command: type[commands.NodeCommand]) -> None:
    stranger = place.stranger()
    code, sentence = stranger.refused(command.commandName, {name: GOOD[name] for name, _ in command.arguments})
    assert code == "HelloRequired" and "Hello" in sentence
    stranger.hello()
    _lives(stranger)


@pytest.mark.parametrize("command", [*(c.commandName for c in TO_CLIENT), b"NoSuchCommand", b"x", b"\xff" * 255])
def test_a_command_that_the_node_does_not_know(stranger: Stranger, command: bytes) -> None:
    code, sentence = stranger.refused(command, {b"watch": b"1"})
    assert code == "UNHANDLED" and "Unhandled Command" in sentence
    _lives(stranger)


@pytest.mark.parametrize("versions", [b"", b"\x00\x012", b"\x00\x010\x00\x0299"])
def test_no_common_version(place: Place, versions: bytes) -> None:
    stranger = place.stranger()
    code, sentence = stranger.refused(b"Hello", {**GOOD, b"versions": versions})
    assert code == "UnsupportedVersion" and "version 1" in sentence
    assert stranger.refused(b"DescribeNode")[0] == "HelloRequired"
    stranger.hello()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (b"role", b""),
        (b"role", b"admin"),
        (b"client", b""),
        (b"client", b"two words"),
        (b"client", b"x" * 65),
        (b"client", b"a\0b"),
        (b"client", "käthe".encode()),
        (b"client", b"line\n"),
    ],
)
def test_who_is_there_must_make_sense(place: Place, field: bytes, value: bytes) -> None:
    stranger = place.stranger()
    hello = {name: GOOD[name] for name, _ in commands.Hello.arguments}
    code, sentence = stranger.refused(b"Hello", {**hello, field: value})
    assert code == "InvalidArgument" and sentence.startswith(field.decode() + ":")
    assert stranger.refused(b"DescribeNode")[0] == "HelloRequired"


HUGE = 10**400
"""No float holds it, and no column of a database."""


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("script_name", "\ud800.py", "script_name"),
        ("script_name", "a/b", "script_name"),
        ("script_name", 7, "script_name"),
        ("arguments", ["ok", "\ud800"], "argument 2"),
        ("arguments", ["nul\0"], "argument 1"),
        ("arguments", "text", "arguments"),
        ("arguments", None, "arguments"),
        ("variables", {"A": "\ud800"}, "variables A"),
        ("variables", {"\ud800": "x"}, "variables"),
        ("variables", {"CMT_JOB_ID": "x"}, "variables"),
        ("variables", [], "variables"),
        ("name", "\ud800", "name"),
        ("name", "", "name"),
        ("name", "a\x1b[2J", "name"),
        ("timeout", -1, "timeout"),
        ("timeout", 0, "timeout"),
        ("timeout", HUGE, "timeout"),
        ("timeout", float("nan"), "timeout"),
        ("timeout", float("inf"), "timeout"),
        ("timeout", True, "timeout"),
        ("retention", HUGE, "retention"),
        ("retries", 101, "retries"),
        ("retries", HUGE, "retries"),
        ("retries", 1.0, "retries"),
        ("qos", "urgent", "qos"),
        ("stdin", {"digest": "0" * 64, "size": HUGE}, "stdin.size"),
        ("stdin", {"digest": "0" * 64, "size": -1}, "stdin.size"),
        ("stdin", {"digest": "0" * 63, "size": 1}, "stdin.digest"),
        ("stdin", [], "stdin"),
        ("limits", {"open_files": 0}, "limits.open_files"),
        ("limits", {"cpu_seconds": HUGE}, "limits.cpu_seconds"),
        ("limits", [], "limits"),
    ],
)
def test_a_spec_that_makes_no_sense(stranger: Stranger, field: str, value: object, named: str) -> None:
    spec = json.dumps({field: value}).encode()
    code, sentence = stranger.refused(b"SubmitJob", {b"key": b"k", b"spec": spec, b"script": b"print()"})
    assert (code, sentence.partition(":")[0]) == ("InvalidArgument", named)
    assert len(sentence) < 250, sentence
    _lives(stranger)


def test_a_spec_whose_blobs_are_not_here(stranger: Stranger) -> None:
    for field, blob in (("script", BLOB), ("stdin", BLOB), ("stdin", {**BLOB, "size": 0})):
        riding = {} if field == "script" else {b"script": b"print()"}
        spec = json.dumps({field: blob}).encode()
        code, sentence = stranger.refused(b"SubmitJob", {b"key": b"k", b"spec": spec, **riding})
        assert code == "BlobMissing" and sentence.startswith(field + ":"), sentence
    stranger.accept(b"SubmitJob", {b"key": b"k", b"spec": json.dumps({"stdin": EMPTY_BLOB}).encode(), b"script": b"1"})


@pytest.mark.parametrize(
    ("key", "named"),
    [(b"", "key"), (b"with space", "key"), (b"x" * 129, "key"), (b"nul\0", "key"), (b"\xc3\xa4", "key")],
)
def test_a_key_that_makes_no_sense(stranger: Stranger, key: bytes, named: str) -> None:
    code, sentence = stranger.refused(b"SubmitJob", {b"key": key, b"spec": b"{}", b"script": b"print()"})
    assert code == "InvalidArgument" and sentence.startswith(named + ":")


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": 1001}, "limit"),
        ({"limit": "1"}, "limit"),
        ({"before": "1"}, "before"),
        ({"before": HUGE}, "before"),
        ({"before": -1}, "before"),
        ({"before": 2**63}, "before"),
        ({"prefix": "u"}, "job id"),
        ({"prefix": "0" * 18}, "job id"),
        ({"prefix": 1}, "prefix"),
        ({"name": 1}, "name"),
        ({"states": "running"}, "states"),
        ({"states": ["running", "asleep"]}, "states[1]"),
        ({"states": [["running"]]}, "states[0]"),
        ({"states": {"running": 1}}, "states"),
    ],
)
def test_a_query_that_makes_no_sense(stranger: Stranger, query: object, named: str) -> None:
    code, sentence = stranger.refused(b"ListJobs", {b"query": json.dumps(query).encode()})
    assert (code, sentence.partition(":")[0]) == ("InvalidArgument", named)
    _lives(stranger)


def test_a_query_for_a_name_that_no_text_has(stranger: Stranger) -> None:
    page = json.loads(stranger.accept(b"ListJobs", {b"query": b'{"name": "\\ud800"}'})[b"page"])
    assert page == {"jobs": [], "next": None}


@pytest.mark.parametrize(
    "command", [c for c in TO_NODE if (b"job", amp.Unicode) in [(n, type(a)) for n, a in c.arguments]]
)
@pytest.mark.parametrize("job", [b"", b"u", b"0" * 18, b"0" * 16 + b"1", b"../../etc", b"nul\0", "é".encode(), b"%s"])
def test_a_job_id_that_no_job_has(stranger: Stranger, command: type[commands.NodeCommand], job: bytes) -> None:
    good = {name: GOOD[name] for name, _ in command.arguments}
    code, sentence = stranger.refused(command.commandName, {**good, b"job": job})
    assert code == "InvalidArgument" and sentence.startswith("job id:")
    _lives(stranger)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({b"attempt": b"-1"}, "attempt"),
        ({b"offsets": b'{"stdout": -1}'}, "offsets.stdout"),
        ({b"offsets": b'{"stdout": 1.5}'}, "offsets.stdout"),
        ({b"offsets": b'{"stdlog": 0}'}, "offsets"),
    ],
)
def test_an_output_that_makes_no_sense(stranger: Stranger, arguments: dict[bytes, bytes], named: str) -> None:
    good = {name: GOOD[name] for name, _ in commands.StreamOutput.arguments}
    code, sentence = stranger.refused(b"StreamOutput", {**good, **arguments})
    assert (code, sentence.partition(":")[0]) == ("InvalidArgument", named)


def test_a_document_in_parts(stranger: Stranger) -> None:
    spec = json.dumps({"arguments": ["x" * 1000] * 150}).encode()
    parts = {b"spec": spec[:65_535], b"spec.1": spec[65_535:131_070], b"spec.2": spec[131_070:]}
    assert all(parts.values())
    answer = stranger.accept(b"SubmitJob", {b"key": b"k", b"script": b"1", **parts})
    assert json.loads(answer[b"job"])["state"] in ("pending", "waiting", "staging", "running")
    del parts[b"spec.1"]
    code, sentence = stranger.refused(b"SubmitJob", {b"key": b"l", b"script": b"1", **parts})
    assert code == "InvalidArgument" and sentence.startswith("spec: it is not JSON")
