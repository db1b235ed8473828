"""The two stores of a CSU: one on a disk, one in memory; what both must do, and what only a disk can do to one."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar

import pytest
from attrs import evolve
from twisted.internet.defer import Deferred

from cloudmytask.boundaries.supervision import SeenInstance, SupervisionStore
from cloudmytask.model.cluster import LoadSample, NodeId, Role, Standing
from cloudmytask.model.errors import StartFailed, StoreFailed
from cloudmytask.simulation.clock import VirtualClock
from cloudmytask.store.database import prepare
from cloudmytask.store.history import HistoryStore
from cloudmytask.store.schema import STEPS
from tests.memory_supervision import MemorySupervisionStore, SupervisionDisk
from tests.store_conformance import brought_to_an_end

T = TypeVar("T")

NODE = SeenInstance(NodeId("a" * 32), Role.NODE, "a", "127.0.0.1:7001", "1", Standing.ALIVE, 100.0, 200.0)


class Bench(Protocol):
    @property
    def store(self) -> SupervisionStore: ...
    def result(self, deferred: Deferred[T]) -> T: ...
    def restart(self) -> SupervisionStore: ...


class DiskBench:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._handed_over: SimpleQueue[Any] = SimpleQueue()
        self.store = self.open()

    def open(self) -> HistoryStore:
        self.store = store = HistoryStore(self.directory, call_from_thread=self._handed_over.put)
        store.open()
        return store

    def result(self, deferred: Deferred[T]) -> T:
        return brought_to_an_end(deferred, lambda: self._handed_over.get(timeout=60)())

    def restart(self) -> HistoryStore:
        self.result(self.store.close())
        return self.open()


class MemoryBench:
    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.disk = SupervisionDisk("0123456789abcdef" * 2)
        self.store = MemorySupervisionStore(self.disk, self.clock)

    def result(self, deferred: Deferred[T]) -> T:
        def turn() -> None:
            assert self.clock.step(), "this Deferred will never fire"

        return brought_to_an_end(deferred, turn)

    def restart(self) -> MemorySupervisionStore:
        self.result(self.store.close())
        self.store = MemorySupervisionStore(self.disk, self.clock)
        return self.store


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[DiskBench]:
    bench = DiskBench(tmp_path / "state")
    yield bench
    bench.result(bench.store.close())


@pytest.fixture(params=["disk", "memory"])
def bench(request: pytest.FixtureRequest) -> Bench:
    if request.param == "memory":
        return MemoryBench()
    found: DiskBench = request.getfixturevalue("disk")
    return found


def sample(at: float, node: str = "a", load: float | None = 0.5) -> LoadSample:
    return LoadSample(at=at, node=node, load=load, slots=4, free=2, waiting=7)


def keep(bench: Bench, *samples: LoadSample) -> None:
    bench.result(bench.store.record(samples, ()))


class TestBoth:
    def test_it_begins_empty_with_a_name_for_life(self, bench: Bench) -> None:
        first = bench.store.recover()
        assert (first.boots, first.instances, first.memory) == (1, (), {})
        assert len(first.node_id) == 32
        again = bench.restart().recover()
        assert (again.node_id, again.boots) == (first.node_id, 2)

    def test_what_it_remembers_survives(self, bench: Bench) -> None:
        bench.store.remember("bans", "old")
        bench.result(bench.store.remember("bans", "new"))
        assert bench.restart().recover().memory == {"bans": "new"}

    def test_samples_come_back_in_order(self, bench: Bench) -> None:
        keep(bench, sample(20.0), sample(10.0, "b", None), sample(10.0))
        keep(bench, sample(30.0))
        expected = (sample(10.0), sample(10.0, "b", None), sample(20.0))
        assert bench.result(bench.store.samples(10.0, 25.0, 100)) == expected
        bench.restart()
        assert bench.result(bench.store.samples(10.0, 25.0, 100)) == expected
        assert bench.result(bench.store.samples(31.0, 99.0, 100)) == ()

    def test_too_many_samples_are_thinned_over_all_of_the_time(self, bench: Bench) -> None:
        keep(bench, *(sample(float(at), node) for at in range(1000) for node in "ab"))
        found = bench.result(bench.store.samples(0.0, 1000.0, 20))
        assert [each.at for each in found if each.node == "a"] == [99.0 + 100 * part for part in range(10)]
        assert len(found) == 20

    def test_old_samples_are_pruned(self, bench: Bench) -> None:
        keep(bench, sample(10.0), sample(20.0))
        bench.result(bench.store.prune(20.0, 10))
        assert bench.result(bench.store.samples(0.0, 99.0, 100)) == (sample(20.0),)

    def test_instances_are_kept_as_last_seen(self, bench: Bench) -> None:
        other = evolve(NODE, node_id=NodeId("b" * 32), role=Role.CSU, last_seen=150.0)
        left = evolve(NODE, standing=Standing.LEFT, last_seen=300.0)
        bench.store.record((), (NODE, other))
        bench.result(bench.store.record((), (left,)))
        assert bench.restart().recover().instances == (other, left)
        bench.result(bench.store.prune(0.0, 1))
        assert bench.restart().recover().instances == (left,)


class TestDisk:
    def test_what_the_database_refuses_is_a_declared_failure(self, disk: DiskBench) -> None:
        connection = sqlite3.connect(disk.store.path)
        connection.execute("DROP TABLE samples")
        connection.close()
        with pytest.raises(StoreFailed, match="no such table"):
            disk.result(disk.store.record((sample(1.0),), ()))
        assert disk.result(disk.store.remember("bans", "[]")) is None

    def test_the_database_of_a_node_is_none_of_a_csu(self, tmp_path: Path) -> None:
        prepare(tmp_path / "csu.sqlite", STEPS, lambda: "0" * 32)
        with pytest.raises(StartFailed, match="is not a database of Cloud My Task"):
            HistoryStore(tmp_path, call_from_thread=lambda _: None).open()

    def test_a_store_that_is_closed_says_so(self, disk: DiskBench) -> None:
        disk.result(disk.store.close())
        with pytest.raises(StoreFailed, match="not open"):
            disk.store.remember("bans", "[]")
        disk.open()
