"""Whatever dies, by ``kill -9`` or a pulled cable: the rest goes on serving, and no acknowledged job is forgotten."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from typing import Any

import pytest

from tests.lab.cluster import SLOTS, Cluster, check_banned, check_whole
from tests.lab.waiting import until

ALL = (1, 2, 3, 4, 5)

FIRST_HANGS = """
import os, time
print("attempt", os.environ["CMT_ATTEMPT"], "on", os.environ["CMT_EXECUTOR"], flush=True)
if os.environ["CMT_ATTEMPT"] == "1":
    time.sleep(600)
"""
FIRST_IS_LATE = """
import os, sys, time
while os.environ["CMT_ATTEMPT"] == "1" and not os.path.exists(sys.argv[1]):
    time.sleep(0.05)
print("attempt", os.environ["CMT_ATTEMPT"])
"""
UNTIL_TOLD = """
import os, sys, time
while not os.path.exists(sys.argv[1]):
    time.sleep(0.05)
print("done")
"""


@pytest.fixture(autouse=True)
def whole(cluster: Cluster) -> None:
    """Every test begins with a cluster that is one."""
    until(lambda: check_whole(cluster.views(ALL), {"h1", "h2", "h3", "h4", "h5"}))


def _running(cluster: Cluster, host: int, job_id: str) -> Mapping[str, Any]:
    """The job, once its script runs."""

    def runs() -> Mapping[str, Any]:
        job = cluster.job(host, job_id)
        assert job["state"] == "running", job
        return job

    return until(runs)


def _standing(cluster: Cluster, name: str, state: str) -> None:
    """All others see that it is in this state."""

    def seen() -> None:
        for host, view in cluster.views().items():
            assert view[name]["state"] == state, (host, view[name])

    until(seen)


def _serves(cluster: Cluster, *hosts: int) -> None:
    """New work is done, by whoever does it."""
    begun = [cluster.begin(host, "run", "--no-stdin", cluster.script(host, "print('new')")) for host in hosts]
    for done in [each.completed() for each in begun]:
        assert (done.code, done.stdout) == (0, "new\n"), done


def test_jobs_of_a_killed_executor_finish_elsewhere(cluster: Cluster) -> None:
    [job_id] = cluster.submit(1, FIRST_HANGS, "--avoid", "h1")
    first = _running(cluster, 1, job_id)["executor"]
    assert first != "h1"
    cluster.kill(first)
    assert cluster.cmt(1, "wait", job_id).code == 0
    job = cluster.job(1, job_id)
    assert (job["state"], job["attempt"]) == ("succeeded", 2)
    assert job["executor"] not in ("h1", first)
    assert cluster.text(1, "result", job_id) == f"attempt 2 on {job['executor']}\n"
    why = cluster.json(1, "why", job_id)
    assert "2 attempts" in why["sentence"]
    assert any(f"attempt 1 on {first}" in line for line in why["details"]), why
    _standing(cluster, first, "dead")


def test_a_job_that_must_not_run_twice_is_lost_with_its_executor(cluster: Cluster) -> None:
    [job_id] = cluster.submit(1, FIRST_HANGS, "--avoid", "h1", "--at-most-once")
    first = _running(cluster, 1, job_id)["executor"]
    cluster.kill(first)
    assert cluster.cmt(1, "wait", job_id).code == 125
    job = cluster.job(1, job_id)
    assert (job["state"], job["attempt"], job["executor"]) == ("lost", 1, first)
    sentence = cluster.json(1, "why", job_id)["sentence"]
    assert first in sentence
    assert "--at-most-once" in sentence


def test_jobs_on_a_host_without_a_cable_finish_elsewhere_and_once(cluster: Cluster) -> None:
    [job_id] = cluster.submit(1, FIRST_HANGS, "--avoid", "h1")
    first = _running(cluster, 1, job_id)["executor"]
    cluster.lan.switch.isolate(int(first[1:]))
    assert cluster.cmt(1, "wait", job_id, patience=60).code == 0
    ended = cluster.job(1, job_id)
    assert (ended["state"], ended["attempt"]) == ("succeeded", 2)
    assert ended["executor"] != first
    # Who has lost all others serves his own people.
    _serves(cluster, int(first[1:]))
    cluster.lan.switch.heal()
    until(lambda: check_whole(cluster.views(), cluster.names))
    assert cluster.job(1, job_id) == ended


def test_a_killed_origin_comes_back_and_brings_its_jobs_to_an_end(cluster: Cluster) -> None:
    told = cluster.lan.directory(2) / "told"
    here = cluster.submit(2, UNTIL_TOLD, "--local", arguments=(str(told),), count=4)
    [there] = cluster.submit(2, UNTIL_TOLD, "--avoid", "h2", arguments=(str(told),))

    def both_slots_are_taken() -> None:
        assert sum(cluster.job(2, job_id)["state"] == "running" for job_id in here) == SLOTS

    until(both_slots_are_taken)
    _running(cluster, 2, there)
    cluster.kill("h2")
    _serves(cluster, 1, 3, 4, 5)
    _standing(cluster, "h2", "dead")
    until(lambda: check_whole(cluster.views(), cluster.names))
    cluster.start(2)
    cluster.lan.outside(told).touch()
    assert cluster.cmt(2, "wait", *here, there, patience=60).code == 0
    begun = [cluster.begin(2, "result", job_id) for job_id in (*here, there)]
    assert [each.completed().stdout for each in begun] == ["done\n"] * 5
    until(lambda: check_whole(cluster.views(ALL), cluster.names))


def test_without_the_supervisory_unit_bans_hold_new_ones_spread_and_work_is_done(cluster: Cluster) -> None:
    cluster.text(1, "ban", "add", "--client", "mallory", "--reason", "before", "--for", "1h")
    until(lambda: check_banned(cluster, "mallory", "before", ALL))
    cluster.kill("csu")
    check_banned(cluster, "mallory", "before", ALL)
    _serves(cluster, *ALL)
    cluster.text(4, "ban", "add", "--client", "trudy", "--reason", "after", "--for", "1h")
    until(lambda: check_banned(cluster, "trudy", "after", ALL))
    # A node that was not there meanwhile knows both.
    cluster.kill("h3")
    cluster.start(3)
    until(lambda: check_banned(cluster, "trudy", "after", [3]))
    check_banned(cluster, "mallory", "before", [3])


def test_a_node_that_hangs_holds_nobody_up_and_is_welcome_again(cluster: Cluster) -> None:
    told = cluster.lan.directory(1) / "told"
    [job_id] = cluster.submit(1, FIRST_IS_LATE, "--avoid", "h1", arguments=(str(told),))
    hung = _running(cluster, 1, job_id)["executor"]
    # It still accepts connections, and answers none.
    cluster.daemons[hung].running.signal(signal.SIGSTOP)
    others = [host for host in ALL if host != int(hung[1:])]

    def given_up() -> None:
        for host, view in cluster.views(others).items():
            assert view[hung]["state"] == "dead", (host, view[hung])

    until(given_up)
    assert cluster.cmt(1, "wait", job_id).code == 0
    ended = cluster.job(1, job_id)
    assert (ended["state"], ended["attempt"]) == ("succeeded", 2)
    _serves(cluster, *others)
    # The first attempt ends before its node wakes up, and nobody takes its outcome.
    cluster.lan.outside(told).touch()
    cluster.daemons[hung].running.signal(signal.SIGCONT)
    until(lambda: check_whole(cluster.views(ALL), cluster.names))
    assert cluster.job(1, job_id) == ended
    assert cluster.text(1, "result", job_id) == "attempt 2\n"


def test_a_host_whose_interface_was_off_comes_back(cluster: Cluster) -> None:
    cluster.lan.interface_down(5)

    def alone() -> None:
        check_whole(cluster.views([1, 2, 3, 4]), {"h1", "h2", "h3", "h4"})
        check_whole(cluster.views([5]), {"h5"})

    until(alone)
    _serves(cluster, 1, 5)
    cluster.lan.interface_up(5)
    until(lambda: check_whole(cluster.views(ALL), cluster.names))


def test_a_node_that_is_asked_to_end_leaves(cluster: Cluster) -> None:
    daemon = cluster.daemons.pop("h5")
    daemon.terminate()
    cluster.ended.append(daemon)
    _standing(cluster, "h5", "left")
    until(lambda: check_whole(cluster.views(), cluster.names))
    _serves(cluster, 1)
