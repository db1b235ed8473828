"""Accepts jobs, owns them until they have an outcome, and places them on free slots.

Invariant: whatever was accepted is always in exactly one place: the queue, a slot, the pause before another attempt,
or waiting for its outcome to become durable.
"""

from __future__ import annotations

from collections.abc import Coroutine, Sequence

from attrs import Factory, define
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from cloudmytask.boundaries import DelayedCall, Receipt, Submission, World
from cloudmytask.config import NodeConfig
from cloudmytask.core.admission import check_key, check_spec
from cloudmytask.core.backoff import RETRY, Backoff
from cloudmytask.core.explain import Surroundings
from cloudmytask.core.job import Cancel, End, Interrupt, Stage, Start, Wait, failures, retriable
from cloudmytask.core.job_id import job_id
from cloudmytask.core.queue import Entry, WaitingQueue
from cloudmytask.core.records import body_digest
from cloudmytask.core.retention import granted
from cloudmytask.errors import (
    BlobMissing,
    CloudMyTaskError,
    IdempotencyConflict,
    JobNotFinished,
    QueueFull,
    StoreFailed,
)
from cloudmytask.model import ClientId, Digest, Job, JobId, JobState, QoS, Reason, Stamp
from cloudmytask.node.executor import Ended, Executor
from cloudmytask.node.gate import Gate
from cloudmytask.node.ledger import Ledger
from cloudmytask.node.waiting import Signal

_log = Logger(namespace="cloudmytask.origin")

STORE_RETRY = Backoff(first=0.5, factor=2.0, ceiling=30.0)
"""Between attempts to make an outcome durable on a disk that refuses."""


@define(eq=False)
class Origin:
    """The jobs accepted by this node."""

    _world: World
    _config: NodeConfig
    _gate: Gate
    _ledger: Ledger
    _executor: Executor
    _queue: WaitingQueue
    _pauses: dict[JobId, tuple[float, DelayedCall]] = Factory(dict)
    """Jobs between two attempts: when the next one is due, on the clock."""
    _under_way: list[JobId] = Factory(list)
    """Jobs of which an attempt is not recorded yet."""
    _concluded: Signal = Factory(Signal)

    async def submit(self, client: ClientId, submission: Submission) -> Receipt:
        """Accept a job; see ``FrontDoor.submit``."""
        check_key(submission.key)
        check_spec(submission.spec, self._config.script_max)
        identity, body = job_id(client, submission.key), body_digest(submission.spec)
        known = await self._known(identity)
        if known is None and not self._complete(submission):
            await self._check_blobs(submission)
            known = await self._known(identity)  # a twin request may have come meanwhile
        # From here to the ledger nothing is waited for, so that of twins one is accepted and the other finds it.
        if known is not None:
            if known.body != body:
                raise IdempotencyConflict(f"key {submission.key}: it belongs to job {identity}, which has another body")
            return Receipt(known, known=True)
        return Receipt(await self._accept(identity, client, submission, body), known=False)

    async def retry(self, client: ClientId, old: Job, key: str) -> Receipt:
        """Submit the spec of ``old`` once more, as a new job."""
        if not old.state.terminal:
            raise JobNotFinished(f"job {old.id} is {old.state.value}; only a job that has ended can be retried")
        return await self.submit(client, Submission(key=key, spec=old.spec))

    async def cancel(self, job: Job, note: str) -> Job:
        """End a job. One that has an outcome already stays as it is; one that is being cancelled is killed at once."""
        live = self._ledger.live(job.id)
        if live is None or live.state.terminal:
            return job
        if live.cancellation is not None:
            self._executor.hurry(job.id)
            return live
        pause = self._pauses.pop(job.id, None)
        if pause is not None:
            pause[1].cancel()
        self._queue.remove(job.id)
        event = Cancel(at=self._world.wall(), node=self._config.name, by=job.client, note=note)
        recorded = Deferred.fromCoroutine(self._ledger.record(job.id, event))
        self._executor.stop(job.id, Reason.CANCELLED)
        return await recorded

    def place(self) -> None:
        """Give free slots to waiting jobs. Called whenever either may have changed."""
        while not self._gate.draining and self._executor.free:
            load = self._world.probe.load()
            entry = self._queue.pop(idle_allowed=load is None or load < self._config.idle_threshold)
            if entry is None:
                return
            job = self._ledger.note(entry.job_id, Stage(at=self._world.wall(), node=self._config.name))
            self._follow(job.id, self._attempt(job))

    def resume(self, jobs: Sequence[Job]) -> None:
        """Take over the jobs without outcome that an earlier life of this node left."""
        for job in jobs:
            self._ledger.adopt(job)
            if job.state in (JobState.STAGING, JobState.RUNNING):
                self._follow(job.id, self._reclaim(job))
            else:
                self._enqueue(job)

    async def settled(self) -> None:
        """Wait until every attempt that was under way is recorded."""
        while self._under_way:
            await self._concluded.wait()

    def surroundings(self, job: Job) -> Surroundings:
        """What ``cmt why`` needs beyond the job's record."""
        pause = self._pauses.get(job.id)
        return Surroundings(
            node=self._config.name,
            slots=self._config.slots,
            running=self._executor.running,
            ahead=self._queue.position(job.id),
            load=self._world.probe.load(),
            idle_threshold=self._config.idle_threshold,
            draining=self._gate.draining,
            retry_in=None if pause is None else max(0.0, pause[0] - self._world.clock.seconds()),
        )

    async def _known(self, identity: JobId) -> Job | None:
        live = await self._ledger.accepted(identity)
        if live is not None:
            return live
        stored = await self._world.store.get(identity)
        if stored is not None:
            return stored
        return await self._ledger.accepted(identity)  # a twin request may have come while the store was asked

    async def _accept(self, identity: JobId, client: ClientId, submission: Submission, body: Digest) -> Job:
        spec, config, now = submission.spec, self._config, self._world.wall()
        self._gate.admit_work()
        placeable = self._executor.free and not len(self._queue) and spec.qos is not QoS.IDLE
        if self._queue.full and not placeable:
            raise QueueFull(
                f"node {config.name}: {len(self._queue)} jobs wait already, queue_max is {config.queue_max}"
            )
        job = Job(
            id=identity,
            client=client,
            spec=spec,
            body=body,
            sequence=self._ledger.sequence(),
            origin=config.name,
            state=JobState.PENDING,
            submitted_at=now,
            retention=granted(spec.retention, config.retention, config.retention_max),
            trail=(Stamp(at=now, stage="accepted", node=config.name),),
        )
        durable = Deferred.fromCoroutine(self._ledger.accept(job, submission.contents))
        if not spec.at_most_once:
            self._enqueue(job)
        try:
            await durable
        except CloudMyTaskError:
            await self._withdraw(identity)
            raise
        if spec.at_most_once:
            self._enqueue(job)
        return job

    async def _withdraw(self, identity: JobId) -> None:
        """Undo what was begun for a job whose acceptance is not durable. Until that is done nobody can submit it
        again, or two attempts of one job would be under way."""
        self._queue.remove(identity)
        self._executor.stop(identity, Reason.LOST)
        self._executor.hurry(identity)
        while identity in self._under_way:
            await self._concluded.wait()
        self._ledger.drop(identity)

    def _complete(self, submission: Submission) -> bool:
        """Whether everything came along that the job needs."""
        brought = {content.blob for content in submission.contents}
        return submission.spec.script in brought and submission.spec.stdin in {None, *brought}

    async def _check_blobs(self, submission: Submission) -> None:
        brought = {content.blob for content in submission.contents}
        for field, blob in (("script", submission.spec.script), ("stdin", submission.spec.stdin)):
            if blob is not None and blob not in brought and not await self._world.store.has(blob):
                raise BlobMissing(f"{field}: blob {blob.digest} is not on node {self._config.name}")

    def _enqueue(self, job: Job) -> None:
        self._queue.add(Entry(job.id, job.client, job.spec.qos, self._world.clock.seconds()))
        self.place()
        if job.id in self._queue:
            waiting = self._ledger.live(job.id)
            if waiting is not None and waiting.state is JobState.PENDING:
                event = Wait(at=self._world.wall(), node=self._config.name, note=self._why_not_now())
                self._ledger.note(job.id, event)

    def _why_not_now(self) -> str:
        running, slots = self._executor.running, self._config.slots
        return f"{running} of {slots} slots taken, {len(self._queue) - 1} jobs before it"

    def _follow(self, identity: JobId, work: Coroutine[Deferred[object], object, None]) -> None:
        """Let an attempt run on by itself; only a bug makes it fail."""
        self._under_way.append(identity)

        def concluded(_: object) -> None:
            self._under_way.remove(identity)
            self._concluded.fire()

        followed = Deferred.fromCoroutine(work)
        followed.addErrback(lambda failure: _log.failure("job {job_id}: broken attempt", failure, job_id=identity))
        followed.addBoth(concluded)

    async def _attempt(self, job: Job) -> None:
        attempt = job.attempt
        assert attempt is not None

        async def before_start() -> None:
            started = Start(at=self._world.wall(), node=self._config.name, attempt=attempt.number)
            if job.spec.at_most_once:
                await self._ledger.record(job.id, started)
            elif self._ledger.live(job.id) is not None:
                self._ledger.note_lazily(job.id, started)

        def freed() -> None:
            self._queue.ended(job.client)
            self.place()

        ended = await self._executor.run(job, before_start, freed)
        await self._conclude(job.id, attempt.number, ended)

    async def _reclaim(self, job: Job) -> None:
        assert job.attempt is not None
        await self._conclude(job.id, job.attempt.number, await self._executor.recover(job), "the node died")

    async def _conclude(self, identity: JobId, attempt: int, ended: Ended, note: str = "the node shut down") -> None:
        """Record how an attempt ended, and go on from there."""
        live = self._ledger.live(identity)
        if live is None:  # its acceptance failed while it ran, and its client was told so
            await self._executor.clean(identity, attempt)
            return
        now, node = self._world.wall(), self._config.name
        event: End | Interrupt
        if ended.interrupted:
            event = Interrupt(at=now, node=node, note=note, stdout=ended.stdout, stderr=ended.stderr)
        else:
            event = End(
                at=now,
                node=node,
                attempt=attempt,
                outcome=ended.outcome,
                stdout=ended.stdout,
                stderr=ended.stderr,
                retry=retriable(live, ended.outcome),
            )
        try:
            await self._ledger.record(identity, event, ended.contents)
        except StoreFailed as problem:
            await self._insist(identity, problem)
        await self._executor.clean(identity, attempt)
        job = self._ledger.live(identity)
        if job is None or job.state is not JobState.WAITING:  # it has ended, perhaps by a cancel meanwhile
            return
        if ended.interrupted:
            self._enqueue(job)
        else:
            self._pause(job)

    async def _insist(self, identity: JobId, problem: StoreFailed) -> None:
        """An outcome cannot be refused: try until the disk takes it. A node that shuts down gives up: on disk the job
        is without outcome, and runs again after the next start."""
        tries = 0
        while self._ledger.live(identity) is not None:  # not so if a cancel, and the output with it, went before us
            if self._gate.draining:
                raise problem
            tries += 1
            delay = STORE_RETRY.delay(tries, self._world.entropy.random.random())
            _log.error(
                "job {job_id}: outcome not durable ({problem}); next try in {delay:.1f} s",
                job_id=identity,
                problem=str(problem),
                delay=delay,
            )
            pause: Deferred[None] = Deferred()
            self._world.clock.callLater(delay, pause.callback, None)
            await pause
            try:
                await self._ledger.resave(identity)
            except StoreFailed as again:
                problem = again
            else:
                return

    def _pause(self, job: Job) -> None:
        delay = RETRY.delay(failures(job), self._world.entropy.random.random())
        due = self._world.clock.seconds() + delay
        self._pauses[job.id] = (due, self._world.clock.callLater(delay, self._unpause, job))

    def _unpause(self, job: Job) -> None:
        del self._pauses[job.id]
        self._enqueue(job)
