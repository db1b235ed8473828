"""Attempts that run on other nodes, as their follower sees them: what they write, and how they end.

Invariant: an attempt that was accepted ends exactly once: by its executor's last word, or because that life of its
executor is certainly over. A link that breaks is made again, and output goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine

from attrs import define, field
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from cloudmytask.boundaries import Link, World
from cloudmytask.cluster import BootId, Capacity, NodeId, Offer, OfferAnswer, PeerIdentity, RemoteEnd
from cloudmytask.core.placement import Choice, Course, Peer
from cloudmytask.errors import (
    BlobCorrupt,
    BlobMissing,
    CloudMyTaskError,
    ConnectionInterrupted,
    NoNode,
    NoSuchJob,
    RequestTimeout,
)
from cloudmytask.model import Blob, Content, Job, JobId, JobSpec, Outcome, Reason, StreamName, Usage
from cloudmytask.node.luggage import brought, needed, packed
from cloudmytask.node.outputs import LiveOutput, Outputs
from cloudmytask.node.roles import Acquaintances, Finished, Interest
from cloudmytask.node.waiting import Signal, first_of, pause

_log = Logger(namespace="cloudmytask.delegate")

RETRY_INTERVAL = 0.5
"""Seconds between attempts to reach an executor again."""
UNCERTAIN_MAX = 3
"""How often an offer is made whose answer does not come although its target is there."""
UNHEARD_OF = 15.0
"""Seconds after which an executor that this life of ours never heard of is given up."""
REMEMBERED_MAX = 10_000
"""Blobs that are remembered to be somewhere already."""


@define(eq=False)
class Delegate:
    """The attempts of one node's jobs, and of those it relays, that run elsewhere.

    :ivar learned: told of every picture that an executor sends of its capacity.
    """

    _world: World
    _outputs: Outputs
    _others: Acquaintances
    _learned: Callable[[NodeId, Capacity], None]
    _remotes: dict[tuple[JobId, int], Remote] = field(init=False, factory=dict)
    _there: dict[tuple[NodeId, str], None] = field(init=False, factory=dict)
    _abandoned: dict[tuple[NodeId, JobId, int], None] = field(init=False, factory=dict)

    @property
    def running(self) -> int:
        """Attempts elsewhere."""
        return len(self._remotes)

    def remote(self, job_id: JobId, attempt: int, before_start: Callable[[], Awaitable[None]]) -> Remote:
        """Prepare an attempt."""
        return Remote(self, job_id, attempt, before_start)

    def abandon(self, node_id: NodeId, job_id: JobId, attempt: int) -> None:
        """That attempt was given up, as its executor seemed to be gone: should it come back, it is told."""
        self._abandoned[node_id, job_id, attempt] = None
        while len(self._abandoned) > REMEMBERED_MAX:
            del self._abandoned[next(iter(self._abandoned))]

    def returned(self, node_id: NodeId) -> None:
        """A node that seemed to be gone is back, or is there for the first time."""
        attempts = [(job_id, attempt) for where, job_id, attempt in self._abandoned if where == node_id]
        if attempts:
            told = Deferred.fromCoroutine(self._end_abandoned(node_id, attempts))
            told.addErrback(lambda failure: _log.failure("attempts that were given up were not ended", failure))

    async def _end_abandoned(self, node_id: NodeId, attempts: list[tuple[JobId, int]]) -> None:
        try:
            link = await self._others.link(node_id)
            for job_id, attempt in attempts:
                await link.stop_attempt(job_id, attempt, Reason.LOST, hurry=True)
                self._abandoned.pop((node_id, job_id, attempt), None)
        except CloudMyTaskError as problem:
            _log.info("{node} was not told what was given up: {why}", node=node_id, why=str(problem))

    def unknown_to(self, node_id: NodeId, spec: JobSpec) -> list[Blob]:
        """Which of a job's blobs are not known to be there."""
        return [blob for blob in needed(spec) if (node_id, blob.digest) not in self._there]


@define(eq=False)
class Remote:
    """One attempt on another node (``roles.RemoteAttempt``); also its ``boundaries.AttemptSink``."""

    _delegate: Delegate
    job_id: JobId
    attempt: int
    _before_start: Callable[[], Awaitable[None]]
    node_id: NodeId | None = field(init=False, default=None)
    _name: str = field(init=False, default="")
    _boot: BootId | None = field(init=False, default=None)
    _interest: Interest | None = field(init=False, default=None)
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

    # roles.RemoteAttempt

    def offer(self, choice: Choice, job: Job, course: Course, origin: PeerIdentity) -> Deferred[OfferAnswer | None]:
        return Deferred.fromCoroutine(self._offer(choice, job, course, origin))

    def resume(self, node_id: NodeId, name: str) -> None:
        self._accepted(node_id, name, None, resume=True)
        self.noted()
        self._spawn(self._reach())

    def finished(self) -> Deferred[Finished]:
        return self._done

    def stop(self, reason: Reason, *, hurry: bool = False) -> None:
        self._stop = self._stop or reason
        link = self._link
        if not self._over and link is not None and link.alive:
            told = link.stop_attempt(self.job_id, self.attempt, self._stop, hurry)
            told.addErrback(self._not_told)

    # boundaries.AttemptSink

    def started(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._started())

    def output(self, stream: StreamName, offset: int, data: bytes) -> Deferred[None]:
        if self._noted or self._over:
            self._take(stream, offset, data)
            return succeed(None)
        return Deferred.fromCoroutine(self._take_later(stream, offset, data))

    def ended(self, end: RemoteEnd) -> Deferred[None]:
        return Deferred.fromCoroutine(self._ended(end))

    # its course

    def _take(self, stream: StreamName, offset: int, data: bytes) -> None:
        live = self._live
        if live is not None and not self._over:
            known = live.streams[stream].size + live.streams[stream].discarded
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
            kept.discarded += end.discarded.get(stream, 0)
        settled = self._settled.wait()
        self._finish(Finished(end.outcome, end.interrupted, live, end.executor, end.trail, self._settled.fire))
        self._delegate._learned(node_id, end.capacity)
        await settled

    async def _decided(self) -> None:
        """Wait until its acceptance is on record here, or it is called off: what its executor says may come before,
        if the answer to its offer was lost and is asked for again."""
        while not self._noted and not self._over:
            await self._news.wait()

    def noted(self) -> None:
        """Its acceptance is on record, so it may start."""
        self._noted = True
        self._news.fire()

    def call_off(self) -> None:
        """It is not wanted any more, while it is on offer: whoever accepts it all the same will be told."""
        self._over = self._live is None
        self._news.fire()

    async def _started(self) -> None:
        await self._decided()
        if self._over:
            raise NoSuchJob(f"attempt {self.attempt} of job {self.job_id} was given up")
        await self._before_start()

    async def _offer(self, choice: Choice, job: Job, course: Course, origin: PeerIdentity) -> OfferAnswer | None:
        peer = choice.peer
        offer = Offer(
            job_id=self.job_id,
            client=job.client,
            spec=job.spec,
            attempt=self.attempt,
            origin=origin,
            hops=course.hops + 1,
            visited=(*course.visited, origin.node_id) if origin.node_id not in course.visited else course.visited,
            may_wait=choice.may_wait,
        )
        answered = await self._answered(peer, offer)
        if answered is None:
            return None
        link, answer = answered
        if answer.accepted:
            self._remember(peer.node_id, job.spec)
            self._accepted(peer.node_id, peer.name, link, resume=False)
        return answer

    async def _answered(self, peer: Peer, offer: Offer) -> tuple[Link, OfferAnswer] | None:
        """The answer to an offer, and the link that it came by.

        If the answer is lost, the offer may have been accepted: then it is made again, which changes nothing, until
        there is an answer or that life of the target is over.
        """
        others, clock = self._delegate._others, self._delegate._world.clock
        over = Signal()
        interest: Interest | None = None
        boot: BootId | None = None
        tries = 0
        try:
            while True:
                tries += 1
                try:
                    link = await others.link(peer.node_id)
                    if boot not in (None, link.peer.boot_id):
                        return None  # it was started again, and knows nothing of it
                    if interest is None:
                        riding = await self._riding(peer, offer.spec)
                        boot = link.peer.boot_id
                        interest = others.watch(peer.node_id, boot, over.fire)
                    answer = await link.offer(offer, riding, self)
                    if answer.missing:
                        riding = await brought(self._delegate._world.store, link, answer.missing)
                        answer = await link.offer(offer, riding, self)
                except (BlobMissing, BlobCorrupt):
                    raise  # of our own: nobody will ever get it
                except CloudMyTaskError as problem:
                    _log.info(
                        "job {job_id} could not be offered to {node}: {problem}",
                        job_id=self.job_id,
                        node=peer.name,
                        problem=str(problem),
                    )
                    if boot is None or not isinstance(problem, ConnectionInterrupted | RequestTimeout | NoNode):
                        return None
                else:
                    return link, answer
                gone = over.wait()
                ended = await first_of(gone, self._news.wait(), pause(clock, RETRY_INTERVAL)) is gone
                if ended or self._over or tries == UNCERTAIN_MAX:
                    self._over = True
                    self._news.fire()
                    self._delegate.abandon(peer.node_id, offer.job_id, offer.attempt)
                    return None
        finally:
            if interest is not None:
                interest.close()

    async def _riding(self, peer: Peer, spec: JobSpec) -> list[Content]:
        return await packed(self._delegate._world.store, self._delegate.unknown_to(peer.node_id, spec))

    def _accepted(self, node_id: NodeId, name: str, link: Link | None, *, resume: bool) -> None:
        delegate = self._delegate
        self.node_id, self._name = node_id, name
        self._began = delegate._world.clock.seconds()
        self._live = delegate._outputs.open(self.job_id, self.attempt, resume=resume)
        self._over = False
        delegate._abandoned.pop((node_id, self.job_id, self.attempt), None)
        delegate._remotes[self.job_id, self.attempt] = self
        if link is not None:
            self._linked(link)

    def _linked(self, link: Link) -> None:
        if self._over:
            return
        self._link, self._boot = link, link.peer.boot_id
        if self._interest is None:
            ended = lambda: self._lose(f"node {self._name} died")  # noqa: E731 - a callback of one line
            self._interest = self._delegate._others.watch(link.peer.node_id, self._boot, ended)
        link.on_lost(self._link_lost)

    def _link_lost(self) -> None:
        if not self._over:
            self._spawn(self._reach())

    async def _reach(self) -> None:
        """Find the executor again, or find out that it is gone."""
        others, clock = self._delegate._others, self._delegate._world.clock
        node_id, live = self.node_id, self._live
        assert node_id is not None and live is not None
        while not self._over:
            try:
                link = await others.link(node_id)
                if self._boot not in (None, link.peer.boot_id):
                    self._lose(f"node {self._name} was started again")
                    return
                offsets = {stream: kept.size + kept.discarded for stream, kept in live.streams.items()}
                await link.follow(self.job_id, self.attempt, offsets, self)
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

    def _lose(self, why: str) -> None:
        if self._over or self._live is None:
            return
        wall = self._delegate._world.clock.seconds() - self._began
        outcome = Outcome(reason=Reason.LOST, detail=why, usage=Usage(wall_seconds=wall))
        assert self.node_id is not None
        self._delegate.abandon(self.node_id, self.job_id, self.attempt)
        self._finish(Finished(outcome, True, self._live, self._name))

    def _finish(self, finished: Finished) -> None:
        self._over = True
        if self._interest is not None:
            self._interest.close()
        self._delegate._remotes.pop((self.job_id, self.attempt), None)
        finished.live.finish()
        self._done.callback(finished)

    def _remember(self, node_id: NodeId, spec: JobSpec) -> None:
        there = self._delegate._there
        for blob in needed(spec):
            there[node_id, blob.digest] = None
        while len(there) > REMEMBERED_MAX:
            del there[next(iter(there))]

    def _spawn(self, work: Coroutine[Deferred[object], object, None]) -> None:
        reached = Deferred.fromCoroutine(work)
        reached.addErrback(lambda failure: _log.failure("job {job_id}: following broke", failure, job_id=self.job_id))

    def _not_told(self, failure: Failure) -> None:
        """The link broke over it: it is told again on the next one."""
        failure.trap(CloudMyTaskError)
