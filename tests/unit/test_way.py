"""The trace of a job's way (benchmarks/way.py) counts what a job passes through, and nothing else."""

from __future__ import annotations

from benchmarks import way


def test_a_forwarded_job_goes_through_both_ends_and_a_local_one_does_not() -> None:
    local, forwarded = way.way_of(way.LOCAL), way.way_of(way.FORWARDED)
    there = ("node.remote.guests", "Guests.offered")
    assert there in forwarded.steps and there not in local.steps
    assert {"client.node_client", "node.jobs.acceptance", "node.running.executor"} <= set(local.modules)
    assert len(local.steps) < len(forwarded.steps) and local.deepest < 50
    assert not {module.split(".")[0] for module in forwarded.modules} & {"simulation", "cli"}


def test_what_is_pushed_need_not_be_asked_for() -> None:
    asked, pushed = way.way_of(way.FORWARDED), way.way_of(way.FORWARDED, pushed=True)
    assert asked.modules["wire.guard"] > pushed.modules["wire.guard"]


def test_the_table_shows_the_ways_beside_their_goals() -> None:
    lines: list[str] = []
    way.main([], lines.append)
    rows = "".join(lines).splitlines()
    assert rows[0].split() == ["local", "forwarded", "pushed", "goal"]
    assert rows[1].startswith("modules entered") and rows[1].split()[-1] == str(way.MODULES_MAX)
    assert rows[3].startswith("own calls") and rows[3].split()[-1] == str(way.CALLS_MAX)


def test_the_steps_name_each_module_where_it_is_first_entered() -> None:
    lines: list[str] = []
    way.main(["--steps"], lines.append)
    told = "".join(lines)
    assert "  client.node_client:NodeClient.submit\n" in told
    assert told.index("net.client_session:") < told.index("node.jobs.acceptance:Acceptance.submit")
