"""Five nodes and a CSU on five hosts, that nobody told of each other, are one cluster, and people notice no seam."""

from __future__ import annotations

import json

from cloudmytask.model.errors import ExitCode
from tests.lab.cluster import CSU_PORT, NODE_PORT, Cluster, check_banned, check_whole
from tests.lab.waiting import until

ALL = (1, 2, 3, 4, 5)

# It outlasts the start of eight clients on a busy machine: the jobs have to be there at once.
SLOW = """
import os, sys, time
print("got", sys.argv[1])
time.sleep(4)
print("ran on", os.environ["CMT_EXECUTOR"])
"""


def test_all_find_each_other_and_form_one_tree(cluster: Cluster) -> None:
    until(lambda: check_whole(cluster.views(ALL), {"h1", "h2", "h3", "h4", "h5"}))
    for host, name in ((1, "h5"), (5, "h1")):
        node = cluster.views([host])[host][name]
        assert node["address"] == f"{cluster.lan.address(int(name[1:]))}:{NODE_PORT}"
        assert (node["slots"], node["free"], node["waiting"]["total"]) == (2, 2, 0)
        # Nobody is to overlook that there are no certificates.
        assert node["insecure"] is True


def test_all_see_the_supervisory_unit(cluster: Cluster) -> None:
    expected = [("csu", "alive", f"{cluster.lan.address(5)}:{CSU_PORT}")]

    def seen() -> None:
        begun = [cluster.begin(host, "nodes", "--json") for host in ALL]
        for done in [each.completed() for each in begun]:
            shown = json.loads(done.stdout)["nodes"]
            units = [(each["name"], each["state"], each["address"]) for each in shown if each["role"] == "csu"]
            assert units == expected, done

    until(seen)


def test_a_burst_at_one_node_runs_on_many_and_its_outputs_come_back(cluster: Cluster) -> None:
    until(lambda: check_whole(cluster.views([1]), cluster.names))
    ids = cluster.submit(1, SLOW, count=8)
    assert cluster.cmt(1, "wait", *ids, patience=60).code == 0
    jobs = {job["id"]: job for job in cluster.json(1, "ps", "--all")["jobs"]}
    executors = {jobs[each]["executor"] for each in ids}
    assert len(executors) >= 3, executors
    assert {jobs[each]["origin"] for each in ids} == {"h1"}
    begun = {each: cluster.begin(1, "result", each) for each in ids}
    for number, (each, result) in enumerate(begun.items()):
        done = result.completed()
        assert (done.code, done.stdout) == (0, f"got {number}\nran on {jobs[each]['executor']}\n")


def test_a_job_on_another_node_is_like_one_here(cluster: Cluster) -> None:
    until(lambda: check_whole(cluster.views([1]), cluster.names))
    source = (
        "import os, sys; print(os.environ['CMT_EXECUTOR'], sys.stdin.read()); print('e', file=sys.stderr); sys.exit(3)"
    )
    done = cluster.cmt(1, "run", "--node", "h3", "--no-stdin", cluster.script(1, source))
    assert (done.code, done.stdout) == (3, "h3 \n")
    assert "e\n" in done.stderr
    job = cluster.json(1, "ps")["jobs"][0]
    assert (job["state"], job["executor"], job["origin"], job["exit_code"]) == ("failed", "h3", "h1", 3)
    assert cluster.cmt(1, "logs", "last").stdout == "h3 \n"
    assert "h3" in cluster.text(1, "why", "last")


def test_cancel_reaches_the_script_on_another_node(cluster: Cluster) -> None:
    until(lambda: check_whole(cluster.views([2]), cluster.names))
    marker = "waits for its end"
    [job_id] = cluster.submit(2, f"import time; print({marker!r}, flush=True); time.sleep(600)", "--node", "h4")

    def prints() -> None:
        assert cluster.text(2, "logs", job_id) == f"{marker}\n"

    until(prints)
    busy = {each.pid for each in cluster.lan.processes(4)}
    cluster.text(2, "cancel", job_id)
    assert cluster.job(2, job_id)["state"] == "cancelled"
    assert {each.pid for each in cluster.lan.processes(4)} < busy


def test_a_ban_holds_on_every_node_and_ends_everywhere_when_it_is_lifted(cluster: Cluster) -> None:
    until(lambda: check_whole(cluster.views(ALL), cluster.names))
    cluster.text(2, "ban", "add", "--client", "mallory", "--reason", "floods us", "--for", "1h")
    until(lambda: check_banned(cluster, "mallory", "floods us", ALL))
    # Another client is served, and the banned one is refused on his own host too, whichever way he comes.
    assert cluster.text(3, "run", "--no-stdin", cluster.script(3, "print('served')")) == "served\n"
    remote = f"{cluster.lan.address(4)}:{NODE_PORT}"
    done = cluster.cmt(1, "--via", remote, "submit", cluster.script(1, "pass"), client="mallory")
    assert done.code == ExitCode.DENIED, done
    assert [each["client"] for each in cluster.json(5, "ban", "ls")["bans"]] == ["mallory"]

    cluster.text(4, "ban", "rm", "mallory")

    def lifted() -> None:
        begun = [cluster.begin(host, "submit", cluster.script(host, "pass"), client="mallory") for host in ALL]
        for done in [each.completed() for each in begun]:
            assert done.code == 0, done

    until(lifted)


def test_nobody_bans_over_the_network(cluster: Cluster) -> None:
    remote = f"{cluster.lan.address(4)}:{NODE_PORT}"
    done = cluster.cmt(1, "--via", remote, "ban", "add", "--client", "tester", "--reason", "rogue")
    assert done.code == ExitCode.DENIED, done
    assert cluster.json(4, "ban", "ls")["bans"] == []
