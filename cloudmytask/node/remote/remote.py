"""One attempt on another node, as its follower sees it: what it writes, and how it ends.

Invariant: an attempt that was accepted ends exactly once: by its executor's last word, or because that life of its
executor is certainly over. A link that breaks is made again, and output goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine

from attrs import define, field
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from cloudmytask.boundaries import Link
from cloudmytask.core.explain import node_failed
from cloudmytask.core.placement import Choice, Course
from cloudmytask.deferreds import Signal, pause
from cloudmytask.listeners import Registration
from cloudmytask.model.cluster import BootId, NodeId, Offer, OfferAnswer, PeerIdentity, RemoteEnd
from cloudmytask.model.errors import CloudMyTaskError, InternalError, NoSuchJob
from cloudmytask.model.job import AttemptId, ClientId, Interruption, JobSpec, Outcome, Reason, StreamName, Usage
from cloudmytask.node.remote.delegate import RETRY_INTERVAL, Asking, Delegate
from cloudmytask.node.running.outputs import Finished, LiveOutput

_log = Logger()

UNHEARD_OF = 15.0
"""Seconds after which an executor that this life of ours never heard of is given up."""


@define(eq=False)
class Remote:
    """Follows one attempt on another node; for its executor it is the ``boundaries.AttemptSink``."""

    _delegate: Delegate
    attempt: AttemptId
    _before_start: Callable[[], Awaitable[None]]
    node_id: NodeId | None = field(init=False, default=None)
    _name: str = field(init=False, default="")
    _boot: BootId | None = field(init=False, default=None)
    _interest: Registration | None = field(init=False, default=None)
    _listening: Registration | None = field(init=False, default=None)
    _link: Link | None = field(init=False, default=None)
    _live: LiveOutput | None = field(init=False, default=None)
    _done: Deferred[Finished] = field(init=False, factory=Deferred)
    _over: bool = field(init=False, default=False)
    _settled: Signal = field(init=False, factory=Signal)
    _news: Signal = field(init=False, factory=Signal)
    """Fired when it may start, or is called off."""
    _noted: bool = field(init=False, default=False)
    _stop: Reason | None = field(init=False, default=None)
    _began: float = field(init=False, default=0.0)

    # for its owner

    async def offer(
        self, choice: Choice, client: ClientId, spec: JobSpec, course: Course, origin: PeerIdentity
    ) -> OfferAnswer | None:
        """Hand it over; None if the node could not be reached. Once accepted, :meth:`finished` tells how it ends.

        :raises BlobMissing, BlobCorrupt: what it needs cannot be read here.
        """
        peer, delegate = choice.peer, self._delegate
        offer = Offer(
            attempt=self.attempt,
            client=client,
            spec=spec,
            origin=origin,
            hops=course.hops + 1,
            visited=(*course.visited, origin.node_id) if origin.node_id not in course.visited else course.visited,
            may_wait=choice.may_wait,
            deaths=len(course.died_on),
        )
        asking = Asking(delegate.world, delegate.others, self, self._news, lambda: self._over)
        answered = await asking.until_answered(peer, offer, delegate.unknown_to(peer.node_id, spec))
        if answered is None:
            self._over = True
            self._news.fire()
            if asking.uncertain:
                delegate.abandon(peer.node_id, self.attempt)
            return None
        link, answer = answered
        if answer.accepted:
            delegate.remember(peer.node_id, spec)
            self._accepted(peer.node_id, peer.name, link, resume=False)
        return answer

    def noted(self) -> None:
        """Its acceptance is on record, so it may start."""
        self._noted = True
        self._news.fire()

    def call_off(self) -> None:
        """It is not wanted any more, while it is on offer: a node that accepts it all the same will be told."""
        self._over = self._live is None
        self._news.fire()

    def resume(self, node_id: NodeId, name: str) -> None:
        """Take up again what an earlier life of this node had handed over."""
        self._accepted(node_id, name, None, resume=True)
        self.noted()
        self._spawn(self._reach())

    def finished(self) -> Deferred[Finished]:
        """Fires once, when it has ended."""
        return self._done

    def stop(self, reason: Reason, *, hurry: bool = False) -> None:
        """End it; :meth:`finished` follows."""
        self._stop = self._stop or reason
        link = self._link
        if not self._over and link is not None and link.alive:
            told = link.stop_attempt(self.attempt, self._stop, hurry)
            told.addErrback(self._not_told)

    # boundaries.AttemptSink

    def started(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._started())

    def output(self, stream: StreamName, offset: int, data: bytes) -> Deferred[None]:
        if self._noted or self._over:
            return maybeDeferred(self._take, stream, offset, data).addErrback(self._broke)
        return Deferred.fromCoroutine(self._take_later(stream, offset, data)).addErrback(self._broke)

    def ended(self, end: RemoteEnd) -> Deferred[None]:
        return Deferred.fromCoroutine(self._ended(end)).addErrback(self._broke)

    # its course

    def _take(self, stream: StreamName, offset: int, data: bytes) -> None:
        live = self._live
        if live is not None and not self._over:
            known = live.streams[stream].known
            if offset <= known < offset + len(data):
                live.write(stream, data[known - offset :])

    async def _take_later(self, stream: StreamName, offset: int, data: bytes) -> None:
        await self._decided()
        self._take(stream, offset, data)

    async def _ended(self, end: RemoteEnd) -> None:
        await self._decided()
        live, node_id = self._live, self.node_id
        if live is None or self._over or node_id is None:
            return
        for stream, kept in live.streams.items():
            kept.end_there(end.discarded.get(stream, 0), end.lost.get(stream))
        settled = self._settled.wait()
        settle, why = self._settled.fire, end.interruption
        self._finish(Finished(end.outcome, end.interrupted, live, end.executor, end.trail, settle, why))
        self._delegate.learned(node_id, end.capacity)
        await settled

    async def _decided(self) -> None:
        """Wait until its acceptance is on record here, or it is called off: what its executor says may come before,
        if the answer to its offer was lost and is asked for again."""
        while not self._noted and not self._over:
            await self._news.wait()

    async def _started(self) -> None:
        await self._decided()
        if self._over:
            raise NoSuchJob(f"attempt {self.attempt} was given up")
        await self._before_start()

    def _accepted(self, node_id: NodeId, name: str, link: Link | None, *, resume: bool) -> None:
        delegate = self._delegate
        self.node_id, self._name = node_id, name
        self._began = delegate.world.clock.seconds()
        self._live = delegate.outputs.open(self.attempt, resume=resume)
        self._over = False
        delegate.abandoned.pop((node_id, self.attempt), None)
        delegate.attempts.add(self.attempt)
        if link is not None:
            self._linked(link)

    def _linked(self, link: Link) -> None:
        if self._over:
            return
        self._link, self._boot = link, link.peer.boot_id
        if self._interest is None:
            self._interest = self._delegate.others.watch(link.peer.node_id, self._boot, self._life_over)
        self._listening = link.gone.add(self._link_lost)

    def _link_lost(self) -> None:
        if not self._over:
            self._spawn(self._reach())

    async def _reach(self) -> None:
        """Find the executor again, or find out that it is gone."""
        others, clock = self._delegate.others, self._delegate.world.clock
        node_id, live = self.node_id, self._live
        assert node_id is not None and live is not None
        while not self._over:
            try:
                link = await others.link(node_id)
                if self._boot not in (None, link.peer.boot_id):
                    self._lose(f"node {self._name} was started again", Interruption.NODE_DIED)
                    return
                offsets = {stream: kept.known for stream, kept in live.streams.items()}
                await link.follow(self.attempt, offsets, self)
            except NoSuchJob:
                self._lose(f"node {self._name} does not know it any more")
                return
            except CloudMyTaskError as problem:
                if self._boot is None and clock.seconds() - self._began > UNHEARD_OF:
                    self._lose(f"node {self._name} was not found again ({problem})")
                    return
                await pause(clock, RETRY_INTERVAL)
            else:
                self._linked(link)
                if self._stop is not None:
                    self.stop(self._stop)
                return

    def _life_over(self) -> None:
        """Its executor is believed dead, or is there in another life: only then is it certain."""
        member = None if self.node_id is None else self._delegate.others.detector.get(self.node_id)
        if member is not None and self._boot is not None and member.announcement.boot_id > self._boot:
            self._lose(f"node {self._name} was started again", Interruption.NODE_DIED)
        else:
            self._lose(f"node {self._name} died")

    def _lose(self, why: str, interruption: Interruption | None = None) -> None:
        wall = self._delegate.world.clock.seconds() - self._began
        self._finish_with(Outcome(Reason.LOST, detail=why, usage=Usage(wall_seconds=wall)), True, interruption)

    def _finish_with(self, outcome: Outcome, interrupted: bool, interruption: Interruption | None = None) -> None:
        """End it without its executor's last word."""
        if self._over or self._live is None:
            return
        assert self.node_id is not None
        self._delegate.abandon(self.node_id, self.attempt, self._boot)
        self._finish(Finished(outcome, interrupted, self._live, self._name, interruption=interruption))

    def _finish(self, finished: Finished) -> None:
        self._over = True
        for registration in (self._interest, self._listening):
            if registration is not None:
                registration.close()
        self._delegate.attempts.discard(self.attempt)
        finished.live.finish()
        self._done.callback(finished)

    def _spawn(self, work: Coroutine[Deferred[object], object, None]) -> None:
        Deferred.fromCoroutine(work).addErrback(self._broke).addErrback(self._not_told)

    def _broke(self, failure: Failure) -> None:
        """A bug of ours ends the attempt, as far as we follow it; a declared failure is passed on.

        :raises CloudMyTaskError: in any case, for the other end.
        """
        if failure.check(CloudMyTaskError) is not None:
            failure.raiseException()
        _log.failure("following {attempt} broke", failure, attempt=self.attempt)
        self.stop(Reason.LOST, hurry=True)
        self._finish_with(Outcome(Reason.LAUNCH, detail=node_failed(failure.value)), False)
        raise InternalError(f"attempt {self.attempt} cannot be followed any more")

    def _not_told(self, failure: Failure) -> None:
        """The link broke over it: it is told again on the next one."""
        failure.trap(CloudMyTaskError)
