"""One line on a terminal about a job that has not printed anything yet.

Invariant: it is gone before the first byte of output, and if standard error is no terminal it never was. The node
is asked once for each state of the job, of which it tells by itself; between them only the seconds are counted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred

from cloudmytask.cli.terminal.console import CLEAR, STDERR, columns
from cloudmytask.cli.terminal.escape import one_line
from cloudmytask.cli.terminal.output import OutputWriter
from cloudmytask.client import JobStatus, NodeClient
from cloudmytask.client.node_session import NodeSession
from cloudmytask.model.errors import CloudMyTaskError
from cloudmytask.model.job import JobId
from cloudmytask.periodic import Periodic, every

INTERVAL = 0.5
"""Seconds between two drawings."""


@define(eq=False)
class Progress:
    """Shown from half a second after :meth:`start` until :meth:`stop`."""

    _reactor: Any
    _node: NodeSession
    _writer: OutputWriter
    _columns: Callable[[], int] = lambda: columns(STDERR)
    _periodic: Periodic | None = field(init=False, default=None)
    _shown: bool = field(init=False, default=False)
    _watched_on: NodeClient | None = field(init=False, default=None)
    _unwatch: Callable[[], None] = field(init=False, default=lambda: None)
    _said: tuple[str, str] | None = field(init=False, default=None)
    """The job's state, and why it is in it."""

    def start(self, job_id: JobId) -> None:
        """Begin to look at the job."""
        began = self._reactor.seconds()
        self._periodic = every(
            self._reactor, INTERVAL, lambda: Deferred.fromCoroutine(self._draw(job_id, self._reactor.seconds() - began))
        )

    @property
    def begun(self) -> bool:
        """Whether it is being shown, or will be at the next drawing."""
        return self._periodic is not None

    def stop(self) -> None:
        """Erase the line. Idempotent."""
        if self._periodic is not None:
            self._periodic.stop()
            self._periodic = None
            self._unwatch()
        if self._shown:
            self._shown = False
            self._writer.write(STDERR, CLEAR)

    async def _draw(self, job_id: JobId, elapsed: float) -> None:
        client = self._node.client
        if client is not self._watched_on:  # at first, and after the connection was made again
            self._watched_on = client
            await self._watch(client, job_id)
        if self._periodic is not None and self._said is not None:
            state, why = self._said
            self._shown = True
            self._writer.write(STDERR, CLEAR + line(state, elapsed, why, self._columns()).encode())

    async def _watch(self, client: NodeClient, job_id: JobId) -> None:
        def changed(job: JobStatus) -> None:
            Deferred.fromCoroutine(self._explain(client, job)).addErrback(_told_elsewhere)

        try:
            job, unwatch = await client.watch(job_id, changed)
            if self._periodic is None:
                unwatch()
                return
            self._unwatch = unwatch
            await self._explain(client, job)
        except CloudMyTaskError:
            self._watched_on = None

    async def _explain(self, client: NodeClient, job: JobStatus) -> None:
        if self._periodic is not None:
            self._said = (job.state.value, (await client.explain(job.id)).sentence)


def _told_elsewhere(failure: Any) -> None:
    """The verb follows the job too, learns of it, and decides."""
    failure.trap(CloudMyTaskError)


def line(state: str, elapsed: float, sentence: str, columns: int) -> str:
    """What is shown, cut so that it stays one line on a terminal of that width."""
    text = one_line(f"cmt: {state} {elapsed:.0f} s: {sentence}")
    return text if len(text) < columns else text[: max(0, columns - 2)] + "…"
