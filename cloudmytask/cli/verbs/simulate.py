"""``cmt simulate``: a whole cluster in this process and in virtual time, and what it achieved.

Invariant: no node is needed and none is touched; the same options give the same figures.
"""

from __future__ import annotations

import os
import time
from typing import Any

from cloudmytask.cli.failures import UsageError
from cloudmytask.cli.terminal.console import CLEAR, STDERR, Console, write
from cloudmytask.cli.terminal.tables import aligned
from cloudmytask.model.errors import CloudMyTaskError
from cloudmytask.simulation.arrivals import Gateway, Lengths
from cloudmytask.simulation.cluster import ClusterRun
from cloudmytask.simulation.cluster_plan import ClusterPlan
from cloudmytask.simulation.invariants import Violation


class InvariantViolated(CloudMyTaskError):
    """Something happened in the simulated cluster that must never happen."""


def simulate(console: Console, **options: Any) -> int:
    """Simulate a whole cluster in virtual time, and print its figures.

    :param options: the fields of :class:`~cloudmytask.simulation.cluster_plan.ClusterPlan`.
    """
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
