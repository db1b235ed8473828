"""SIGTERM and SIGINT: the first begins an orderly end, a further one ends it at once.

Twisted's own handlers stop the reactor each time, and the second time that is an error.

Invariant: a signal that this process was started to ignore (``nohup``, a background job of a script) stays ignored.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType

from twisted.logger import Logger

_log = Logger()


def on_termination(call_from_thread: Callable[..., object], arrived: Callable[[], object]) -> None:
    """Have ``arrived`` called in the reactor for each SIGTERM and SIGINT, instead of what Twisted does.

    To be called in the main thread once the reactor runs, because it installs its handlers as it starts.
    """

    def received(number: int, _frame: FrameType | None) -> None:
        call_from_thread(_report, number, arrived)

    for number in (signal.SIGTERM, signal.SIGINT):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, received)


def _report(number: int, arrived: Callable[[], object]) -> None:
    _log.info("received {signal}", signal=signal.Signals(number).name)
    arrived()
