"""Our standard output and standard error, as a script's output is written to them: exactly, at once, in order.

Invariant: the reactor never waits for the reader of our output. A thread does; each piece tells when it is written, and
the node sends no more than a window's worth ahead of that.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread

from attrs import define, field
from twisted.internet.defer import Deferred

from cloudmytask.cli.failures import OutputFailed
from cloudmytask.cli.terminal.console import STDERR, STDOUT, write
from cloudmytask.cli.terminal.escape import Escaper
from cloudmytask.model.job import StreamName

DESCRIPTORS = {StreamName.STDOUT: STDOUT, StreamName.STDERR: STDERR}


@define(eq=False)
class OutputWriter:
    """One thread that writes; it ends with the process.

    :ivar call_from_thread: the reactor's.
    :ivar failed: called once, in the reactor, with the first failure to write. Later pieces for that descriptor are
        thrown away.
    :ivar failure: that failure.
    """

    _call_from_thread: Callable[..., object]
    _failed: Callable[[OutputFailed], object] | None = None
    failure: OutputFailed | None = field(init=False, default=None)
    _pieces: SimpleQueue[tuple[int, bytes, Deferred[None]]] = field(init=False, factory=SimpleQueue)
    _thread: Thread | None = field(init=False, default=None)
    _broken: set[int] = field(init=False, factory=set)

    def write(self, descriptor: int, data: bytes) -> Deferred[None]:
        """Write a piece; fires when ``data`` and all that came before it is written, or thrown away."""
        if self._thread is None:
            self._thread = Thread(target=self._run, name="cmt output", daemon=True)
            self._thread.start()
        written: Deferred[None] = Deferred()
        self._pieces.put((descriptor, data, written))
        return written

    def flush(self) -> Deferred[None]:
        """Fires when all that came before is written, or thrown away."""
        return self.write(STDOUT, b"")

    def _run(self) -> None:
        while True:
            descriptor, data, written = self._pieces.get()
            if descriptor not in self._broken:
                try:
                    write(descriptor, data)
                except OutputFailed as problem:
                    self._broken.add(descriptor)
                    self._call_from_thread(self._fail, problem)
            self._call_from_thread(_fire, written)

    def _fail(self, problem: OutputFailed) -> None:
        if self.failure is None:
            self.failure = problem
            if self._failed is not None:
                self._failed(problem)


def _fire(written: Deferred[None]) -> None:
    if not written.called:
        written.callback(None)


@define(eq=False)
class Display:
    """Shows a job's two streams: exact bytes, but escaped on a terminal unless ``raw``."""

    _writer: OutputWriter
    _raw: bool
    _escapers: dict[StreamName, Escaper] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._escapers = {
            stream: Escaper() for stream, descriptor in DESCRIPTORS.items() if not self._raw and os.isatty(descriptor)
        }

    def take(self, stream: StreamName, data: bytes) -> Deferred[None]:
        """The next piece of one stream; fires when it is written."""
        escaper = self._escapers.get(stream)
        return self._writer.write(DESCRIPTORS[stream], data if escaper is None else escaper.feed(data))

    def end(self) -> Deferred[None]:
        """One attempt's output is complete; fires when it is written."""
        for stream, escaper in self._escapers.items():
            self._writer.write(DESCRIPTORS[stream], escaper.end())
        return self._writer.flush()
