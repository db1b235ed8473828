"""Jobs on their way to other nodes, until one has taken them or none will.

Invariant: a reservation in the accounts lasts exactly as long as its offer; its owner gets a job back, or learns
that it is gone, once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from cloudmytask.boundaries import World
from cloudmytask.core.placement import TRIES_MAX, Accounts, Choice, Course, Policy
from cloudmytask.core.queue import Entry
from cloudmytask.core.unanswered import Unanswered
from cloudmytask.model.cluster import NodeId, OfferAnswer
from cloudmytask.model.job import JobId

_log = Logger()


class Work(Protocol):
    """A job that waits to be placed: this node's own, or another's."""

    @property
    def entry(self) -> Entry: ...
    @property
    def course(self) -> Course: ...

    def start_here(self) -> None:
        """Take a free slot of this node, now."""

    def offer(self, choice: Choice) -> Deferred[OfferAnswer | None]:
        """Hand it to another node; None if that could not be reached. Once accepted it is no longer waiting."""

    def shun(self, node_id: NodeId) -> None:
        """That node will not take this job, whenever it is asked: go there no more."""

    def left_waiting(self) -> None:
        """It could not be placed for now."""

    def let_go(self) -> None:
        """It was on offer and is in nobody's hands now: it was called off, or a bug broke the offer."""

    def wanted(self) -> bool:
        """Whether it is still to be placed; not so if it was cancelled meanwhile."""


@define(eq=False)
class Offering:
    """Keeps the offers that are not answered yet.

    :ivar has_room: whether this node itself has a free slot by now.
    :ivar unreachable: told of a node that could not be reached.
    :ivar refused: takes back a job that nobody took.
    :ivar gone: told of a job that was taken (true), or is not to be placed any more (false).
    """

    _world: World
    _policy: Policy
    _accounts: Accounts
    _has_room: Callable[[], bool]
    _unreachable: Callable[[NodeId], None]
    _refused: Callable[[Entry, Work], None]
    _gone: Callable[[Entry, bool], None]
    _under_way: dict[JobId, NodeId] = field(init=False, factory=dict)
    _unanswered: Unanswered = field(init=False, factory=Unanswered)

    def __contains__(self, job_id: JobId) -> bool:
        return job_id in self._under_way

    def resting(self, address: str) -> bool:
        """Whether nobody answered there lately, so that no job is to be held up by it."""
        return self._unanswered.resting(address, self._world.clock.seconds())

    def begin(self, entry: Entry, work: Work, choice: Choice) -> None:
        """Offer a job to the node that was chosen, and if that refuses to others."""
        self._reserve(entry, choice)
        offered = Deferred.fromCoroutine(self._offer(entry, work, choice))
        offered.addErrback(self._broke, entry)

    def _broke(self, failure: Failure, entry: Entry) -> None:
        """A bug of ours: the job is on offer no longer, so that its owner can end it."""
        _log.failure("job {job_id}: broken offer", failure, job_id=entry.job_id)
        if self._under_way.pop(entry.job_id, None) is not None:
            self._gone(entry, False)

    def _reserve(self, entry: Entry, choice: Choice) -> None:
        """At once, so that the next look at the accounts sees it."""
        self._under_way[entry.job_id] = choice.peer.node_id
        self._accounts.reserve(choice.peer.node_id)

    async def _offer(self, entry: Entry, work: Work, choice: Choice) -> None:
        for tries in range(1, TRIES_MAX + 1):
            target = choice.peer.node_id
            try:
                answer = await work.offer(choice)
            finally:
                self._accounts.release(target)
            if answer is None:
                self._unreachable(target)  # until it announces itself again
                if work.wanted():
                    self._unanswered.missed(choice.peer.address, self._world.clock.seconds())
                    self._accounts.forget_address(choice.peer.address)
            else:
                self._unanswered.answered(choice.peer.address)
                self._accounts.update(target, answer.capacity)
                if answer.lasting:
                    work.shun(target)
            accepted = answer is not None and answer.accepted
            if accepted or not work.wanted():
                del self._under_way[entry.job_id]
                self._gone(entry, accepted)
                return
            following = self._following(work, tries)
            if following is None:
                break
            choice = following
            self._reserve(entry, choice)
        del self._under_way[entry.job_id]
        self._refused(entry, work)

    def _following(self, work: Work, tries: int) -> Choice | None:
        """Where a refused job may go next; None: it waits, or there is room for it here."""
        if tries == TRIES_MAX or self._has_room():
            return None
        return self._policy.choose(self._accounts, work.course, self._world.entropy.random)
