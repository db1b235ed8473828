"""Owns accepted jobs until they have an outcome, and places them on free slots.

Invariant: whatever was accepted is always in exactly one place: the queue, a slot, the pause before another attempt,
or waiting for its outcome to become durable.
"""

from __future__ import annotations

from collections.abc import Coroutine, Sequence

from attrs import Factory, define
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from cloudmytask.boundaries import DelayedCall, World
from cloudmytask.config import NodeConfig
from cloudmytask.core.admission import check_note
from cloudmytask.core.backoff import RETRY, Backoff
from cloudmytask.core.explain import Surroundings
from cloudmytask.core.job import Cancel, End, Interrupt, Stage, Start, Wait, failures, retriable
from cloudmytask.core.queue import Entry, WaitingQueue
from cloudmytask.errors import StoreFailed
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
        try:
            return await recorded
        except StoreFailed as problem:
            # It is done all the same, and will be on disk as soon as the disk takes it.
            self._follow(job.id, self._insist(job.id, problem))
            raise

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
                self._queue.add(self._entry(job))
        self.place()
        for job in jobs:
            self._note_waiting(job.id)

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
        self._queue.add(self._entry(job))
        self.place()
        self._note_waiting(job.id)

    def whereabouts(self) -> dict[JobId, list[str]]:
        """In which places each open job is: the invariant of this module, for those who check it."""
        places: dict[JobId, list[str]] = {}
        for job, accepted in self._ledger.open_jobs():
            found = places.setdefault(job.id, [])
            if job.id in self._queue:
                found.append("queue")
            if job.id in self._pauses:
                found.append("pause")
            if job.id in self._under_way:
                found.append("slot")
            if not found and not accepted:
                found.append("acceptance")
            if not found and job.state.terminal:
                found.append("commit")
        return places

    def _entry(self, job: Job) -> Entry:
        return Entry(job.id, job.client, job.spec.qos, self._world.clock.seconds())

    def _note_waiting(self, identity: JobId) -> None:
        waiting = self._ledger.live(identity)
        if identity in self._queue and waiting is not None and waiting.state is JobState.PENDING:
            running, slots = self._slots.running, self._config.slots
            note = f"{running} of {slots} slots taken, {len(self._queue) - 1} jobs before it"
            self._ledger.note(identity, Wait(at=self._world.wall(), node=self._config.name, note=note))

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
                self._ledger.note_soon(job.id, started)

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
            await self._clean(identity, attempt)  # a new job of that id would use the same names
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
        Deferred.fromCoroutine(self._clean(identity, attempt))  # nothing of the job waits for it
        job = self._ledger.live(identity)
        if job is None or job.state is not JobState.WAITING:  # it has ended, perhaps by a cancel meanwhile
            return
        if ended.interrupted:
            self._queue.put_back(self._entry(job))
            self.place()
        else:
            self._pause(job)

    async def _clean(self, identity: JobId, attempt: int) -> None:
        try:
            await self._slots.clean(identity, attempt)
        except StoreFailed as problem:
            _log.error("job {job_id}: its directory stays: {problem}", job_id=identity, problem=str(problem))

    async def _insist(self, identity: JobId, problem: StoreFailed) -> None:
        """What has happened to a job cannot be refused: try until the disk takes it. A node that shuts down tries once
        more and gives up: on disk the job is without outcome, and runs again after the next start."""
        tries = 0
        while self._ledger.live(identity) is not None:  # not so if another save of it went before us
            last = self._door.draining
            tries += 1
            delay = 0.0 if last else STORE_RETRY.delay(tries, self._world.entropy.random.random())
            _log.error(
                "job {job_id}: not durable ({problem}); next try in {delay:.1f} s",
                job_id=identity,
                problem=str(problem),
                delay=delay,
            )
            await self._nap(delay)
            try:
                await self._ledger.resave(identity)
            except StoreFailed as again:
                problem = again
            else:
                return
            if last:
                _log.error("job {job_id}: given up, it runs again after the next start", job_id=identity)
                return

    async def _nap(self, seconds: float) -> None:
        """Wait, but no longer than until the node shuts down."""
        over = self._door.closing.wait()
        timer = self._world.clock.callLater(seconds, over.cancel)
        try:
            await over
        except CancelledError:
            return
        timer.cancel()

    def _pause(self, job: Job) -> None:
        delay = RETRY.delay(failures(job), self._world.entropy.random.random())
        due = self._world.clock.seconds() + delay
        self._pauses[job.id] = (due, self._world.clock.callLater(delay, self._unpause, job))

    def _unpause(self, job: Job) -> None:
        del self._pauses[job.id]
        self.enqueue(job)
