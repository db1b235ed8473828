"""The reactor that every entry point runs: epoll(7) on monotonic time.

Twisted's reactors follow the wall clock, so that a step of it fires timers at once or freezes them for as long.

Invariant: after :func:`install` the global reactor's ``seconds`` is ``time.monotonic``, or it raised.
"""

from __future__ import annotations

import sys
import time

from twisted.internet.base import ReactorBase
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.main import installReactor

from cloudmytask.model.errors import StartFailed


class MonotonicReactor(EPollReactor):
    """epoll(7), with ``seconds`` and so every timer on CLOCK_MONOTONIC."""

    seconds = staticmethod(time.monotonic)


def install() -> None:
    """Make the global reactor run on monotonic time. Idempotent.

    To be called before anything imports ``twisted.internet.reactor``. Where a runner has installed a reactor before
    (``twistd --reactor=poll``), that one is kept and its clock replaced, which is sound as long as it has neither run
    nor taken a timer: no time of the old clock exists in it yet.

    :raises StartFailed: a reactor is there already whose clock can no longer be replaced.
    """
    present: object = sys.modules.get("twisted.internet.reactor")
    if present is None:
        # It inherits a constructor without annotations.
        installReactor(MonotonicReactor())  # type: ignore[no-untyped-call]
    elif getattr(present, "seconds", None) is not time.monotonic:
        _adopt(present)


def _adopt(reactor: object) -> None:
    if not isinstance(reactor, ReactorBase) or reactor.running or reactor.getDelayedCalls():
        raise StartFailed(
            f"The reactor {type(reactor).__name__} is in use already and follows the wall clock; call"
            " cloudmytask.reactor.install() before anything imports twisted.internet.reactor."
        )
    # An instance attribute: timers ask their reactor's `seconds`, so they all follow.
    vars(reactor)["seconds"] = time.monotonic
