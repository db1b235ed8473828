"""What a cluster lives through: wrong clocks, twins, full nodes and disks, a CSU that is not there, strangers."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from cloudmytask.config import CsuConfig
from cloudmytask.model.cluster import Announcement, NodeId, Standing
from cloudmytask.model.errors import DiskShort, QueueFull
from cloudmytask.model.job import ClientId, JobState
from cloudmytask.simulation.host import SeededEntropy
from cloudmytask.simulation.runner import ScriptPlan
from tests.virtual import FOREVER
from tests.virtual_cluster import Company
from tests.virtual_supervisor import SupervisorHost


def test_clocks_an_hour_apart() -> None:
    company = Company(3, skews={"a": 3600.0, "c": -3600.0})
    company.acquainted()
    ann = company.connect("a")
    jobs = [company.submit(ann, ScriptPlan(duration=1.0)) for _ in range(3)]
    ended = [company.wait(ann, job) for job in jobs]
    assert {job.executor for job in ended} == {"a", "b", "c"}
    company.result(company.hosts["a"].node.front_door.ban(ClientId("ann"), ClientId("mallory"), "test", 600.0))
    company.clock.advance(3.0)
    assert all(len(host.node.front_door.bans()) == 1 for host in company.hosts.values())
    company.clock.advance(600.0)
    assert not any(host.node.front_door.bans() for host in company.hosts.values())
    company.hosts["c"].kill()
    company.until(lambda: company.alive("a") == ["a", "b"], patience=10.0)
    company.hosts["c"].start()
    company.acquainted()


def test_a_clock_that_steps_moves_nothing() -> None:
    company = Company(2)
    company.acquainted()
    company.clock.offset += 3600.0
    company.clock.advance(10.0)
    company.clock.offset -= 7200.0
    company.clock.advance(10.0)
    assert company.alive("a") == ["a", "b"] == company.alive("b")


def test_two_nodes_with_one_id_are_noticed_and_work_goes_on() -> None:
    company = Company(3)
    company.acquainted()
    company.hosts["b"].kill()
    company.hosts["b"].disk.node_id = company.hosts["c"].disk.node_id  # somebody copied a state directory
    company.hosts["b"].start()
    company.clock.advance(10.0)
    view = company.hosts["a"].node.cluster()
    [twin] = [m for m in view.members if m.announcement.node_id == company.hosts["c"].disk.node_id]
    assert twin.conflict
    ann = company.connect("a")
    jobs = [company.submit(ann, ScriptPlan(duration=1.0)) for _ in range(4)]
    assert {company.wait(ann, job).state for job in jobs} == {JobState.SUCCEEDED}


def test_all_nodes_full() -> None:
    company = Company(3, options={"queue_max": 2})
    company.acquainted()
    ann = company.connect("a")
    running = [company.submit(ann, ScriptPlan(duration=20.0)) for _ in range(3)]
    waiting = [company.submit(ann, ScriptPlan(duration=1.0)) for _ in range(2)]
    spec, source = company.spec()
    with pytest.raises(QueueFull, match="queue_max is 2"):
        company.result(ann.submit(spec, source))
    for job in (*running, *waiting):
        assert company.wait(ann, job).state is JobState.SUCCEEDED


def test_a_node_short_of_disk_says_so_and_gets_no_work() -> None:
    company = Company(2, each={"b": {"disk_min": 1000}})
    company.hosts["b"].disk_free = 999
    company.acquainted()
    ann, bob = company.connect("a"), company.connect("b")
    company.submit(ann, FOREVER)
    job = company.submit(ann, ScriptPlan(duration=1.0))
    company.reach(ann, job, JobState.WAITING)
    spec, source = company.spec()
    with pytest.raises(DiskShort, match="node b has 999 B left on its disk"):
        company.result(bob.submit(spec, source))

    def short() -> list[str]:
        members = company.hosts["a"].node.cluster().members
        return [m.announcement.name for m in members if m.announcement.short]

    company.until(lambda: short() == ["b"], patience=3.0)
    company.hosts["b"].disk_free = 1000
    assert company.wait(ann, job, patience=10.0).executor == "b"


def test_the_csu_is_absent_from_the_start_and_comes_later() -> None:
    company = Company(2)
    company.acquainted()
    ann = company.connect("a")
    assert company.wait(ann, company.submit(ann)).state is JobState.SUCCEEDED
    company.result(company.hosts["a"].node.front_door.ban(ClientId("ann"), ClientId("mallory"), "test", 600.0))
    config = CsuConfig(state=Path("/simulated"), name="csu", listen=("127.0.0.200:7009",))
    csu = SupervisorHost(
        "csu", company.clock, company.network, config, SeededEntropy(random.Random(5)), group=company.group
    )
    csu.start()
    company.until(lambda: any(ban.client == "mallory" for ban in csu.unit.bans()), patience=10.0)
    csu.kill()
    assert company.wait(ann, company.submit(ann)).state is JobState.SUCCEEDED


def test_announcements_of_somebody_else_do_no_harm() -> None:
    """Replays, older boots, and nodes that nobody can reach: nothing is lost, nobody real is pushed out."""
    company = Company(2)
    heard: list[Announcement] = []
    company.hosts["b"].node.cluster_member.detector.announcements.add(heard.append)
    company.acquainted()
    company.clock.advance(5.0)
    listener = company.hosts["b"].node.cluster_member.detector
    for announcement in heard:
        listener.heard(announcement)  # recorded and sent again
    [a] = [m for m in company.hosts["b"].node.cluster().members if m.announcement.name == "a"]
    assert a.announcement.sequence >= max(each.sequence for each in heard)
    assert a.standing is Standing.ALIVE
    ann = company.connect("b")
    jobs = [company.submit(ann, ScriptPlan(duration=1.0)) for _ in range(3)]
    assert {company.wait(ann, job).state for job in jobs} == {JobState.SUCCEEDED}


def test_a_forged_attraction_costs_nothing_but_a_try() -> None:
    """A node that announces free slots and is not there: its jobs go elsewhere at once."""
    from attrs import evolve

    company = Company(2)
    heard: list[Announcement] = []
    company.hosts["a"].node.cluster_member.detector.announcements.add(heard.append)
    company.acquainted()
    ghost = evolve(
        heard[-1],
        node_id=NodeId(heard[-1].node_id[:-4] + "beef"),
        name="ghost",
        address="127.0.0.77:7001",
        capacity=evolve(heard[-1].capacity, slots=99, free=99),
        sequence=1,
    )
    company.hosts["a"].node.cluster_member.detector.heard(ghost)
    ann = company.connect("a")
    jobs = [company.submit(ann, ScriptPlan(duration=2.0)) for _ in range(4)]
    for job in jobs:
        assert company.wait(ann, job, patience=30.0).executor in ("a", "b")
