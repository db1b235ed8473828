"""What a simulated cluster achieved, against a central queue that knows everything.

The comparison is one first-come-first-served queue over all slots, without latency: a job starts at its arrival if a
slot is free, and otherwise when the first slot becomes free after all earlier jobs have one. No placement does better.

Invariant: pure; the same run gives the same figures, apart from the seconds that computing it took.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from heapq import heapreplace
from typing import Any

from attrs import asdict, frozen


@frozen
class Figures:
    """How a list of jobs fared. The slowdown of a job is its response time divided by its length."""

    jobs: int
    mean: float
    """Of the slowdowns; not a number if there were no jobs."""
    p50: float
    p99: float
    makespan: float
    """Seconds from the first arrival to the last end."""


def central_queue(jobs: Iterable[tuple[float, float]], slots: int) -> list[float]:
    """When each job ends.

    :param jobs: ``(arrival, length)`` in seconds, in the order of their arrivals.
    :param slots: at least 1, of all nodes together.
    :raises ValueError: there is no slot, or a job arrives before the one that precedes it.
    """
    if slots < 1:
        raise ValueError(f"slots is {slots} and must be at least 1")
    free = [-math.inf] * slots
    ends: list[float] = []
    latest = -math.inf
    for arrival, length in jobs:
        if arrival < latest:
            raise ValueError(f"job {len(ends)} arrives at {arrival}, before the one that precedes it, at {latest}")
        latest = arrival
        end = max(arrival, free[0]) + length
        heapreplace(free, end)
        ends.append(end)
    return ends


def figures(jobs: Sequence[tuple[float, float]], ends: Sequence[float], *, skip: int = 0) -> Figures:
    """Sum up how jobs fared.

    :param jobs: ``(arrival, length)`` in seconds; lengths are more than 0.
    :param ends: when each of them ended.
    :param skip: leave out so many jobs at the beginning, while the cluster was still filling up; they count for the
        makespan all the same.
    """
    slowdowns = sorted((end - arrival) / length for (arrival, length), end in list(zip(jobs, ends, strict=True))[skip:])
    return Figures(
        jobs=len(slowdowns),
        mean=math.fsum(slowdowns) / len(slowdowns) if slowdowns else math.nan,
        p50=quantile(slowdowns, 0.5),
        p99=quantile(slowdowns, 0.99),
        makespan=max(ends) - min(arrival for arrival, _ in jobs) if ends else 0.0,
    )


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest of the sorted ``values`` that at least ``share`` (0..1) of them do not exceed; not a number if there
    are none."""
    return values[max(0, math.ceil(share * len(values)) - 1)] if values else math.nan


@frozen
class ClusterFigures:
    """The figures of one run. Times in virtual seconds."""

    nodes: int
    slots: int
    """Of each node."""
    jobs: int
    """Accepted."""
    succeeded: int
    refused: int
    """Submissions that no node accepted."""
    cluster: Figures
    ideal: Figures
    """The same jobs in a central queue without latency."""
    utilization: float
    """Share of all slots' time, from the first arrival to the last end, that went into attempts that succeeded."""
    forwards_per_job: float
    """Offers that were accepted, by jobs."""
    refusals_per_job: float
    messages_per_job: float
    """Pieces sent over all links, by jobs."""
    announcements: float
    """For each node and second."""
    executions: int
    """Scripts that were started."""
    kills: int
    longest_idle: float
    """The longest time that a node had a free slot while jobs waited elsewhere."""
    duration: float
    """From the start to the last end."""
    trace: str
    """Equal for equal runs: a digest over what happened and when."""

    @property
    def executed_again(self) -> int:
        """Executions beyond the first of each job that succeeded."""
        return max(0, self.executions - self.succeeded)

    @property
    def ratio(self) -> float:
        """Mean slowdown by that of the central queue."""
        return self.cluster.mean / self.ideal.mean

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "executed_again": self.executed_again, "ratio": self.ratio}

    def rows(self) -> list[tuple[str, str, str]]:
        """What people read: a label, the cluster's figure, and the central queue's where it has one."""
        mine, best = self.cluster, self.ideal
        return [
            ("", "CLUSTER", "CENTRAL QUEUE"),
            ("jobs done", f"{self.succeeded} of {self.jobs}", f"{best.jobs}"),
            ("slowdown, mean", f"{mine.mean:.3f}  ({self.ratio:.3f} x)", f"{best.mean:.3f}"),
            ("slowdown, median", f"{mine.p50:.3f}", f"{best.p50:.3f}"),
            ("slowdown, p99", f"{mine.p99:.3f}", f"{best.p99:.3f}"),
            ("makespan", f"{mine.makespan:.1f} s", f"{best.makespan:.1f} s"),
            ("utilization", f"{self.utilization:.1%}", ""),
            ("forwards per job", f"{self.forwards_per_job:.3f}", ""),
            ("refusals per job", f"{self.refusals_per_job:.3f}", ""),
            ("messages per job", f"{self.messages_per_job:.1f}", ""),
            ("announcements", f"{self.announcements:.2f} /node/s", ""),
            ("idle beside waiting", f"{self.longest_idle:.2f} s at most", ""),
            ("nodes killed", f"{self.kills}", ""),
            ("executed again", f"{self.executed_again}", ""),
            ("refused", f"{self.refused}", ""),
        ]
