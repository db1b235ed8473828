"""Bans as text; and where a job may say that it wants to run."""

from __future__ import annotations

from typing import Any

import pytest

from cloudmytask.cli.commands import submit
from cloudmytask.cli.failures import UsageError
from cloudmytask.cli.verbs.cluster import ban_rows, ban_sentence
from cloudmytask.cli.verbs.submit import JobOptions
from cloudmytask.client.sources import Source
from cloudmytask.model.cluster import Ban, BanVersion
from cloudmytask.model.job import ClientId
from tests.cluster_fakes import id_of


def _ban(**fields: Any) -> Ban:
    settings: dict[str, Any] = {
        "client": ClientId("mallory"),
        "reason": "floods us",
        "by": "ann",
        "term": 3600.0,
        "until": 3000.0,
        "version": BanVersion(1, True, id_of("a")),
        **fields,
    }
    return Ban(**settings)


def test_a_ban_in_a_line() -> None:
    assert ban_rows([_ban()]) == [("mallory", "50 min 0 s", "ann", "floods us")]


def test_a_ban_in_a_sentence() -> None:
    assert ban_sentence(_ban()) == "mallory is banned for another 50 min 0 s (of 1h) by ann: floods us"
    assert ban_sentence(_ban(reporters=("a", "b"))).endswith(": floods us; reported by a, b")


def test_a_reason_cannot_draw() -> None:
    evil = _ban(reason="\x1b[2J\n", by="x\ty", reporters=("\x07",))
    assert ban_rows([evil])[0][2:] == (r"x\x09y", r"\x1b[2J\x0a")
    assert ban_sentence(evil).isprintable()


def _options(**given: Any) -> JobOptions:
    settings = submit.make_context("submit", ["fit.py"]).params
    return JobOptions.of(
        {key: value for key, value in {**settings, **given}.items() if key not in ("as_json", "quiet")}
    )


def test_where_a_job_may_run() -> None:
    blob = Source.of_bytes(b"x").blob
    spec = _options(node="a", avoid=("b", "c", "b")).spec(blob)
    assert (spec.node, spec.avoid, spec.local) == ("a", ("b", "c"), False)
    assert _options(local=True).spec(blob).local


@pytest.mark.parametrize("wishes", [{"node": "a", "local": True}, {"node": "a", "avoid": ("b", "a")}])
def test_wishes_that_contradict_each_other(wishes: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="--"):
        _options(**wishes)
