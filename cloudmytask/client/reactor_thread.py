"""A reactor for programs that have none: it runs in one background thread, started with the first use.

Invariant: blocking callers wait outside the reactor's thread, can be interrupted by Ctrl-C, and then leave nothing
running on their behalf. A program whose reactor runs already keeps it; its other threads may block, its own may not.
"""

from __future__ import annotations

import atexit
import sys
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from cloudmytask import reactor as monotonic

T = TypeVar("T")
Work = Callable[[Any], Coroutine[Deferred[Any], Any, T]]

_start = threading.Lock()
_thread: threading.Thread | None = None


def run(work: Work[T]) -> T:
    """Run ``work(reactor)`` on the reactor and wait for its result.

    :raises RuntimeError: the caller is on the reactor's own thread, which must never wait.
    """
    reactor = _running_reactor()
    if threading.get_ident() == getattr(reactor, "threadID", None) or (
        _thread is not None and threading.current_thread() is _thread
    ):
        raise RuntimeError("the blocking Client cannot be used on the reactor's thread; use cloudmytask.client.connect")
    outcome: Future[T] = Future()
    begun: list[Deferred[T]] = []

    def begin() -> None:
        started = Deferred.fromCoroutine(work(reactor))
        begun.append(started)
        started.addCallbacks(outcome.set_result, _failed)

    def _failed(failure: Failure) -> None:
        assert failure.value is not None
        outcome.set_exception(failure.value)

    reactor.callFromThread(begin)
    try:
        return outcome.result()
    except KeyboardInterrupt:
        reactor.callFromThread(lambda: begun[0].cancel() if begun else None)
        raise


def _running_reactor() -> Any:
    global _thread
    with _start:
        reactor: Any = sys.modules.get("twisted.internet.reactor")
        if reactor is None or not reactor.running:
            monotonic.install()
            from twisted.internet import reactor
        if not reactor.running and _thread is None:
            up = threading.Event()
            reactor.callWhenRunning(up.set)
            _thread = threading.Thread(
                target=reactor.run, kwargs={"installSignalHandlers": False}, name="cloudmytask-reactor", daemon=True
            )
            _thread.start()
            up.wait()
            atexit.register(_stop, reactor, _thread)
        return reactor


def _stop(reactor: Any, thread: threading.Thread) -> None:
    reactor.callFromThread(lambda: reactor.stop() if reactor.running else None)
    thread.join(5.0)
