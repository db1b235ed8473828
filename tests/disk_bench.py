"""A store on a real disk, for tests.

The thread that runs a test plays the reactor thread: it takes in what the store's threads hand over.
"""

from __future__ import annotations

import itertools
import sqlite3
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

from twisted.internet.defer import Deferred

from cloudmytask.boundaries import JobStore
from cloudmytask.model.job import Blob
from cloudmytask.store.opened import Opened
from cloudmytask.store.schema import STEPS, Step
from cloudmytask.store.sqlite_store import SqliteStore
from cloudmytask.store.threads import Operation
from tests.store_conformance import brought_to_an_end, upload

T = TypeVar("T")


class DiskBench:
    """A store in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.now = 0.0
        self.calls_from_threads = 0
        self._handed_over: SimpleQueue[Callable[[], object]] = SimpleQueue()
        self._node_ids = itertools.count()
        self.store = self.open()

    def open(self, steps: tuple[Step, ...] = tuple(STEPS)) -> SqliteStore:
        self.store = store = self.make(steps)
        store.open()
        # the search for damage hands over too, which would upset those who count
        self.result(store.checked)
        return store

    def make(self, steps: tuple[Step, ...] = tuple(STEPS)) -> SqliteStore:
        """A store that is not open yet."""
        return SqliteStore(
            self.directory,
            call_from_thread=self._hand_over,
            new_node_id=lambda: f"{next(self._node_ids):032x}",
            monotonic=lambda: self.now,
            wall=lambda: 1_700_000_000.0 + self.now,
            steps=steps,
        )

    def _hand_over(self, function: Callable[[], object]) -> None:
        self.calls_from_threads += 1
        self._handed_over.put(function)

    def result(self, deferred: Deferred[T]) -> T:
        return brought_to_an_end(deferred, lambda: self._handed_over.get(timeout=60)())

    def restart(self) -> JobStore:
        self.result(self.store.close())
        return self.open()

    def elapse(self, seconds: float) -> None:
        self.now += seconds

    def staged(self, path: str) -> Mapping[str, bytes]:
        return {entry.name: entry.read_bytes() for entry in Path(path).iterdir()}

    @property
    def parts(self) -> Opened:
        """The insides of the store."""
        return self.store._parts

    def pause_writer(self) -> threading.Event:
        """Keep the writer's thread busy until the event is set."""
        busy, go = threading.Event(), threading.Event()

        def wait(_: sqlite3.Connection) -> None:
            busy.set()
            assert go.wait(60)

        self.parts.writer.submit(Operation(wait))
        assert busy.wait(60)
        return go

    def execute(self, statement: str, *parameters: object) -> list[Any]:
        """Behind the store's back."""
        connection = sqlite3.connect(self.directory / "jobs.sqlite")
        try:
            with connection:
                return connection.execute(statement, parameters).fetchall()
        finally:
            connection.close()

    def upload(self, data: bytes) -> Blob:
        """Bring a large blob."""
        return upload(self, data)

    def blob_file(self, blob: Blob) -> Path:
        return self.directory / "blobs" / blob.digest[:2] / blob.digest
