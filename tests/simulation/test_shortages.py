"""A shortage of the node is nobody's outcome, and a job that takes its node down takes it down a few times only.

The rows are those of the list of attacks: 4 (no room on the disk), 7 (no processes), 8 (poison).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest

from cloudmytask.codec.people import JobStatus
from cloudmytask.core.shortages import TRIALS
from cloudmytask.model.job import JobState, Resource
from cloudmytask.simulation.cluster import ClusterRun
from cloudmytask.simulation.host import Host
from cloudmytask.simulation.plan import ClusterPlan
from cloudmytask.simulation.runner import ScriptPlan
from tests.conftest import ExpectFailures
from tests.virtual import FOREVER, Place
from tests.virtual_cluster import Company

Lack = Callable[[Place, bool], None]


def _disk(place: Place, lacking: bool) -> None:
    place.host.disk.full = lacking


def _processes(place: Place, lacking: bool) -> None:
    place.host.machine.short = Resource.PROCESSES if lacking else None


@pytest.mark.parametrize("once_only", [False, True])
@pytest.mark.parametrize(("lack", "words"), [(_disk, "room on its disk"), (_processes, "processes")])
def test_rows_04_and_07_accepted_jobs_wait_until_the_shortage_is_over(
    lack: Lack, words: str, once_only: bool, expected_failures: ExpectFailures
) -> None:
    place = Place({"slots": 2, "queue_max": 50, "sweep_interval": 3600.0})
    ann = place.connect()
    running = [place.submit(ann, ScriptPlan(duration=2.0)) for _ in range(2)]
    jobs = [place.submit(ann, ScriptPlan(duration=0.2), at_most_once=once_only) for _ in range(20)]
    lack(place, True)
    place.clock.advance(10.0)
    node = place.host.node
    if lack is _processes:
        assert [each.words for each in node.describe().short] == [words]
        explained = place.result(ann.explain(jobs[-1].id)).sentence
        assert explained.startswith(f"node is short of {words}, and starts nothing until that is over")
    place.clock.advance(300.0)
    assert node.describe().running == 0 or lack is _disk, "what runs cannot be told while the disk is full"
    tries = len(place.launches)
    assert tries < 2 + 2 + 310 / TRIALS.ceiling + 8, "one job at a time tries, ever more seldom"
    lack(place, False)
    found = [place.wait(ann, job) for job in (*running, *jobs)]
    assert {status.state for status in found} == {JobState.SUCCEEDED}
    assert node.describe().short == ()
    assert max(len(status.document["attempts"]) for status in found) <= 2, "a long shortage makes no long record"
    assert place.host.machine.started == len(found)
    if lack is _disk:
        expected_failures()  # outcomes that were insisted on


def test_row_07_a_job_goes_elsewhere_and_the_node_says_what_it_lacks() -> None:
    company = Company(2, options={"slots": 2})
    company.acquainted()
    short, other = company.hosts["b"], company.hosts["a"]
    short.machine.short = Resource.PROCESSES
    ann = company.connect("a")
    jobs = [company.submit(ann, ScriptPlan(duration=1.0), at_most_once=bool(number % 2)) for number in range(12)]
    found = [company.wait(ann, job) for job in jobs]
    assert {(status.state, status.executor) for status in found} == {(JobState.SUCCEEDED, "a")}
    told = {m.announcement.name: m.announcement.short for m in other.node.cluster().members}
    assert told == {"a": (), "b": (Resource.PROCESSES,)}
    assert "node b is short of processes" in company.why(ann, found[2])

    short.machine.short = None
    company.clock.advance(2 * TRIALS.ceiling)
    jobs = [company.submit(ann, ScriptPlan(duration=1.0)) for _ in range(12)]
    assert {company.wait(ann, job).executor for job in jobs} == {"a", "b"}
    assert short.node.describe().short == ()


def test_row_04_an_offer_is_refused_with_the_word() -> None:
    company = Company(2)
    company.acquainted()
    company.hosts["b"].machine.short = Resource.INTERPRETER
    bob = company.connect("b", "bob")
    own = company.submit(bob, ScriptPlan(duration=1.0), local=True)
    company.until(lambda: company.hosts["b"].node.describe().short == (Resource.INTERPRETER,))
    ann = company.connect("a")
    company.submit(ann, FOREVER)
    waiting = company.submit(ann, ScriptPlan(duration=1.0))
    company.clock.advance(5.0)
    assert company.result(ann.getScriptJobStatus(waiting.id)).state is JobState.WAITING
    company.hosts["b"].machine.short = None
    assert company.wait(bob, own).state is JobState.SUCCEEDED
    assert company.wait(ann, waiting).executor == "b"


def test_a_shortage_is_over_when_a_job_was_cancelled_in_the_middle_of_a_trial() -> None:
    place = Place({"slots": 1})
    ann = place.connect()
    place.host.machine.short = Resource.PROCESSES
    first, second = (place.submit(ann, ScriptPlan(duration=1.0)) for _ in range(2))
    place.clock.advance(5.0)
    assert place.result(ann.cancel(first.id)).state is JobState.CANCELLED
    place.host.machine.short = None
    assert place.wait(ann, second).state is JobState.SUCCEEDED


def _poison(place: Place, job: JobStatus) -> int:
    """Let the job kill its node each time it is started; how often that was."""
    deaths = 0

    def started() -> bool:
        return sum(launch.id.job == job.id for _, launch in place.launches) > deaths

    while not place.record(job).state.terminal:
        place.until(lambda: started() or place.record(job).state.terminal, patience=1000.0)
        if started():
            deaths += 1
            place.clock.advance(0.01)  # as long as an interpreter takes to begin, at least
            place.restart()
    return deaths


def test_row_08_a_job_that_kills_its_node_is_given_up_and_takes_nobody_along() -> None:
    place = Place({"slots": 4, "queue_max": 50})
    ann, bob = place.connect("ann"), place.connect("bob")
    poison = place.submit(ann, FOREVER)
    innocent = [place.submit(bob, ScriptPlan(duration=4.0)) for _ in range(3)]
    assert _poison(place, poison) == 3
    ann, bob = place.connect("ann"), place.connect("bob")
    lost = place.wait(ann, poison)
    assert lost.state is JobState.LOST
    sentence = place.result(ann.explain(poison.id)).sentence
    assert "its node died during attempt 1 on node, attempt 2 on node, attempt 3 on node" in sentence
    assert {place.wait(bob, job).state for job in innocent} == {JobState.SUCCEEDED}


def test_row_08_the_pauses_grow_and_survive_a_restart() -> None:
    place = Place({"poison_max": 5})
    poison = place.submit(place.connect(), FOREVER)
    _poison(place, poison)
    started = [at for at, launch in place.launches if launch.id.job == poison.id]
    pauses = [after - before for before, after in pairwise(started)]
    assert len(started) == 5 and pauses == sorted(pauses) and pauses[-1] > 20.0, pauses


def test_row_08_a_drain_is_no_death() -> None:
    place = Place({"drain_timeout": 0.0})
    job = place.submit(place.connect(), ScriptPlan(duration=2.0))
    for _ in range(4):
        place.reach(place.connect(), job, JobState.RUNNING)
        place.result(place.host.stop())
        place.host.start()
    done = place.wait(place.connect(), job)
    assert (done.state, done.attempt) == (JobState.SUCCEEDED, 5)


def _nodes_it_starts_on(company: Company, job: JobStatus, attempts: int) -> Iterator[Host]:
    """One after the other, as soon as its next attempt is there."""
    for number in range(attempts):
        company.until(lambda: len(company.ran(job)) > number)  # noqa: B023 - called before the next number
        yield company.hosts[company.ran(job)[-1]]


def test_row_08_the_next_attempt_is_on_another_node_if_there_is_one() -> None:
    company = Company(3)
    company.acquainted()
    ann = company.connect("a")
    job = company.submit(ann, FOREVER, avoid=("a",))
    for victim in _nodes_it_starts_on(company, job, 3):
        victim.kill()
        victim.start()
    assert company.wait(ann, job).state is JobState.LOST
    first, second, _third = company.ran(job)
    assert first != second
    assert "attempt 3 on" in company.why(ann, job)


def test_row_07_a_cluster_with_shortages_loses_and_fails_nothing() -> None:
    ClusterRun(ClusterPlan(seed=11, nodes=6, slots=2, jobs=300, load=0.7, shortages=12)).run()


def test_row_08_a_node_that_was_believed_dead_and_comes_back_in_another_life_did_die() -> None:
    company = Company(3)
    company.acquainted()
    ann = company.connect("a")
    job = company.submit(ann, FOREVER, avoid=("a",))
    for victim in _nodes_it_starts_on(company, job, 3):
        company.reach(ann, job, JobState.RUNNING)
        victim.lose_power()
        company.clock.advance(20.0)
        victim.start()
        company.clock.advance(5.0)
    company.clock.advance(300.0)
    assert company.result(ann.getScriptJobStatus(job.id)).state in (JobState.LOST, JobState.RUNNING)
    assert len(company.ran(job)) <= 4


def test_a_partition_is_no_death() -> None:
    company = Company(2, options={"orphan_grace": 1.0})
    company.acquainted()
    ann = company.connect("a")
    job = company.submit(ann, ScriptPlan(duration=8.0), node="b")
    for _ in range(4):
        company.reach(ann, job, JobState.RUNNING)
        company.network.paths.partition(["a"], ["b"])
        company.until(lambda: company.alive("a") == ["a"])
        company.clock.advance(5.0)
        company.network.paths.partition()
        company.until(lambda: company.alive("a") == ["a", "b"])
    done = company.wait(ann, job)
    assert done.state is JobState.SUCCEEDED and done.attempt >= 4
