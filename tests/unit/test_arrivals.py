"""Arrivals of simulated jobs."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudmytask.simulation.plan import SPREAD, Gateway, Lengths, bounded_pareto, poisson_arrivals


def _arrivals(seed: int = 1, **options: Any) -> list[Any]:
    return poisson_arrivals(random.Random(seed), **{"jobs": 20_000, "nodes": 5, "slots": 4, "load": 0.9, **options})


@pytest.mark.parametrize("lengths", Lengths)
def test_the_work_is_the_load_that_was_asked_for(lengths: Lengths) -> None:
    found = _arrivals(mean=3.0, lengths=lengths, jobs=200_000)
    assert sum(each.length for each in found) / len(found) == pytest.approx(3.0, rel=0.1)
    assert found[-1].at == pytest.approx(200_000 * 3.0 / (0.9 * 20), rel=0.02)
    assert [each.at for each in found] == sorted(each.at for each in found)


def test_gateways() -> None:
    assert {each.node for each in _arrivals(gateway=Gateway.ONE)} == {0}
    counts = Counter(each.node for each in _arrivals(gateway=Gateway.EVEN))
    assert sorted(counts) == [0, 1, 2, 3, 4] and min(counts.values()) > 3_700


def test_equal_seeds_give_equal_arrivals() -> None:
    assert _arrivals(7, lengths=Lengths.HEAVY) == _arrivals(7, lengths=Lengths.HEAVY) != _arrivals(8)


@hypothesis.settings(max_examples=10)
@given(st.floats(0.001, 1000))
def test_heavy_tailed_lengths(mean: float) -> None:
    """A midpoint sum over the whole distribution; its ends are ``SPREAD`` apart."""
    steps = 20_000
    total = sum(bounded_pareto((step + 0.5) / steps, mean) for step in range(steps))
    assert total / steps == pytest.approx(mean, rel=0.01)
    assert bounded_pareto(1.0, mean) / bounded_pareto(0.0, mean) == pytest.approx(SPREAD)


@pytest.mark.parametrize("name", ["jobs", "nodes", "slots", "load", "mean"])
def test_nonsense_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is 0 "):
        _arrivals(**{name: 0})
