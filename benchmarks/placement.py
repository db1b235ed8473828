"""How near placing comes to a central queue that knows everything, in the simulation: the real nodes in virtual time.

Load 0.95, heavy-tailed lengths of 2 s on average, four slots a node, all jobs at one node or spread evenly; the same
arrivals for both policies and for the central queue. So that the cluster need not fill up first, for which the
longest jobs would take minutes, the first jobs are what is left of those that would be running already; and jobs that
would outlast the arrivals by far are cut short, when nothing arrives any more that they could hold up.
Prints JSON; writes a section for each size in docs/benchmarks.md and benchmarks/figures.json, unless --jobs is given.
Usage: python -m benchmarks.placement [--nodes N ...] [--jobs N] [--seed N]
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from typing import Any

from attrs import evolve, frozen

from benchmarks.reporting import Figure, record
from cloudmytask.model.words import PAPER, RESERVE_PULL
from cloudmytask.simulation.cluster import ClusterRun
from cloudmytask.simulation.figures import ClusterFigures
from cloudmytask.simulation.plan import SPREAD, TAIL, ClusterPlan, Gateway, Lengths, bounded_pareto
from cloudmytask.simulation.workload import Case

LENGTH = 2.0
"""Mean, seconds."""
SLOTS = 4
LOAD = 0.95
JOBS = {16: 6000, 64: 10_000, 256: 10_000}
"""By size, besides those at the beginning: about as many as half an hour allows."""
REST = 20.0
"""Seconds after the last arrival for which the longest jobs go on."""
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
            f"{ours.cluster.jobs} jobs: slowdown {ours.cluster.mean:.3f}, central queue {ours.ideal.mean:.3f}, `paper`"
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
    ours, paper = simulated(plan), simulated(evolve(plan, policy=PAPER))
    return Pair(plan, ours, paper, time.monotonic() - began)


def planned(nodes: int, gateway: Gateway, jobs: int, seed: int) -> ClusterPlan:
    """So many jobs besides those at the beginning, of which a tenth does not count either."""
    return ClusterPlan(
        seed=seed,
        nodes=nodes,
        slots=SLOTS,
        jobs=running(nodes) + jobs,
        load=LOAD,
        length=LENGTH,
        lengths=Lengths.HEAVY,
        gateway=gateway,
        policy=RESERVE_PULL,
        warm=(running(nodes) + 0.1 * jobs) / (running(nodes) + jobs),
    )


def running(nodes: int) -> int:
    """Jobs that run at any moment on average, by Little's law; so many arrive within a mean length."""
    return round(LOAD * SLOTS * nodes)


def simulated(plan: ClusterPlan) -> ClusterFigures:
    """A cluster that is as full at the beginning as it is later."""
    run = ClusterRun(plan)
    settle(run.workload.cases, running(plan.nodes), random.Random(plan.seed))
    return run.run()


def settle(cases: list[Case], first: int, dice: random.Random) -> None:
    """See the module: give the first cases what is left of running jobs, and cut the longest."""
    end = cases[-1].arrival.at + REST
    for case in cases[:first]:
        case.arrival = evolve(case.arrival, length=max(0.01, dice.random() * met(dice.random())))
    for case in cases:
        case.arrival = evolve(case.arrival, length=min(case.arrival.length, end - case.arrival.at))


def met(chance: float) -> float:
    """The length that a share ``chance`` of the jobs found running do not exceed: a job is found the likelier the
    longer it is."""
    shortest = bounded_pareto(0.0, LENGTH)
    return float(shortest * (1.0 + chance * (SPREAD ** (1.0 - TAIL) - 1.0)) ** (1.0 / (1.0 - TAIL)))


def main() -> None:
    """Simulate, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--nodes", type=int, nargs="+", default=list(JOBS), choices=list(JOBS))
    parser.add_argument("--jobs", type=int, help=f"instead of {JOBS} by size")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    pairs: list[Pair] = []
    for nodes in given.nodes:
        for gateway in GOALS:
            pairs.append(compare(planned(nodes, gateway, given.jobs or JOBS[nodes], given.seed)))
            print(f"{pairs[-1].figure()}; {pairs[-1].seconds:.0f} s", file=sys.stderr, flush=True)
        if given.jobs is None:
            record(f"placement-{nodes}", [each.figure() for each in pairs if each.plan.nodes == nodes])
    print(json.dumps([each.document() for each in pairs], indent=1))


if __name__ == "__main__":
    main()
