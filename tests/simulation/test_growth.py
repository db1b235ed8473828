"""Nothing grows with jobs that are over: 1,000 jobs of each kind leave as many live objects behind as 100 did."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred

from cloudmytask.client.node_client import NodeClient
from cloudmytask.client.sources import Source
from cloudmytask.client.watched import Submitted
from cloudmytask.codec.people import JobStatus
from cloudmytask.deferreds import pause
from cloudmytask.model.errors import ConnectionInterrupted
from cloudmytask.model.job import JobSpec, StreamName
from cloudmytask.simulation.runner import ScriptPlan
from cloudmytask.simulation.store import MemoryStore
from tests.virtual import FOREVER
from tests.virtual_cluster import Company

BATCH = 20
"""Jobs that are under way at a time."""
WORDS = ((0.01, StreamName.STDOUT, b"some output\n"), (0.02, StreamName.STDERR, b"some more\n"))

KINDS: dict[str, tuple[ScriptPlan, dict[str, Any]]] = {
    "local": (ScriptPlan(duration=0.05, output=WORDS), {"local": True}),
    "forwarded": (ScriptPlan(duration=0.05, output=WORDS), {"node": "b"}),
    "failed": (ScriptPlan(duration=0.05, exit_code=3), {"node": "b", "retries": 1}),
    "timed out": (FOREVER, {"node": "b", "timeout": 0.05}),
    "cancelled": (FOREVER, {"node": "b"}),
}


def live_objects() -> Counter[str]:
    """How many objects of ours, and Deferreds and coroutines, are alive, by their type; the disk's records left out."""
    gc.collect()
    found: Counter[str] = Counter()
    for each in gc.get_objects():
        kind = type(each)
        module = kind.__module__ or ""
        if module.startswith("cloudmytask.") and not module.startswith(("cloudmytask.model", "cloudmytask.simulation")):
            found[f"{module}.{kind.__qualname__}"] += 1
        elif kind is Deferred or kind.__name__ in ("coroutine", "DelayedCall", "VirtualCall"):
            found[kind.__name__] += 1
    return found


def submitted(among: Company, ann: NodeClient, kind: str, jobs: int) -> Iterator[list[JobStatus]]:
    plan, fields = KINDS[kind]
    source = Source.of_bytes(kind.encode())
    spec = JobSpec(script=source.blob, script_name="script.py", **fields)
    among.plans["script.py"] = (plan,)
    for _ in range(0, jobs, BATCH):
        yield [among.result(ann.submit(spec, source)) for _ in range(BATCH)]


def run(among: Company, ann: NodeClient, kind: str, jobs: int) -> None:
    for batch in submitted(among, ann, kind, jobs):
        for job in batch:
            if kind == "cancelled":
                among.result(ann.cancel(job.id))
            among.wait(ann, job)
            among.read(ann, job)
    among.launches.clear()
    among.clock.advance(120.0)  # retention and tombstones are over, and so is whatever waits for a timer


@pytest.mark.parametrize("kind", KINDS)
def test_a_thousand_jobs_leave_nothing_behind(kind: str) -> None:
    options = {"retention": 10.0, "tombstones": 10.0, "sweep_interval": 5.0, "slots": 4}
    among = Company(2, options=options)
    among.acquainted()
    ann = among.connect("a")
    run(among, ann, kind, 100)
    before = live_objects()
    run(among, ann, kind, 1000)
    grown = live_objects() - before
    assert sum(grown.values()) < 50, grown.most_common(10)


def submit_watched(among: Company, client: NodeClient, node: str, **wishes: Any) -> Deferred[Submitted]:
    source = Source.of_bytes(b"watched")
    spec = JobSpec(script=source.blob, script_name="script.py", node=node)
    among.plans["script.py"] = (ScriptPlan(duration=0.5, output=((0.05, StreamName.STDOUT, b"x" * 200_000),)),)
    return client.submit_watched(spec, source, **wishes)


def until_ended(among: Company, submitted: Submitted) -> None:
    assert submitted.watched is not None
    among.result(Deferred.fromCoroutine(submitted.watched.until(lambda job: job.state.terminal)))


def follow(among: Company, ann: NodeClient, node: str, _number: int) -> None:
    """As ``cmt run`` does."""
    submitted = among.result(submit_watched(among, ann, node, every=True, stream=True))
    assert submitted.output is not None
    among.result(Deferred.fromCoroutine(submitted.output.read(lambda _stream, _data: None)))
    until_ended(among, submitted)


def lose_interest(among: Company, ann: NodeClient, node: str, number: int) -> None:
    """Before, while and after output comes, and without or while reading it."""
    submitted = among.result(submit_watched(among, ann, node, every=True, stream=True))
    assert submitted.output is not None and submitted.watched is not None
    among.clock.advance((0.0, 0.1, 1.0)[number % 3])
    submitted.watched.close()
    if number % 2:
        submitted.output.close()
    else:
        reading = Deferred.fromCoroutine(submitted.output.read(lambda _stream, _data: pause(among.clock, 0.2)))
        reading.addErrback(lambda failure: failure.trap(CancelledError))
        among.clock.advance(0.1)
        reading.cancel()
    among.clock.advance(1.0)


def leave(among: Company, _ann: NodeClient, node: str, number: int) -> None:
    """Before and after the job was accepted, in order or not."""
    client = among.connect("a")
    submit_watched(among, client, node, every=number % 2 == 0, output=number % 2 == 1, stream=True).addErrback(
        lambda failure: failure.trap(ConnectionInterrupted)
    )
    among.clock.advance((0.0, 0.001, 0.002, 0.01, 0.1)[number % 5])
    if number % 3:
        client.close()
    else:
        transport: Any = client.protocol.transport
        transport.abortConnection()
    among.clock.advance(0.1)


def call_off(among: Company, ann: NodeClient, node: str, number: int) -> None:
    """While its inputs are laid out, with and without its slot."""
    submitted = among.result(submit_watched(among, ann, node, every=True, stream=True))
    assert submitted.output is not None
    among.clock.advance((0.1, 0.5, 1.2)[number % 3])
    among.result(ann.cancel(submitted.job.id))
    until_ended(among, submitted)
    submitted.output.close()


@pytest.mark.parametrize("node", ["a", "b"])
@pytest.mark.parametrize("act", [follow, lose_interest, leave, call_off])
def test_what_clients_are_told_of_leaves_nothing_behind(
    act: Callable[[Company, NodeClient, str, int], None], node: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = MemoryStore.stage

    def stage_slowly(self: Any, *arguments: Any) -> Deferred[str]:
        return stage(self, *arguments).addCallback(lambda path: pause(self._clock, 1.5).addCallback(lambda _: path))

    if act is call_off:
        monkeypatch.setattr(MemoryStore, "stage", stage_slowly)
    among = Company(2, options={"retention": 10.0, "tombstones": 10.0, "sweep_interval": 5.0, "slots": 4})
    among.acquainted()
    ann = among.connect("a")
    counted: list[Counter[str]] = []
    for jobs in (30, 200):
        for number in range(jobs):
            act(among, ann, node, number)
        among.launches.clear()
        among.clock.advance(120.0)
        counted.append(live_objects())
    grown = counted[1] - counted[0]
    assert sum(grown.values()) < 30, grown.most_common(10)


def test_the_count_would_notice(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[object] = []
    among = Company(2, options={"slots": 4})
    among.acquainted()
    ann = among.connect("a")
    run(among, ann, "forwarded", 20)
    before = live_objects()
    guests = type(among.hosts["b"].node._guests)
    forget: Callable[..., None] = guests.forget

    def forget_and_keep(self: object, guest: object) -> None:
        kept.append(guest)
        forget(self, guest)

    monkeypatch.setattr(guests, "forget", forget_and_keep)
    run(among, ann, "forwarded", 100)
    assert sum((live_objects() - before).values()) >= 100
