"""Small parts of the command line that need no node: usage, hints, exact writing, what help imports."""

from __future__ import annotations

import hashlib
import inspect
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs
import click
import pytest
from click.testing import CliRunner

from cloudmytask.addresses import Address
from cloudmytask.cli import exit_codes
from cloudmytask.cli import options as kinds
from cloudmytask.cli.commands import run, submit, verbs, wait
from cloudmytask.cli.failures import NoReader, OutputFailed
from cloudmytask.cli.selection import JobChoice
from cloudmytask.cli.terminal.console import write
from cloudmytask.cli.verb import Verb
from cloudmytask.cli.verbs.doctor import check_clock, check_disk, check_python, check_state, check_tool, state_of
from cloudmytask.cli.verbs.run import missing_neighbor
from cloudmytask.cli.verbs.submit import JobOptions
from cloudmytask.directories import default_state
from cloudmytask.model.errors import InvalidArgument, ScriptTooLarge
from cloudmytask.model.job import Blob, Digest, JobSpec, Limits
from cloudmytask.simulation.plan import ClusterPlan

VERBS = [
    "run",
    "submit",
    "ps",
    "status",
    "result",
    "logs",
    "wait",
    "cancel",
    "retry",
    "why",
    "rm",
    "nodes",
    "top",
    "topology",
    "ban",
    "simulate",
    "doctor",
    "completion",
]
GROUPS = {"ban": ["add", "ls", "rm", "why"]}
CALLS = [[verb] for verb in VERBS if verb not in GROUPS] + [[noun, each] for noun in GROUPS for each in GROUPS[noun]]


def test_all_verbs_are_there_in_the_order_of_a_jobs_life() -> None:
    assert list(verbs.commands) == VERBS


def test_a_noun_has_its_verbs_and_without_one_shows_help() -> None:
    for noun, expected in GROUPS.items():
        group = verbs.commands[noun]
        assert isinstance(group, click.Group)
        assert list(group.commands) == expected
        shown = CliRunner().invoke(verbs, [noun])
        assert shown.exit_code == 0
        assert "Usage:" in shown.output


@pytest.mark.parametrize("call", CALLS, ids=" ".join)
def test_every_verb_has_json_and_quiet_and_an_example(call: list[str]) -> None:
    shown = CliRunner().invoke(verbs, [*call, "--help"])
    assert shown.exit_code == 0
    assert "--json" in shown.output
    assert "-q, --quiet" in shown.output
    assert shown.output.count("Example:") == 1


def test_our_failures_are_125_in_run_and_wait_only() -> None:
    assert {name for name, each in verbs.commands.items() if isinstance(each, Verb) and each.ours is not None} == {
        "run",
        "wait",
    }
    assert isinstance(run, Verb)
    assert isinstance(wait, Verb)
    assert run.ours == wait.ours == exit_codes.OURS


@pytest.mark.parametrize("call", CALLS, ids=" ".join)
def test_every_verb_has_a_function_that_takes_what_is_declared(call: list[str]) -> None:
    command: click.Command = verbs
    for name in call:
        assert isinstance(command, click.Group)
        command = command.commands[name]
    assert isinstance(command, Verb)
    declared = {str(each.name) for each in command.params} - {"as_json", "quiet"}
    taken = inspect.signature(command.function()).parameters
    if call == ["simulate"]:
        assert declared <= {each.name for each in attrs.fields(ClusterPlan)}
    else:
        sorts: dict[str, tuple[type[Any], ...]] = {"given": (JobOptions, JobSpec, Limits), "chosen": (JobChoice,)}
        fields = {field.name for rest in sorts.keys() & taken for of in sorts[rest] for field in attrs.fields(of)}
        assert taken.keys() - {"console", *sorts} == declared - fields


def test_what_stands_behind_the_script_belongs_to_it() -> None:
    context = submit.make_context("submit", ["--name", "n", "s.py", "--name", "x", "-q", "--", "--help"])
    assert context.params["script"] == "s.py"
    assert context.params["arguments"] == ("--name", "x", "-q", "--", "--help")
    assert context.params["name"] == "n"
    assert context.params["quiet"] is False


def test_kinds_of_values() -> None:
    assert kinds.duration("2h") == 7200
    assert kinds.whole_seconds("1.2s") == 2
    assert kinds.size("64KiB") == 65536
    assert kinds.variable("A=b=c") == ("A", "b=c")


def test_a_missing_neighbor_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "helper.py").touch()
    (tmp_path / "package").mkdir()
    script = str(tmp_path / "s.py")
    said = b"Traceback...\nModuleNotFoundError: No module named '%s'\n"
    assert missing_neighbor(script, said % b"helper") == "helper.py"
    assert missing_neighbor(script, said % b"package.sub") == "package"
    assert missing_neighbor(script, said % b"numpy") is None
    assert missing_neighbor(script, b"helper") is None


def test_all_is_written_also_where_writing_does_not_block() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    data = os.urandom(1_000_000)
    summing = "import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())"
    with subprocess.Popen([sys.executable, "-c", summing], stdin=reading, stdout=subprocess.PIPE, text=True) as reader:
        os.close(reading)
        write(writing, data)
        os.close(writing)
        got, _ = reader.communicate()
    assert got.strip() == hashlib.sha256(data).hexdigest()


def test_a_closed_reader_and_a_full_disk_are_told_apart() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with pytest.raises(NoReader):
        write(writing, b"x")
    os.close(writing)
    full = os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(OutputFailed, match="No space left"):
        write(full, b"x")
    os.close(full)


def test_help_and_completion_import_neither_twisted_nor_rich() -> None:
    code = (
        "import sys\nsys.argv = ['cmt', '--help']\nfrom cloudmytask.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "found = sorted({name.partition('.')[0] for name in sys.modules} & {'twisted', 'rich', 'psutil', 'sqlite3'})\n"
        "sys.exit(' '.join(found) or 0)"
    )
    asked = {"_CMT_COMPLETE": "bash_complete"}
    for environment, word in (
        ({}, "status"),
        ({**asked, "COMP_WORDS": "cmt sta", "COMP_CWORD": "1"}, "status"),
        ({**asked, "COMP_WORDS": "cmt submit --max", "COMP_CWORD": "2"}, "--max-memory"),
        ({**asked, "COMP_WORDS": "cmt ps --state ", "COMP_CWORD": "3"}, "timed_out"),
        ({**asked, "COMP_WORDS": "cmt ban add --", "COMP_CWORD": "3"}, "--reason"),
        ({**asked, "COMP_WORDS": "cmt run scr", "COMP_CWORD": "2"}, "file,scr"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert word in done.stdout


def test_checks(tmp_path: Path) -> None:
    assert check_python((3, 10, 1)).level == "problem"
    assert check_python((3, 11, 0)).level == "ok"
    assert check_clock(100.0, 200.0).level == "problem"
    assert check_clock(200.0, 100.0).level == "ok"
    assert check_state(tmp_path / "not" / "there").level == "ok"
    tmp_path.chmod(0o755)
    assert check_state(tmp_path).level == "problem"
    tmp_path.chmod(0o700)
    assert check_state(tmp_path).level == "ok"
    (tmp_path / "file").touch()
    assert check_state(tmp_path / "file").level == "problem"
    assert check_disk(tmp_path).level in ("ok", "note")
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]
    assert check_tool("sh", "dash", "tests").level == "ok"
    assert check_tool("no-such-program", "nothing", "tests").level == "note"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["logs", "--tail", "x", "last"], "'x' is not a whole number"),
        (["logs", "--attempt", "0", "last"], "0 is less than 1"),
        (["simulate", "--nodes", "10001"], "10001 is not from 1 to 10000"),
        (["run", "--env", "X", "s.py"], "'X' is not of the form NAME=VALUE"),
    ],
)
def test_a_value_is_refused_in_plain_words(line: list[str], said: str) -> None:
    done = CliRunner().invoke(verbs, line)
    assert done.exit_code == 2
    assert done.output.splitlines()[-1].endswith(f": {said}")


@pytest.mark.parametrize("line", [["run", "--help"], ["completion", "--help"]])
def test_help_names_values_like_the_guide(line: list[str]) -> None:
    shown = CliRunner().invoke(verbs, line).output
    assert "K=V" not in shown and "[bash|" not in shown
    assert ("--env NAME=VALUE" in shown) or ("[SHELL]" in shown and "bash, zsh or fish" in shown)


def test_what_is_refused_is_named_by_its_option() -> None:
    options = JobOptions.of(
        {
            **dict.fromkeys(["stdin", "key", "node", "name", "timeout", "retention"]),
            **dict.fromkeys(["cpu_seconds", "address_space", "file_size", "open_files"]),
            "script": "s.py",
            "no_stdin": False,
            "qos": "batch",
            "retries": 0,
            "at_most_once": False,
            "variables": (),
            "avoid": (),
            "arguments": (),
            "local": False,
        }
    )
    for wishes, beginning in (
        ({"file_size": 0}, "--max-file-size: 0 is not"),
        ({"cpu_seconds": 0}, "--max-cpu-time: 0 is not"),
        ({"timeout": 0.0}, "--timeout: 0 s is not more than 0 and at most 315360000 s (3650d)"),
        ({"variables": (("CMT_A", "x"),)}, "--env: CMT_A cannot be set"),
        ({"variables": (("A", "x\0"),)}, "--env A: "),
        ({"name": ""}, "--name: "),
        ({"arguments": ("\0",)}, "argument 1: "),
    ):
        asked = attrs.evolve(options, wishes={**options.wishes, **wishes})
        with pytest.raises(InvalidArgument) as raised:
            asked.checked(Blob(Digest("a" * 64), 5), 100)
        assert str(raised.value).startswith(beginning)
    with pytest.raises(ScriptTooLarge):
        options.checked(Blob(Digest("a" * 64), 5), 4)


def test_doctor_looks_at_the_state_of_the_node_that_answers(tmp_path: Path) -> None:
    environment = {"XDG_STATE_HOME": str(tmp_path / "xdg")}
    usual = default_state(environment)
    for text, found in (
        (f"unix:{tmp_path}/mine/node.sock", tmp_path / "mine"),
        (f"unix:{tmp_path}/ours/csu.sock", tmp_path / "ours"),
        (f"unix:{tmp_path}/proxy", usual),
        ("node.example:7001", usual),
    ):
        assert state_of(Address.parse(text, "test"), environment) == found
    assert state_of(None, environment) == usual
