"""Whole clusters, and proof that what must never happen in one would be noticed."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cloudmytask.cluster.ban_exchange import BanExchange
from cloudmytask.core.placement import Accounts, Policy
from cloudmytask.core.queue import WaitingQueue
from cloudmytask.listeners import Listeners
from cloudmytask.model.cluster import Capacity, NodeId
from cloudmytask.node.gate import Gate
from cloudmytask.node.placing.offering import Offering
from cloudmytask.node.placing.placer import Placer
from cloudmytask.node.remote.guests import Guests
from cloudmytask.node.running.executor import Executor
from cloudmytask.simulation import cluster as cluster_module
from cloudmytask.simulation.cluster import ClusterRun
from cloudmytask.simulation.cluster_checker import Violation
from cloudmytask.simulation.figures import ClusterFigures
from cloudmytask.simulation.plan import ClusterPlan, Gateway, Lengths
from tests.conftest import ExpectFailures, LoggedFailures
from tests.simulation.traces import traces

RUN = """
from cloudmytask.simulation.cluster import ClusterRun
from cloudmytask.simulation.plan import ClusterPlan
print(ClusterRun(ClusterPlan(seed=3, nodes=6, jobs=200, kill=0.34, partitions=1, loss=0.05)).run().trace)
"""


def _run(**plan: Any) -> ClusterFigures:
    return ClusterRun(ClusterPlan(**{"nodes": 8, "jobs": 400, **plan})).run()


@pytest.mark.parametrize("gateway", Gateway)
def test_a_cluster_is_nearly_as_good_as_a_central_queue(gateway: Gateway) -> None:
    found = _run(nodes=16, jobs=1500, clients=1, gateway=gateway, seed=5)
    assert found.succeeded == found.jobs == found.executions == 1500
    assert 1.0 <= found.cluster.mean < 1.1 * found.ideal.mean
    assert found.longest_idle < 1.0 and 0.8 < found.utilization < 1.0
    assert found.forwards_per_job > 0.3, "or it proves nothing"


def test_heavy_tailed_lengths() -> None:
    found = _run(lengths=Lengths.HEAVY, jobs=600, clients=1)
    assert found.succeeded == 600 and found.ratio < 1.5


def test_nodes_that_die_and_come_back() -> None:
    found = _run(kill=0.5, seed=2)
    assert found.succeeded == found.jobs == 400
    assert found.kills == 4 and found.executed_again > 0, "or it proves nothing"


def test_networks_that_break_and_lose_messages() -> None:
    assert _run(partitions=2, loss=0.05, seed=4).succeeded == 400


def test_a_ban_reaches_everybody_in_time() -> None:
    found = _run(ban=True, clients=3, load=1.2)
    assert found.refused > 30, "or it proves nothing"
    assert found.succeeded > 200


@pytest.mark.parametrize("policy", ["paper", "local"])
def test_other_policies(policy: str) -> None:
    found = _run(policy=policy, gateway=Gateway.ONE, load=0.1 if policy == "local" else 0.9, jobs=300)
    assert found.succeeded == 300 and (found.forwards_per_job > 0.5) == (policy == "paper")


def test_equal_plans_give_equal_traces_whatever_the_hash_seed() -> None:
    found = traces(RUN)
    assert len(found[0]) == 64 and len(set(found)) == 1


def test_other_seeds_give_other_traces() -> None:
    assert len({_run(nodes=3, jobs=20, seed=seed).trace for seed in (1, 2, 1)}) == 2


def test_capacity_is_told_as_it_is_at_that_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is worked out when something changes, not when it is asked for: nothing that changes it may be missed."""
    asked, told = 0, Placer.here

    def checked(self: Placer) -> Capacity:
        nonlocal asked
        asked += 1
        before = told(self)
        self._meter.update()
        assert told(self) == before
        return before

    monkeypatch.setattr(Placer, "here", checked)
    assert _run(nodes=4, jobs=200, kill=0.5, partitions=1, seed=7).succeeded == 200
    assert asked > 1000


# Planted bugs


Plant = Callable[[type, str, object], None]


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch, logged_failures: LoggedFailures) -> Iterator[Plant]:
    """Replace a method of a class; what then never ends is given up soon. Nodes may log what the bug does to them."""
    monkeypatch.setattr(cluster_module, "PATIENCE", 15.0)
    monkeypatch.setattr(cluster_module, "QUIET", 10)
    yield lambda owner, name, broken: monkeypatch.setattr(owner, name, broken)
    gc.collect()
    logged_failures.events.clear()


def _is_noticed(match: str, run: type[ClusterRun] = ClusterRun, **plan: Any) -> None:
    with pytest.raises(Violation, match=f"(?s){match}"):
        run(ClusterPlan(**{"nodes": 8, "jobs": 400, **plan})).run()


def test_no_hop_limit(plant: Plant) -> None:
    refusal = Guests._never

    def lenient(self: Guests, offer: Any) -> str:
        why = refusal(self, offer)
        return "" if why == "hops" else why

    plant(Policy, "may_hop", lambda self, hops: True)
    plant(Guests, "_never", lenient)
    _is_noticed("is handed on", policy="paper", gateway=Gateway.ONE, load=1.5, nodes=16)


def test_jobs_that_visit_a_node_twice(plant: Plant) -> None:
    fits = Policy.fits

    def forgetful(self: Policy, accounts: Any, peer: Any, course: Any) -> bool:
        return fits(self, accounts, peer, type(course)(course.wish, (), course.hops))

    refusal = Guests._never

    def lenient(self: Guests, offer: Any) -> str:
        why = refusal(self, offer)
        return "" if why == "visited" else why

    plant(Policy, "fits", forgetful)
    plant(Guests, "_never", lenient)
    _is_noticed("though it was at|was offered", policy="paper", gateway=Gateway.ONE, load=1.5, nodes=4)


def test_no_own_accounting(plant: Plant) -> None:
    def announced(self: Accounts, node_id: NodeId) -> int:
        known = self._known.get(node_id)
        return 0 if known is None else known.free

    plant(Accounts, "free", announced)
    _is_noticed("offers were refused for", gateway=Gateway.ONE)


def test_refused_jobs_that_are_dropped(plant: Plant) -> None:
    plant(WaitingQueue, "restore", lambda self, entry: None)
    _is_noticed("is in no place")


class Rogue(ClusterRun):
    """A gateway that runs nothing itself and does not care for bans: the others have to."""

    def options(self, number: int) -> dict[str, Any]:
        options = super().options(number)
        if number == 0:
            options["threshold"] = 0.0
            self.clock.callLater(2.0, self._go_rogue)
        return options

    def _go_rogue(self) -> None:
        node = self.hosts["n0"].node
        node._gate.flood_control = None
        self.checker.offers_max, self.checker.idle_grace = 100_000, math.inf
        node.cluster_member.blacklist.enforced = Listeners()


def test_a_ban_that_is_ignored_on_forward(plant: Plant) -> None:
    plan: dict[str, Any] = {"gateway": Gateway.ONE, "ban": True, "clients": 3, "load": 0.5, "jobs": 150}
    _is_noticed("jobs have no outcome", Rogue, **plan)  # nobody takes what is left of the banned client's
    plant(Gate, "check_banned", lambda self, client: None)
    _is_noticed("starts a job of client0", Rogue, **plan)


def test_bans_that_are_not_passed_on(plant: Plant) -> None:
    plant(BanExchange, "heard", lambda self, announcement: None)
    plant(BanExchange, "start", lambda self: None)
    _is_noticed("starts a job of client0", ban=True, clients=3)


def test_slots_that_nobody_counts(plant: Plant) -> None:
    plant(Executor, "claimed", property(lambda self: 0))
    _is_noticed("scripts run on the 4 slots")


def test_free_slots_that_nobody_hears_of(plant: Plant) -> None:
    """Neither those who wait go for them, nor those who have them ask."""
    plant(Placer, "_claim", lambda self, peer: None)
    plant(Placer, "asked_for_work", lambda self, node_id, capacity: 0)
    plant(Placer, "_place_elsewhere", lambda self: None)
    plant(Placer, "learned", lambda self, node_id, capacity: None)
    _is_noticed("while jobs waited elsewhere", gateway=Gateway.ONE)


def test_a_failure_that_is_only_logged(plant: Plant, expected_failures: ExpectFailures) -> None:
    async def broken(self: Offering, *arguments: Any) -> None:
        raise RuntimeError("a bug")

    plant(Offering, "_offer", broken)
    _is_noticed("a failure was logged: .*a bug")
    expected_failures(RuntimeError)
