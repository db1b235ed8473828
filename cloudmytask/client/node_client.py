"""The AMP client: one connection to one node, answers as Deferreds.

The paper's two methods are its entry points: :meth:`NodeClient.submitJob` and :meth:`NodeClient.getScriptJobStatus`.
Invariant: every Deferred fires: with an answer, with a declared failure, or with
:class:`~cloudmytask.errors.ConnectionInterrupted` when the connection ends.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping
from itertools import count
from typing import Any

from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred, DeferredList, maybeDeferred
from twisted.internet.interfaces import IAddress, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from cloudmytask.boundaries import Clock, OutputEnd
from cloudmytask.client.sources import Source
from cloudmytask.core.spec_document import spec_to_document
from cloudmytask.errors import (
    CloudMyTaskError,
    ConnectionInterrupted,
    InternalError,
    NoNode,
    RequestTimeout,
    WaitTimeout,
)
from cloudmytask.model import Blob, Explanation, JobId, JobQuery, JobSpec, QoS, StreamName
from cloudmytask.version import VERSION
from cloudmytask.wire import commands
from cloudmytask.wire.documents import (
    JobStatus,
    end_from_document,
    explanation_from_document,
    query_to_document,
)
from cloudmytask.wire.guard import GuardedAMP, Vocabulary

Write = Callable[[StreamName, bytes], Deferred[None] | None]
"""Takes a piece of output. A Deferred says when there is room for more: the node sends a window's worth until then."""
Changed = Callable[[JobStatus], None]

HELLO_TIMEOUT = 10.0
"""Seconds that a node may take to answer a new connection."""


class NodeClient:
    """A connection on which ``Hello`` was answered; made by :func:`connect`."""

    def __init__(self, clock: Clock, new_key: Callable[[], str]) -> None:
        self._clock = clock
        self._new_key = new_key
        self._numbers = count(1)
        self._watches: dict[int, Changed] = {}
        self._streams: dict[int, tuple[Write, Deferred[OutputEnd]]] = {}
        self._waiting: dict[int, Deferred[JobStatus]] = {}
        self.node: Mapping[str, Any] = {}
        """The node's picture of itself when the connection was made."""
        vocabulary = Vocabulary(
            {
                commands.JobChanged: self._job_changed,
                commands.OutputData: self._output_data,
                commands.OutputEnded: self._output_ended,
            }
        )
        self.protocol = GuardedAMP(vocabulary, clock, self._lost)

    @property
    def connected(self) -> bool:
        """Whether the connection still stands."""
        return self.protocol.alive

    def submitJob(
        self, qos: QoS | str, script: bytes, *arguments: str, key: str | None = None, **options: Any
    ) -> Deferred[JobId]:
        """The paper's ``submitJob(ClientID, QoS type, Script)``; the ClientID is the connection's.

        :param script: the script's bytes.
        :param key: idempotency key: submitting the same again under the same key gives the same job. Random if absent.
        :param options: further fields of :class:`~cloudmytask.model.JobSpec`, such as ``timeout`` in seconds.
        :returns: the id of the job, once it is on the node's disk.
        """
        source = Source.of_bytes(script)
        spec = JobSpec(script=source.blob, arguments=arguments, qos=QoS(qos), **options)
        return self.submit(spec, source, key=key).addCallback(lambda job: job.id)

    def getScriptJobStatus(self, job_id: str) -> Deferred[JobStatus]:
        """The paper's ``getScriptJobStatus(ScriptJobID)``: the state, and the result once there is one."""
        return self.protocol.ask(commands.GetScriptJobStatus, job=job_id).addCallback(_job)

    def submit(
        self, spec: JobSpec, script: Source, stdin: Source | None = None, key: str | None = None
    ) -> Deferred[JobStatus]:
        """Submit a job; ``spec``'s blobs are replaced by the sources' own."""
        return Deferred.fromCoroutine(self._submit(spec, script, stdin, key or self._new_key()))

    def cancel(self, job_id: str, note: str = "") -> Deferred[JobStatus]:
        """End a job; answered when the node has noted the wish."""
        return self.protocol.ask(commands.CancelJob, job=job_id, note=note).addCallback(_job)

    def retry(self, job_id: str, key: str | None = None) -> Deferred[JobStatus]:
        """Submit a job's spec once more; the new job."""
        return self.protocol.ask(commands.RetryJob, job=job_id, key=key or self._new_key()).addCallback(_job)

    def remove(self, job_id: str) -> Deferred[JobStatus]:
        """Delete a job's outcome and output."""
        return self.protocol.ask(commands.RemoveJob, job=job_id).addCallback(_job)

    def explain(self, job_id: str) -> Deferred[Explanation]:
        """Why a job is in its state."""
        answer = self.protocol.ask(commands.ExplainJob, job=job_id)
        return answer.addCallback(lambda box: explanation_from_document(box["explanation"]))

    def describe(self) -> Deferred[Mapping[str, Any]]:
        """The node's picture of itself."""
        return self.protocol.ask(commands.DescribeNode).addCallback(lambda box: box["node"])

    def page(self, query: JobQuery) -> Deferred[tuple[list[JobStatus], int | None]]:
        """One page of this client's jobs, newest first, and the cursor of the next."""
        answer = self.protocol.ask(commands.ListJobs, query=query_to_document(query))
        return answer.addCallback(
            lambda box: ([JobStatus.from_document(j) for j in box["page"]["jobs"]], box["page"].get("next"))
        )

    def jobs(self, query: JobQuery, limit: int | None = None) -> Deferred[list[JobStatus]]:
        """This client's jobs, newest first, page after page up to ``limit``."""
        return Deferred.fromCoroutine(self._jobs(query, limit))

    def watch(
        self, job_id: str, changed: Changed, *, every: bool = True
    ) -> Deferred[tuple[JobStatus, Callable[[], None]]]:
        """The job as it stands, and a function that ends the watch.

        :param changed: called with each later state, or with the outcome only if not ``every``.
        """
        return Deferred.fromCoroutine(self._watch(job_id, changed, every))

    def wait(self, job_id: str, timeout: float | None = None) -> Deferred[JobStatus]:
        """The job, once it has its outcome.

        :raises WaitTimeout: that took longer than ``timeout`` seconds.
        """
        return Deferred.fromCoroutine(self._wait(job_id, timeout))

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
        return Deferred.fromCoroutine(self._output(job_id, write, attempt, offsets, follow))

    def close(self) -> None:
        """End the connection. Idempotent."""
        if self.protocol.transport is not None:
            self.protocol.transport.loseConnection()

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

    async def _submit(self, spec: JobSpec, script: Source, stdin: Source | None, key: str) -> JobStatus:
        spec = evolve(spec, script=script.blob, stdin=None if stdin is None else stdin.blob)
        riding: dict[str, bytes] = {}
        for field, source in (("script", script), ("stdin", stdin)):
            if source is None:
                continue
            if source.data is not None and len(source.data) <= commands.INLINE_PART:
                riding[field] = source.data
            else:
                await self._upload(source)
        answer = await self.protocol.ask(
            commands.SubmitJob,
            key=key,
            qos=spec.qos.value,
            spec=spec_to_document(spec),
            script=riding.get("script"),
            stdin=riding.get("stdin"),
        )
        return _job(answer)

    async def _upload(self, source: Source) -> None:
        number = next(self._numbers)
        blob: Blob = source.blob
        announced = await self.protocol.ask(
            commands.BeginUpload, upload=number, blob={"digest": blob.digest, "size": blob.size}
        )
        if announced["present"]:
            return
        under_way: list[Deferred[object]] = []
        complete = False
        try:
            for offset, piece in _pieces(source):
                if len(under_way) >= commands.WINDOW:
                    await under_way.pop(0)
                under_way.append(
                    self.protocol.ask(commands.UploadPiece, upload=number, offset=offset, data=piece)  # type: ignore[arg-type]  # Deferred is invariant
                )
            while under_way:
                await under_way.pop(0)
            complete = True
        finally:
            if not complete and self.protocol.alive:
                under_way.append(self.protocol.ask(commands.AbortUpload, upload=number))  # type: ignore[arg-type]  # as above
            DeferredList(under_way, consumeErrors=True)
        await self.protocol.ask(commands.CommitUpload, None, upload=number)

    async def _jobs(self, query: JobQuery, limit: int | None) -> list[JobStatus]:
        found: list[JobStatus] = []
        while True:
            if limit is not None:
                query = evolve(query, limit=min(query.limit, limit - len(found)))
            page, cursor = await self.page(query)
            found.extend(page)
            if cursor is None or (limit is not None and len(found) >= limit):
                return found
            query = evolve(query, before=cursor)

    async def _watch(self, job_id: str, changed: Changed, every: bool) -> tuple[JobStatus, Callable[[], None]]:
        number = next(self._numbers)
        self._watches[number] = changed

        def end() -> None:
            if self._watches.pop(number, None) is not None:
                self._unsubscribe(number)

        try:
            answer = await self.protocol.ask(commands.WatchJob, watch=number, job=job_id, every=every)
        except CloudMyTaskError:
            self._watches.pop(number, None)
            raise
        job = _job(answer)
        if job.state.terminal:
            self._watches.pop(number, None)
        return job, end

    async def _wait(self, job_id: str, timeout: float | None) -> JobStatus:
        done: Deferred[JobStatus] = Deferred()
        number = next(self._numbers)
        self._waiting[number] = done

        def changed(job: JobStatus) -> None:
            if job.state.terminal and not done.called:
                done.callback(job)

        try:
            job, end = await self.watch(job_id, changed, every=False)
            if job.state.terminal:
                end()
                return job
            timer = None
            if timeout is not None:
                late = WaitTimeout(f"job {job.id} is {job.state.value} after {timeout:g} s")
                timer = self._clock.callLater(timeout, done.errback, late)
            try:
                return await done
            finally:
                if timer is not None and timer.active():
                    timer.cancel()
                end()
        finally:
            del self._waiting[number]

    async def _output(
        self, job_id: str, write: Write, attempt: int, offsets: Mapping[StreamName, int] | None, follow: bool
    ) -> OutputEnd:
        number = next(self._numbers)
        ended: Deferred[OutputEnd] = Deferred()
        self._streams[number] = (write, ended)
        places = offsets if offsets is not None else dict.fromkeys(StreamName, 0)
        try:
            await self.protocol.ask(
                commands.StreamOutput,
                watch=number,
                job=job_id,
                attempt=attempt,
                offsets={stream.value: offset for stream, offset in places.items()},
                follow=follow,
            )
            return await ended
        finally:
            # Still there if the caller lost interest; the node must then not go on sending.
            if self._streams.pop(number, None) is not None:
                self._unsubscribe(number)

    def _job_changed(self, watch: int, job: Mapping[str, Any]) -> dict[str, Any]:
        status = JobStatus.from_document(job)
        changed = self._watches.pop(watch, None) if status.state.terminal else self._watches.get(watch)
        if changed is not None:
            changed(status)
        return {}

    def _output_data(
        self,
        watch: int,
        stream: str,
        offset: int,  # noqa: ARG002 - pieces come in order
        data: bytes,
    ) -> dict[str, Any] | Deferred[dict[str, Any]]:
        if watch not in self._streams:  # it was on its way when the caller lost interest
            return {}
        write, ended = self._streams[watch]

        def failed(failure: Failure) -> dict[str, Any]:
            if self._streams.pop(watch, None) is not None:
                self._unsubscribe(watch)
                ended.errback(failure)
            return {}

        return maybeDeferred(write, StreamName(stream), data).addCallbacks(lambda _: {}, failed)

    def _output_ended(self, watch: int, end: Mapping[str, Any]) -> dict[str, Any]:
        if watch not in self._streams:
            return {}
        _, ended = self._streams.pop(watch)
        if "error" in end:
            ended.errback(InternalError(f"the output could not be read to its end: {end['error']}"))
        else:
            ended.callback(end_from_document(end))
        return {}

    def _unsubscribe(self, number: int) -> None:
        if self.protocol.alive:
            self.protocol.ask(commands.Unsubscribe, watch=number).addErrback(_gone)

    def _lost(self) -> None:
        self._watches.clear()
        streams, self._streams = self._streams, {}
        for _, ended in streams.values():
            ended.errback(ConnectionInterrupted("the connection ended before the output did"))
        for done in list(self._waiting.values()):
            if not done.called:
                done.errback(ConnectionInterrupted("the connection ended before the job did"))


class _ClientFactory(Factory):
    noisy = False

    def __init__(self, client: NodeClient) -> None:
        self._client = client

    def buildProtocol(self, addr: IAddress | None) -> GuardedAMP:  # noqa: ARG002 - Twisted's interface
        return self._client.protocol


def new_key() -> str:
    """A fresh idempotency key: 128 random bits."""
    return secrets.token_hex(16)


def connect(
    endpoint: IStreamClientEndpoint, clock: Clock, client: str, new_key: Callable[[], str] = new_key
) -> Deferred[NodeClient]:
    """Connect to a node; ready when it has answered ``Hello``.

    :param clock: the reactor, or a virtual clock.
    :param client: the ClientID to claim.
    :param new_key: where idempotency keys come from.
    :raises NoNode: nothing answers there. :raises CloudMyTaskError: what answers declines.
    """
    return Deferred.fromCoroutine(_connect(endpoint, clock, client, new_key))


async def _connect(
    endpoint: IStreamClientEndpoint, clock: Clock, client: str, new_key: Callable[[], str]
) -> NodeClient:
    node_client = NodeClient(clock, new_key)
    try:
        await endpoint.connect(_ClientFactory(node_client))
    except CancelledError:
        raise
    except Exception as problem:
        raise NoNode(_why(problem)) from problem
    try:
        await node_client.hello(client)
    except (CloudMyTaskError, CancelledError):
        node_client.close()
        raise
    return node_client


def _why(problem: Exception) -> str:
    number = getattr(problem, "osError", None)
    if isinstance(number, int):
        return os.strerror(number)
    return str(problem).rstrip(".") or type(problem).__name__


def _job(answer: Mapping[str, Any]) -> JobStatus:
    return JobStatus.from_document(answer["job"])


def _pieces(source: Source) -> Any:
    if source.data is not None:
        for offset in range(0, len(source.data), commands.PIECE):
            yield offset, source.data[offset : offset + commands.PIECE]
        return
    with source.open() as file:
        offset = 0
        while piece := file.read(commands.PIECE):
            yield offset, piece
            offset += len(piece)


def _gone(failure: Any) -> None:
    """A watch ends with its connection, so a connection that ends first has done what was asked."""
    failure.trap(ConnectionInterrupted, RequestTimeout)
