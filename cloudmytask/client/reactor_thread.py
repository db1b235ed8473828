"""A reactor for programs that have none: it runs in one background thread, started with the first use.

Invariant: blocking callers wait outside the reactor's thread, can be interrupted by Ctrl-C, and then leave nothing
running on their behalf; none waits for a reactor that will not answer any more. A program whose reactor runs already
keeps it; its other threads may block, its own may not.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.error import ReactorNotRestartable
from twisted.python.failure import Failure
from twisted.python.threadable import isInIOThread

from cloudmytask import reactor as monotonic
from cloudmytask.model.errors import ConnectionInterrupted

T = TypeVar("T")
Work = Callable[[Any], Coroutine[Deferred[Any], Any, T]]


class ReactorGone(RuntimeError):
    """This process has no reactor any more: it has stopped, or it runs in the process that this one was forked from."""


@define(eq=False)
class _Home:
    """The reactor that calls run in, and the calls that wait for it.

    :ivar thread: the one that we started for it; None where the program runs it.
    """

    reactor: Any
    thread: threading.Thread | None = None
    _lock: threading.Lock = field(init=False, factory=threading.Lock)
    _waiting: set[Future[Any]] = field(init=False, factory=set)
    _ended: bool = field(init=False, default=False)

    def enter(self, outcome: Future[Any]) -> None:
        """Have ``outcome`` fail if the reactor stops first. :raises ReactorGone: it has stopped already."""
        with self._lock:
            if self._ended:
                raise ReactorGone(
                    "the client cannot be used any more: this process's reactor has stopped, and starts only once"
                )
            self._waiting.add(outcome)

    def leave(self, outcome: Future[Any]) -> None:
        """It is not waited for any longer."""
        with self._lock:
            self._waiting.discard(outcome)

    def end(self) -> None:
        """The reactor is about to stop. On its thread, like all that settles an outcome. Idempotent."""
        with self._lock:
            self._ended = True
            waiting, self._waiting = self._waiting, set()
        for outcome in waiting:
            _settle(outcome, ConnectionInterrupted("the reactor was stopped before the answer came"))


_start = threading.Lock()
_home: _Home | None = None
_inherited = False
"""Whether a reactor ran when this process was forked: its thread is not here, its descriptors are shared."""


def run(work: Work[T]) -> T:
    """Run ``work(reactor)`` on the reactor and wait for its result.

    :raises ReactorGone: nothing runs on it any more. :raises ConnectionInterrupted: it stopped meanwhile.
    :raises TypeError: ``work`` returns no coroutine.
    :raises RuntimeError: the caller is on the reactor's own thread, which must never wait.
    """
    home = _running()
    reactor = home.reactor
    if reactor.running and isInIOThread():
        raise RuntimeError("the blocking Client cannot be used on the reactor's thread; use cloudmytask.client.connect")
    outcome: Future[T] = Future()
    begun: list[Deferred[T]] = []

    def begin() -> None:
        try:
            started = Deferred.fromCoroutine(work(reactor))
        except Exception:  # noqa: BLE001 - it is the caller's to learn
            _settle(outcome, Failure())
            return
        begun.append(started)
        started.addBoth(partial(_settle, outcome))

    home.enter(outcome)
    try:
        reactor.callFromThread(begin)
        return outcome.result()
    except BaseException:
        if not outcome.done():  # the wait was interrupted, by Ctrl-C or by what another signal's handler raised
            reactor.callFromThread(lambda: begun[0].cancel() if begun else None)
        raise
    finally:
        home.leave(outcome)


def _settle(outcome: Future[T], result: T | Failure | Exception) -> None:
    """The first word counts."""
    if outcome.done():
        return
    if isinstance(result, Failure):
        assert result.value is not None
        outcome.set_exception(result.value)
    elif isinstance(result, Exception):
        outcome.set_exception(result)
    else:
        outcome.set_result(result)


def _running() -> _Home:
    global _home
    if _inherited:
        raise ReactorGone(
            "the client cannot be used in a process that was forked from one that used it: start the process afresh,"
            ' as by multiprocessing.get_context("spawn")'
        )
    with _start:
        if _home is None:
            _home = _settle_in()
        return _home


def _settle_in() -> _Home:
    reactor: Any = sys.modules.get("twisted.internet.reactor")
    if reactor is None or not reactor.running:
        monotonic.install()
        from twisted.internet import reactor
    home = _Home(reactor)
    reactor.addSystemEventTrigger("before", "shutdown", home.end)
    if not reactor.running:
        up = threading.Event()
        reactor.callWhenRunning(up.set)
        home.thread = threading.Thread(target=_main, args=(home, up), name="cloudmytask-reactor", daemon=True)
        home.thread.start()
        up.wait()
        atexit.register(_stop, home)
    return home


def _main(home: _Home, up: threading.Event) -> None:
    try:
        home.reactor.run(installSignalHandlers=False)
    except ReactorNotRestartable:
        pass  # the program ran it before: those who enter are told
    finally:
        home.end()
        up.set()


def _stop(home: _Home) -> None:
    if not _inherited and home.thread is not None:
        home.reactor.callFromThread(lambda: home.reactor.stop() if home.reactor.running else None)
        home.thread.join(5.0)


def _forked() -> None:
    global _inherited
    _start.release()
    reactor: Any = sys.modules.get("twisted.internet.reactor")
    _inherited = _inherited or (reactor is not None and reactor.running)


# Nobody forks while a reactor is being started: the child could not tell whose it is.
os.register_at_fork(before=_start.acquire, after_in_parent=_start.release, after_in_child=_forked)
