"""A job of this node that is to be placed, as the placer sees it.

Invariant: no logic; its owner knows what the job is up to.
"""

from __future__ import annotations

from typing import Protocol

from attrs import define, evolve
from twisted.internet.defer import Deferred

from cloudmytask.core.placement import Choice, Course
from cloudmytask.core.queue import Entry
from cloudmytask.model.cluster import NodeId, OfferAnswer
from cloudmytask.model.job import JobId


class Owner(Protocol):
    """The origin; its docstrings say what each does."""

    def start_here(self, identity: JobId) -> None: ...
    async def hand_over(self, identity: JobId, choice: Choice, course: Course) -> OfferAnswer | None: ...
    def note_waiting(self, identity: JobId) -> None: ...
    def waits(self, identity: JobId) -> bool: ...
    def let_go(self) -> None: ...


@define(eq=False)
class OwnWork:
    """Implements ``roles.Work``."""

    _owner: Owner
    entry: Entry
    course: Course

    def start_here(self) -> None:
        self._owner.start_here(self.entry.job_id)

    def offer(self, choice: Choice) -> Deferred[OfferAnswer | None]:
        return Deferred.fromCoroutine(self._owner.hand_over(self.entry.job_id, choice, self.course))

    def shun(self, node_id: NodeId) -> None:
        self.course = evolve(self.course, visited=(*self.course.visited, node_id))
        self.entry = evolve(self.entry, wish=self.course)

    def left_waiting(self) -> None:
        self._owner.note_waiting(self.entry.job_id)

    def let_go(self) -> None:
        self._owner.let_go()

    def wanted(self) -> bool:
        return self._owner.waits(self.entry.job_id)
