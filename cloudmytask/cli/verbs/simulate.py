"""``cmt simulate``: a whole cluster in this process and in virtual time, and what it achieved.

Invariant: no node is needed and none is touched; the same options give the same figures.
"""

from __future__ import annotations

import os
import time
from typing import Any

import click

from cloudmytask.cli.failures import UsageError
from cloudmytask.cli.option_types import duration
from cloudmytask.cli.terminal.console import CLEAR, STDERR, Console, write
from cloudmytask.cli.terminal.jobs import aligned
from cloudmytask.cli.verb import verb
from cloudmytask.core.placement import POLICIES, RESERVE_PULL
from cloudmytask.model.errors import CloudMyTaskError


class InvariantViolated(CloudMyTaskError):
    """Something happened in the simulated cluster that must never happen."""


def _share(text: str) -> float:
    """``10%`` or ``0.1``."""
    try:
        share = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a share, such as 10% or 0.1") from None
    if not 0.0 <= share <= 1.0:
        raise click.BadParameter(f"{text!r} is not between 0% and 100%")
    return share


@verb(short_help="Simulate a whole cluster, and print its figures.")
@click.option("--nodes", type=click.IntRange(1, 10_000), default=16, show_default=True, help="How many nodes.")
@click.option("--slots", type=click.IntRange(1, 4096), default=4, show_default=True, help="Slots of each node.")
@click.option("--jobs", type=click.IntRange(1, 10_000_000), default=2000, show_default=True, help="How many jobs.")
@click.option(
    "--load",
    type=click.FloatRange(0.0, 100.0, min_open=True),
    default=0.95,
    show_default=True,
    help="The work that arrives, by what all slots can do.",
)
@click.option("--length", type=duration, default="1s", show_default=True, help="Of a job, on average.")
@click.option(
    "--lengths",
    type=click.Choice(["constant", "heavy"]),
    default="constant",
    show_default=True,
    help="All jobs alike, or a few jobs most of the work.",
)
@click.option(
    "--gateway",
    type=click.Choice(["one", "even"]),
    default="even",
    show_default=True,
    help="Jobs are submitted to one node, or to all.",
)
@click.option(
    "--policy", type=click.Choice(POLICIES), default=RESERVE_PULL, show_default=True, help="How jobs are placed."
)
@click.option(
    "--kill",
    type=_share,
    default="0%",
    show_default=True,
    metavar="SHARE",
    help="Share of the nodes that are killed and started again.",
)
@click.option("--partitions", type=click.IntRange(0, 1000), default=0, help="How often the network falls in two.")
@click.option("--seed", type=int, default=1, show_default=True, help="Another one gives another course of events.")
def simulate(console: Console, **options: Any) -> int:
    """Simulate a whole cluster in virtual time, and print its figures beside those of a central queue that knows
    everything. The nodes are the real ones; clock, network, disks and scripts are not.

    \b
    Example:  cmt simulate --nodes 100 --jobs 20000 --load 0.95 --kill 10% --seed 7
    """
    from cloudmytask.simulation.arrivals import Gateway, Lengths
    from cloudmytask.simulation.cluster import ClusterRun
    from cloudmytask.simulation.cluster_plan import ClusterPlan
    from cloudmytask.simulation.invariants import Violation

    if not options["length"] > 0:
        raise UsageError("--length is 0 and must be longer")
    lengths, gateway = Lengths(options.pop("lengths")), Gateway(options.pop("gateway"))
    plan = ClusterPlan(lengths=lengths, gateway=gateway, **options)
    shown = not console.quiet and os.isatty(STDERR)
    began = time.monotonic()

    def progress(done: int, jobs: int) -> None:
        if shown:
            write(STDERR, CLEAR + f"cmt: {done} of {jobs} jobs done, {time.monotonic() - began:.0f} s".encode())

    try:
        figures = ClusterRun(plan, progress).run()
    except Violation as violation:
        raise InvariantViolated(f"{violation} (seed {plan.seed})") from violation
    finally:
        if shown:
            write(STDERR, CLEAR)
    elapsed = time.monotonic() - began
    if console.as_json:
        console.document({**figures.document(), "seed": plan.seed, "elapsed": elapsed})
        return 0
    console.data(aligned(figures.rows()))
    console.note(
        f"{figures.duration:.0f} virtual seconds of {plan.nodes} nodes in {elapsed:.1f} s;"
        f" seed {plan.seed}, trace {figures.trace[:12]}"
    )
    return 0
