"""Waiting for something to happen, for a while, or not at all.

Invariant: a waiter is told at most once; a cancelled wait, or a stopped countdown, leaves nothing behind.
A declared failure of a call that nobody waits for is noted for debugging; any
other failure is logged as what it is, a bug.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

from attrs import Factory, define, field
from twisted.internet import defer
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from cloudmytask.boundaries import Clock, DelayedCall
from cloudmytask.model.errors import CloudMyTaskError

_log = Logger()
T = TypeVar("T")

PACE = 0.02
"""Seconds in which ``PARTS_MAX`` parts go without a wait: nobody who watches sees them as a delay."""
PARTS_MAX = 4

NO_ANSWER = (CloudMyTaskError, defer.TimeoutError)
"""What :func:`patiently` may raise."""


@define(eq=False)
class Signal:
    """``fire`` wakes everyone who waits at that moment."""

    _waiters: dict[int, Deferred[None]] = Factory(dict)
    _next: int = 0

    def wait(self) -> Deferred[None]:
        """Fires with the next :meth:`fire`. Cancelling it stops waiting."""
        self._next += 1
        number = self._next

        def forget(_: Deferred[None]) -> None:
            self._waiters.pop(number, None)

        waiter: Deferred[None] = Deferred(forget)
        self._waiters[number] = waiter
        return waiter

    def fire(self) -> None:
        """Wake the waiters, in the order in which they came."""
        waiters, self._waiters = self._waiters, {}
        for waiter in waiters.values():
            waiter.callback(None)


@define(eq=False)
class Countdown:
    """One call that is to come, or none."""

    _clock: Clock
    _call: DelayedCall | None = None

    @property
    def running(self) -> bool:
        """Whether it is still to come."""
        return self._call is not None and self._call.active()

    def start(self, seconds: float, function: Callable[..., object], *arguments: object) -> None:
        """Call ``function`` after so many seconds, instead of what was to come before."""
        self.stop()
        self._call = self._clock.callLater(seconds, function, *arguments)

    def stop(self) -> None:
        """Call nothing. Idempotent."""
        call, self._call = self._call, None
        if call is not None and call.active():
            call.cancel()


async def first_of(*events: Deferred[None]) -> Deferred[None]:
    """Wait for the first of several events; which one it was. The others are cancelled."""
    for event in events:
        event.addErrback(lambda failure: failure.trap(CancelledError) and None)
    _, index = await DeferredList(events, fireOnOneCallback=True)
    for event in events:
        event.cancel()
    return events[index]


def pause(clock: Clock, seconds: float) -> Deferred[None]:
    """Fires after so many seconds. Cancelling it ends the wait."""
    return deferLater(cast(IReactorTime, clock), seconds)  # it uses no more of it than our Clock has


@define(eq=False)
class Pace:
    """Slows down what comes in very many small parts, so that more gathers to the next; the first few go at once."""

    _clock: Clock
    _began: float = field(init=False, default=float("-inf"))
    _parts: int = field(init=False, default=0)

    async def part(self) -> None:
        """One has gone; returns when the next may."""
        now = self._clock.seconds()
        if now >= self._began + PACE:
            self._began, self._parts = now, 0
        self._parts += 1
        if self._parts >= PARTS_MAX:
            await pause(self._clock, self._began + PACE - now)


def patiently(clock: Clock, seconds: float, pending: Deferred[T]) -> Deferred[T]:
    """``pending``, or ``twisted.internet.defer.TimeoutError`` after so many seconds."""
    return pending.addTimeout(seconds, cast(IReactorTime, clock))  # it uses no more of it than our Clock has


def lightly(pending: Deferred[None]) -> None:
    """A word that is said again, or made up for, should it be lost."""

    def failed(failure: Failure) -> None:
        failure.trap(*NO_ANSWER)
        _log.debug("a peer was not told: {why}", why=failure.getErrorMessage())

    pending.addErrback(failed).addErrback(lambda failure: _log.failure("a peer was not told", failure=failure))
