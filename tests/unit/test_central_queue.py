"""The clairvoyant queue, against sums that can be done by hand and against queueing theory."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudmytask.simulation.figures import central_queue, figures, quantile

JOBS = st.lists(st.tuples(st.floats(0, 100), st.floats(0.01, 50)), max_size=60).map(sorted)


def test_jobs_wait_for_the_first_free_slot() -> None:
    jobs = [(0.0, 10.0), (0.0, 3.0), (1.0, 1.0), (2.0, 4.0), (20.0, 1.0)]
    assert central_queue(jobs, 2) == [10.0, 3.0, 4.0, 8.0, 21.0]


def test_figures_by_hand() -> None:
    jobs = [(5.0, 2.0), (5.0, 2.0), (6.0, 1.0)]
    found = figures(jobs, central_queue(jobs, 1))
    assert (found.jobs, found.p50, found.p99, found.makespan) == (3, 2.0, 4.0, 5.0)
    assert found.mean == pytest.approx((1 + 2 + 4) / 3)
    assert figures(jobs, central_queue(jobs, 1), skip=2).mean == 4.0


def test_no_jobs_have_no_slowdown() -> None:
    found = figures([], central_queue([], 1))
    assert found.jobs == 0 and math.isnan(found.mean) and math.isnan(found.p99) and found.makespan == 0.0


@pytest.mark.parametrize(("slots", "jobs", "match"), [(0, [], "slots is 0"), (1, [(2.0, 1.0), (1.0, 1.0)], "job 1")])
def test_nonsense_is_refused(slots: int, jobs: list[tuple[float, float]], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        central_queue(jobs, slots)


@given(JOBS, st.integers(1, 8))
def test_no_slot_idles_while_a_job_waits(jobs: list[tuple[float, float]], slots: int) -> None:
    ends = central_queue(jobs, slots)
    starts = [end - length for end, (_, length) in zip(ends, jobs, strict=True)]
    for number, ((arrival, _), start) in enumerate(zip(jobs, starts, strict=True)):
        assert start >= arrival - 1e-9
        busy = sum(a - 1e-9 <= start < b - 1e-9 for a, b in zip(starts[:number], ends[:number], strict=True))
        assert busy < slots
        if start > arrival + 1e-9:
            just_before = start - 1e-9
            at_work = sum(a <= just_before <= b for a, b in zip(starts[:number], ends[:number], strict=True))
            assert at_work >= slots
    assert starts == pytest.approx(sorted(starts)), "first come, first served"


def test_waiting_as_theory_says() -> None:
    """M/M/4 at load 0.8: Erlang's C formula gives a mean wait of 1.491 for lengths of mean 2."""
    dice = random.Random(1)
    now, jobs = 0.0, []
    for _ in range(200_000):
        now += dice.expovariate(0.8 * 4 / 2.0)
        jobs.append((now, dice.expovariate(0.5)))
    waits = [end - arrival - length for end, (arrival, length) in zip(central_queue(jobs, 4), jobs, strict=True)]
    assert sum(waits) / len(waits) == pytest.approx(1.491, rel=0.05)


@given(st.lists(st.floats(0, 1), min_size=1).map(sorted), st.floats(0.01, 1))
def test_quantiles(values: list[float], share: float) -> None:
    found = quantile(values, share)
    assert sum(value <= found for value in values) >= share * len(values) * (1 - 1e-12)
    assert sum(value < found for value in values) < share * len(values)
