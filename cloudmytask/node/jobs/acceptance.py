"""Accepts jobs: checks what a client asks for, and makes it durable before it says yes.

Invariant: a key that was accepted before, by this life of the node or an earlier one, gives the same job or a conflict,
never a second job; what was refused leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from attrs import define, evolve
from twisted.internet.defer import Deferred

from cloudmytask.boundaries import Receipt, Submission, World
from cloudmytask.codec import body_digest
from cloudmytask.config import NodeConfig
from cloudmytask.core.admission import check_key, check_spec
from cloudmytask.core.job import take_over
from cloudmytask.core.job_id import job_id
from cloudmytask.core.queue import WaitingQueue
from cloudmytask.core.retention import arrive, granted
from cloudmytask.model.cluster import OfferAnswer
from cloudmytask.model.errors import (
    Banned,
    BlobMissing,
    IdempotencyConflict,
    InvalidArgument,
    JobExpired,
    JobMoved,
    JobNotFinished,
    NoSuchNode,
    QueueFull,
)
from cloudmytask.model.job import (
    ClientId,
    Content,
    Digest,
    Job,
    JobId,
    JobSpec,
    JobState,
    Owner,
    QoS,
    Stamp,
    TravelingJob,
)
from cloudmytask.node.gate import Gate
from cloudmytask.node.jobs.ledger import Ledger
from cloudmytask.node.jobs.origin import Origin
from cloudmytask.node.placing.placer import Placer
from cloudmytask.node.remote.guests import Guests
from cloudmytask.node.remote.inputs import missing


@define(eq=False)
class Acceptance:
    """The part of the origin that says yes or no.

    :ivar others: names of the other nodes that are known.
    :ivar me: this node, as the owner of what it accepts.
    """

    _world: World
    _config: NodeConfig
    _gate: Gate
    _ledger: Ledger
    _placer: Placer
    _queue: WaitingQueue
    _others: Callable[[], Iterable[str]]
    _origin: Origin
    _guests: Guests
    _me: Owner

    async def submit(self, client: ClientId, submission: Submission) -> Receipt:
        """Accept a job; see ``JobDoor.submit``."""
        check_key(submission.key)
        check_spec(submission.spec, self._config.script_max)
        self._check_whereabouts(submission.spec)
        identity, body = job_id(client, submission.key), body_digest(submission.spec)
        known = await self._known(identity)
        if known is None and not self._complete(submission):
            await self._check_blobs(submission)
            known = await self._known(identity)  # a twin request may have come meanwhile
        # From here to the ledger nothing is waited for, so that of twins one is accepted and the other finds it.
        if known is not None:
            if known.body != body:
                raise IdempotencyConflict(f"key {submission.key}: it belongs to job {identity}, which has another body")
            if known.moved_to is not None:
                raise JobMoved(f"key {submission.key}: it belongs to job {identity}, which is at {known.moved_to} now")
            if known.state is JobState.EXPIRED:
                how = "was removed" if known.removed else "has expired"
                raise JobExpired(f"key {submission.key}: it belongs to job {identity}, which {how}; take another key")
            return Receipt(known, known=True)
        if self._guests.has(identity):
            raise IdempotencyConflict(
                f"key {submission.key}: it belongs to job {identity}, which runs here for another node that accepted it"
            )
        return Receipt(await self._accept(identity, client, submission, body), known=False)

    async def retry(self, client: ClientId, old: Job, key: str) -> Receipt:
        """Submit the spec of ``old`` once more, as a new job."""
        if not old.state.terminal:
            raise JobNotFinished(f"job {old.id} is {old.state.value}; only a job that has ended can be retried")
        return await self.submit(client, Submission(key=key, spec=old.spec))

    async def take_over(self, traveling: TravelingJob, contents: Sequence[Content]) -> OfferAnswer:
        """Make a job of a node that shuts down this node's own; accepted once it is durable here."""
        job = arrive(traveling, self._ledger.age())
        job = evolve(job, body=body_digest(job.spec))  # as of a submit: nobody's word counts for it
        why = self._refusal(job)
        if why is None:
            lacking = await missing(self._world.store, job.spec, contents)
            if lacking:
                return OfferAnswer(False, self._placer.here(), "blobs are missing", missing=lacking)
            known = await self._known(job.id)
            if known is not None and known.moved_to is None:
                same = known.body == job.body  # then it was taken over before, and the answer was lost
                why = "" if same else "another job of that id, with another body, is here"
                return OfferAnswer(same, self._placer.here(), why)
            why = self._refusal(job)
        if why is not None:
            return OfferAnswer(False, self._placer.here(), why)
        job = evolve(job, retention=granted(job.retention, self._config.retention, self._config.retention_max))
        own = take_over(job, self._me, self._ledger.sequence(), self._world.wall())
        await self._accept_first(own, contents)
        return OfferAnswer(True, self._placer.here())

    def _refusal(self, job: Job) -> str | None:
        """Why a job is not taken over."""
        if self._guests.has(job.id):
            return "an attempt of it is here"
        check_spec(job.spec, self._config.script_max)
        if self._gate.draining:
            return "draining"
        if self._gate.disk_short:
            return "its disk is full"
        if self._queue.full:
            return "its queue is full"
        try:
            self._gate.check_banned(job.client)
        except Banned as ban:
            return f"banned: {ban}"
        here = self._config.name
        if job.spec.local or (job.spec.node not in (None, here, *self._others())):
            return "not wanted here"
        return None

    def _check_whereabouts(self, spec: JobSpec) -> None:
        """Check that some node can run it.

        :raises NoSuchNode, InvalidArgument: there is no such node, or it must not run on any.
        """
        here = self._config.name
        if spec.local and (spec.node not in (None, here) or here in spec.avoid):
            raise InvalidArgument(f"local: it is to run on {here} only, which node or avoid forbids")
        if spec.node not in (None, here, *self._others()):
            known = ", ".join(sorted({here, *self._others()})[:20])
            raise NoSuchNode(f"node: no node named {spec.node!r} is known here; known are {known}")

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
        waiting = self._queue.promised
        placeable = self._placer.here().free > 0 and not waiting and spec.qos is not QoS.IDLE
        if self._queue.full and not placeable:
            raise QueueFull(f"node {config.name}: {waiting} jobs wait already, queue_max is {config.queue_max}")
        job = Job(
            id=identity,
            client=client,
            spec=spec,
            body=body,
            sequence=self._ledger.sequence(),
            owner=self._me,
            state=JobState.PENDING,
            submitted_at=now,
            retention=granted(spec.retention, config.retention, config.retention_max),
            trail=(Stamp(at=now, stage="accepted", node=config.name),),
        )
        if spec.at_most_once:
            await self._accept_first(job, submission.contents)
        else:
            await self._accept_meanwhile(job, submission)
        return job

    async def _accept_meanwhile(self, job: Job, submission: Submission) -> None:
        """The script may start while its acceptance is on its way to the disk: nobody was told of it yet."""
        durable = Deferred.fromCoroutine(self._ledger.accept(job, submission.contents))
        self._origin.enqueue(job)
        try:
            await durable
        except Exception:
            await self._origin.undo_acceptance(job.id)
            raise

    async def _accept_first(self, job: Job, contents: Sequence[Content]) -> None:
        """The script must not have started if the node dies before its acceptance is durable."""
        self._queue.expected += 1
        try:
            await self._ledger.accept(job, contents)
        except Exception:
            await self._origin.undo_acceptance(job.id)
            raise
        finally:
            self._queue.expected -= 1
        if self._ledger.live(job.id) is job:  # and not cancelled meanwhile
            self._origin.enqueue(job)

    def _complete(self, submission: Submission) -> bool:
        """Whether everything came along that the job needs."""
        brought = {content.blob for content in submission.contents}
        return submission.spec.script in brought and submission.spec.stdin in {None, *brought}

    async def _check_blobs(self, submission: Submission) -> None:
        brought = {content.blob for content in submission.contents}
        for field, blob in (("script", submission.spec.script), ("stdin", submission.spec.stdin)):
            if blob is not None and blob not in brought and not await self._world.store.has(blob):
                raise BlobMissing(f"{field}: blob {blob.digest} is not on node {self._config.name}")
