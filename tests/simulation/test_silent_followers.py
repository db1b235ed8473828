"""A peer that takes all it is told and never answers holds no slot, no attempt and no offer of ours for ever."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from cloudmytask.core.blobs import blob_of
from cloudmytask.model.errors import RequestTimeout
from cloudmytask.model.job import StreamName
from cloudmytask.net.attempt_sinks import END_TIMEOUT, PUSH_TIMEOUT
from cloudmytask.net.incoming import IncomingUploads
from cloudmytask.node.remote.remote import Remote
from cloudmytask.simulation.runner import ScriptPlan
from tests.virtual_cluster import Company

GRACE = 20.0


def silent(*_: object, **__: object) -> Deferred[Any]:
    return Deferred()


@pytest.fixture
def among() -> Company:
    company = Company(2, options={"orphan_grace": GRACE})
    company.acquainted()
    return company


@pytest.mark.parametrize(
    ("push", "bound"),
    [("started", PUSH_TIMEOUT), ("output", PUSH_TIMEOUT), ("ended", END_TIMEOUT)],
)
def test_a_follower_that_never_answers(
    among: Company, monkeypatch: pytest.MonkeyPatch, push: str, bound: float
) -> None:
    monkeypatch.setattr(Remote, push, silent)
    ann, there = among.connect("a"), among.hosts["b"].node
    plan = ScriptPlan(duration=None if push == "output" else 1.0, output=((0.5, StreamName.STDOUT, b"x"),))
    among.submit(ann, plan, node="b", at_most_once=True, retries=0)
    among.until(lambda: there._guests.present == 1)
    (attempt,) = there._guests._guests
    among.clock.advance(bound + 3 * GRACE)
    assert attempt not in there._guests._guests, "it is kept for nobody"
    assert attempt not in there._executor._active


def test_a_follower_that_answers_late_is_followed_up(among: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its disk is slow once; then the attempt goes on as if nothing had been."""
    honest, calls = Remote.output, list[bool]()

    def slow(self: Remote, *arguments: Any) -> Deferred[None]:
        calls.append(True)
        return Deferred() if len(calls) == 1 else honest(self, *arguments)

    monkeypatch.setattr(Remote, "output", slow)
    ann = among.connect("a")
    plan = ScriptPlan(duration=PUSH_TIMEOUT + 3 * GRACE, output=((0.5, StreamName.STDOUT, b"x"),))
    job = among.submit(ann, plan, node="b")
    assert among.wait(ann, job, patience=PUSH_TIMEOUT + 5 * GRACE).exit_code == 0
    assert among.ran(job) == ["b"] and len(calls) == 2
    among.until(lambda: not among.hosts["b"].node._guests.present)


def test_a_blob_that_is_never_acknowledged(among: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(IncomingUploads, "commit", silent)
    data, there = b"data", among.hosts["b"].node.identity.node_id
    link = among.result(among.hosts["a"].node.cluster_member.link(there))
    failures = list[Any]()
    sent = link.send_blob(blob_of(data), lambda offset, size: Deferred.fromCoroutine(_read(data, offset, size)))
    sent.addErrback(failures.append)
    among.clock.advance(PUSH_TIMEOUT + 1.0)
    assert [failure.type for failure in failures] == [RequestTimeout]


async def _read(data: bytes, offset: int, size: int) -> bytes:
    return data[offset : offset + size]
