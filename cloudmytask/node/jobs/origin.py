"""Owns accepted jobs until they have an outcome: has them placed, pauses them between attempts, cancels them.

Invariant: a job that was accepted is always in exactly one place: the queue, an offer to another node, an attempt, the
pause before another one, or waiting for its outcome to become durable.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import Factory, define, evolve, field
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from cloudmytask.boundaries import DelayedCall, World
from cloudmytask.config import NodeConfig
from cloudmytask.core.admission import NOTE_MAX, check_note
from cloudmytask.core.backoff import RETRY, SUSPICION
from cloudmytask.core.explain import Surroundings
from cloudmytask.core.job import Cancel, Wait, failures
from cloudmytask.core.placement import ANYWHERE, Choice, Course, Wish
from cloudmytask.core.queue import Entry, WaitingQueue
from cloudmytask.model.cluster import Ban, NodeId, OfferAnswer, PeerIdentity
from cloudmytask.model.errors import Banned, NodeDraining, StoreFailed
from cloudmytask.model.job import Interruption, Job, JobId, JobState, Reason
from cloudmytask.node.gate import Gate
from cloudmytask.node.jobs.attempts import Attempts
from cloudmytask.node.jobs.ledger import Ledger
from cloudmytask.node.placing.placer import Placer
from cloudmytask.node.remote.delegate import Delegate
from cloudmytask.node.running.executor import Executor
from cloudmytask.node.shortage_watch import ShortageWatch

_log = Logger()

CHECKED_AT_ONCE = 100
"""Jobs whose whereabouts are looked at in one go: a fraction of a millisecond."""


@define(eq=False)
class OwnJob:
    """A job of this node that waits to be placed (``placer.Work``)."""

    _origin: Origin
    _attempts: Attempts
    entry: Entry
    course: Course

    def start_here(self) -> None:
        self._attempts.start_here(self.entry.job_id)

    def offer(self, choice: Choice) -> Deferred[OfferAnswer | None]:
        return Deferred.fromCoroutine(self._attempts.hand_over(self.entry.job_id, choice, self.course))

    def shun(self, node_id: NodeId) -> None:
        self.course = evolve(self.course, visited=(*self.course.visited, node_id))
        self.entry = evolve(self.entry, wish=self.course)

    def left_waiting(self) -> None:
        self._origin.note_waiting(self.entry.job_id)

    def let_go(self) -> None:
        self._attempts.concluded.fire()

    def wanted(self) -> bool:
        return self._origin.waits(self.entry.job_id)


@define(eq=False)
class Origin:
    """The jobs accepted by this node."""

    _world: World
    _config: NodeConfig
    _gate: Gate
    _ledger: Ledger
    _executor: Executor
    _placer: Placer
    _delegate: Delegate
    _me: PeerIdentity
    _queue: WaitingQueue
    _slot_freed: Callable[[], None]
    """Called when a script of this node has ended."""
    _shortages: ShortageWatch
    _moving: dict[JobId, None] = Factory(dict)
    """Jobs that are being handed over to other nodes."""
    _pauses: dict[JobId, tuple[float, DelayedCall]] = Factory(dict)
    """Jobs between a failed attempt and the next one: when the pause is over."""
    _unchecked: list[JobId] = Factory(list)
    """Jobs whose whereabouts are still to be looked at in this round."""
    _attempts: Attempts = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._attempts = Attempts(
            self._world,
            self._config,
            self._gate,
            self._ledger,
            self._executor,
            self._placer,
            self._delegate,
            self._me,
            self._slot_freed,
            again=self._again,
            broken=self._break_off,
        )
        self._delegate.died.add(self._attempts.died)

    def enqueue(self, job: Job) -> None:
        """Take over an accepted job: place it, or let it wait."""
        self._placer.enqueue(self._work(job))

    def resume(self, jobs: Sequence[Job]) -> None:
        """Take over the jobs without outcome that an earlier life of this node left."""
        waiting = []
        for job in jobs:
            self._ledger.adopt(job)
            self._attempts.resumed.add(job.id)
            if job.state in (JobState.STAGING, JobState.RUNNING):
                if job.attempt is not None and job.attempt.executor_id is not None:
                    self._queue.begun(job.client)
                self._attempts.reclaim(job)
            else:
                waiting.append(self._work(job))
        self._placer.resume(waiting)
        for job in jobs:
            self._end_if_banned(job)

    async def settled(self) -> None:
        """Wait until every attempt that was under way here is recorded. Those on other nodes go on; the next life of
        this node takes them up again."""
        while self._attempts.unrecorded_here():
            await self._attempts.concluded.wait()
        for identity in list(self._pauses):  # no timer outlives the node; its next life begins them at once
            self._end_pause(identity)
            if (job := self._ledger.live(identity)) is not None:
                self.enqueue(job)

    async def cancel(self, job: Job, note: str) -> Job:
        """End a job. One that has an outcome already stays as it is; one that is being cancelled is killed at once."""
        check_note(note)
        return await self._cancel(job, job.client, note)

    async def _cancel(self, job: Job, by: str, note: str) -> Job:
        live = self._ledger.live(job.id)
        if live is None or live.state.terminal:
            return job
        if job.id in self._moving:
            raise NodeDraining(f"job {job.id} is being handed over to another node; ask again in a moment")
        if live.cancellation is not None:
            self._attempts.stop(job.id, Reason.CANCELLED, hurry=True)
            return live
        self._end_pause(job.id)
        self._attempts.call_off(job.id)
        event = Cancel(at=self._world.wall(), node=self._config.name, by=by, note=note)
        recorded = Deferred.fromCoroutine(self._ledger.record(job.id, event))
        self._attempts.stop(job.id, Reason.CANCELLED)
        try:
            return await recorded
        except StoreFailed as problem:
            # It is done all the same, and will be on disk as soon as the disk takes it.
            self._attempts.follow(job.id, self._attempts.insist(job.id, problem))
            raise

    def banned(self, ban: Ban) -> None:
        """A client's jobs that wait are ended; those that run may end by themselves."""
        for job, accepted in list(self._ledger.open_jobs()):
            if job.client == ban.client and accepted:
                self._end_if_banned(job)

    def _end_if_banned(self, job: Job) -> None:
        try:
            self._gate.check_banned(job.client)
        except Banned as ban:
            if self.waits(job.id) and job.id not in self._moving:
                ended = Deferred.fromCoroutine(self._cancel(job, self._config.name, str(ban)[:NOTE_MAX]))
                ended.addErrback(lambda failure: failure.trap(StoreFailed) and None)  # it is insisted on

    async def undo_acceptance(self, identity: JobId) -> None:
        """Undo what was begun for a job whose acceptance is not durable. Until that is done nobody can submit it
        again, or two attempts of one job would be under way."""
        self._attempts.call_off(identity)
        self._attempts.stop(identity, Reason.LOST, hurry=True)
        while identity in self._attempts or self._placer.holds(identity):
            await self._attempts.concluded.wait()
        self._ledger.drop(identity)

    def begin_move(self, identity: JobId) -> bool:
        """A waiting job is about to become another node's: nothing else happens to it until :meth:`end_move`. False if
        it does not wait any more."""
        unrecorded = identity in self._attempts  # it waits, and how its last attempt ended is on its way to the disk
        if unrecorded or not self.waits(identity) or self._placer.holds(identity) == "offer":
            return False
        self._end_pause(identity)
        self._placer.withdraw(identity)
        self._moving[identity] = None
        return True

    def end_move(self, identity: JobId, *, moved: bool) -> None:
        """It is another node's, or stays."""
        del self._moving[identity]
        job = self._ledger.live(identity)
        if not moved and job is not None:
            self.enqueue(job)

    def waits(self, identity: JobId) -> bool:
        """Whether a job is still to be placed."""
        live = self._ledger.live(identity)
        return live is not None and live.state in (JobState.PENDING, JobState.WAITING)

    def note_waiting(self, identity: JobId) -> None:
        """A job could not be placed for now."""
        waiting = self._ledger.live(identity)
        if waiting is not None and waiting.state is JobState.PENDING:
            running, slots = self._executor.running, self._config.slots
            ahead = len(self._queue) - 1
            note = f"{running} of {slots} slots taken, {ahead} {'job' if ahead == 1 else 'jobs'} before it"
            self._ledger.note(identity, Wait(at=self._world.wall(), node=self._config.name, note=note))

    def surroundings(self, job: Job) -> Surroundings:
        """What ``cmt why`` needs beyond the job's record."""
        pause, here = self._pauses.get(job.id), self._placer.here()
        return Surroundings(
            node=self._config.name,
            slots=self._config.slots,
            running=self._executor.running,
            free=here.free,
            ahead=self._queue.position(job.id),
            load=here.load,
            threshold=self._config.threshold,
            idle_threshold=self._config.idle_threshold,
            draining=self._gate.draining,
            short=self._shortages.short,
            retry_in=None if pause is None else max(0.0, pause[0] - self._world.clock.seconds()),
            elsewhere=self._placer.situation(self._work(job)) if job.state is JobState.WAITING else "",
        )

    def whereabouts(self) -> dict[JobId, list[str]]:
        """In which places each open job is: the invariant of this module, for those who check it."""
        return {job.id: self._places(job, accepted) for job, accepted in self._ledger.open_jobs()}

    def check_whereabouts(self) -> None:
        """Look whether some of the open jobs are where they should be; the clock calls it, so that all have their turn.

        One that is nowhere, by a bug of ours, would stay open for ever: it is logged and ended.
        """
        if not self._unchecked:
            self._unchecked = [job.id for job, _ in self._ledger.open_jobs()]
        for identity in self._unchecked[-CHECKED_AT_ONCE:]:
            job = self._ledger.live(identity)
            if job is None:
                continue
            found = self._places(job, self._ledger.is_accepted(identity))
            if len(found) != 1:
                _log.error("job {job_id} is in {places}", job_id=identity, places=" and ".join(found) or "no place")
            if not found:
                self._break_off(identity, f"node {self._config.name} lost track of it")
        del self._unchecked[-CHECKED_AT_ONCE:]

    def _places(self, job: Job, accepted: bool) -> list[str]:
        if job.state.terminal:
            return ["commit"]
        found = ["move"] if job.id in self._moving else []
        if (held := self._placer.holds(job.id)) is not None:
            found.append(held)
        if job.id in self._pauses:
            found.append("pause")
        if job.id in self._attempts:
            found.append("slot")
        return found if found or accepted else ["acceptance"]

    def _break_off(self, identity: JobId, why: str) -> None:
        """The last resort after a bug of ours: nothing of the job goes on, and it ends with ``why``."""
        self._attempts.stop(identity, Reason.LOST, hurry=True)
        job = self._ledger.live(identity)
        if job is not None and not job.state.terminal:
            self._attempts.call_off(identity)
            self._end_pause(identity)
            self._attempts.end_with(job, why)

    def _work(self, job: Job) -> OwnJob:
        course = Course(Wish.of(job.spec), died_on=job.died_on)
        wish = None if course == ANYWHERE else course
        entry = Entry(job.id, job.client, job.spec.qos, self._world.clock.seconds(), wish)
        return OwnJob(self, self._attempts, entry, course)

    def _again(self, job: Job, interrupted: bool) -> None:
        """A job is to have another attempt; at once, if the last one was interrupted for no fault of its own, as far as
        is known."""
        deaths, last, jitter = len(job.died_on), job.attempts[-1], self._world.entropy.random.random
        if interrupted and last.interruption is Interruption.NODE_DIED and deaths > 1:
            self._pause(job, SUSPICION.delay(deaths - 1, jitter()))
        elif interrupted:
            self._placer.put_back(self._work(job))
        else:
            self._pause(job, RETRY.delay(failures(job), jitter()))
        self._end_if_banned(job)

    def _pause(self, job: Job, delay: float) -> None:
        clock = self._world.clock
        self._pauses[job.id] = (clock.seconds() + delay, clock.callLater(delay, self._pause_over, job))

    def _pause_over(self, job: Job) -> None:
        del self._pauses[job.id]
        self.enqueue(job)

    def _end_pause(self, identity: JobId) -> None:
        """A job pauses no longer, and is not taken up again. Idempotent."""
        pause = self._pauses.pop(identity, None)
        if pause is not None:
            pause[1].cancel()
