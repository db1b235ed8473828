"""``cmt simulate``: figures for people and programs, and what makes no sense."""

from __future__ import annotations

import json

import click
import pytest

from cloudmytask.cli.commands import verbs
from cloudmytask.node.running.executor import Executor


def _simulate(*words: str) -> int:
    return int(verbs.main(["simulate", "--nodes", "2", "--jobs", "30", *words], "cmt", standalone_mode=False))


def test_a_table_for_people(capfd: pytest.CaptureFixture[str]) -> None:
    assert _simulate("--seed", "3") == 0
    said = capfd.readouterr()
    lines = said.out.splitlines()
    assert "CENTRAL QUEUE" in lines[0] and lines[1].split()[:5] == ["jobs", "done", "30", "of", "30"]
    assert "seed 3, trace " in said.err


def test_json_for_programs(capfd: pytest.CaptureFixture[str]) -> None:
    options = ("--lengths", "heavy", "--length", "2s", "--gateway", "one", "--kill", "50%", "--json", "-q")
    assert [_simulate(*options), _simulate(*options)] == [0, 0]
    said = capfd.readouterr()
    first, second = map(json.loads, said.out.splitlines())
    assert said.err == ""
    assert first["succeeded"] == first["jobs"] == 30 and first["kills"] == 1 and first["seed"] == 1
    assert first["ratio"] == first["cluster"]["mean"] / first["ideal"]["mean"]
    assert {**first, "elapsed": 0} == {**second, "elapsed": 0}


def test_a_violation_is_a_failure(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Executor, "claimed", property(lambda self: 0))
    assert _simulate("--load", "5") == 1
    said = capfd.readouterr()
    assert said.err.startswith("cmt: invariant-violated: 5 scripts run on the 4 slots") and "(seed 1)" in said.err


@pytest.mark.parametrize(
    "words",
    [
        ("--nodes", "0"),
        ("--jobs", "none"),
        ("--load", "0"),
        ("--kill", "101%"),
        ("--kill", "some"),
        ("--length", "long"),
        ("--policy", "best"),
    ],
)
def test_nonsense_is_refused(words: tuple[str, str]) -> None:
    with pytest.raises(click.BadParameter) as raised:
        _simulate(*words)
    assert words[1].rstrip("%") in raised.value.format_message()


def test_a_job_without_length() -> None:
    assert _simulate("--length", "0s") == 2
