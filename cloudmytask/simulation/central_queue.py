"""The clairvoyant comparison: one central first-come-first-served queue over all slots of a cluster, without latency.

No placement can know more than it does, so its figures are what a cluster's are measured against.

Invariant: a job starts at its arrival if a slot is free, and otherwise when the first slot becomes free after all
earlier jobs have one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from heapq import heapreplace

from attrs import frozen


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
