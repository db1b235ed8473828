"""Owns accepted jobs until they have an outcome: has them placed, here or elsewhere, and records how they end.

Invariant: whatever was accepted is always in exactly one place: the queue, an offer to another node, an attempt, the
pause before another one, or waiting for its outcome to become durable.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence

from attrs import Factory, define, evolve, field
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from cloudmytask.boundaries import World
from cloudmytask.config import NodeConfig
from cloudmytask.core.admission import NOTE_MAX, check_note
from cloudmytask.core.backoff import RETRY
from cloudmytask.core.explain import Surroundings, node_failed
from cloudmytask.core.job import Cancel, End, Interrupt, Remark, Stage, Start, Wait, failures, next_attempt, retriable
from cloudmytask.core.placement import ANYWHERE, Choice, Course, Wish
from cloudmytask.core.queue import Entry, WaitingQueue
from cloudmytask.deferreds import Signal
from cloudmytask.model.cluster import Ban, OfferAnswer, PeerIdentity
from cloudmytask.model.errors import Banned, BlobCorrupt, BlobMissing, CloudMyTaskError, NodeDraining, StoreFailed
from cloudmytask.model.job import AttemptId, ClientId, Content, Job, JobId, JobState, Outcome, Reason
from cloudmytask.node.jobs.ledger import Ledger
from cloudmytask.node.jobs.own_work import OwnWork
from cloudmytask.node.jobs.pauses import Pauses
from cloudmytask.node.jobs.save_retry import SaveRetry
from cloudmytask.node.roles import Attempts, Door, Finished, Placement, RemoteAttempt, Slots

_log = Logger()

CHECKED_AT_ONCE = 100
"""Jobs whose whereabouts are looked at in one go: a fraction of a millisecond."""


@define(eq=False)
class Origin:
    """The jobs accepted by this node."""

    _world: World
    _config: NodeConfig
    _door: Door
    _ledger: Ledger
    _slots: Slots
    _placement: Placement
    _attempts: Attempts
    _identity: Callable[[], PeerIdentity]
    _queue: WaitingQueue
    _remotes: dict[JobId, RemoteAttempt] = Factory(dict)
    """Attempts under way on other nodes."""
    _offers: dict[JobId, RemoteAttempt] = Factory(dict)
    """Attempts that are on offer to other nodes."""
    _moving: dict[JobId, None] = Factory(dict)
    """Jobs that are being handed over to other nodes."""
    _under_way: list[JobId] = Factory(list)
    """Jobs of which an attempt is not recorded yet."""
    _concluded: Signal = Factory(Signal)
    _unchecked: list[JobId] = Factory(list)
    """Jobs whose whereabouts are still to be looked at in this round."""
    _save_retry: SaveRetry = field(init=False)
    _pauses: Pauses = field(init=False)
    _slot_freed: Callable[[], None] = lambda: None
    """Called when a script of this node has ended."""

    def __attrs_post_init__(self) -> None:
        self._save_retry = SaveRetry(self._world, self._door, self._ledger)
        self._pauses = Pauses(self._world.clock, self.enqueue)

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
            self._stop(job.id, Reason.CANCELLED, hurry=True)
            return live
        self._pauses.end(job.id)
        self._call_off(job.id)
        event = Cancel(at=self._world.wall(), node=self._config.name, by=by, note=note)
        recorded = Deferred.fromCoroutine(self._ledger.record(job.id, event))
        self._stop(job.id, Reason.CANCELLED)
        try:
            return await recorded
        except StoreFailed as problem:
            # It is done all the same, and will be on disk as soon as the disk takes it.
            self._follow(job.id, self._save_retry.insist(job.id, problem))
            raise

    def resume(self, jobs: Sequence[Job]) -> None:
        """Take over the jobs without outcome that an earlier life of this node left."""
        waiting = []
        for job in jobs:
            self._ledger.adopt(job)
            if job.state in (JobState.STAGING, JobState.RUNNING):
                self._follow(job.id, self._reclaim(job))
            else:
                waiting.append(self._work(job))
        self._placement.resume(waiting)
        for job in jobs:
            self._end_if_banned(job)

    async def settled(self) -> None:
        """Wait until every attempt that was under way here is recorded. Those on other nodes go on; the next life of
        this node takes them up again."""
        while any(identity not in self._remotes for identity in self._under_way):
            await self._concluded.wait()

    def banned(self, ban: Ban) -> None:
        """A client's jobs that wait are ended; those that run may end by themselves."""
        for job, accepted in list(self._ledger.open_jobs()):
            if job.client == ban.client and accepted:
                self._end_if_banned(job)

    def _end_if_banned(self, job: Job) -> None:
        try:
            self._door.check_forwarded(job.client)
        except Banned as ban:
            if self.waits(job.id) and job.id not in self._moving:
                ended = Deferred.fromCoroutine(self._cancel(job, self._config.name, str(ban)[:NOTE_MAX]))
                ended.addErrback(lambda failure: failure.trap(StoreFailed) and None)  # it is insisted on

    def surroundings(self, job: Job) -> Surroundings:
        """What ``cmt why`` needs beyond the job's record."""
        return Surroundings(
            node=self._config.name,
            slots=self._config.slots,
            running=self._slots.running,
            free=self._placement.here().free,
            ahead=self._queue.position(job.id),
            load=self._world.probe.load(),
            threshold=self._config.threshold,
            idle_threshold=self._config.idle_threshold,
            draining=self._door.draining,
            retry_in=self._pauses.remaining(job.id),
            elsewhere=self._placement.situation(self._work(job)) if job.state is JobState.WAITING else "",
        )

    async def withdraw(self, identity: JobId) -> None:
        """Undo what was begun for a job whose acceptance is not durable. Until that is done nobody can submit it
        again, or two attempts of one job would be under way."""
        self._call_off(identity)
        self._stop(identity, Reason.LOST, hurry=True)
        while identity in self._under_way or self._placement.holds(identity):
            await self._concluded.wait()
        self._ledger.drop(identity)

    def let_go(self) -> None:
        """A job that was called off while it was on offer is in nobody's hands any more."""
        self._concluded.fire()

    def begin_move(self, identity: JobId) -> bool:
        """A waiting job is about to become another node's: nothing else happens to it until :meth:`end_move`. False if
        it does not wait any more."""
        if not self.waits(identity) or self._placement.holds(identity) == "offer":
            return False
        self._pauses.end(identity)
        self._placement.withdraw(identity)
        self._moving[identity] = None
        return True

    def end_move(self, identity: JobId, *, moved: bool) -> None:
        """It is another node's, or stays."""
        del self._moving[identity]
        job = self._ledger.live(identity)
        if not moved and job is not None:
            self.enqueue(job)

    def _stop(self, identity: JobId, reason: Reason, *, hurry: bool = False) -> None:
        """End the attempt of a job that is under way, here or on another node, if there is one."""
        job = self._ledger.latest(identity)
        if job is not None and job.attempts:
            self._slots.stop(job.attempt_id, reason)
            if hurry:
                self._slots.hurry(job.attempt_id)
        remote = self._remotes.get(identity)
        if remote is not None:
            remote.stop(reason, hurry=hurry)

    def _call_off(self, identity: JobId) -> None:
        """A job is not to be placed any more."""
        self._placement.withdraw(identity)
        if identity in self._offers:
            self._offers[identity].call_off()

    def _fail(self, identity: JobId, problem: CloudMyTaskError) -> None:
        """What a job needs cannot be read here, so no node will ever run it."""
        if self.waits(identity):
            job = self._ledger.note(identity, Stage(at=self._world.wall(), node=self._config.name))
            outcome = Outcome(reason=Reason.LAUNCH, detail=str(problem))
            finished = evolve(self._slots.recover(job.attempt_id), outcome=outcome, interrupted=False)
            self._follow(identity, self._conclude(job.attempt_id, finished))

    def waits(self, identity: JobId) -> bool:
        """Whether a job is still to be placed."""
        live = self._ledger.live(identity)
        return live is not None and live.state in (JobState.PENDING, JobState.WAITING)

    def enqueue(self, job: Job) -> None:
        """Take over an accepted job: place it, or let it wait."""
        self._placement.enqueue(self._work(job))

    def whereabouts(self) -> dict[JobId, list[str]]:
        """In which places each open job is: the invariant of this module, for those who check it."""
        return {job.id: self._places(job, accepted) for job, accepted in self._ledger.open_jobs()}

    def _whereabouts_of(self, identity: JobId) -> list[str] | None:
        """None if the job is not open any more."""
        job = self._ledger.live(identity)
        return None if job is None else self._places(job, self._ledger.is_accepted(identity))

    def _places(self, job: Job, accepted: bool) -> list[str]:
        if job.state.terminal:
            return ["commit"]
        found = ["move"] if job.id in self._moving else []
        if (held := self._placement.holds(job.id)) is not None:
            found.append(held)
        if job.id in self._pauses:
            found.append("pause")
        if job.id in self._under_way:
            found.append("slot")
        return found if found or accepted else ["acceptance"]

    def _work(self, job: Job) -> OwnWork:
        course = Course(Wish.of(job.spec))
        wish = None if course == ANYWHERE else course
        return OwnWork(self, Entry(job.id, job.client, job.spec.qos, self._world.clock.seconds(), wish), course)

    def start_here(self, identity: JobId) -> None:
        """A free slot of this node is to be taken."""
        job = self._ledger.note(identity, Stage(at=self._world.wall(), node=self._config.name))
        self._follow(job.id, self._attempt(job))

    async def hand_over(self, identity: JobId, choice: Choice, course: Course) -> OfferAnswer | None:
        """Offer a job to another node, and follow the attempt there if it is accepted."""
        job = self._ledger.live(identity)
        if job is None or job.state.terminal:
            return None
        attempt = next_attempt(job)
        remote = self._attempts.remote(attempt, lambda: self._starts(attempt))
        self._offers[identity] = remote
        try:
            answer = await remote.offer(choice, job.client, job.spec, course, self._identity())
        except (BlobMissing, BlobCorrupt) as problem:
            self._fail(identity, problem)
            return None
        finally:
            del self._offers[identity]
        now, live = self._world.wall(), self._ledger.live(identity)
        if answer is None or not answer.accepted:
            if live is not None:
                why = "it could not be reached" if answer is None else answer.why
                note = f"by {choice.peer.name}: {why}"
                self._ledger.note(identity, Remark(now, self._config.name, "refused", note))
            return answer
        self._remotes[identity] = remote
        if live is None or live.state.terminal:  # cancelled, or not accepted after all, while it was on its way
            remote.stop(Reason.CANCELLED, hurry=True)
            self._follow(identity, self._discard(attempt, job.client, remote))
            remote.noted()
            return answer
        stage = Stage(now, self._config.name, choice.peer.name, choice.peer.node_id, choice.note)
        self._follow(identity, self._elsewhere(self._ledger.note(identity, stage), remote))
        remote.noted()
        return answer

    def note_waiting(self, identity: JobId) -> None:
        """A job could not be placed for now."""
        waiting = self._ledger.live(identity)
        if waiting is not None and waiting.state is JobState.PENDING:
            running, slots = self._slots.running, self._config.slots
            note = f"{running} of {slots} slots taken, {len(self._queue) - 1} jobs before it"
            self._ledger.note(identity, Wait(at=self._world.wall(), node=self._config.name, note=note))

    def _follow(self, identity: JobId, work: Coroutine[Deferred[object], object, None]) -> None:
        """Let an attempt run on by itself; only a bug makes it fail, and that ends the job."""
        self._under_way.append(identity)

        def broke(failure: Failure) -> None:
            _log.failure("job {job_id}: broken attempt", failure, job_id=identity)
            self._break_off(identity, node_failed(failure.value))

        def concluded(_: object) -> None:
            self._under_way.remove(identity)
            self._concluded.fire()

        Deferred.fromCoroutine(work).addErrback(broke).addBoth(concluded)

    def _break_off(self, identity: JobId, why: str) -> None:
        """The last resort after a bug of ours: nothing of the job goes on, and it ends with ``why``."""
        self._stop(identity, Reason.LOST, hurry=True)
        job = self._ledger.live(identity)
        if job is None or job.state.terminal:
            return
        self._call_off(identity)
        self._pauses.end(identity)
        if job.state in (JobState.PENDING, JobState.WAITING):
            job = self._ledger.note(identity, Stage(at=self._world.wall(), node=self._config.name))
        outcome = Outcome(reason=Reason.LAUNCH, detail=why)
        ended = End(at=self._world.wall(), node=self._config.name, attempt=job.attempt_id, outcome=outcome)
        Deferred.fromCoroutine(self._record(identity, ended)).addErrback(
            lambda failure: _log.failure("job {job_id}: it could not even be ended", failure, job_id=identity)
        )

    def check_whereabouts(self) -> None:
        """Look whether some of the open jobs are where they should be; the clock calls it, so that all have their turn.

        One that is nowhere, by a bug of ours, would stay open for ever: it is logged and ended.
        """
        if not self._unchecked:
            self._unchecked = [job.id for job, _ in self._ledger.open_jobs()]
        for identity in self._unchecked[-CHECKED_AT_ONCE:]:
            found = self._whereabouts_of(identity)
            if found is not None and len(found) != 1:
                _log.error("job {job_id} is in {places}", job_id=identity, places=" and ".join(found) or "no place")
            if found == []:
                self._break_off(identity, f"node {self._config.name} lost track of it")
        del self._unchecked[-CHECKED_AT_ONCE:]

    async def _starts(self, attempt: AttemptId) -> None:
        """The script of an attempt is about to start."""
        identity = attempt.job
        live = self._ledger.live(identity)
        if live is None:
            return
        started = Start(at=self._world.wall(), node=self._config.name, attempt=attempt)
        if live.spec.at_most_once:
            await self._ledger.record(identity, started)
        else:
            self._ledger.note_soon(identity, started)

    async def _attempt(self, job: Job) -> None:
        def freed() -> None:
            self._placement.returned(job.client)
            self._slot_freed()

        assignment = job.assignment
        finished = await self._slots.run(assignment, lambda: self._starts(assignment.id), freed)
        await self._conclude(assignment.id, finished)

    async def _elsewhere(self, job: Job, remote: RemoteAttempt) -> None:
        """Follow an attempt on another node to its end."""
        try:
            finished = await remote.finished()
        finally:
            del self._remotes[job.id]
            self._placement.returned(job.client)
        try:
            await self._conclude(job.attempt_id, finished, finished.outcome.detail or "the node shut down")
        finally:
            finished.settled()

    async def _discard(self, attempt: AttemptId, client: ClientId, remote: RemoteAttempt) -> None:
        """An attempt that nobody wants any more was accepted all the same."""
        finished = await remote.finished()
        del self._remotes[attempt.job]
        self._placement.returned(client)
        finished.settled()
        await self._clean(attempt)

    async def _reclaim(self, job: Job) -> None:
        attempt = job.attempt
        assert attempt is not None
        identity = job.attempt_id
        if attempt.executor_id is None:
            await self._conclude(identity, self._slots.recover(identity), "the node died")
            return
        remote = self._attempts.remote(identity, lambda: self._starts(identity))
        self._remotes[job.id] = remote
        self._queue.begun(job.client)
        remote.resume(attempt.executor_id, attempt.executor)
        if job.cancellation is not None:
            remote.stop(Reason.CANCELLED)
        await self._elsewhere(job, remote)

    async def _conclude(self, attempt: AttemptId, finished: Finished, note: str = "the node shut down") -> None:
        """Record how an attempt ended, and go on from there."""
        identity = attempt.job
        stdout, stderr, contents = await finished.live.seal()
        live = self._ledger.live(identity)
        if live is None:  # its acceptance failed while it ran, and its client was told so
            await self._clean(attempt)  # a new job of that id would use the same names
            return
        now, node = self._world.wall(), self._config.name
        event: End | Interrupt
        if finished.interrupted:
            event = Interrupt(at=now, node=node, note=note, stdout=stdout, stderr=stderr, trail=finished.trail)
        else:
            event = End(
                at=now,
                node=node,
                attempt=attempt,
                outcome=finished.outcome,
                stdout=stdout,
                stderr=stderr,
                retry=retriable(live, finished.outcome),
                trail=finished.trail,
            )
        await self._record(identity, event, contents)
        Deferred.fromCoroutine(self._clean(attempt)).addErrback(  # nothing of the job waits for it
            lambda failure: _log.failure("attempt {attempt}: its files stay", failure, attempt=attempt)
        )
        job = self._ledger.live(identity)
        if job is None or job.state is not JobState.WAITING:  # it has ended, perhaps by a cancel meanwhile
            return
        if finished.interrupted:
            self._placement.put_back(self._work(job))
        else:
            self._pauses.begin(job, RETRY.delay(failures(job), self._world.entropy.random.random()))
        self._end_if_banned(job)

    async def _record(self, identity: JobId, event: End | Interrupt, contents: Sequence[Content] = ()) -> None:
        """Make the end of an attempt durable, however long the disk refuses."""
        try:
            await self._ledger.record(identity, event, contents)
        except StoreFailed as problem:
            await self._save_retry.insist(identity, problem)

    async def _clean(self, attempt: AttemptId) -> None:
        try:
            await self._slots.clean(attempt)
        except StoreFailed as problem:
            _log.error("attempt {attempt}: its directory stays: {problem}", attempt=attempt, problem=str(problem))
