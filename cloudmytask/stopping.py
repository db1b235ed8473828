"""Ends one script when its time is over or the node says so: a request first, force after a grace.

Invariant: the first reason stands, and nothing is scheduled before :meth:`Stopping.begin` and after
:meth:`Stopping.end`.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field

from cloudmytask.boundaries import Clock, DelayedCall, Launch
from cloudmytask.model.job import Reason


@define(eq=False)
class Stopping:
    """
    :ivar terminate: asks the script to end.
    :ivar kill: leaves it no choice.
    :ivar reason: what it was stopped for; None if it was not.
    """

    _clock: Clock
    _launch: Launch
    _terminate: Callable[[], None]
    _kill: Callable[[], None]
    reason: Reason | None = field(init=False, default=None)
    _alive: bool = field(init=False, default=False)
    _next: DelayedCall | None = field(init=False, default=None)
    """The deadline, then the end of the grace."""

    def begin(self) -> None:
        """The script has started: its time runs."""
        self._alive = True
        if self._launch.deadline is not None:
            self._next = self._clock.callLater(self._launch.deadline, self.stop, Reason.TIMEOUT)

    def stop(self, reason: Reason) -> None:
        """See ``boundaries.Running``."""
        if not self._alive or self.reason is not None:
            return
        self.reason = reason
        self._cancel()
        self._terminate()
        if self._alive:
            self._next = self._clock.callLater(self._launch.kill_grace, self._kill)

    def end(self) -> None:
        """It has ended, or is not ours to end any more. Idempotent."""
        self._alive = False
        self._cancel()

    def _cancel(self) -> None:
        if self._next is not None and self._next.active():
            self._next.cancel()
