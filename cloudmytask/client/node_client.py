"""The AMP client: one connection to one node, answers as Deferreds.

The paper's two methods are its entry points: :meth:`NodeClient.submitJob` and :meth:`NodeClient.getScriptJobStatus`.
Invariant: every Deferred fires: with an answer, with a declared failure, or with
:class:`~cloudmytask.model.errors.ConnectionInterrupted` when the connection ends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import count
from typing import Any, TypeVar

from attrs import evolve
from twisted.internet.defer import Deferred

from cloudmytask.boundaries import Clock, JobEvent, OutputEnd
from cloudmytask.client.job_spec import job_spec
from cloudmytask.client.sources import Source
from cloudmytask.client.subscriptions import Subscriptions
from cloudmytask.client.watched import Changed, Submitted, Write
from cloudmytask.codec import decode, encode
from cloudmytask.codec.people import JobStatus
from cloudmytask.model.cluster import Ban, BanPage, ClusterView, LoadSample
from cloudmytask.model.errors import InvalidArgument
from cloudmytask.model.job import Explanation, JobId, JobQuery, JobSpec, QoS, StreamName
from cloudmytask.version import VERSION
from cloudmytask.wire import commands

T = TypeVar("T")

HELLO_TIMEOUT = 10.0
"""Seconds that a node may take to answer a new connection."""


class NodeClient:
    """A connection on which ``Hello`` was answered; made by :func:`connect`."""

    def __init__(self, clock: Clock, new_key: Callable[[], str]) -> None:
        self._new_key = new_key
        self._numbers = count(1)
        self._subscriptions = Subscriptions(clock, self._numbers)
        self.protocol = self._subscriptions.protocol
        self.node: Mapping[str, Any] = {}
        """The node's picture of itself when the connection was made."""

    @property
    def connected(self) -> bool:
        """Whether the connection still stands."""
        return self.protocol.alive

    def submitJob(
        self, qos: QoS | str, script: bytes, *arguments: object, key: str | None = None, **options: Any
    ) -> Deferred[JobId]:
        """The paper's ``submitJob(ClientID, QoS type, Script)``; the ClientID is the connection's.

        :param script: the script's bytes.
        :param key: idempotency key: submitting the same again under the same key gives the same job. Random if absent.
        :param options: what else is asked of the job, as of ``Client.submit``, and ``script_name``.
        :returns: the id of the job, once it is on the node's disk.
        :raises InvalidArgument: a value cannot be meant.
        """

        async def submitted() -> JobId:
            if not isinstance(script, bytes):
                raise InvalidArgument(f"script: {script!r} is not bytes")
            source = Source.of_bytes(script)
            return (await self.submit(job_spec(source, arguments, qos=qos, **options), source, key=key)).id

        return Deferred.fromCoroutine(submitted())

    def getScriptJobStatus(self, job_id: str) -> Deferred[JobStatus]:
        """The paper's ``getScriptJobStatus(ScriptJobID)``: the state, and the result once there is one."""
        return self.protocol.ask(commands.GetScriptJobStatus, job=job_id).addCallback(_job)

    def submit(
        self, spec: JobSpec, script: Source, stdin: Source | None = None, key: str | None = None
    ) -> Deferred[JobStatus]:
        """Submit a job; ``spec``'s blobs are replaced by the sources' own."""

        async def submitted() -> JobStatus:
            return _job(await self.protocol.ask(commands.SubmitJob, **await self._prepared(spec, script, stdin, key)))

        return Deferred.fromCoroutine(submitted())

    def submit_watched(
        self,
        spec: JobSpec,
        script: Source,
        stdin: Source | None = None,
        key: str | None = None,
        *,
        every: bool = False,
        output: bool = False,
        stream: bool = False,
    ) -> Deferred[Submitted]:
        """Like :meth:`submit`; from then on the node tells of the job by itself, if it can and is not told of too much
        already.

        :param every: whether it tells every change, and not the outcome only.
        :param output: whether a small output is to come with the outcome.
        :param stream: whether it sends the output of the first attempt as it comes.
        """

        async def submitted() -> Submitted:
            arguments = await self._prepared(spec, script, stdin, key)
            return await self._subscriptions.submit(arguments, every=every, output=output, stream=stream)

        return Deferred.fromCoroutine(submitted())

    def cancel(self, job_id: str, note: str = "") -> Deferred[JobStatus]:
        """End a job; answered when the node has noted the wish."""
        return self.protocol.ask(commands.CancelJob, job=job_id, note=note).addCallback(_job)

    def retry(self, job_id: str, key: str | None = None) -> Deferred[JobStatus]:
        """Submit a job's spec once more; the new job."""
        return self.protocol.ask(commands.RetryJob, job=job_id, key=self._key(key)).addCallback(_job)

    def remove(self, job_id: str) -> Deferred[JobStatus]:
        """Delete a job's outcome and output."""
        return self.protocol.ask(commands.RemoveJob, job=job_id).addCallback(_job)

    def explain(self, job_id: str) -> Deferred[Explanation]:
        """Why a job is in its state."""
        answer = self.protocol.ask(commands.ExplainJob, job=job_id)
        return answer.addCallback(lambda box: decode(Explanation, box["explanation"]))

    def describe(self) -> Deferred[Mapping[str, Any]]:
        """The node's picture of itself."""
        return self.protocol.ask(commands.DescribeNode).addCallback(lambda box: box["node"])

    def cluster(self) -> Deferred[ClusterView]:
        """All instances as the node sees them."""
        pages = self._pages(commands.DescribeCluster, "cluster", ClusterView)
        return pages.addCallback(
            lambda found: evolve(found[0], members=tuple(member for page in found for member in page.members))
        )

    def some_of_cluster(self, timeout: float) -> Deferred[ClusterView]:
        """The instances that fit into one answer, which is to come within ``timeout`` seconds."""
        answer = self.protocol.ask(commands.DescribeCluster, timeout, after=None)
        return answer.addCallback(lambda box: decode(ClusterView, box["cluster"]))

    def bans(self) -> Deferred[tuple[Ban, ...]]:
        """Every ban in force; ``until`` of each is the seconds that remain."""
        pages = self._pages(commands.ListBans, "page", BanPage)
        return pages.addCallback(lambda found: tuple(ban for page in found for ban in page.bans))

    def ban(self, client: str, reason: str, term: float) -> Deferred[Ban]:
        """Ban a client everywhere for ``term`` seconds. :raises NotPermitted: the node is on another machine."""
        return self.protocol.ask(commands.AddBan, client=client, reason=reason, term=term).addCallback(_ban)

    def lift_ban(self, client: str) -> Deferred[Ban]:
        """End a ban now.

        :raises NoSuchBan: there is none. :raises NotPermitted: the node is on another machine.
        """
        return self.protocol.ask(commands.LiftBan, client=client).addCallback(_ban)

    def history(self, seconds: float) -> Deferred[tuple[LoadSample, ...]]:
        """The load of all nodes over the last ``seconds``, oldest first. :raises NotSupervised: this is no CSU."""
        answer = self.protocol.ask(commands.LoadHistory, seconds=seconds)
        return answer.addCallback(lambda box: decode(tuple[LoadSample, ...], box["history"].get("samples"), "samples"))

    def page(self, query: JobQuery) -> Deferred[tuple[list[JobStatus], int | None]]:
        """One page of this client's jobs, newest first, and the cursor of the next."""
        answer = self.protocol.ask(commands.ListJobs, query=encode(query))
        return answer.addCallback(
            lambda box: ([JobStatus.from_document(j) for j in box["page"]["jobs"]], box["page"].get("next"))
        )

    def jobs(self, query: JobQuery, limit: int | None = None) -> Deferred[list[JobStatus]]:
        """This client's jobs, newest first, page after page up to ``limit``."""

        async def jobs(query: JobQuery) -> list[JobStatus]:
            found: list[JobStatus] = []
            while True:
                if limit is not None:
                    query = evolve(query, limit=min(query.limit, limit - len(found)))
                page, cursor = await self.page(query)
                found.extend(page)
                if cursor is None or (limit is not None and len(found) >= limit):
                    return found
                query = evolve(query, before=cursor)

        return Deferred.fromCoroutine(jobs(query))

    def watch(
        self, job_id: str, changed: Changed, *, every: bool = True
    ) -> Deferred[tuple[JobStatus, Callable[[], None]]]:
        """The job as it stands, and a function that ends the watch.

        :param changed: called with each later state, or with the outcome only if not ``every``.
        """

        async def watch() -> tuple[JobStatus, Callable[[], None]]:
            job, watched = await self._subscriptions.watch(job_id, changed, every)
            return job, watched.close

        return Deferred.fromCoroutine(watch())

    def wait(self, job_id: str, timeout: float | None = None) -> Deferred[JobStatus]:
        """The job, once it has its outcome.

        :raises WaitTimeout: that took longer than ``timeout`` seconds.
        """
        return Deferred.fromCoroutine(self._subscriptions.wait(job_id, timeout))

    def events(
        self,
        told: Callable[[JobEvent], object],
        *,
        lost: Callable[[], object] = lambda: None,
        everyone: bool = False,
    ) -> Deferred[Callable[[], None]]:
        """Follow all jobs of this client, from now on; a function that ends it.

        :param told: called with each change of state. Its numbers have a gap if we were too slow, and start again with
            each call.
        :param lost: called if the connection ends before that.
        :param everyone: follow the jobs of all clients.
        :raises NotPermitted: ``everyone`` is for those on the node's own machine.
        """
        return Deferred.fromCoroutine(self._subscriptions.follow(told, lost, everyone))

    def output(
        self,
        job_id: str,
        write: Write,
        *,
        attempt: int = 0,
        offsets: Mapping[StreamName, int] | None = None,
        follow: bool = False,
    ) -> Deferred[OutputEnd]:
        """The output of one attempt, in pieces to ``write``; fails with what ``write`` fails with.

        :param attempt: its number; 0 is the latest, or the first to come.
        :param offsets: which streams, and from which byte on; both from their beginning if absent.
        :param follow: go on until the attempt has ended.
        """
        return Deferred.fromCoroutine(self._subscriptions.output(job_id, write, attempt, offsets, follow))

    def close(self) -> None:
        """End the connection. Idempotent."""
        self.protocol.close()

    async def hello(self, client: str) -> None:
        """Introduce ourselves."""
        answer = await self.protocol.ask(
            commands.Hello,
            HELLO_TIMEOUT,
            versions=[commands.PROTOCOL_VERSION],
            role="client",
            client=client,
            software=f"cloudmytask {VERSION}",
        )
        self.node = answer["node"]

    async def _prepared(self, spec: JobSpec, script: Source, stdin: Source | None, key: str | None) -> dict[str, Any]:
        """The arguments of ``SubmitJob``, once what does not fit into it was sent."""
        spec = evolve(spec, script=script.blob, stdin=None if stdin is None else stdin.blob)
        riding: dict[str, bytes] = {}
        for field, source in (("script", script), ("stdin", stdin)):
            if source is None:
                continue
            if source.data is not None and len(source.data) <= commands.INLINE_PART:
                riding[field] = source.data
            else:
                await source.send(self.protocol, next(self._numbers))
        return {"key": self._key(key), "qos": spec.qos.value, "spec": encode(spec), **riding}

    def _key(self, given: str | None) -> str:
        return self._new_key() if given is None else given

    def _pages(self, command: type[commands.NodeCommand], name: str, kind: type[T]) -> Deferred[list[T]]:
        """The values of all pages of an answer; at least one."""

        async def pages() -> list[T]:
            found: list[T] = []
            after: str | None = None
            while not found or after is not None:
                page = (await self.protocol.ask(command, after=after))[name]
                found.append(decode(kind, page))
                after = decode(str | None, page.get("next"), "next")
            return found

        return Deferred.fromCoroutine(pages())


def _job(answer: Mapping[str, Any]) -> JobStatus:
    return JobStatus.from_document(answer["job"])


def _ban(answer: Mapping[str, Any]) -> Ban:
    return decode(Ban, answer["ban"])
