"""Other nodes' jobs, for one attempt each: taken in, run here or handed on, and told to their followers.

The origin owns such a job; nothing of it is kept here beyond its attempt. Its script and input stay for a while, so
that the next job with the same ones needs not bring them.

Invariant: an offer that was accepted gets a last word, which is kept until a follower has taken it or ``orphan_grace``
is over; the same attempt offered twice runs once. No job is taken that was here before or has been handed on too often,
and of two jobs of one id, as a client makes them that submits under one key at two nodes, only one is here at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from cloudmytask.boundaries import AttemptSink, Link, World
from cloudmytask.config import NodeConfig
from cloudmytask.core.admission import check_spec
from cloudmytask.deferreds import Signal, first_of, pause
from cloudmytask.model.cluster import Ban, Offer, OfferAnswer, PeerIdentity
from cloudmytask.model.errors import Banned, InvalidArgument, NoSuchJob
from cloudmytask.model.job import AttemptId, Content, Digest, JobId, Reason, StreamName
from cloudmytask.node.gate import Gate
from cloudmytask.node.placing.placer import Placer
from cloudmytask.node.remote.delegate import Delegate
from cloudmytask.node.remote.guest import Guest
from cloudmytask.node.remote.inputs import missing
from cloudmytask.node.running.executor import Executor
from cloudmytask.node.running.outputs import Outputs
from cloudmytask.node.shortage_watch import ShortageWatch

_log = Logger()


@define(eq=False)
class Guests:
    """All of them, by the names of their attempts."""

    _world: World
    _config: NodeConfig
    _me: PeerIdentity
    _gate: Gate
    _shortages: ShortageWatch
    _executor: Executor
    _outputs: Outputs
    _placer: Placer
    _delegate: Delegate
    _slot_freed: Callable[[], None]
    _owned: Callable[[JobId], bool]
    """Whether a job of that id is this node's own, and open."""
    gone: Signal = field(init=False, factory=Signal)
    """Fired when the last one is gone."""
    _guests: dict[AttemptId, Guest] = field(init=False, factory=dict)

    @property
    def present(self) -> int:
        """How many there are."""
        return len(self._guests)

    def has(self, job_id: JobId) -> bool:
        """Whether an attempt of that job is here."""
        return any(job_id == attempt.job for attempt in self._guests)

    def digests(self) -> Iterator[Digest]:
        """Blobs that guests need."""
        for guest in self._guests.values():
            yield from (blob.digest for blob in guest.taken.spec.blobs())

    def offered(
        self, link: Link, offer: Offer, contents: Sequence[Content], sink: AttemptSink
    ) -> Deferred[OfferAnswer]:
        """See ``boundaries.PeerDoor``."""
        return Deferred.fromCoroutine(self._offered(link, offer, contents, sink))

    async def followed(
        self, link: Link, attempt: AttemptId, offsets: Mapping[StreamName, int], sink: AttemptSink
    ) -> None:
        """See ``boundaries.PeerDoor``."""
        guest = self._carried(link, attempt)
        if guest is None:
            raise NoSuchJob(f"attempt {attempt} is not on node {self._config.name}")
        guest.delivery.follow(link, sink, offsets)

    def stopped(self, link: Link, attempt: AttemptId, reason: Reason, *, hurry: bool) -> None:
        """See ``boundaries.PeerDoor``."""
        guest = self._carried(link, attempt)
        if guest is not None and reason is Reason.LOST:
            guest.abandon()
        elif guest is not None:
            guest.stop(reason, hurry=hurry)

    def _carried(self, link: Link, attempt: AttemptId) -> Guest | None:
        """An attempt, if it was offered by the node at the other end of ``link``: it is nobody else's business."""
        guest = self._guests.get(attempt)
        if guest is None or guest.carrier == link.peer.node_id:
            return guest
        _log.warn("attempt {attempt} is none of {node}'s", attempt=attempt, node=link.peer.name)
        return None

    def banned(self, ban: Ban) -> None:
        """A client's jobs that wait here are given back; those that run may end by themselves."""
        for guest in list(self._guests.values()):
            if guest.taken.client == ban.client and self._placer.holds(guest.job_id) == "queue":
                guest.give_back(f"{ban.client} is banned: {ban.reason}")

    def end_all(self) -> None:
        """The node shuts down: those that wait here go back to where they came from."""
        for guest in list(self._guests.values()):
            if self._placer.holds(guest.job_id) == "queue":
                guest.give_back("the node shut down")
            else:
                guest.give_up_start()

    async def delivered(self, patience: float) -> None:
        """Wait until the last words of all that have ended are taken, though no longer than ``patience`` seconds."""
        clock = self._world.clock
        end = clock.seconds() + patience
        while self._guests and clock.seconds() < end:
            await first_of(self.gone.wait(), pause(clock, end - clock.seconds()))

    def forget(self, guest: Guest) -> None:
        """Nobody needs it any more."""
        if self._guests.pop(guest.taken.attempt, None) is not None:
            Deferred.fromCoroutine(self._executor.clean(guest.taken.attempt)).addErrback(
                lambda failure: _log.failure("a guest's files stay", failure)
            )
            if not self._guests:
                self.gone.fire()

    async def _offered(self, link: Link, offer: Offer, contents: Sequence[Content], sink: AttemptSink) -> OfferAnswer:
        known = self._guests.get(offer.attempt)
        if known is not None and known.carrier == link.peer.node_id and known.taken.origin == offer.origin:
            known.delivery.follow(link, sink, dict.fromkeys(StreamName, 0))
            return OfferAnswer(True, self._placer.here())
        refusal = self._refusal(offer)
        if refusal is None:
            lacking = await missing(self._world.store, offer.spec, contents)
            if lacking:
                return OfferAnswer(False, self._placer.here(), "blobs are missing", missing=lacking)
            refusal = self._refusal(offer)  # a slot may have been taken, or the same offer accepted, meanwhile
        if refusal is not None:
            return refusal
        self._accept(link, offer, contents, sink)
        return OfferAnswer(True, self._placer.here())

    def _refusal(self, offer: Offer) -> OfferAnswer | None:
        """None if the job may be taken, as far as that is known without a look at the disk."""
        lasting = self._never(offer)
        why = lasting or self._not_now(offer)
        return OfferAnswer(False, self._placer.here(), why, bool(lasting)) if why else None

    def _never(self, offer: Offer) -> str:
        """Why this node will not take a job, whenever it is asked."""
        try:
            check_spec(offer.spec, self._config.script_max)
            self._gate.check_banned(offer.client)
        except InvalidArgument as problem:
            return str(problem)
        except Banned as ban:
            return f"banned: {ban}"
        if self._me.node_id in offer.visited:
            return "visited"
        if offer.hops > self._config.max_hops:
            return "hops"
        if offer.spec.node not in (None, self._config.name) or self._config.name in offer.spec.avoid:
            return "not wanted here"
        return ""

    def _not_now(self, offer: Offer) -> str:
        if self._gate.draining:
            return "draining"
        if (short := self._shortages.short) and not self._placer.here().free:
            return "it is short of " + " and ".join(each.words for each in short)
        if not self._executor.may_join(offer.deaths):
            return "it has another job during which nodes have died"
        if self._conflicts(offer):
            return "a job of that id, or another attempt of it, is here"
        if self._placer.here().free > 0:
            return ""
        return "busy" if not offer.may_wait else "its queue is full" if self._placer.full else ""

    def _conflicts(self, offer: Offer) -> bool:
        """Whether something here has the job's id. An earlier attempt, which its origin has given up, is ended, also if
        a later owner says so, who took the same job over."""
        job_id = offer.attempt.job
        others = [guest for attempt, guest in self._guests.items() if attempt.job == job_id]
        for guest in others:
            if _supersedes(offer, guest.taken):
                guest.abandon()
        return bool(others) or self._owned(job_id)

    def _accept(self, link: Link, offer: Offer, contents: Sequence[Content], sink: AttemptSink) -> None:
        for content in contents:
            kept = self._world.store.put(content)
            kept.addErrback(lambda failure: _log.warn("a guest's script is not kept: {why}", why=str(failure.value)))
        guest = Guest(
            self._world,
            self._config,
            self._executor,
            self._outputs,
            self._placer,
            self._delegate,
            self._slot_freed,
            lambda: self.forget(guest),
            self._me.node_id,
            offer,
            link.peer.node_id,
            tuple(contents),
        )
        self._guests[offer.attempt] = guest
        guest.delivery.follow(link, sink, dict.fromkeys(StreamName, 0))
        if self._placer.here().free > 0:
            guest.start_at_once()
        else:
            self._placer.enqueue(guest)


def _supersedes(offer: Offer, taken: Offer) -> bool:
    """Whether an offer says that the one taken before was given up: it is a later one of the same origin, or of a later
    owner of the same job."""
    if offer.origin.node_id == taken.origin.node_id:
        return offer.attempt > taken.attempt
    return offer.attempt.epoch > taken.attempt.epoch and (offer.client, offer.spec) == (taken.client, taken.spec)
