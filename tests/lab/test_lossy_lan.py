"""Networks that carry only some of what is sent: seeds and the tree take the place of multicast."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.lab.cluster import NODE_PORT, Cluster, check_whole, serving
from tests.lab.lan import Lan
from tests.lab.waiting import until

ALL = (1, 2, 3, 4, 5)
NAMES = {"h1", "h2", "h3", "h4", "h5"}

# It outlasts an offer to a node whose answers are lost (5 s), so that such an offer does not keep the work at home.
SLOW = """
import os, time
time.sleep(8)
print(os.environ["CMT_EXECUTOR"])
"""


@pytest.fixture(scope="module")
def nodes(lan: Lan) -> Iterator[Cluster]:
    """Of their seed, the second is nobody; multicast carries nothing from the start."""
    lan.switch.lose(traffic="multicast")
    with serving(lan, "--seeds", f"{lan.address(1)}:{NODE_PORT},{lan.address(99)}:{NODE_PORT}") as made:
        yield made


def _spreads(cluster: Cluster, host: int) -> None:
    """More than one node can do at once is handed on, and all of it comes back."""
    ids = cluster.submit(host, SLOW, count=4)
    assert cluster.cmt(host, "wait", *ids, patience=60).code == 0
    results = [cluster.begin(host, "result", job_id) for job_id in ids]
    executors = {each.completed().stdout for each in results}
    assert executors <= {f"{name}\n" for name in NAMES}
    assert len(executors) >= 2, executors


def _hears_on(cluster: Cluster, host: int, name: str) -> None:
    """Several announcements of that node arrive from now on, whichever way."""

    def sequence() -> int:
        node = cluster.views([host])[host][name]
        return int(node["sequence"])

    begun = sequence()

    def grown() -> None:
        assert sequence() >= begun + 3

    until(grown)


def test_without_multicast_nodes_find_each_other_by_a_seed(cluster: Cluster) -> None:
    until(lambda: check_whole(cluster.views(ALL), NAMES))
    _hears_on(cluster, 5, "h4")
    # The last host hears the unit, which is there too.
    begun = [cluster.begin(host, "nodes", "--json") for host in ALL[:-1]]
    assert [json.loads(each.completed().stdout)["bus"]["heard"] for each in begun] == [0] * 4
    _spreads(cluster, 5)


def test_a_node_that_hears_no_multicast_knows_all_by_the_tree(cluster: Cluster) -> None:
    cluster.lan.switch.heal()
    cluster.lan.switch.lose(receivers=[4], traffic="multicast")
    for other in sorted(NAMES - {"h4"}):
        _hears_on(cluster, 4, other)
    until(lambda: check_whole(cluster.views(ALL), NAMES))
    _spreads(cluster, 4)


def test_two_nodes_of_which_one_does_not_hear_the_other_stay_in_one_cluster(cluster: Cluster) -> None:
    cluster.lan.switch.heal()
    until(lambda: check_whole(cluster.views(ALL), NAMES))
    cluster.lan.switch.lose(senders=[2], receivers=[4])
    _hears_on(cluster, 4, "h2")

    def whole_without_that_link() -> None:
        views = cluster.views(ALL)
        check_whole(views, NAMES)
        assert views[1]["h2"]["id"] not in views[1]["h4"]["neighbors"]

    until(whole_without_that_link)
    _spreads(cluster, 2)
    _spreads(cluster, 4)


def test_heavy_loss_delays_but_does_not_divide(cluster: Cluster) -> None:
    cluster.lan.switch.heal()
    cluster.lan.switch.lose(20)
    _spreads(cluster, 3)
    until(lambda: check_whole(cluster.views(ALL), NAMES), 60)
