"""Other nodes' jobs, for one attempt each: taken in, run here or handed on, and told to whoever follows them.

The origin owns such a job; nothing of it is kept here beyond its attempt. Its script and input stay for a while, so
that the next job with the same ones needs not bring them.

Invariant: an offer that was accepted gets a last word, which is kept until a follower has taken it or ``orphan_grace``
is over; the same attempt offered twice runs once. No job is taken that was here before or has been handed on too often.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence

from attrs import define, evolve, field
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.logger import Logger

from cloudmytask.boundaries import AttemptSink, Link, World
from cloudmytask.cluster import Offer, OfferAnswer, PeerIdentity, RemoteEnd
from cloudmytask.config import NodeConfig
from cloudmytask.core.admission import check_spec
from cloudmytask.core.placement import Choice, Course, Wish
from cloudmytask.core.queue import Entry
from cloudmytask.errors import Banned, CloudMyTaskError, NoSuchJob
from cloudmytask.model import (
    Attempt,
    Content,
    Digest,
    Job,
    JobId,
    JobState,
    Outcome,
    Reason,
    Stamp,
    StreamName,
)
from cloudmytask.node.delivery import Delivery
from cloudmytask.node.luggage import missing
from cloudmytask.node.outputs import Outputs
from cloudmytask.node.roles import Attempts, Door, Finished, Placement, RemoteAttempt, Slots
from cloudmytask.node.waiting import Signal, pause

_log = Logger(namespace="cloudmytask.guests")

BODY = Digest("0" * 64)
"""A guest's idempotency is its origin's business."""
STAMPS_MAX = 20
"""Entries that are added to a job's trail on its way."""


@define(eq=False)
class Guests:
    """All of them, by job and attempt."""

    _world: World
    _config: NodeConfig
    _identity: Callable[[], PeerIdentity]
    _door: Door
    _slots: Slots
    _outputs: Outputs
    _placement: Placement
    _attempts: Attempts
    _slot_freed: Callable[[], None]
    gone: Signal = field(init=False, factory=Signal)
    """Fired when the last one is gone."""
    _guests: dict[tuple[JobId, int], Guest] = field(init=False, factory=dict)

    @property
    def present(self) -> int:
        """How many there are."""
        return len(self._guests)

    def digests(self) -> Iterator[Digest]:
        """Blobs that guests need."""
        for guest in self._guests.values():
            yield from (blob.digest for blob in guest.job.blobs())

    def offered(
        self, link: Link, offer: Offer, contents: Sequence[Content], sink: AttemptSink
    ) -> Deferred[OfferAnswer]:
        """See ``boundaries.PeerDoor``."""
        return Deferred.fromCoroutine(self._offered(link, offer, contents, sink))

    async def followed(
        self, link: Link, job_id: JobId, attempt: int, offsets: Mapping[StreamName, int], sink: AttemptSink
    ) -> None:
        """See ``boundaries.PeerDoor``."""
        guest = self._guests.get((job_id, attempt))
        if guest is None:
            raise NoSuchJob(f"attempt {attempt} of job {job_id} is not on node {self._config.name}")
        guest.delivery.follow(link, sink, offsets)

    def stopped(self, job_id: JobId, attempt: int, reason: Reason, *, hurry: bool) -> None:
        """See ``boundaries.PeerDoor``."""
        guest = self._guests.get((job_id, attempt))
        if guest is not None:
            guest.stop(reason, hurry=hurry)

    def end_all(self) -> None:
        """The node shuts down: those that wait here go back to where they came from."""
        for guest in list(self._guests.values()):
            if self._placement.holds(guest.job.id) == "queue":
                guest.give_back("the node shut down")

    async def delivered(self, patience: float) -> None:
        """Wait until the last words of all that have ended are taken, though no longer than ``patience`` seconds."""
        over = pause(self._world.clock, patience)
        over.addErrback(lambda failure: failure.trap(CancelledError) and None)
        while self._guests and not over.called:
            gone = self.gone.wait()
            await DeferredList([over, gone], fireOnOneCallback=True)
            gone.cancel()
        over.cancel()

    def forget(self, guest: Guest) -> None:
        """Nobody needs it any more."""
        if self._guests.pop((guest.job.id, guest.offer_.attempt), None) is not None:
            Deferred.fromCoroutine(self._slots.clean(guest.job.id, guest.offer_.attempt)).addErrback(
                lambda failure: _log.failure("a guest's files stay", failure)
            )
            if not self._guests:
                self.gone.fire()

    async def _offered(self, link: Link, offer: Offer, contents: Sequence[Content], sink: AttemptSink) -> OfferAnswer:
        known = self._guests.get((offer.job_id, offer.attempt))
        if known is not None:
            known.delivery.follow(link, sink, dict.fromkeys(StreamName, 0))
            return OfferAnswer(True, self._placement.here())
        why = self._refusal(offer)
        if why is None:
            lacking = await missing(self._world.store, offer.spec, contents)
            if lacking:
                return OfferAnswer(False, self._placement.here(), "blobs are missing", lacking)
            why = self._refusal(offer)  # a slot may have been taken, or the same offer accepted, meanwhile
        if why is not None:
            return OfferAnswer(False, self._placement.here(), why)
        self._accept(link, offer, contents, sink)
        return OfferAnswer(True, self._placement.here())

    def _refusal(self, offer: Offer) -> str | None:
        """Why not."""
        check_spec(offer.spec, self._config.script_max)
        if self._door.draining:
            return "draining"
        if self._door.disk_short:
            return "its disk is full"
        if self._identity().node_id in offer.visited:
            return "visited"
        if offer.hops > self._config.max_hops:
            return "hops"
        if offer.spec.node not in (None, self._config.name) or self._config.name in offer.spec.avoid:
            return "not wanted here"
        try:
            self._door.check_forwarded(offer.client)
        except Banned as ban:
            return f"banned: {ban}"
        if (offer.job_id, offer.attempt) in self._guests:
            return "here already"
        return None if offer.may_wait or self._placement.here().free > 0 else "busy"

    def _accept(self, link: Link, offer: Offer, contents: Sequence[Content], sink: AttemptSink) -> None:
        for content in contents:
            kept = self._world.store.put(content)
            kept.addErrback(lambda failure: _log.warn("a guest's script is not kept: {why}", why=str(failure.value)))
        guest = Guest(self, offer, tuple(contents))
        self._guests[offer.job_id, offer.attempt] = guest
        guest.delivery.follow(link, sink, dict.fromkeys(StreamName, 0))
        if self._placement.here().free > 0:
            guest.start_here()
        else:
            self._placement.enqueue(guest)


@define(eq=False)
class Guest:
    """One attempt of another node's job (``roles.Work``)."""

    _guests: Guests
    offer_: Offer
    _contents: tuple[Content, ...]
    job: Job = field(init=False)
    delivery: Delivery = field(init=False)
    _remote: RemoteAttempt | None = field(init=False, default=None)
    _running_here: bool = field(init=False, default=False)
    _ended: bool = field(init=False, default=False)
    _trail: list[Stamp] = field(init=False, factory=list)
    _arrival: float = field(init=False)

    def __attrs_post_init__(self) -> None:
        offer, world = self.offer_, self._guests._world
        self._arrival = world.clock.seconds()
        attempt = Attempt(number=offer.attempt, executor=self._guests._config.name, staged_at=world.wall())
        self.job = Job(
            id=offer.job_id,
            client=offer.client,
            spec=offer.spec,
            body=BODY,
            sequence=0,
            origin=offer.origin.name,
            state=JobState.STAGING,
            submitted_at=world.wall(),
            retention=0.0,
            attempts=(attempt,),
        )
        self.delivery = Delivery(
            world,
            self._guests._outputs,
            (offer.job_id, offer.attempt),
            self._guests._config.orphan_grace,
            orphaned=self._orphaned,
            delivered=lambda: self._guests.forget(self),
        )

    # roles.Work

    @property
    def entry(self) -> Entry:
        return Entry(self.job.id, self.job.client, self.job.spec.qos, self._arrival, wish=self.course)

    @property
    def course(self) -> Course:
        here = self._guests._identity().node_id
        return Course(Wish.of(self.job.spec), (*self.offer_.visited, here), self.offer_.hops)

    def left_waiting(self) -> None:
        """Its origin is not told: it waits here as if it ran."""

    def wanted(self) -> bool:
        return not self._ended

    def start_here(self) -> None:
        self._follow(self._run_here())

    def offer(self, choice: Choice) -> Deferred[OfferAnswer | None]:
        return Deferred.fromCoroutine(self._hand_on(choice))

    # its course

    def stop(self, reason: Reason, *, hurry: bool) -> None:
        """End it."""
        slots, identity = self._guests._slots, self.job.id
        if self._remote is not None:
            self._remote.stop(reason, hurry=hurry)
        elif self._running_here:
            slots.stop(identity, reason)
            if hurry:
                slots.hurry(identity)
        elif not self._ended:
            self._placement_ends(Outcome(reason=reason), interrupted=False)

    def give_back(self, why: str) -> None:
        """It waits here and will not be run here."""
        self._placement_ends(Outcome(reason=Reason.LOST, detail=why), interrupted=True)

    def _placement_ends(self, outcome: Outcome, *, interrupted: bool) -> None:
        self._guests._placement.withdraw(self.job.id)
        self._last_word(outcome, interrupted, self._guests._config.name, {})

    async def _run_here(self) -> None:
        guests = self._guests
        self._running_here = True
        ended = guests._slots.run(self.job, self._before_start, self._freed, self._contents)
        finished = Deferred.fromCoroutine(ended)
        self.delivery.news()
        self._conclude(await finished)

    def _freed(self) -> None:
        self._guests._slot_freed()

    async def _before_start(self) -> None:
        started = Deferred.fromCoroutine(self.delivery.started())
        if self.job.spec.at_most_once:
            try:
                await started
            except CloudMyTaskError as problem:
                _log.info("job {job_id} is not started: {why}", job_id=self.job.id, why=str(problem))
                self.stop(Reason.LOST, hurry=False)
        else:
            # Its follower hears of it as soon as it can; the script does not wait for that.
            started.addErrback(lambda failure: failure.trap(CloudMyTaskError) and None)

    async def _hand_on(self, choice: Choice) -> OfferAnswer | None:
        guests = self._guests
        remote = guests._attempts.remote(self.job.id, self.offer_.attempt, self._before_start)
        answer = await remote.offer(choice, self.job, self.course, self.offer_.origin)
        if answer is not None and answer.accepted:
            self._remote = remote
            self._trail.append(Stamp(guests._world.wall(), "forwarded", guests._config.name, choice.note))
            self.delivery.news()
            self._follow(self._relay(remote))
            if self._ended:
                remote.stop(Reason.CANCELLED)
        return answer

    async def _relay(self, remote: RemoteAttempt) -> None:
        finished = await remote.finished()
        self._guests._placement.returned(self.job.client)
        self._conclude(finished)
        finished.settled()

    def _conclude(self, finished: Finished) -> None:
        discarded = {stream.value: kept.discarded for stream, kept in finished.live.streams.items()}
        self._trail.extend(finished.trail)
        outcome = finished.outcome
        if finished.interrupted and not outcome.detail:
            outcome = evolve(outcome, detail=f"node {finished.executor} shut down")
        self._last_word(outcome, finished.interrupted, finished.executor, discarded)

    def _last_word(self, outcome: Outcome, interrupted: bool, executor: str, discarded: Mapping[str, int]) -> None:
        if not self._ended:
            self._ended = True
            capacity = self._guests._placement.here()
            self.delivery.finish(
                RemoteEnd(outcome, discarded, interrupted, executor, capacity, tuple(self._trail[:STAMPS_MAX]))
            )

    def _orphaned(self) -> None:
        """Nobody has followed it for so long that nobody will."""
        _log.warn("job {job_id}: its origin is gone, it is ended", job_id=self.job.id)
        self.stop(Reason.LOST, hurry=False)

    def _follow(self, work: Coroutine[Deferred[object], object, None]) -> None:
        followed = Deferred.fromCoroutine(work)
        followed.addErrback(lambda failure: _log.failure("job {job_id}: broken guest", failure, job_id=self.job.id))
