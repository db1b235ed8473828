"""Owns accepted jobs until they have an outcome, and places them on free slots.

Invariant: whatever was accepted is always in exactly one place: the queue, a slot, the pause before another attempt,
or waiting for its outcome to become durable.
"""

from __future__ import annotations

from collections.abc import Coroutine, Sequence

from attrs import Factory, define
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from cloudmytask.boundaries import DelayedCall, World
from cloudmytask.config import NodeConfig
from cloudmytask.core.admission import check_note
from cloudmytask.core.backoff import RETRY, Backoff
from cloudmytask.core.explain import Surroundings
from cloudmytask.core.job import Cancel, End, Interrupt, Stage, Start, Wait, failures, retriable
from cloudmytask.core.queue import Entry, WaitingQueue
from cloudmytask.errors import (
    StoreFailed,
)
from cloudmytask.model import Job, JobId, JobState, Reason
from cloudmytask.node.ledger import Ledger
from cloudmytask.node.roles import Door, Ended, Slots
from cloudmytask.node.waiting import Signal

_log = Logger(namespace="cloudmytask.origin")

STORE_RETRY = Backoff(first=0.5, factor=2.0, ceiling=30.0)
"""Between attempts to make an outcome durable on a disk that refuses."""


@define(eq=False)
class Origin:
    """The jobs accepted by this node."""

    _world: World
    _config: NodeConfig
    _door: Door
    _ledger: Ledger
    _slots: Slots
    _queue: WaitingQueue
    _pauses: dict[JobId, tuple[float, DelayedCall]] = Factory(dict)
    """Jobs between two attempts: when the next one is due, on the clock."""
    _under_way: list[JobId] = Factory(list)
    """Jobs of which an attempt is not recorded yet."""
    _concluded: Signal = Factory(Signal)

    async def cancel(self, job: Job, note: str) -> Job:
        """End a job. One that has an outcome already stays as it is; one that is being cancelled is killed at once."""
        check_note(note)
        live = self._ledger.live(job.id)
        if live is None or live.state.terminal:
            return job
        if live.cancellation is not None:
            self._slots.hurry(job.id)
            return live
        pause = self._pauses.pop(job.id, None)
        if pause is not None:
            pause[1].cancel()
        self._queue.remove(job.id)
        event = Cancel(at=self._world.wall(), node=self._config.name, by=job.client, note=note)
        recorded = Deferred.fromCoroutine(self._ledger.record(job.id, event))
        self._slots.stop(job.id, Reason.CANCELLED)
        return await recorded

    def place(self) -> None:
        """Give free slots to waiting jobs. Called whenever either may have changed."""
        while not self._door.draining and self._slots.free:
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
                self.enqueue(job)

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
            running=self._slots.running,
            ahead=self._queue.position(job.id),
            load=self._world.probe.load(),
            idle_threshold=self._config.idle_threshold,
            draining=self._door.draining,
            retry_in=None if pause is None else max(0.0, pause[0] - self._world.clock.seconds()),
        )

    async def withdraw(self, identity: JobId) -> None:
        """Undo what was begun for a job whose acceptance is not durable. Until that is done nobody can submit it
        again, or two attempts of one job would be under way."""
        self._queue.remove(identity)
        self._slots.stop(identity, Reason.LOST)
        self._slots.hurry(identity)
        while identity in self._under_way:
            await self._concluded.wait()
        self._ledger.drop(identity)

    def enqueue(self, job: Job) -> None:
        """Take over an accepted job: place it, or let it wait."""
        self._queue.add(Entry(job.id, job.client, job.spec.qos, self._world.clock.seconds()))
        self.place()
        if job.id in self._queue:
            waiting = self._ledger.live(job.id)
            if waiting is not None and waiting.state is JobState.PENDING:
                event = Wait(at=self._world.wall(), node=self._config.name, note=self._why_not_now())
                self._ledger.note(job.id, event)

    def _why_not_now(self) -> str:
        running, slots = self._slots.running, self._config.slots
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

        ended = await self._slots.run(job, before_start, freed)
        await self._conclude(job.id, attempt.number, ended)

    async def _reclaim(self, job: Job) -> None:
        assert job.attempt is not None
        await self._conclude(job.id, job.attempt.number, await self._slots.recover(job), "the node died")

    async def _conclude(self, identity: JobId, attempt: int, ended: Ended, note: str = "the node shut down") -> None:
        """Record how an attempt ended, and go on from there."""
        live = self._ledger.live(identity)
        if live is None:  # its acceptance failed while it ran, and its client was told so
            await self._slots.clean(identity, attempt)
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
        await self._slots.clean(identity, attempt)
        job = self._ledger.live(identity)
        if job is None or job.state is not JobState.WAITING:  # it has ended, perhaps by a cancel meanwhile
            return
        if ended.interrupted:
            self.enqueue(job)
        else:
            self._pause(job)

    async def _insist(self, identity: JobId, problem: StoreFailed) -> None:
        """An outcome cannot be refused: try until the disk takes it. A node that shuts down gives up: on disk the job
        is without outcome, and runs again after the next start."""
        tries = 0
        while self._ledger.live(identity) is not None:  # not so if a cancel, and the output with it, went before us
            if self._door.draining:
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
        self.enqueue(job)
