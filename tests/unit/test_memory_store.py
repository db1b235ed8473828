"""The store of the simulation: conformance, and what a crash leaves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from cloudmytask.boundaries import JobStore
from cloudmytask.model.errors import BlobCorrupt, StoreFailed
from cloudmytask.model.job import JobId, JobState
from cloudmytask.model.words import Resource
from cloudmytask.simulation.commits import DELIVERY
from cloudmytask.simulation.store import MemoryDisk, MemoryStore
from tests.store_conformance import SCRIPT, StoreConformance, brought_to_an_end, make_job

T = TypeVar("T")

COMMIT = 0.004


class MemoryBench:
    def __init__(self) -> None:
        self.clock = Clock()
        self.disk = MemoryDisk("0123456789abcdef" * 2)
        self.store: JobStore = self.reopen()

    def reopen(self) -> MemoryStore:
        self.store = store = MemoryStore(self.disk, self.clock, lambda: COMMIT)
        return store

    def result(self, deferred: Deferred[T]) -> T:
        return brought_to_an_end(deferred, self._turn)

    def _turn(self) -> None:
        calls = self.clock.getDelayedCalls()
        assert calls, "this Deferred will never fire"
        self.clock.advance(max(0.0, min(call.getTime() for call in calls) - self.clock.seconds()))

    def restart(self) -> JobStore:
        self.result(self.store.close())
        return self.reopen()

    def elapse(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def staged(self, path: str) -> Mapping[str, bytes]:
        return self.disk.directories[path.rpartition("/")[2]]


@pytest.fixture
def bench() -> MemoryBench:
    return MemoryBench()


class TestConformance(StoreConformance):
    """Everything that any store does."""


def test_nothing_is_durable_before_its_commit(bench: MemoryBench) -> None:
    told: list[None] = []
    bench.store.save(make_job(1), [SCRIPT]).addCallback(told.append)
    bench.clock.advance(COMMIT / 2)
    assert (bench.disk.jobs, bench.disk.blobs, told) == ({}, {}, [])
    bench.clock.advance(COMMIT / 2)
    assert list(bench.disk.jobs) == ["job0001"]
    assert told == []
    bench.clock.advance(DELIVERY)
    assert told == [None]


def test_a_crash_may_come_between_a_commit_and_the_news_of_it_under_way(bench: MemoryBench) -> None:
    told: list[object] = []
    bench.store.save(make_job(1)).addBoth(told.append)
    bench.clock.advance(COMMIT)
    bench.disk.crash()
    bench.clock.advance(10)
    assert told == []
    assert list(bench.disk.jobs) == ["job0001"]


def test_what_gathers_during_a_commit_is_the_next_one(bench: MemoryBench) -> None:
    told: list[tuple[int, float]] = []

    def note(_: None, number: int) -> None:
        told.append((number, bench.clock.seconds()))

    for number in range(1, 4):
        bench.store.save(make_job(number)).addCallback(note, number)
    bench.clock.pump([COMMIT, DELIVERY, COMMIT - DELIVERY, DELIVERY])
    assert told == [(1, COMMIT + DELIVERY), (2, 2 * COMMIT + DELIVERY), (3, 2 * COMMIT + DELIVERY)]


def test_a_crash_loses_what_was_not_committed_and_nobody_is_told(bench: MemoryBench) -> None:
    told: list[object] = []
    store = bench.store
    bench.result(store.save(make_job(1)))
    for deferred in (store.save(make_job(2)), store.save(make_job(3)), store.get(JobId("job0001"))):
        deferred.addBoth(told.append)
    store.spool("job0001.1.1.stdout").append(b"in the page cache")
    bench.disk.crash()
    bench.clock.advance(10)
    store.save(make_job(4)).addBoth(told.append)
    bench.clock.advance(10)
    assert told == []
    assert [job.sequence for job in bench.reopen().recover().own] == [1]
    assert bench.store.spool("job0001.1.1.stdout", resume=True).size == len(b"in the page cache")


def test_a_crash_may_come_between_the_commit_and_the_news_of_it(bench: MemoryBench) -> None:
    told: list[object] = []
    bench.store.save(make_job(1)).addBoth(told.append)
    bench.store.save(make_job(2)).addBoth(told.append)
    bench.disk.crash(flushed=True)
    bench.clock.advance(10)
    assert told == []
    assert list(bench.disk.jobs) == ["job0001"]


def test_a_crash_in_the_midst_of_the_news(bench: MemoryBench) -> None:
    told: list[int] = []
    bench.store.save(make_job(0))
    bench.store.save(make_job(1)).addCallback(lambda _: bench.disk.crash())
    bench.store.save(make_job(2)).addCallback(lambda _: told.append(2))
    bench.clock.pump([COMMIT] * 3)
    assert told == []
    assert len(bench.disk.jobs) == 3


def test_a_second_store_on_the_disk_cuts_the_first_one_off(bench: MemoryBench) -> None:
    first = bench.store
    bench.result(first.stage("w1", {}))
    told: list[object] = []
    first.save(make_job(1)).addBoth(told.append)
    bench.reopen()
    bench.clock.advance(1)
    assert (told, bench.disk.jobs, bench.disk.directories) == ([], {}, {})


def test_a_full_disk_fails_changes_until_there_is_room(bench: MemoryBench) -> None:
    spool = bench.store.spool("s")
    bench.disk.full = True
    with pytest.raises(StoreFailed):
        bench.result(bench.store.save(make_job(1)))
    spool.append(b"x")
    bench.disk.full = False
    spool.append(b"y")
    assert spool.size == 0
    assert spool.failure is not None and spool.failure.resource is Resource.DISK
    assert bench.result(spool.seal()) is None
    bench.result(bench.store.save(make_job(1, JobState.RUNNING)))
    assert [job.state for job in bench.store.recover().own] == [JobState.RUNNING]


def test_a_rotten_blob_is_noticed_and_mended_by_saving_it_again(bench: MemoryBench) -> None:
    bench.result(bench.store.save(make_job(1), [SCRIPT]))
    bench.disk.corrupt[SCRIPT.blob.digest] = None
    assert not bench.result(bench.store.has(SCRIPT.blob))
    with pytest.raises(BlobCorrupt):
        bench.result(bench.store.read(SCRIPT.blob, 0, 1))
    with pytest.raises(BlobCorrupt):
        bench.result(bench.store.stage("w1", {"a": SCRIPT.blob}))
    bench.result(bench.store.save(make_job(2), [SCRIPT]))
    assert bench.result(bench.store.read(SCRIPT.blob, 0, 5)) == b"print"
