"""How near placing comes to a central queue that knows everything, in the simulation: the real nodes in virtual time.

Load 0.95, heavy-tailed lengths of 2 s on average, four slots a node, all jobs at one node or spread evenly; the same
arrivals for both policies and for the central queue. One process runs one plan after the other.
Prints JSON; writes docs/benchmarks.md and benchmarks/figures.json if all sizes were run.
Usage: python -m benchmarks.placement [--nodes N ...] [--jobs N] [--seed N]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

from attrs import evolve, frozen

from benchmarks.reporting import Figure, record
from cloudmytask.core.placement import PAPER, RESERVE_PULL
from cloudmytask.simulation.arrivals import Gateway, Lengths
from cloudmytask.simulation.cluster import ClusterRun
from cloudmytask.simulation.cluster_plan import ClusterPlan
from cloudmytask.simulation.figures import ClusterFigures

JOBS = {16: 6000, 64: 10_000, 256: 14_000}
"""By size: as many as ten minutes allow. The longest job is 180 times the mean: these clusters are still filling up."""
GOALS = {Gateway.ONE: 1.03, Gateway.EVEN: 1.06}
JUDGED = {Gateway.ONE: (16, 64, 256), Gateway.EVEN: (16, 64)}
"""The sizes that the goals are for."""


@frozen
class Pair:
    """Both policies on the same arrivals."""

    plan: ClusterPlan
    ours: ClusterFigures
    paper: ClusterFigures
    seconds: float
    """That simulating both took."""

    def figure(self) -> Figure:
        """The ratio to the central queue, beside its goal."""
        size, gateway = self.plan.nodes, self.plan.gateway
        ours, paper = self.ours, self.paper
        goal = GOALS[gateway] if size in JUDGED[gateway] else None
        note = (
            f"{self.plan.jobs} jobs: slowdown {ours.cluster.mean:.3f}, central queue {ours.ideal.mean:.3f}, `paper`"
            f" {paper.cluster.mean:.3f}, which is {paper.cluster.mean / ours.cluster.mean:.2f} x; p99"
            f" {ours.cluster.p99:.2f}, {ours.ideal.p99:.2f}, {paper.cluster.p99:.2f}; forwards a job"
            f" {ours.forwards_per_job:.2f}, `paper` {paper.forwards_per_job:.2f}"
        )
        where = "one gateway" if gateway is Gateway.ONE else "even arrivals"
        return Figure(
            f"mean slowdown by the central queue's, {size} nodes, {where}",
            ours.ratio,
            "x",
            "" if goal is None else f"<= {goal}",
            goal is None or ours.ratio <= goal,
            note,
        )

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "nodes": self.plan.nodes,
            "gateway": self.plan.gateway,
            "jobs": self.plan.jobs,
            "seed": self.plan.seed,
            "seconds": round(self.seconds, 1),
            "factor over paper": self.paper.cluster.mean / self.ours.cluster.mean,
            "reserve-pull": self.ours.document(),
            "paper": self.paper.document(),
        }


def compare(plan: ClusterPlan) -> Pair:
    """Run the plan with both policies. :raises Violation: the simulation found a fault."""
    began = time.monotonic()
    ours = ClusterRun(plan).run()
    paper = ClusterRun(evolve(plan, policy=PAPER)).run()
    return Pair(plan, ours, paper, time.monotonic() - began)


def main() -> None:
    """Simulate, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--nodes", type=int, nargs="+", default=list(JOBS))
    parser.add_argument("--jobs", type=int, help=f"instead of {JOBS} by size")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    pairs: list[Pair] = []
    for nodes in given.nodes:
        for gateway in GOALS:
            plan = ClusterPlan(
                seed=given.seed,
                nodes=nodes,
                jobs=given.jobs or JOBS.get(nodes, 100 * nodes),
                length=2.0,
                lengths=Lengths.HEAVY,
                gateway=gateway,
                policy=RESERVE_PULL,
            )
            pairs.append(compare(plan))
            print(f"{pairs[-1].figure()}; {pairs[-1].seconds:.0f} s", file=sys.stderr, flush=True)
    print(json.dumps([each.document() for each in pairs], indent=1))
    if given.jobs is None and given.nodes == list(JOBS):
        record("placement", [each.figure() for each in pairs])


if __name__ == "__main__":
    main()
