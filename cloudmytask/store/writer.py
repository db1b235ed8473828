"""The one thread that writes to the database, with group commit.

Invariant: an operation's Deferred fires with success only after the commit that holds it; operations take effect in
the order in which they were submitted; one that fails leaves no trace and takes no other down with it.

Waiting for the disk costs the same for one operation as for hundreds. So the thread takes all that has gathered,
makes one transaction of it, and meanwhile the next lot gathers.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from attrs import frozen
from twisted.internet.defer import Deferred, fail

from cloudmytask.model.errors import StoreFailed
from cloudmytask.store.threads import Delivery, outcome

T = TypeVar("T")


@frozen(eq=False)
class Operation(Generic[T]):
    """A change, to be made inside a transaction that the writer began. It may run a second time after a rollback."""

    apply: Callable[[sqlite3.Connection], T]
    slot: Hashable = None
    """What it overwrites as a whole: a later operation on the same slot makes ``apply`` superfluous. None: nothing."""
    apply_superseded: Callable[[sqlite3.Connection], T] | None = None
    """The part of ``apply`` that is needed nevertheless."""


@frozen(eq=False)
class _Entry:
    operation: Operation[Any]
    deferred: Deferred[Any]


class Writer:
    """Runs operations on ``connection``, which is its own from :meth:`start` on."""

    def __init__(self, connection: sqlite3.Connection, path: Path, delivery: Delivery) -> None:
        self.commits = 0
        """Transactions committed so far."""
        self._connection = connection
        self._path = path
        self._delivery = delivery
        self._changed = threading.Condition()
        self._gathered: list[_Entry] = []
        self._stopped: Deferred[None] | None = None
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def submit(self, operation: Operation[T]) -> Deferred[T]:
        """Fires with what the operation returned, once that is committed. From the reactor thread.

        :raises StoreFailed: the operation had no effect.
        """
        if self._stopped is not None:
            return fail(StoreFailed("The store is closed."))
        deferred: Deferred[T] = Deferred()
        with self._changed:
            self._gathered.append(_Entry(operation, deferred))
            self._changed.notify()
        return deferred

    def stop(self) -> Deferred[None]:
        """Commit what was submitted, close the connection, end the thread. To be called once."""
        stopped: Deferred[None] = Deferred()
        with self._changed:
            self._stopped = stopped
            self._changed.notify()
        return stopped

    def _run(self) -> None:
        while batch := self._take():
            self._delivery.send(zip((entry.deferred for entry in batch), self._commit(batch), strict=True))
        assert self._stopped is not None
        self._delivery.send([(self._stopped, outcome(self._connection.close, self._path))])

    def _take(self) -> list[_Entry]:
        """All that has gathered, as soon as there is something; nothing at the end."""
        with self._changed:
            while not self._gathered and self._stopped is None:
                self._changed.wait()
            batch, self._gathered = self._gathered, []
        return batch

    def _commit(self, batch: Sequence[_Entry]) -> list[object]:
        result = outcome(partial(self._transaction, _calls(batch)), self._path)
        if isinstance(result, list):
            return result
        if len(batch) == 1:
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
            # SQLite has rolled back by itself where the disk was full
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        self.commits += 1
        return results


def _calls(batch: Sequence[_Entry]) -> list[Callable[[sqlite3.Connection], object]]:
    """What to run: of several operations on one slot only the last in full."""
    calls: list[Callable[[sqlite3.Connection], object]] = []
    taken: set[Hashable] = set()
    for entry in reversed(batch):
        operation = entry.operation
        superseded = operation.slot is not None and operation.slot in taken and operation.apply_superseded is not None
        if superseded:
            assert operation.apply_superseded is not None
            calls.append(operation.apply_superseded)
        else:
            calls.append(operation.apply)
        taken.add(operation.slot)
    calls.reverse()
    return calls
