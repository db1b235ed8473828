"""The jobs that this node owns: every change of a job goes through here, and only here.

Invariant: what anyone is told of a job is never taken back by a crash: an acceptance and an outcome are published
after they are durable; the states in between promise nothing and are published at once. A job without an outcome is in
memory; one with an outcome is in the store alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from attrs import Factory, define, evolve
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from cloudmytask.boundaries import World
from cloudmytask.core.job import Event, Expire, Move, step
from cloudmytask.core.retention import RetentionClock
from cloudmytask.deferreds import Signal
from cloudmytask.listeners import Listeners, Registration
from cloudmytask.model.errors import (
    InternalError,
    JobExpired,
    JobMoved,
    JobNotFinished,
    NoSuchJob,
    StoreFailed,
)
from cloudmytask.model.job import TERMINAL_STATES, ClientId, Content, Digest, Job, JobId, JobPage, JobQuery, JobState

_log = Logger()


@define(eq=False)
class _Entry:
    job: Job
    """As the node sees it."""
    published: Job | None
    """As everyone else sees it; None before the acceptance is durable."""
    signal: Signal = Factory(Signal)
    watchers: Listeners[[Job]] = Factory(Listeners)
    refused: bool = False
    """Its acceptance could not be made durable."""
    unsaved: tuple[Content, ...] = ()
    """Blobs that the job refers to and that are not known to be durable: each save takes them along."""


@define(eq=False)
class Ledger:
    """Jobs by id, in memory while they live, in the store always."""

    _world: World
    _clock: RetentionClock
    _next_sequence: int
    _tombstones: float
    """Seconds for which an expired job is still known."""
    _entries: dict[JobId, _Entry] = Factory(dict)
    published: Listeners[[Job]] = Factory(Listeners)
    """Told of every publication of every job."""

    def sequence(self) -> int:
        """The number of the next accepted job."""
        self._next_sequence += 1
        return self._next_sequence - 1

    def age(self) -> float:
        """The retention clock, seconds."""
        return self._clock.read(self._world.clock.seconds())

    def live(self, job_id: JobId) -> Job | None:
        """The node's own view of a job that has no outcome yet."""
        entry = self._entries.get(job_id)
        return entry.job if entry is not None and not entry.refused else None

    def latest(self, job_id: JobId) -> Job | None:
        """The same, also of a job whose acceptance has failed, until :meth:`drop`."""
        entry = self._entries.get(job_id)
        return None if entry is None else entry.job

    def owns(self, job_id: JobId) -> bool:
        """Whether a job of that id is open here."""
        return job_id in self._entries

    def is_accepted(self, job_id: JobId) -> bool:
        """Whether the acceptance of a live job is durable."""
        entry = self._entries.get(job_id)
        return entry is not None and entry.published is not None

    def signal(self, job_id: JobId) -> Signal | None:
        """Fired at each publication of a live job, and when there is news of its output."""
        entry = self._entries.get(job_id)
        return entry.signal if entry is not None else None

    def digests(self) -> Iterator[Digest]:
        """Blobs that live jobs need."""
        for entry in self._entries.values():
            yield from (blob.digest for blob in entry.job.blobs())

    def adopt(self, job: Job) -> None:
        """Take in a job that the store already holds."""
        self._entries[job.id] = _Entry(job, published=job)

    async def accept(self, job: Job, contents: Sequence[Content]) -> Job:
        """Take in a new job, durably.

        :raises StoreFailed: it was not accepted; :meth:`drop` it when nothing is done for it any more.
        """
        entry = self._entries[job.id] = _Entry(job, published=None)
        try:
            await self._world.store.save(job, contents)
        except Exception:
            entry.refused = True
            raise
        if entry.published is None:
            self._publish(entry, entry.job if not entry.job.state.terminal else job)
        return job

    def drop(self, job_id: JobId) -> None:
        """Forget a job that was not accepted after all."""
        entry = self._entries.pop(job_id)
        # What was noted of it since may have reached the disk, although its acceptance did not.
        gone = self._world.store.forget(job_id)
        gone.addErrback(lambda failure: failure.trap(StoreFailed) and None)
        entry.signal.fire()

    async def accepted(self, job_id: JobId) -> Job | None:
        """A live job, once its acceptance is durable; None if it is not live or was not accepted after all."""
        while (entry := self._entries.get(job_id)) is not None:
            if entry.published is not None:
                return entry.published
            await entry.signal.wait()
        return None

    def note(self, job_id: JobId, event: Event) -> Job:
        """Apply an event that is told in memory only, such as ``Stage``."""
        entry = self._entries[job_id]
        entry.job = step(entry.job, event)
        self._publish_later_state(entry)
        return entry.job

    def note_soon(self, job_id: JobId, event: Event) -> None:
        """Apply an event that goes to the disk at once, without anyone waiting for it to arrive."""
        job = self.note(job_id, event)
        self._world.store.save(job).addErrback(_not_noted, job_id)

    async def record(self, job_id: JobId, event: Event, contents: Sequence[Content] = ()) -> Job:
        """Apply an event durably; an outcome is published, and the job leaves memory, once it is safe.

        :raises StoreFailed: it is not durable. The event stays applied in memory; see :meth:`resave`.
        :raises InternalError: it cannot be recorded, by a bug of ours; the event is taken back.
        """
        entry = self._entries[job_id]
        before, entry.job = entry.job, step(entry.job, event)
        if entry.job.state.terminal and not before.state.terminal:
            entry.job = evolve(entry.job, expires=self.age() + entry.job.retention)
        job = entry.job
        entry.unsaved += tuple(contents)
        if not job.state.terminal:
            self._publish_later_state(entry)
        try:
            return await self._save(entry)
        except InternalError:
            if entry.job is job:  # it has no record, so it has not happened
                entry.job = before
            raise

    async def resave(self, job_id: JobId) -> None:
        """Try once more to make a job's record durable, unless it has ended meanwhile.

        :raises StoreFailed: the disk refused again.
        """
        entry = self._entries.get(job_id)
        if entry is not None and not entry.refused:
            await self._save(entry)

    async def expire(self, job: Job, *, removed: bool) -> Job:
        """Turn a job that has an outcome into a tombstone."""
        world = self._world
        gone = step(job, Expire(at=world.wall(), node=job.owner.name, removed=removed))
        gone = evolve(gone, expires=self.age() + self._tombstones)
        await world.store.save(gone)
        return gone

    async def move(self, job_id: JobId, to: str) -> None:
        """Another node has made the job its own: what is left here is a note that says so. Its watchers are not told
        of an outcome: there is none.

        :raises StoreFailed: the note is not durable; the next life of this node takes the job for its own.
        """
        entry = self._entries.pop(job_id)
        gone = step(entry.job, Move(at=self._world.wall(), node=entry.job.owner.name, to=to))
        gone = evolve(gone, expires=self.age() + self._tombstones)
        try:
            await self._world.store.save(gone)
        finally:
            entry.signal.fire()  # who looks now finds the note

    def find(self, client: ClientId, job_id: JobId) -> Deferred[Job]:
        """The job as its owner may see it.

        :raises NoSuchJob: there is none, or it belongs to somebody else: both answer alike.
        """
        entry = self._entries.get(job_id)
        if entry is None:
            known = self._world.store.get(job_id)
        elif entry.published is None:
            # others may have seen its record before we heard that it is durable
            known = Deferred.fromCoroutine(self.accepted(job_id))
        else:
            known = succeed(entry.published)
        return known.addCallback(self._visible, client, job_id)

    def find_kept(self, client: ClientId, job_id: JobId) -> Deferred[Job]:
        """Like :meth:`find`, for what needs more than a tombstone.

        :raises JobExpired: only a tombstone is left.
        """
        return self.find(client, job_id).addCallback(_kept)

    async def newest(self, client: ClientId, query: JobQuery) -> JobPage:
        """Jobs of ``client``, newest first; a page may be short, or empty, while there are more."""
        wanted = query.states or frozenset(JobState) - {JobState.EXPIRED}
        # The disk may be behind in what it knows of a job without outcome, so such a job is asked for in any state.
        open_states = frozenset(JobState) - TERMINAL_STATES
        stored = query.states | open_states if query.states & open_states else query.states
        page = await self._world.store.newest(client, evolve(query, states=stored))
        listed = (self._as_listed(job) for job in page.jobs)
        return evolve(page, jobs=tuple(job for job in listed if job.state in wanted))

    async def remove(self, client: ClientId, job_id: JobId) -> Job:
        """Delete outcome and output of a job before its time. :raises JobNotFinished: it has none yet."""
        job = await self.find_kept(client, job_id)
        if not job.state.terminal:
            raise JobNotFinished(f"job {job.id} is {job.state.value}; cancel it before it is removed")
        return await self.expire(job, removed=True)

    def open_jobs(self) -> Iterator[tuple[Job, bool]]:
        """Every job in memory, and whether its acceptance is durable: for those who check the node."""
        for entry in self._entries.values():
            yield entry.job, entry.published is not None

    def _as_listed(self, job: Job) -> Job:
        """A record that the store listed, as it is now."""
        entry = self._entries.get(job.id)
        if entry is not None and entry.published is not None:
            return entry.published
        return self._aged(job)

    def watch(self, job: Job, changed: Callable[[Job], None]) -> Registration:
        """Tell ``changed`` of every later publication. For a job that is not live there are none."""
        entry = self._entries.get(job.id) or _Entry(job, published=job)
        return entry.watchers.add(changed)

    def _visible(self, job: Job | None, client: ClientId, job_id: JobId) -> Job:
        if job is None or job.client != client:
            raise NoSuchJob(f"there is no job {job_id} of client {client} on this node")
        if job.moved_to is not None:
            raise JobMoved(f"job {job_id} was handed over to {job.moved_to} when this node shut down; ask there")
        return self._aged(job)

    def _aged(self, job: Job) -> Job:
        """A job whose time has come is expired even before the sweep reaches it."""
        if job.expires is None or job.state is JobState.EXPIRED or job.expires > self.age():
            return job
        return step(job, Expire(at=self._world.wall(), node=job.owner.name))

    async def _save(self, entry: _Entry) -> Job:
        job, contents = entry.job, entry.unsaved
        await self._world.store.save(job, contents)
        entry.unsaved = tuple(content for content in entry.unsaved if content not in contents)
        self._settle(entry, job)
        return job

    def _settle(self, entry: _Entry, job: Job) -> None:
        if entry.refused:
            return
        if not job.state.terminal:
            if entry.published is None:
                self._publish(entry, entry.job)
            return
        if self._entries.get(job.id) is entry:
            del self._entries[job.id]
            self._publish(entry, job)

    def _publish_later_state(self, entry: _Entry) -> None:
        if entry.published is not None:
            self._publish(entry, entry.job)

    def _publish(self, entry: _Entry, job: Job) -> None:
        entry.published = job
        entry.watchers.tell(job)
        self.published.tell(job)
        entry.signal.fire()


def _not_noted(failure: Failure, job_id: JobId) -> None:
    """Nobody was promised that it would be: the next save brings it along."""
    failure.trap(StoreFailed)
    _log.warn("job {job_id}: its state is not on disk yet: {problem}", job_id=job_id, problem=str(failure.value))


def _kept(job: Job) -> Job:
    if job.state is JobState.EXPIRED:
        how = "was removed" if job.removed else "has expired"
        raise JobExpired(f"job {job.id} {how}, its outcome and output are gone")
    return job
