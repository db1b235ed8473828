"""Attempts of this node's own jobs, here and elsewhere: begins them, follows each to its end, and records it.

Invariant: an attempt that was begun is recorded exactly once, also if a bug of ours breaks it. What has happened to a
job cannot be refused by the disk: it is tried until the disk takes it. Only a node that shuts down tries once more and
gives up; on disk the job is without outcome then, and runs again after the next start.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence

from attrs import Factory, define, evolve
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from cloudmytask.boundaries import World
from cloudmytask.config import NodeConfig
from cloudmytask.core.backoff import Backoff
from cloudmytask.core.explain import node_failed
from cloudmytask.core.job import Died, End, Interrupt, Remark, Stage, Start, next_attempt, retriable
from cloudmytask.core.placement import Choice, Course
from cloudmytask.deferreds import Signal, first_of, pause
from cloudmytask.model.cluster import OfferAnswer, PeerIdentity
from cloudmytask.model.errors import BlobCorrupt, BlobMissing, CloudMyTaskError, StoreFailed
from cloudmytask.model.job import (
    AttemptId,
    ClientId,
    Content,
    Interruption,
    Job,
    JobId,
    JobState,
    Outcome,
    Output,
    Reason,
)
from cloudmytask.node.gate import Gate
from cloudmytask.node.jobs.ledger import Ledger
from cloudmytask.node.placing.placer import Placer
from cloudmytask.node.remote.delegate import Delegate
from cloudmytask.node.remote.remote import Remote
from cloudmytask.node.running.executor import Executor
from cloudmytask.node.running.outputs import Finished, LiveOutput

_log = Logger()

STORE_RETRY = Backoff(first=0.5, factor=2.0, ceiling=30.0)
"""Between attempts to make an outcome durable on a disk that refuses."""


@define(eq=False)
class Attempts:
    """Keeps what is under way for this node's jobs.

    :ivar slot_freed: called when a script of this node has ended.
    :ivar again: takes back a job that is to have another attempt; whether the last one was interrupted.
    :ivar broken: ends a job whose attempt a bug of ours broke, with the sentence.
    """

    _world: World
    _config: NodeConfig
    _gate: Gate
    _ledger: Ledger
    _executor: Executor
    _placer: Placer
    _delegate: Delegate
    _me: PeerIdentity
    _slot_freed: Callable[[], None]
    _again: Callable[[Job, bool], None]
    _broken: Callable[[JobId, str], None]
    concluded: Signal = Factory(Signal)
    """Fired when an attempt is recorded, or an offer has come to nothing."""
    _remotes: dict[JobId, Remote] = Factory(dict)
    """Attempts under way on other nodes."""
    _offers: dict[JobId, Remote] = Factory(dict)
    """Attempts that are on offer to other nodes."""
    _under_way: list[JobId] = Factory(list)
    """Jobs of which an attempt is not recorded yet."""
    resumed: set[JobId] = Factory(set)
    """Open jobs of an earlier life of this node, which may have been ended by one before that was recorded."""

    def __contains__(self, identity: JobId) -> bool:
        """Whether an attempt of that job is not recorded yet."""
        return identity in self._under_way

    def unrecorded_here(self) -> bool:
        """Whether an attempt of this node's is not recorded yet; those on other nodes left out."""
        return any(identity not in self._remotes for identity in self._under_way)

    # begun

    def start_here(self, identity: JobId) -> None:
        """A free slot of this node is to be taken."""
        job = self._staged(identity)
        self.follow(identity, self._attempt(job))

    async def hand_over(self, identity: JobId, choice: Choice, course: Course) -> OfferAnswer | None:
        """Offer a job to another node, and follow the attempt there if it is accepted."""
        job = self._ledger.live(identity)
        if job is None or job.state.terminal:
            return None
        attempt = next_attempt(job)
        remote = self._offers[identity] = Remote(self._delegate, attempt, lambda: self._starts(attempt))
        try:
            answer = await remote.offer(choice, job.client, job.spec, course, self._me)
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
            self.follow(identity, self._discard(attempt, job.client, remote))
        else:
            stage = Stage(now, self._config.name, choice.peer.name, choice.peer.node_id, choice.note)
            self.follow(identity, self._elsewhere(self._ledger.note(identity, stage), remote))
        remote.noted()
        return answer

    def died(self, attempt: AttemptId) -> None:
        """The node of an attempt that was given up did die."""
        live = self._ledger.live(attempt.job)
        if live is not None:
            self._ledger.note_soon(live.id, Died(self._world.wall(), self._config.name, attempt))

    def reclaim(self, job: Job) -> None:
        """Take up again an attempt that an earlier life of this node left."""
        self.follow(job.id, self._reclaim(job))

    # ended from outside

    def stop(self, identity: JobId, reason: Reason, *, hurry: bool = False) -> None:
        """End what runs of a job; ``hurry``: without the rest of its grace. Its end is recorded as any other."""
        job = self._ledger.latest(identity)
        if job is not None and job.attempts:
            self._executor.stop(job.attempt_id, reason)
            if hurry:
                self._executor.hurry(job.attempt_id)
        if identity in self._remotes:
            self._remotes[identity].stop(reason, hurry=hurry)

    def call_off(self, identity: JobId) -> None:
        """A job is not to be placed any more."""
        self._placer.withdraw(identity)
        if identity in self._offers:
            self._offers[identity].call_off()

    def end_with(self, job: Job, why: str) -> None:
        """Record that a job has ended, by a failure of ours."""
        if job.state in (JobState.PENDING, JobState.WAITING):
            job = self._staged(job.id)
        outcome = Outcome(reason=Reason.LAUNCH, detail=why)
        ended = End(at=self._world.wall(), node=self._config.name, attempt=job.attempt_id, outcome=outcome)
        Deferred.fromCoroutine(self._record(job.id, ended)).addErrback(
            lambda failure: _log.failure("job {job_id}: it could not even be ended", failure, job_id=job.id)
        )

    # followed

    def follow(self, identity: JobId, work: Coroutine[Deferred[object], object, None]) -> None:
        """Let an attempt run on by itself; only a bug makes it fail, and that ends the job."""
        self._under_way.append(identity)

        def broke(failure: Failure) -> None:
            _log.failure("job {job_id}: broken attempt", failure, job_id=identity)
            self._broken(identity, node_failed(failure.value))

        def concluded(_: object) -> None:
            self._under_way.remove(identity)
            self.concluded.fire()

        Deferred.fromCoroutine(work).addErrback(broke).addBoth(concluded)

    async def insist(self, identity: JobId, problem: StoreFailed) -> None:
        """Make the job's record durable, after a first attempt that failed with ``problem``."""
        tries = 0
        while self._ledger.live(identity) is not None:  # not so if another save of it went before us
            last = self._gate.draining
            tries += 1
            await self._await_disk(identity, "not durable", problem, tries)
            try:
                await self._ledger.resave(identity)
            except StoreFailed as again:
                problem = again
            else:
                return
            if last:
                _log.error("job {job_id}: given up, it runs again after the next start", job_id=identity)
                return

    async def _sealed(self, identity: JobId, live: LiveOutput) -> tuple[Output, Output, tuple[Content, ...]]:
        """An attempt's output as it goes into the job's record, however long the disk refuses."""
        tries = 0
        while True:
            try:
                return await live.seal(last=self._gate.draining)
            except StoreFailed as problem:
                tries += 1
                await self._await_disk(identity, "its output is not durable", problem, tries)

    async def _await_disk(self, identity: JobId, what: str, problem: StoreFailed, tries: int) -> None:
        """Log what the disk has refused, and wait before it is asked once more: less and less often, but at once if the
        node shuts down."""
        draining, random = self._gate.draining, self._world.entropy.random
        delay = 0.0 if draining else STORE_RETRY.delay(tries, random.random())
        _log.error(
            "job {job_id}: {what} ({problem}); next try in {delay:.1f} s",
            job_id=identity,
            what=what,
            problem=str(problem),
            delay=delay,
        )
        await first_of(self._gate.closing.wait(), pause(self._world.clock, delay))

    def _staged(self, identity: JobId) -> Job:
        return self._ledger.note(identity, Stage(at=self._world.wall(), node=self._config.name))

    def _fail(self, identity: JobId, problem: CloudMyTaskError) -> None:
        """What a job needs cannot be read here, so no node will ever run it."""
        job = self._ledger.live(identity)
        if job is not None and job.state in (JobState.PENDING, JobState.WAITING):
            job = self._staged(identity)
            outcome = Outcome(reason=Reason.LAUNCH, detail=str(problem))
            finished = evolve(self._executor.recover(job.attempt_id), outcome=outcome, interrupted=False)
            self.follow(identity, self._conclude(job.attempt_id, finished))

    async def _starts(self, attempt: AttemptId) -> None:
        """The script of an attempt is about to start."""
        identity = attempt.job
        live = self._ledger.live(identity)
        if live is None:
            return
        started = Start(at=self._world.wall(), node=self._config.name, attempt=attempt)
        if live.spec.at_most_once or identity in self.resumed:
            await self._ledger.record(identity, started)
        else:
            self._ledger.note_soon(identity, started)

    async def _attempt(self, job: Job) -> None:
        def freed() -> None:
            self._placer.returned(job.client)
            self._slot_freed()

        assignment = job.assignment
        finished = await self._executor.run(assignment, lambda: self._starts(assignment.id), freed)
        await self._conclude(assignment.id, finished, finished.outcome.detail or "the node shut down")

    async def _elsewhere(self, job: Job, remote: Remote) -> None:
        """Follow an attempt on another node to its end."""
        try:
            finished = await remote.finished()
        finally:
            del self._remotes[job.id]
            self._placer.returned(job.client)
        try:
            await self._conclude(job.attempt_id, finished, finished.outcome.detail or "the node shut down")
        finally:
            finished.settled()

    async def _discard(self, attempt: AttemptId, client: ClientId, remote: Remote) -> None:
        """An attempt that nobody wants any more was accepted all the same."""
        try:
            finished = await remote.finished()
        finally:
            del self._remotes[attempt.job]
            self._placer.returned(client)
        finished.settled()
        await self._executor.clean(attempt)

    async def _reclaim(self, job: Job) -> None:
        attempt = job.attempt
        assert attempt is not None
        identity = job.attempt_id
        if attempt.executor_id is None:
            await self._conclude(identity, self._executor.recover(identity), "the node died")
            return
        remote = self._remotes[job.id] = Remote(self._delegate, identity, lambda: self._starts(identity))
        remote.resume(attempt.executor_id, attempt.executor)
        if job.cancellation is not None:
            remote.stop(Reason.CANCELLED)
        await self._elsewhere(job, remote)

    async def _conclude(self, attempt: AttemptId, finished: Finished, note: str = "the node shut down") -> None:
        """Record how an attempt ended, and go on from there."""
        identity = attempt.job
        stdout, stderr, contents = await self._sealed(identity, finished.live)
        live = self._ledger.live(identity)
        if live is None:  # its acceptance failed while it ran, and its client was told so
            await self._executor.clean(attempt)  # a new job of that id would use the same names
            return
        now, node = self._world.wall(), self._config.name
        event: End | Interrupt
        if finished.interrupted:
            event = Interrupt(
                at=now,
                node=node,
                note=note,
                stdout=stdout,
                stderr=stderr,
                trail=finished.trail,
                interruption=finished.interruption,
                deaths_max=self._config.poison_max,
            )
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
        unstarted = finished.interruption is Interruption.UNSTARTED
        try:
            if unstarted and live.cancellation is None and not live.spec.at_most_once:
                self._ledger.note(identity, event)  # nobody was promised anything, and the disk may be what is lacking
            else:
                await self._record(identity, event, contents)
        finally:
            Deferred.fromCoroutine(self._executor.clean(attempt)).addErrback(  # nothing of the job waits for it
                lambda failure: _log.failure("attempt {attempt}: its files stay", failure, attempt=attempt)
            )
        job = self._ledger.live(identity)
        if job is None:
            self.resumed.discard(identity)
        elif job.state is JobState.WAITING:  # otherwise it has ended, perhaps by a cancel meanwhile
            self._again(job, finished.interrupted)

    async def _record(self, identity: JobId, event: End | Interrupt, contents: Sequence[Content] = ()) -> None:
        """Make the end of an attempt durable, however long the disk refuses."""
        try:
            await self._ledger.record(identity, event, contents)
        except StoreFailed as problem:
            await self.insist(identity, problem)
