"""Threads of the store's own, so that the reactor never waits for a disk and a store closes without a reactor's pool.

Invariant: work given to one thread runs in the order in which it was given; Deferreds fire on the reactor thread only,
in the order in which their results came about.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from cloudmytask.model.errors import StoreFailed
from cloudmytask.store.files import store_failed

T = TypeVar("T")


class Delivery:
    """Carries results to the reactor thread: one ``call_from_thread`` for all that gathered meanwhile."""

    def __init__(self, call_from_thread: Callable[..., object]) -> None:
        self._call_from_thread = call_from_thread
        self._lock = threading.Lock()
        self._waiting: list[tuple[Deferred[Any], object]] = []

    def send(self, results: Iterable[tuple[Deferred[Any], object]]) -> None:
        """Fire each Deferred with its result (a ``Failure`` is an errback). From any thread."""
        with self._lock:
            on_the_way = bool(self._waiting)
            self._waiting.extend(results)
            call = bool(self._waiting) and not on_the_way
        if call:
            self._call_from_thread(self._deliver)

    def _deliver(self) -> None:
        with self._lock:
            results, self._waiting = self._waiting, []
        for deferred, result in results:
            if isinstance(result, Failure):
                deferred.errback(result)
            else:
                deferred.callback(result)


class WorkThread:
    """One thread that does what it is given, in order."""

    def __init__(self, name: str, path: Path, delivery: Delivery, at_end: Callable[[], object] = lambda: None) -> None:
        """
        :param path: what its work is about, for the sentences of failures.
        :param at_end: run in the thread as its last act.
        """
        self._path = path
        self._delivery = delivery
        self._queue: SimpleQueue[tuple[Callable[[], Any], Deferred[Any]] | None] = SimpleQueue()
        self._at_end = at_end
        self._stopped: Deferred[None] | None = None
        self._thread = threading.Thread(target=self._run, name=f"store-{name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def stopping(self) -> bool:
        """Whether :meth:`stop` was called."""
        return self._stopped is not None

    def call(self, function: Callable[[], T]) -> Deferred[T]:
        """Run ``function`` in the thread. What it raises fails the Deferred."""
        if self._stopped is not None:
            return fail(StoreFailed("The store is closed."))
        deferred: Deferred[T] = Deferred()
        self._queue.put((function, deferred))
        return deferred

    def stop(self) -> Deferred[None]:
        """Finish what was given so far, then end. To be called once."""
        self._stopped = Deferred()
        self._queue.put(None)
        return self._stopped

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            function, deferred = item
            self._delivery.send([(deferred, outcome(function, self._path))])
        assert self._stopped is not None
        self._delivery.send([(self._stopped, outcome(self._at_end, self._path))])


def outcome(function: Callable[[], object], path: Path) -> object:
    """What ``function`` returns, or a ``Failure`` with what it raised, to be carried to the thread that waits.

    What the operating system or SQLite has to say about ``path`` becomes the declared StoreFailed.
    """
    try:
        try:
            return function()
        except (OSError, sqlite3.Error) as error:
            raise store_failed(path, error) from error
    except Exception:  # noqa: BLE001 - whoever called gets it as its Deferred's failure
        return Failure()
