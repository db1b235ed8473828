"""Something that is done again and again, and goes on being done.

Invariant: an error in one call is logged and never ends the series; a bare ``LoopingCall`` ends for ever with the
first. Calls do not overlap: one that returns a Deferred is waited for, and the intervals it fills are skipped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, cast

from attrs import define
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from cloudmytask.boundaries import Clock

_log = Logger()
P = ParamSpec("P")


@define(eq=False)
class Periodic:
    """A series of calls; made by :func:`every`."""

    _calls: LoopingCall

    def stop(self) -> None:
        """Start no further call; one that is under way is left to end. Idempotent."""
        if self._calls.running:
            self._calls.stop()


def every(clock: Clock, seconds: float, f: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> Periodic:
    """Call ``f(*args, **kwargs)`` every ``seconds`` seconds, for the first time after one interval.

    :param seconds: the interval, counted from this call, so that it does not drift; more than 0.
    :param f: may return a Deferred or be a coroutine function; its result is ignored.
    :raises ValueError: the interval is not positive.
    """
    if not seconds > 0:
        raise ValueError(f"an interval of {seconds} seconds is not positive")

    def contained() -> Deferred[object]:
        return maybeDeferred(f, *args, **kwargs).addErrback(failed)

    def failed(failure: Failure) -> None:
        _log.failure("periodic call of {f} failed; it will be called again", failure=failure, f=f)

    calls = LoopingCall(contained)
    calls.clock = cast(IReactorTime, clock)  # it uses no more of it than our Clock has
    calls.start(seconds, now=False)
    return Periodic(calls)
