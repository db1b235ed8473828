"""The clock by which results expire: it counts time that was spent, whatever the wall clock says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudmytask.core.retention import DOWNTIME_MAX, RetentionClock, downtime, granted

HOUR, DAY = 3600.0, 86_400.0
durations = st.floats(0.0, 1e7)


def test_age_is_time_spent() -> None:
    clock = RetentionClock.resume(500.0, None, now=10.0, wall=1e9)
    assert [clock.read(now) for now in (10.0, 11.5, 70.0)] == [500.0, 501.5, 560.0]


@pytest.mark.parametrize(
    ("wall", "credited"),
    [
        pytest.param(1e9, 0.0, id="at once"),
        pytest.param(1e9 + 90.0, 90.0, id="after a while"),
        pytest.param(1e9 - HOUR, 0.0, id="the wall clock went back"),
        pytest.param(1e9 + HOUR, HOUR, id="the wall clock went forward, or an hour has passed"),
        pytest.param(1e9 + 7 * DAY + 1.0, DOWNTIME_MAX, id="a long sleep"),
        pytest.param(4e9, DOWNTIME_MAX, id="a battery that is empty"),
        pytest.param(0.0, 0.0, id="the epoch"),
    ],
)
def test_a_restart_is_credited_with_what_the_wall_clock_says(wall: float, credited: float) -> None:
    assert downtime(1e9, wall) == credited
    assert RetentionClock.resume(500.0, 1e9, now=3.0, wall=wall).read(4.0) == 500.0 + credited + 1.0


def test_without_a_checkpoint_nothing_is_credited() -> None:
    assert downtime(None, 1e9) == 0.0


@given(st.lists(st.tuples(durations, st.floats(-1e8, 1e8), st.booleans()), max_size=30))
def test_age_never_goes_back_and_never_counts_a_step_while_the_node_runs(
    course: list[tuple[float, float, bool]],
) -> None:
    """Time passes, the wall clock steps, and now and then the node starts again from its checkpoint."""
    spent, steps, restarts = 0.0, 0.0, 0
    wall, now = 1.7e9, 0.0
    clock = RetentionClock.resume(0.0, None, now, wall)
    age = 0.0
    for passed, step, restart in course:
        now, wall, spent = now + passed, wall + passed, spent + passed
        assert clock.read(now) >= age
        age = clock.read(now)
        checkpoint_at = wall
        wall += step
        if restart:
            restarts += 1
            steps += max(0.0, min(step, DOWNTIME_MAX))
            clock = RetentionClock.resume(age, checkpoint_at, now, wall)
    # the wall clock has no finer resolution than this at its size
    assert clock.read(now) == pytest.approx(spent + steps, abs=1e-3 * (1 + len(course)))


def test_a_clock_that_reads_an_earlier_moment_stands() -> None:
    assert RetentionClock(500.0, at=10.0).read(9.0) == 500.0


@pytest.mark.parametrize(
    ("asked", "expected"), [(None, 100.0), (5.0, 5.0), (200.0, 200.0), (1e9, 300.0), (0.001, 0.001)]
)
def test_what_is_granted(asked: float | None, expected: float) -> None:
    assert granted(asked, default=100.0, maximum=300.0) == expected


def test_a_default_above_the_maximum_is_cut_too() -> None:
    assert granted(None, default=100.0, maximum=50.0) == 50.0
