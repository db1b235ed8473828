"""A network that is split in two: each part is a cluster, and what is whole again is one cluster with all bans."""

from __future__ import annotations

from tests.lab.cluster import Cluster, check_banned, check_whole
from tests.lab.waiting import until

ALL = (1, 2, 3, 4, 5)
SIDES = ((1, 2, 3), (4, 5))
NAMES = {"h1", "h2", "h3", "h4", "h5"}

SLOW = """
import os, sys, time
time.sleep(1)
print(sys.argv[1], os.environ["CMT_EXECUTOR"])
"""


def test_both_sides_of_a_split_work_and_become_one_again(cluster: Cluster) -> None:
    until(lambda: check_whole(cluster.views(ALL), NAMES))
    cluster.lan.switch.split(*SIDES)

    def apart() -> None:
        for side in SIDES:
            check_whole(cluster.views(side), {f"h{host}" for host in side})

    until(apart)
    # Nothing is sent to the other side, which looks idle; each does more than one node could at once.
    for side in SIDES:
        ids = cluster.submit(side[0], SLOW, count=4)
        assert cluster.cmt(side[0], "wait", *ids).code == 0
        results = [cluster.begin(side[0], "result", job_id) for job_id in ids]
        for number, result in enumerate(results):
            said, executor = result.completed().stdout.split()
            assert said == str(number)
            assert int(executor[1:]) in side
    cluster.text(1, "ban", "add", "--client", "mallory", "--reason", "far from the unit", "--for", "1h")
    until(lambda: check_banned(cluster, "mallory", "far from the unit", SIDES[0]))
    assert cluster.cmt(4, "submit", cluster.script(4, "pass"), client="mallory").code == 0

    cluster.lan.switch.heal()
    until(lambda: check_whole(cluster.views(ALL), NAMES))
    until(lambda: check_banned(cluster, "mallory", "far from the unit", ALL))
    done = cluster.cmt(1, "run", "--node", "h5", "--no-stdin", cluster.script(1, "print('across')"))
    assert (done.code, done.stdout) == (0, "across\n")
