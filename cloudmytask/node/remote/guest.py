"""One attempt of another node's job: run here or handed on, and told to its follower.

Invariant: it has one last word in any case, which its delivery (``node.remote.delivery``) keeps for its
follower.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping

from attrs import define, evolve, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from cloudmytask.boundaries import World
from cloudmytask.config import NodeConfig
from cloudmytask.core.explain import node_failed
from cloudmytask.core.placement import Choice, Course, Wish
from cloudmytask.core.queue import Entry
from cloudmytask.model.cluster import NodeId, Offer, OfferAnswer, RemoteEnd
from cloudmytask.model.errors import CloudMyTaskError
from cloudmytask.model.job import Assignment, Content, Interruption, JobId, Outcome, Reason, Stamp, StreamName
from cloudmytask.node.placing.placer import Placer
from cloudmytask.node.remote.delegate import Delegate
from cloudmytask.node.remote.delivery import Delivery
from cloudmytask.node.remote.remote import Remote
from cloudmytask.node.running.executor import Executor
from cloudmytask.node.running.outputs import Finished, Outputs

_log = Logger()

STAMPS_MAX = 20
"""Entries that are added to a job's trail on its way."""


@define(eq=False)
class Guest:
    """Follows one accepted offer to its last word; for the placer it is ``placing.offering.Work``.

    :ivar taken: the offer that was accepted; ``here``: this node's id.
    :ivar slot_freed: called when its script has ended here.
    :ivar delivered: called once, when nobody needs it any more.
    """

    _world: World
    _config: NodeConfig
    _executor: Executor
    _outputs: Outputs
    _placer: Placer
    _delegate: Delegate
    _slot_freed: Callable[[], None]
    _delivered: Callable[[], None]
    _here: NodeId
    taken: Offer
    carrier: NodeId
    """Who offered it: its origin, or a node that hands it on."""
    _contents: tuple[Content, ...]
    assignment: Assignment = field(init=False)
    delivery: Delivery = field(init=False)
    _remote: Remote | None = field(init=False, default=None)
    _running_here: bool = field(init=False, default=False)
    _queued: bool = field(init=False, default=False)
    """Whether it waited here: then its client has one running job more, by the queue's count."""
    _starting: Deferred[None] | None = field(init=False, default=None)
    """While the follower's word is awaited before the script may start."""
    _called_off: Reason | None = field(init=False, default=None)
    """Why it was to be ended while it was on offer to another node."""
    _ended: bool = field(init=False, default=False)
    _shunned: list[NodeId] = field(init=False, factory=list)
    _trail: list[Stamp] = field(init=False, factory=list)
    _arrival: float = field(init=False)

    def __attrs_post_init__(self) -> None:
        offer, world = self.taken, self._world
        self._arrival = world.clock.seconds()
        self.assignment = Assignment(offer.attempt, offer.client, offer.spec, self._config.name, offer.deaths)
        self.delivery = Delivery(
            world,
            self._outputs,
            offer.attempt,
            self._config.orphan_grace,
            orphaned=self._orphaned,
            delivered=self._delivered,
        )

    @property
    def job_id(self) -> JobId:
        return self.taken.attempt.job

    # Work

    @property
    def entry(self) -> Entry:
        return Entry(self.job_id, self.taken.client, self.taken.spec.qos, self._arrival, wish=self.course)

    @property
    def course(self) -> Course:
        return Course(Wish.of(self.taken.spec), (*self.taken.visited, self._here, *self._shunned), self.taken.hops)

    def shun(self, node_id: NodeId) -> None:
        self._shunned.append(node_id)

    def left_waiting(self) -> None:
        """Its origin is not told: it waits here as if it ran."""

    def let_go(self) -> None:
        reason = self._called_off or Reason.LOST
        self._last_word(Outcome(reason=reason), self._called_off is None, self._config.name, {})

    def wanted(self) -> bool:
        return not self._ended and self._called_off is None

    def start_here(self) -> None:
        self._queued = True
        self._follow(self._run_here())

    def start_at_once(self) -> None:
        """Take a free slot without having waited."""
        self._follow(self._run_here())

    def offer(self, choice: Choice) -> Deferred[OfferAnswer | None]:
        return Deferred.fromCoroutine(self._hand_on(choice))

    # its course

    def stop(self, reason: Reason, *, hurry: bool) -> None:
        """End it."""
        executor, attempt = self._executor, self.taken.attempt
        if self._remote is not None:
            self._remote.stop(reason, hurry=hurry)
        elif self._running_here:
            executor.stop(attempt, reason)
            if self._starting is not None:
                self._starting.cancel()
            if hurry:
                executor.hurry(attempt)
        elif self._placer.holds(self.job_id) == "offer":
            self._called_off = reason  # the node that it is on offer to may have accepted it
        elif not self._ended:
            self._placement_ends(Outcome(reason=reason), interrupted=False)

    def give_back(self, why: str) -> None:
        """It waits here and will not be run here."""
        self._placement_ends(Outcome(reason=Reason.LOST, detail=why), interrupted=True)

    def _placement_ends(self, outcome: Outcome, *, interrupted: bool) -> None:
        self._placer.withdraw(self.job_id)
        self._last_word(outcome, interrupted, self._config.name, {})

    async def _run_here(self) -> None:
        self._running_here = True
        ended = self._executor.run(self.assignment, self._before_start, self._freed, self._contents)
        finished = Deferred.fromCoroutine(ended)
        self.delivery.news()
        self._conclude(await finished)

    def _freed(self) -> None:
        if self._queued:
            self._placer.returned(self.taken.client)
        self._slot_freed()

    def abandon(self) -> None:
        """Its origin has given it up."""
        self.delivery.abandon()
        self.stop(Reason.LOST, hurry=True)

    def give_up_start(self) -> None:
        """The node is shutting down: a script that waits for its follower's word is not started any more."""
        if self._starting is not None:
            self.stop(Reason.LOST, hurry=False)

    async def _before_start(self) -> None:
        started = Deferred.fromCoroutine(self.delivery.started())
        if self.taken.spec.at_most_once:
            self._starting = started
            try:
                await started
            except CancelledError:
                return  # it was stopped meanwhile, and is not started
            except CloudMyTaskError as problem:
                _log.info("job {job_id} is not started: {why}", job_id=self.job_id, why=str(problem))
                self.stop(Reason.LOST, hurry=False)
            finally:
                self._starting = None
        else:
            # Its follower hears of it as soon as it can; the script does not wait for that.
            started.addErrback(lambda failure: failure.trap(CloudMyTaskError) and None)

    async def _hand_on(self, choice: Choice) -> OfferAnswer | None:
        taken = self.taken
        remote = Remote(self._delegate, taken.attempt, self._before_start)
        answer = await remote.offer(choice, taken.client, taken.spec, self.course, taken.origin)
        if answer is not None and answer.accepted:
            self._remote = remote
            self._trail.append(Stamp(self._world.wall(), "forwarded", self._config.name, choice.note))
            self.delivery.news()
            self._follow(self._relay(remote))
            remote.noted()
            if self._called_off is not None:
                remote.stop(self._called_off)
        return answer

    async def _relay(self, remote: Remote) -> None:
        finished = await remote.finished()
        self._placer.returned(self.taken.client)
        try:
            self._conclude(finished)
        finally:
            finished.settled()

    def _conclude(self, finished: Finished) -> None:
        discarded = {stream: kept.discarded for stream, kept in finished.live.streams.items()}
        self._trail.extend(finished.trail)
        outcome = finished.outcome
        lost = finished.interrupted or outcome.reason is Reason.LOST
        if lost and not outcome.detail:
            outcome = evolve(outcome, detail=f"node {finished.executor} gave it up")
        self._last_word(outcome, lost, finished.executor, discarded, finished.interruption)

    def _last_word(
        self,
        outcome: Outcome,
        interrupted: bool,
        executor: str,
        discarded: Mapping[StreamName, int],
        interruption: Interruption | None = None,
    ) -> None:
        if not self._ended:
            self._ended = True
            capacity = self._placer.here()
            trail = tuple(self._trail[:STAMPS_MAX])
            self.delivery.finish(RemoteEnd(outcome, discarded, interrupted, executor, capacity, trail, interruption))

    def _orphaned(self) -> None:
        """Nobody has followed it for so long that nobody will."""
        _log.warn("job {job_id}: its origin is gone, it is ended", job_id=self.job_id)
        self.stop(Reason.LOST, hurry=False)

    def _follow(self, work: Coroutine[Deferred[object], object, None]) -> None:
        def broke(failure: Failure) -> None:
            _log.failure("job {job_id}: broken guest", failure, job_id=self.job_id)
            self._last_word(Outcome(Reason.LAUNCH, detail=node_failed(failure.value)), False, self._config.name, {})
            self.stop(Reason.LOST, hurry=True)

        Deferred.fromCoroutine(work).addErrback(broke)
