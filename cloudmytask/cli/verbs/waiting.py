"""Why a job that ``cmt run`` follows does not start: a line on standard error for who would otherwise see nothing.

Invariant: nothing is said of a job that starts soon, and nothing twice: what differs in its figures only is the same.
The node is asked while the job waits, and not of one that runs.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress

from attrs import define, field

from cloudmytask.boundaries import Clock
from cloudmytask.client.node_session import NodeSession
from cloudmytask.client.watched import Submitted
from cloudmytask.model.errors import CloudMyTaskError
from cloudmytask.model.job import JobState
from cloudmytask.periodic import Periodic, every

INTERVAL = 2.0
"""Seconds until a job is said to wait, and between two looks."""
_FIGURES = re.compile(r"\([^)]*\)|, and \d+ jobs? waits? before it| in about .*|[\d.]+")


@define(eq=False)
class WaitingNotes:
    """Told from :meth:`start` until :meth:`stop`.

    :ivar note: takes what is to be said. :ivar muted: whether something else says it just now.
    """

    _clock: Clock
    _node: NodeSession
    _submitted: Submitted
    _note: Callable[[str], None]
    _muted: Callable[[], bool] = lambda: False
    _periodic: Periodic | None = field(init=False, default=None)
    _said: str = field(init=False, default="")

    def start(self) -> None:
        """Begin to look at the job."""
        self._periodic = every(self._clock, INTERVAL, self._look)

    def stop(self) -> None:
        """Say nothing more. Idempotent."""
        if self._periodic is not None:
            self._periodic.stop()
            self._periodic = None

    async def _look(self) -> None:
        # The verb learns of a failure too, and decides.
        with suppress(CloudMyTaskError):
            if self._muted() or await self._state() is not JobState.WAITING:
                return
            why = (await self._node.client.explain(self._submitted.job.id)).sentence
            if self._periodic is not None and not self._muted() and kind(why) != self._said:
                self._said = kind(why)
                self._note(f"waiting: {why}")

    async def _state(self) -> JobState:
        watched = self._submitted.watched
        if watched is not None and watched.told is not None:
            return watched.told.state
        return (await self._node.client.getScriptJobStatus(self._submitted.job.id)).state


def kind(sentence: str) -> str:
    """What a sentence of ``cmt why`` has in common with those that say the same with other figures."""
    return _FIGURES.sub("", sentence)
