"""Work off the reactor: the store's own threads, what they are given, and the one that commits, with group commit.

Invariant: work given to one thread runs in the order in which it was given; Deferreds fire on the reactor thread only,
in the order in which their results came about. An operation's Deferred fires with success only after the commit that
holds it; one that fails leaves no trace and takes no other down with it.

Waiting for the disk costs the same for one operation as for hundreds. So the writer takes all that has gathered, makes
one transaction of it, and meanwhile the next lot gathers.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Generic, Protocol, TypeVar

from attrs import frozen
from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from cloudmytask.model.errors import StartFailed, StoreFailed, TooManyRequests
from cloudmytask.model.words import Resource
from cloudmytask.store.files import store_failed

T = TypeVar("T")


class Worker(Protocol):
    """Runs tasks one after the other, in order; a thread, or a test that goes step by step."""

    def do(self, task: Callable[[], None]) -> None:
        """Run ``task``, which raises nothing, after those given before. Does not wait for it. From any thread."""

    def stop(self) -> None:
        """End after what was given so far; nothing is given later."""


class ThreadWorker:
    """A :class:`Worker` that is a thread."""

    def __init__(self, name: str) -> None:
        """Start it.

        :raises StartFailed: the system starts no further thread.
        """
        self._tasks: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"store-{name}", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            raise StartFailed(f"The store's threads cannot be started: {error}.") from error

    def do(self, task: Callable[[], None]) -> None:
        self._tasks.put(task)

    def stop(self) -> None:
        self._tasks.put(None)

    def _run(self) -> None:
        while (task := self._tasks.get()) is not None:
            task()


MakeWorker = Callable[[str], Worker]
"""Makes the worker of that name."""


class ResultDelivery:
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
    """Calls functions in a worker. From the reactor thread only."""

    def __init__(
        self,
        worker: Worker,
        path: Path,
        delivery: ResultDelivery,
        at_end: Callable[[], object] = lambda: None,
        waiting_max: int | None = None,
    ) -> None:
        """Give ``worker`` nothing yet.

        :param path: what its work is about, for the sentences of failures.
        :param at_end: run in the worker as its last act.
        :param waiting_max: calls that may be unanswered at a time; None: any number.
        """
        self._worker = worker
        self._path = path
        self._delivery = delivery
        self._at_end = at_end
        self._waiting_max = waiting_max
        self._waiting = 0
        self._stopped: Deferred[None] | None = None

    @property
    def stopping(self) -> bool:
        """Whether :meth:`stop` was called."""
        return self._stopped is not None

    def call(self, function: Callable[[], T]) -> Deferred[T]:
        """Run ``function`` in the worker. What it raises fails the Deferred. Cancel the Deferred if nobody wants the
        answer any more: then a call that has not begun never does.

        :raises StoreFailed: the store is closed. :raises TooManyRequests: ``waiting_max`` are waiting.
        """
        if self._stopped is not None:
            return fail(StoreFailed("The store is closed."))
        deferred: Deferred[T] = Deferred()
        if self._waiting_max is not None:
            if self._waiting >= self._waiting_max:
                return fail(TooManyRequests(f"{self._waiting} questions wait for the store already; ask again later."))
            self._waiting += 1
            deferred.addBoth(self._answered)
        self._worker.do(partial(self._run, function, deferred))
        return deferred

    def stop(self) -> Deferred[None]:
        """Finish what was given so far, then end. To be called once."""
        self._stopped = stopped = Deferred[None]()
        self._worker.do(lambda: self._delivery.send([(stopped, outcome(self._at_end, self._path))]))
        self._worker.stop()
        return stopped

    def _run(self, function: Callable[[], T], deferred: Deferred[T]) -> None:
        if not deferred.called:
            self._delivery.send([(deferred, outcome(function, self._path))])

    def _answered(self, result: T) -> T:
        self._waiting -= 1
        return result


@frozen(eq=False)
class Operation(Generic[T]):
    """A change, to be made inside a transaction that the writer began. It may run a second time after a rollback."""

    apply: Callable[[sqlite3.Connection], T]
    slot: Hashable = None
    """What it overwrites as a whole: a later operation on the same slot makes ``apply`` superfluous. None: nothing."""
    apply_superseded: Callable[[sqlite3.Connection], T] | None = None
    """The part of ``apply`` that is needed nevertheless."""
    new_work: bool = False
    """Something that can as well be refused: it gets none of the room that is kept in reserve."""


@frozen(eq=False)
class _Submission:
    operation: Operation[Any]
    deferred: Deferred[Any]


class Writer(WorkThread):
    """Runs operations on ``connection``, which belongs to ``worker`` from now on; it closes it as its last act."""

    def __init__(
        self,
        worker: Worker,
        connection: sqlite3.Connection,
        path: Path,
        delivery: ResultDelivery,
        committed: Callable[[], object] = lambda: None,
        make_room: Callable[[], bool] = lambda: False,
    ) -> None:
        """Write nothing yet.

        :param committed: called after each commit, before anybody is told of it; if it raises, everybody is told that.
        :param make_room: called when the disk is full; whether it is worth another try.
        """
        super().__init__(worker, path, delivery, at_end=connection.close)
        self._committed = committed
        self._make_room = make_room
        self.commits = 0
        """Transactions committed so far."""
        self._connection = connection
        self._lock = threading.Lock()
        self._gathered: list[_Submission] = []

    def submit(self, operation: Operation[T]) -> Deferred[T]:
        """Fires with what the operation returned, once that is committed. From the reactor thread.

        :raises StoreFailed: the operation had no effect.
        """
        if self.stopping:
            return fail(StoreFailed("The store is closed."))
        deferred: Deferred[T] = Deferred()
        with self._lock:
            self._gathered.append(_Submission(operation, deferred))
            first = len(self._gathered) == 1
        if first:
            self._worker.do(self._commit_gathered)
        return deferred

    def _commit_gathered(self) -> None:
        with self._lock:
            batch, self._gathered = self._gathered, []
        self._delivery.send(zip((entry.deferred for entry in batch), self._commit(batch), strict=True))

    def _commit(self, batch: Sequence[_Submission]) -> list[object]:
        result = outcome(partial(self._transaction, _calls(batch)), self._path)
        if isinstance(result, list):
            return result
        if len(batch) == 1:
            if _is_full(result) and not batch[0].operation.new_work and self._make_room():
                return self._commit(batch)
            return [result]
        # somebody's operation failed: each for itself, so that only the guilty one pays
        return [self._commit([entry])[0] for entry in batch]

    def _transaction(self, calls: Sequence[Callable[[sqlite3.Connection], object]]) -> list[object]:
        connection = self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            results = [call(connection) for call in calls]
            connection.execute("COMMIT")
        except BaseException:
            # SQLite has rolled back by itself if the disk was full
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        self.commits += 1
        self._committed()
        return results


def _is_full(result: object) -> bool:
    problem = result.value if isinstance(result, Failure) else None
    return isinstance(problem, StoreFailed) and problem.resource is Resource.DISK


def _calls(batch: Sequence[_Submission]) -> list[Callable[[sqlite3.Connection], object]]:
    """What to run: of several operations on one slot only the last in full."""
    calls: list[Callable[[sqlite3.Connection], object]] = []
    taken: set[Hashable] = set()
    for entry in reversed(batch):
        operation = entry.operation
        if operation.slot in taken and operation.apply_superseded is not None:
            calls.append(operation.apply_superseded)
        else:
            calls.append(operation.apply)
        if operation.slot is not None:
            taken.add(operation.slot)
    calls.reverse()
    return calls


def outcome(function: Callable[[], object], path: Path) -> object:
    """What ``function`` returns, or a ``Failure`` with what it raised, to be carried to the thread that waits.

    What the operating system or SQLite has to say about ``path`` becomes the declared StoreFailed.
    """
    try:
        try:
            return function()
        except (OSError, sqlite3.Error) as error:
            raise store_failed(path, error) from error
    except Exception:  # noqa: BLE001 - it is the failure of the caller's Deferred
        return Failure()
