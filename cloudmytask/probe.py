"""How busy this machine is with other things than our scripts.

Invariant: :meth:`load` and :meth:`cpu` are shares in 0..1 or None, cost nothing, and change only by :meth:`sample`,
which the shell calls at a steady interval.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Protocol

import psutil
from attrs import define, field

from cloudmytask.listeners import Listeners

LOAD_WINDOW = 5.0
"""Seconds: the time constant of the moving average (design section 2)."""
SAMPLE_INTERVAL = 1.0
"""Seconds between two calls of ``sample``."""


class CpuTimes(Protocol):
    """CPU seconds since boot by what they were spent on, as :func:`psutil.cpu_times` gives them."""

    @property
    def idle(self) -> float: ...
    @property
    def iowait(self) -> float: ...
    @property
    def guest(self) -> float: ...
    @property
    def guest_nice(self) -> float: ...
    def __iter__(self) -> Iterator[float]: ...


@define(eq=False)
class CpuProbe:
    """Implements :class:`cloudmytask.boundaries.LoadProbe` by the machine's CPU counters.

    :ivar read: the counters' present values.
    :ivar own_jobs: the share of the machine's CPU, 0..1, that this node's scripts are estimated to use now.
    :ivar interval: seconds between two samples.
    """

    _read: Callable[[], CpuTimes] = psutil.cpu_times
    _own_jobs: Callable[[], float] = field(default=lambda: 0.0)
    _interval: float = SAMPLE_INTERVAL
    _last: tuple[float, float] | None = field(init=False, default=None)
    _foreign: float | None = field(init=False, default=None)
    _busy: float | None = field(init=False, default=None)
    sampled: Listeners[[]] = field(init=False, factory=Listeners)
    """Told after each sample."""

    def sample(self) -> None:
        """Take the time since the last sample into the average; the first sample only begins to count."""
        times = self._read()
        # proc(5), /proc/stat: the time of guests is contained in user and nice as well
        total = sum(times) - times.guest - times.guest_nice
        idle = times.idle + times.iowait
        if self._last is not None and total > self._last[0]:
            busy = _share(1.0 - (idle - self._last[1]) / (total - self._last[0]))
            # an estimate above what was used must not make up for load at another time
            self._foreign = self._averaged(self._foreign, max(0.0, busy - self._own_jobs()))
            self._busy = self._averaged(self._busy, busy)
        self._last = (total, idle)
        self.sampled.tell()

    def load(self) -> float | None:
        """The average over the last seconds; None until there are two samples."""
        return None if self._foreign is None else _share(self._foreign)

    def cpu(self) -> float | None:
        """Like :meth:`load`, this node's scripts included."""
        return None if self._busy is None else _share(self._busy)

    def _averaged(self, before: float | None, now: float) -> float:
        weight = 1.0 - math.exp(-self._interval / LOAD_WINDOW)
        return now if before is None else before + weight * (now - before)


class NoProbe:
    """Implements :class:`cloudmytask.boundaries.LoadProbe` if load is not measured (``load_source = "none"``)."""

    def __init__(self) -> None:
        self.sampled: Listeners[[]] = Listeners()

    def sample(self) -> None:
        """There is nothing to measure."""

    def load(self) -> float | None:
        """Unknown."""
        return None

    def cpu(self) -> float | None:
        """Unknown."""
        return None


def _share(value: float) -> float:
    """The counters of a virtual machine do not always add up."""
    return min(1.0, max(0.0, value))
