"""The verbs of clients, from values to values: paging, thinning, what rides inline, checks, watches.

Invariant: a verb does what its caller's roles allow and nothing else; it knows of no connection, and waits for nobody
but the instance itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from attrs import define, evolve, frozen
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from cloudmytask.api.following import EventsTold, EventTold, JobFollowing, Riding, Told
from cloudmytask.boundaries import (
    ClusterDoor,
    JobDoor,
    OutputEnd,
    OutputReader,
    Receipt,
    Submission,
    Upload,
    Watch,
)
from cloudmytask.core.admission import NOTE_MAX, check_client, check_duration
from cloudmytask.core.blobs import blob_of
from cloudmytask.model.access import AccessRole, Principal, allowed
from cloudmytask.model.cluster import Ban, ClusterView, LoadSample
from cloudmytask.model.errors import CloudMyTaskError, InvalidArgument
from cloudmytask.model.job import (
    Blob,
    Content,
    Explanation,
    Job,
    JobId,
    JobPage,
    JobQuery,
    JobSpec,
    NodeStatus,
    QoS,
    StreamName,
)

_log = Logger()
T = TypeVar("T")

PAGE = 150
"""Instances or bans in one page; with the longest of everything they still fit into one answer."""
JOBS_PAGE = 64
"""Jobs in one page, however many were asked for: reading and writing them down keeps others waiting for so long."""
SAMPLES_MAX = 2000
"""Points of the history in one answer."""
RIDES_MAX = 32 * 1024
"""Bytes of each stream of an output that ride with the news of a job's end."""


@frozen
class Watching:
    """A watch that has begun."""

    job: Job
    """As it stands. If it has its outcome, nothing follows."""
    output: Riding | None
    """Its output, if it has its outcome."""
    close: Callable[[], None]


@define(eq=False)
class ClientApi:
    """What one client may ask of one instance.

    :ivar principal: who asks.
    """

    _door: ClusterDoor
    principal: Principal

    # the instance

    @allowed(AccessRole.CLIENT)
    def describe(self) -> NodeStatus:
        """A picture of the instance."""
        return self._door.describe()

    @allowed(AccessRole.CLIENT)
    def cluster(self, after: str | None) -> tuple[ClusterView, str | None]:
        """All instances, by id, a page at a time: those after the id ``after``; and where the next page begins."""
        view = self._door.cluster()
        members, following = _page(view.members, lambda member: member.announcement.node_id, after)
        return evolve(view, members=members), following

    @allowed(AccessRole.CLIENT)
    def bans(self, after: str | None) -> tuple[tuple[Ban, ...], str | None]:
        """The bans in force, by client, a page at a time."""
        return _page(self._door.bans(), lambda ban: ban.client, after)

    @allowed(AccessRole.ADMIN)
    async def ban(self, client: str, reason: str, term: float) -> Ban:
        """Ban a client everywhere for ``term`` seconds; durable when it returns."""
        if not (reason.strip() and reason.isprintable() and len(reason) <= NOTE_MAX):
            raise InvalidArgument(f"reason: {reason[:60]!r} is not 1 to {NOTE_MAX} printable characters")
        check_duration("term", term)
        return await self._door.ban(self.principal.name, check_client(client), reason, term)

    @allowed(AccessRole.ADMIN)
    def lift_ban(self, client: str) -> Deferred[Ban]:
        """End a ban. :raises NoSuchBan: there is none in force."""
        return self._door.lift_ban(self.principal.name, check_client(client))

    @allowed(AccessRole.CLIENT)
    async def history(self, seconds: float) -> Sequence[LoadSample]:
        """The load of all nodes in the last ``seconds``, oldest first, thinned to :data:`SAMPLES_MAX` points."""
        check_duration("seconds", seconds)
        return thinned(await self._door.history(seconds))

    # jobs

    @allowed(AccessRole.CLIENT)
    def submit(
        self, key: str, spec: JobSpec, qos: QoS | None = None, contents: Sequence[Content] = ()
    ) -> Deferred[Receipt]:
        """The paper's ``submitJob``; ``qos`` counts before the spec's.

        :param contents: script and input, if they come along; see :func:`inline`.
        """
        if qos is not None:
            spec = evolve(spec, qos=qos)
        riding = tuple(content for content in contents if content.data)
        return self._jobs.submit(self.principal.name, Submission(key=key, spec=spec, contents=riding))

    @allowed(AccessRole.CLIENT)
    def status(self, job: JobId) -> Deferred[Job]:
        """The paper's ``getScriptJobStatus``."""
        return self._jobs.status(self.principal.name, job)

    @allowed(AccessRole.CLIENT)
    def jobs(self, query: JobQuery) -> Deferred[JobPage]:
        """A page of the client's jobs, newest first, at most :data:`JOBS_PAGE`."""
        return self._jobs.jobs(self.principal.name, evolve(query, limit=min(query.limit, JOBS_PAGE)))

    @allowed(AccessRole.CLIENT)
    def cancel(self, job: JobId, note: str | None) -> Deferred[Job]:
        """End a job; the wish is durable when it returns."""
        return self._jobs.cancel(self.principal.name, job, note or "")

    @allowed(AccessRole.CLIENT)
    def retry(self, job: JobId, key: str) -> Deferred[Receipt]:
        """Submit a job's spec again."""
        return self._jobs.retry(self.principal.name, job, key)

    @allowed(AccessRole.CLIENT)
    def remove(self, job: JobId) -> Deferred[Job]:
        """Delete a job's outcome and output."""
        return self._jobs.remove(self.principal.name, job)

    @allowed(AccessRole.CLIENT)
    def explain(self, job: JobId) -> Deferred[Explanation]:
        """Why a job is in its state."""
        return self._jobs.explain(self.principal.name, job)

    @allowed(AccessRole.CLIENT)
    async def watch(self, job: JobId, told: Told, *, every: bool = True, output: bool = False) -> Watching:
        """Follow one job to its outcome.

        :param told: called with the outcome, once, and before with every change if ``every``.
        :param output: whether a small output is to come with the outcome.
        """
        following = JobFollowing(self._riding, told, every, output)
        found, watch = await self._jobs.watch(self.principal.name, job, following.changed)
        following.began(watch)
        riding = await self._riding(found) if output and found.state.terminal else None
        return Watching(found, riding, following.close)

    @allowed(AccessRole.CLIENT)
    def events(self, told: EventTold) -> Watch:
        """Follow the cluster, and all jobs of the client: ``told`` gets every change from now on. It must not block."""
        return self._door.follow(self.principal.name, EventsTold(told).happened)

    @allowed(AccessRole.ADMIN)
    def all_events(self, told: EventTold) -> Watch:
        """Like :meth:`events`, of the jobs of all clients."""
        return self._door.follow(None, EventsTold(told).happened)

    @allowed(AccessRole.CLIENT)
    def output(
        self, job: JobId, attempt: int, offsets: Mapping[StreamName, int], *, follow: bool
    ) -> Deferred[OutputReader]:
        """Read the output of one attempt; see ``JobDoor.output``."""
        if attempt < 0:
            raise InvalidArgument(f"attempt: {attempt} is negative")
        return self._jobs.output(self.principal.name, job, attempt, offsets, follow)

    @allowed(AccessRole.CLIENT)
    def upload(self, blob: Blob) -> Deferred[Upload | None]:
        """Begin to send a blob; None if it is here already."""
        return self._jobs.upload(self.principal.name, blob)

    @property
    def _jobs(self) -> JobDoor:
        return self._door.jobs_of()

    async def _riding(self, job: Job) -> Riding | None:
        """The output of a job that has its outcome, if all of it is small; what cannot be read does not ride."""
        attempt = job.attempt
        if attempt is None:
            return dict.fromkeys(StreamName, b"")
        outputs = [attempt.output(stream) for stream in StreamName]
        if any(each.size > RIDES_MAX or each.discarded or each.lost is not None for each in outputs):
            return None
        read: dict[StreamName, bytes] = dict.fromkeys(StreamName, b"")
        try:
            places = dict.fromkeys(StreamName, 0)
            reader = await self._jobs.output(self.principal.name, job.id, attempt.number, places, follow=False)
            while not isinstance(piece := await reader.next(RIDES_MAX), OutputEnd):
                read[piece.stream] += piece.data
        except CloudMyTaskError as problem:
            _log.info("the output of job {job} does not ride along: {problem}", job=job.id, problem=str(problem))
            return None
        except Exception:  # noqa: BLE001 - a bug of ours must not keep anybody from learning the outcome
            _log.failure("the output of job {job} does not ride along", job=job.id)
            return None
        return read


def inline(script: bytes | None, stdin: bytes | None) -> dict[str, Content]:
    """What comes along with a job, by the field of its spec that it is for."""
    parts = (("script", script), ("stdin", stdin))
    return {name: Content(blob_of(data), data) for name, data in parts if data is not None}


def thinned(samples: Sequence[LoadSample], limit: int = SAMPLES_MAX) -> Sequence[LoadSample]:
    """At most ``limit`` samples that still cover the whole time, of each node the last one of each of as many equal
    stretches as there is room for; of too many nodes the newest samples."""
    if len(samples) <= limit:
        return samples
    stretches = max(1, limit // len({each.node for each in samples}))
    begin, end = samples[0].at, samples[-1].at
    width = (end - begin) / stretches or 1.0
    last = {(each.node, min(stretches - 1, int((each.at - begin) / width))): each for each in samples}
    return sorted(last.values(), key=lambda each: each.at)[-limit:]


def _page(items: Sequence[T], key: Callable[[T], str], after: str | None) -> tuple[tuple[T, ...], str | None]:
    """The next items by their keys, and the key to go on after; None if these are the last."""
    rest = sorted((each for each in items if after is None or key(each) > after), key=key)
    page = tuple(rest[:PAGE])
    return page, key(page[-1]) if len(rest) > PAGE else None
