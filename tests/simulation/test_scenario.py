"""A node's long and eventful life, many times over; and proof that what must never happen would be noticed."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from cloudmytask.model.job import Job, JobState
from cloudmytask.node.jobs.ledger import Ledger
from cloudmytask.node.jobs.origin import Origin
from cloudmytask.node.running.executor import Executor
from cloudmytask.simulation.cluster_checker import Violation
from cloudmytask.simulation.runner import ScriptedRunner
from cloudmytask.simulation.store import MemoryStore
from tests import scenario as scenario_module
from tests.scenario import Scenario
from tests.simulation.traces import traces

RUN = """
import sys
from tests.scenario import Scenario
print(Scenario(int(sys.argv[1]), jobs=150).run())
"""


def test_a_thousand_jobs() -> None:
    scenario = Scenario(1, kills=20)
    scenario.run()
    counts, machine = scenario.counts, scenario.host.machine
    # A run in which something never happens says nothing about it.
    for happened in (
        "kills",
        "drains",
        "succeeded",
        "failed",
        "cancelled",
        "timed_out",
        "lost",
        "waiting",
        "running",
        "refused queue-full",
        "refused connection-interrupted",
    ):
        assert counts[happened] > 0, f"{happened} never happened: {counts}"
    assert any(job.state is JobState.EXPIRED for job in scenario.host.disk.jobs.values())
    assert len(scenario.promises.acknowledged) >= 1000  # and those whose second, identical request failed
    assert machine.peak == scenario.host.config.slots and machine.started > 500
    assert len(scenario.checker.terminal) >= 1000


@pytest.mark.parametrize("seed", range(100, 104))
def test_a_few_more_lives(seed: int) -> None:
    scenario = Scenario(seed, jobs=120, slots=1 + seed % 4, clients=1 + seed % 5, kills=6)
    scenario.run()
    assert len(scenario.promises.acknowledged) >= 120


def test_equal_seeds_give_equal_traces_whatever_the_hash_seed() -> None:
    found = traces(RUN, "3")
    assert len(found[0]) == 64 and len(set(found)) == 1


def test_other_seeds_give_other_traces() -> None:
    assert len({Scenario(seed, jobs=10, kills=1).run() for seed in (1, 2, 1)}) == 2


# Planted bugs


def _is_noticed(match: str, *, prepare: Callable[[Scenario], None] = lambda scenario: None, **options: Any) -> None:
    """Some life of a few ends with a violation of that kind."""
    for seed in range(6):
        scenario = Scenario(seed, **{"jobs": 100, "kills": 4, **options})
        prepare(scenario)
        try:
            scenario.run()
        except Violation as violation:
            assert match in str(violation), violation
            return
    pytest.fail(f"nobody noticed that {match!r}")


def _slow_commits(scenario: Scenario) -> None:
    """The moments between an event and its commit become minutes, so that kills fall into them."""
    dice = random.Random(1)
    scenario.host.commit_delay = lambda: dice.uniform(5.0, 20.0)


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> Callable[[type, str, object], None]:
    """Replace a method, or a property, of a class."""
    return lambda owner, name, broken: monkeypatch.setattr(owner, name, broken)


Plant = Callable[[type, str, object], None]


def test_slots_that_nobody_counts(plant: Plant) -> None:
    plant(Executor, "claimed", property(lambda self: 0))
    _is_noticed("slots", kills=0)


def test_a_slot_that_is_free_too_early(plant: Plant) -> None:
    """As soon as the script was asked to end, instead of when it has."""

    def claimed(self: Executor) -> int:
        return sum(active.stopped_for is None for active in self._active.values())

    plant(Executor, "claimed", property(claimed))
    _is_noticed("slots", kills=0)


def test_orphans_that_nobody_sweeps(plant: Plant) -> None:
    plant(ScriptedRunner, "sweep", lambda self: 0)
    _is_noticed(" ", kills=6)


def test_an_outcome_that_is_told_before_it_is_durable(plant: Plant) -> None:
    save = Ledger._save

    async def tell_and_save(self: Ledger, entry: Any) -> Job:
        self._publish(entry, entry.job)
        return await save(self, entry)

    plant(Ledger, "_save", tell_and_save)
    _is_noticed("was told as", prepare=_slow_commits, kills=10)


def test_an_acceptance_that_is_told_before_it_is_durable(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    accept = Ledger.accept

    async def tell_and_accept(self: Ledger, job: Job, contents: Any) -> Job:
        Deferred.fromCoroutine(accept(self, job, contents))
        self._publish(self._entries[job.id], job)
        return job

    plant(Ledger, "accept", tell_and_accept)
    monkeypatch.setattr(scenario_module, "PATIENCE", 1500.0)  # clients ask after a lost job to the end
    _is_noticed("is lost", prepare=_slow_commits, jobs=20)


def test_a_store_that_loses_what_it_acknowledged(plant: Plant) -> None:
    save = MemoryStore.save
    saves = 0

    def save_most(self: MemoryStore, job: Job, contents: Any = ()) -> Deferred[None]:
        nonlocal saves
        saves += 1
        return self._change(lambda: None) if saves % 40 == 0 else save(self, job, contents)

    plant(MemoryStore, "save", save_most)
    _is_noticed(" ", kills=2)


def test_results_that_never_grow_old(plant: Plant) -> None:
    plant(Ledger, "_aged", lambda self, job: job)
    _is_noticed("after its end", kills=0)


def test_a_job_that_is_left_behind(plant: Plant) -> None:
    """A retry that is forgotten."""
    plant(Origin, "_pause", lambda self, job, delay: None)
    _is_noticed("in no place", kills=0, jobs=40)
