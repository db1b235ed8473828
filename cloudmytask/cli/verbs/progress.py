"""One line on a terminal about a job that has not printed anything yet.

Invariant: it is gone before the first byte of output, and where standard error is no terminal it never was.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred

from cloudmytask.cli.terminal.console import CLEAR, STDERR, columns
from cloudmytask.cli.terminal.escape import one_line
from cloudmytask.cli.terminal.output import OutputWriter
from cloudmytask.client.node_session import NodeSession
from cloudmytask.model.errors import CloudMyTaskError
from cloudmytask.model.job import JobId
from cloudmytask.periodic import Periodic, every

INTERVAL = 0.5
"""Seconds between two looks at the job."""


@define(eq=False)
class Progress:
    """Shown from half a second after :meth:`start` until :meth:`stop`."""

    _reactor: Any
    _node: NodeSession
    _writer: OutputWriter
    _columns: Callable[[], int] = lambda: columns(STDERR)
    _periodic: Periodic | None = field(init=False, default=None)
    _shown: bool = field(init=False, default=False)

    def start(self, job_id: JobId) -> None:
        """Begin to look at the job."""
        began = self._reactor.seconds()
        self._periodic = every(
            self._reactor, INTERVAL, lambda: Deferred.fromCoroutine(self._look(job_id, self._reactor.seconds() - began))
        )

    def stop(self) -> None:
        """Erase the line. Idempotent."""
        if self._periodic is not None:
            self._periodic.stop()
            self._periodic = None
        if self._shown:
            self._shown = False
            self._writer.write(STDERR, CLEAR)

    async def _look(self, job_id: JobId, elapsed: float) -> None:
        try:
            job = await self._node.client.getScriptJobStatus(job_id)
            why = await self._node.client.explain(job_id)
        except CloudMyTaskError:
            return  # whoever follows the job learns of it too, and decides
        if self._periodic is not None:
            self._shown = True
            self._writer.write(STDERR, CLEAR + line(job.state.value, elapsed, why.sentence, self._columns()).encode())


def line(state: str, elapsed: float, sentence: str, columns: int) -> str:
    """What is shown, cut so that it stays one line on a terminal of that width."""
    text = one_line(f"cmt: {state} {elapsed:.0f} s: {sentence}")
    return text if len(text) < columns else text[: max(0, columns - 2)] + "…"
