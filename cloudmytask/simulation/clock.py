"""Virtual time: ``IReactorTime`` over a heap.

Invariant: calls run in order of their time, those of one time in the order in which they were scheduled; while a call
runs, ``seconds()`` is its time. Nothing else moves the clock.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from typing import Any

from attrs import define, field


@define(eq=False)
class Timer:
    """A scheduled call (the part of ``IDelayedCall`` that anyone uses)."""

    time: float
    _function: Callable[..., object]
    _arguments: tuple[Any, ...]
    _keywords: dict[str, Any]
    _active: bool = field(init=False, default=True)

    def active(self) -> bool:
        """Whether it is still to come."""
        return self._active

    def cancel(self) -> None:
        """It will not happen, and nothing is kept for it. Unlike Twisted's, a late call does nothing."""
        self._active = False
        self._function, self._arguments, self._keywords = _nothing, (), {}

    def run(self) -> None:
        """Now."""
        self._active = False
        self._function(*self._arguments, **self._keywords)


def _nothing() -> None:
    """In place of a call that was cancelled."""


@define(eq=False)
class VirtualClock:
    """The clock of a simulation; ``offset`` is where its wall clock stands at its beginning, UTC seconds."""

    offset: float = 1_700_000_000.0
    _now: float = field(init=False, default=0.0)
    _heap: list[tuple[float, int, Timer]] = field(init=False, factory=list)
    _numbers: count[int] = field(init=False, factory=count)

    def seconds(self) -> float:
        """Seconds since the beginning of the simulation."""
        return self._now

    def wall(self) -> float:
        """UTC seconds; moved by steps of :attr:`offset`, as an administrator or NTP would."""
        return self._now + self.offset

    def callLater(self, delay: float, function: Callable[..., object], *args: Any, **kwargs: Any) -> Timer:
        """Twisted's interface."""
        assert delay >= 0, f"{delay} is in the past"
        timer = Timer(self._now + delay, function, args, kwargs)
        heappush(self._heap, (timer.time, next(self._numbers), timer))
        return timer

    def step(self) -> bool:
        """Run the earliest call; whether there was one."""
        time = self._next()
        if time is None:
            return False
        timer = heappop(self._heap)[2]
        self._now = max(self._now, time)
        timer.run()
        return True

    def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass, one call at a time."""
        end = self._now + seconds
        while (time := self._next()) is not None and time <= end:
            self.step()
        self._now = max(self._now, end)

    def _next(self) -> float | None:
        """When the earliest call is due that was not cancelled."""
        while self._heap and not self._heap[0][2].active():
            heappop(self._heap)
        return self._heap[0][0] if self._heap else None


@define(eq=False)
class Lifetime:
    """A clock that dies with its owner: after :meth:`end` nothing that was scheduled through it happens any more."""

    _clock: VirtualClock
    _ended: bool = field(init=False, default=False)

    def seconds(self) -> float:
        """As the clock behind it."""
        return self._clock.seconds()

    def callLater(self, delay: float, function: Callable[..., object], *args: Any, **kwargs: Any) -> Timer:
        """Twisted's interface."""

        def unless_ended() -> None:
            if not self._ended:
                function(*args, **kwargs)

        return self._clock.callLater(delay, unless_ended)

    def end(self) -> None:
        """As if the process had been killed."""
        self._ended = True
