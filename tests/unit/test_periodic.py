"""What is done periodically goes on being done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from cloudmytask.periodic import every


@pytest.fixture
def clock() -> Any:
    return Clock()


def test_it_is_called_after_each_interval(clock: Any) -> None:
    called: list[tuple[float, str]] = []

    def call(word: str, *, end: str) -> None:
        called.append((clock.seconds(), word + end))

    every(clock, 2.0, call, "tick", end="!")
    assert called == []
    clock.pump([1.0] * 5)
    assert called == [(2.0, "tick!"), (4.0, "tick!")]


def test_an_error_is_logged_and_it_goes_on(clock: Any, expected_failures: Callable[..., list[Any]]) -> None:
    calls = 0

    def fail() -> None:
        nonlocal calls
        calls += 1
        raise ZeroDivisionError

    every(clock, 1.0, fail)
    clock.pump([1.0] * 3)
    assert calls == 3
    assert len(expected_failures(ZeroDivisionError)) == 3


def test_a_deferred_that_fails_is_logged_and_it_goes_on(
    clock: Any, expected_failures: Callable[..., list[Any]]
) -> None:
    pending: list[Deferred[None]] = []

    def begin() -> Deferred[None]:
        pending.append(Deferred())
        return pending[-1]

    every(clock, 1.0, begin)
    clock.advance(1.0)
    pending[0].errback(OSError("disk"))
    clock.advance(1.0)
    assert len(pending) == 2
    assert len(expected_failures(OSError)) == 1


def test_a_coroutine_that_fails_is_logged_and_it_goes_on(
    clock: Any, expected_failures: Callable[..., list[Any]]
) -> None:
    async def fail() -> None:
        raise KeyError

    every(clock, 1.0, fail)
    clock.pump([1.0, 1.0])
    assert len(expected_failures(KeyError)) == 2


def test_calls_do_not_overlap(clock: Any) -> None:
    began: list[float] = []
    pending: list[Deferred[None]] = []

    def begin() -> Deferred[None]:
        began.append(clock.seconds())
        pending.append(Deferred())
        return pending[-1]

    every(clock, 1.0, begin)
    clock.pump([0.5] * 7)
    assert began == [1.0]
    pending[0].callback(None)
    clock.pump([0.5] * 2)
    assert began == [1.0, 4.0], "the intervals that the first call filled are skipped, and the rhythm is kept"


def test_stop(clock: Any) -> None:
    called: list[None] = []
    periodic = every(clock, 1.0, called.append, None)
    clock.advance(1.0)
    periodic.stop()
    periodic.stop()
    clock.pump([1.0] * 3)
    assert len(called) == 1
    assert clock.getDelayedCalls() == []


def test_stop_from_within_the_call(clock: Any) -> None:
    called: list[float] = []

    def once() -> None:
        called.append(clock.seconds())
        periodic.stop()

    periodic = every(clock, 1.0, once)
    clock.pump([1.0] * 3)
    assert called == [1.0]


def test_stop_while_a_call_is_under_way(clock: Any) -> None:
    pending: Deferred[None] = Deferred()
    periodic = every(clock, 1.0, lambda: pending)
    clock.advance(1.0)
    periodic.stop()
    pending.callback(None)
    assert clock.getDelayedCalls() == []


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan")])
def test_an_interval_that_is_none(clock: Any, seconds: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        every(clock, seconds, print)
