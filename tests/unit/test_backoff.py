"""Delays before another try."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cloudmytask.core.backoff import RETRY, Backoff

backoffs = st.builds(Backoff, first=st.floats(0.01, 10.0), factor=st.floats(1.0, 4.0), ceiling=st.floats(10.0, 1000.0))


def test_delays_double_up_to_a_minute() -> None:
    assert [RETRY.delay(failures, 0.0) for failures in range(1, 9)] == [1, 2, 4, 8, 16, 32, 60, 60]


def test_jitter_takes_away_up_to_a_quarter() -> None:
    assert [RETRY.delay(3, jitter) for jitter in (0.0, 0.5, 1.0)] == [4.0, 3.5, 3.0]


@given(backoffs, st.integers(1, 10**9), st.floats(0.0, 1.0))
def test_delays_stay_within_their_bounds(backoff: Backoff, failures: int, jitter: float) -> None:
    delay = backoff.delay(failures, jitter)
    assert 0.75 * min(backoff.first, backoff.ceiling) <= delay <= backoff.ceiling
    assert backoff.delay(failures + 1, jitter) >= delay
    assert backoff.delay(failures, 0.0) >= delay
