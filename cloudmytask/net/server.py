"""A node's end of a client's connection: one session, its commands answered through the front door.

Invariant: whatever a client began on a connection (watches, output streams, uploads) ends with it; jobs do not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory
from twisted.logger import Logger

from cloudmytask.boundaries import Clock, DelayedCall, FrontDoor, Submission, Upload
from cloudmytask.core.job_id import normalize
from cloudmytask.core.spec_document import blob_from_document, qos, spec_from_document
from cloudmytask.errors import CloudMyTaskError, HelloRequired, InvalidArgument, UnsupportedVersion, UploadFailed
from cloudmytask.model import Blob, ClientId, Content, Digest, Job, JobId, JobPage, JobSpec
from cloudmytask.net.push import OutputPush
from cloudmytask.wire import commands
from cloudmytask.wire.documents import (
    explanation_to_document,
    job_to_document,
    node_to_document,
    offsets_from_document,
    query_from_document,
)
from cloudmytask.wire.guard import GuardedAMP, Vocabulary

_log = Logger(namespace="cloudmytask.net")

HELLO_TIMEOUT = 10.0
"""Seconds that a connection may stay anonymous."""
SUBSCRIPTIONS_MAX = 1000
"""Watches and output streams of one connection."""
UPLOADS_MAX = 16
"""Uploads under way on one connection."""
PAGE_MAX = 512 * 1024
"""Bytes of jobs in one page of a listing, however many were asked for."""


class Session:
    """What one connection has begun, and the responders to its commands."""

    def __init__(self, front_door: FrontDoor, clock: Clock) -> None:
        self._door = front_door
        self._client: ClientId | None = None
        self._closers: dict[int, Callable[[], None]] = {}
        self._uploads: dict[int, Upload | None] = {}
        vocabulary = Vocabulary(
            {
                commands.Hello: self.hello,
                commands.DescribeNode: self.describe,
                commands.SubmitJob: self.submit,
                commands.GetScriptJobStatus: self.status,
                commands.ListJobs: self.jobs,
                commands.CancelJob: self.cancel,
                commands.RetryJob: self.retry,
                commands.RemoveJob: self.remove,
                commands.ExplainJob: self.explain,
                commands.WatchJob: self.watch,
                commands.StreamOutput: self.stream,
                commands.Unsubscribe: self.unsubscribe,
                commands.BeginUpload: self.begin_upload,
                commands.UploadPiece: self.upload_piece,
                commands.CommitUpload: self.commit_upload,
                commands.AbortUpload: self.abort_upload,
            }
        )
        self.protocol = GuardedAMP(vocabulary, clock, self._lost)
        self._anonymous: DelayedCall | None = clock.callLater(HELLO_TIMEOUT, self._too_late)

    def hello(self, versions: list[int], role: str, client: str, software: str | None) -> dict[str, Any]:
        """Learn who is there."""
        if commands.PROTOCOL_VERSION not in versions:
            raise UnsupportedVersion(
                f"this node speaks protocol version {commands.PROTOCOL_VERSION}, the client offers {versions}"
            )
        if role != "client":
            raise InvalidArgument(f"role: {role!r} is not client")
        self._client = self._door.identify(client)
        self._known()
        _log.debug("client {client} with {software}", client=client, software=software)
        return {"version": commands.PROTOCOL_VERSION, "node": node_to_document(self._door.describe())}

    def describe(self) -> dict[str, Any]:
        """A picture of the node."""
        self._identified()
        return {"node": node_to_document(self._door.describe())}

    async def _submit(
        self, key: str, qos_name: str | None, document: dict[str, Any], script: bytes | None, stdin: bytes | None
    ) -> dict[str, Any]:
        client = self._identified()
        contents: list[Content] = []
        for field, data in (("script", script), ("stdin", stdin)):
            if data is not None:
                content = _content(data)
                document = {**document, field: {"digest": content.blob.digest, "size": content.blob.size}}
                if data:
                    contents.append(content)
        spec: JobSpec = spec_from_document(document)
        if qos_name is not None:
            spec = evolve(spec, qos=qos("qos", qos_name))
        receipt = await self._door.submit(client, Submission(key=key, spec=spec, contents=tuple(contents)))
        return {"job": job_to_document(receipt.job), "known": receipt.known}

    def submit(
        self, key: str, qos: str | None, spec: dict[str, Any], script: bytes | None, stdin: bytes | None
    ) -> Deferred[dict[str, Any]]:
        """The paper's ``submitJob``."""
        return Deferred.fromCoroutine(self._submit(key, qos, spec, script, stdin))

    def status(self, job: str) -> Deferred[dict[str, Any]]:
        """The paper's ``getScriptJobStatus``."""
        return self._door.status(self._identified(), _job_id(job)).addCallback(_job_answer)

    def jobs(self, query: dict[str, Any] | None) -> Deferred[dict[str, Any]]:
        """One page of the client's jobs."""
        return self._door.jobs(self._identified(), query_from_document(query or {})).addCallback(_page_answer)

    def cancel(self, job: str, note: str | None) -> Deferred[dict[str, Any]]:
        """End a job."""
        return self._door.cancel(self._identified(), _job_id(job), note or "").addCallback(_job_answer)

    def retry(self, job: str, key: str) -> Deferred[dict[str, Any]]:
        """Submit a job's spec again."""
        return self._door.retry(self._identified(), _job_id(job), key).addCallback(
            lambda receipt: {"job": job_to_document(receipt.job), "known": receipt.known}
        )

    def remove(self, job: str) -> Deferred[dict[str, Any]]:
        """Forget a job's outcome and output."""
        return self._door.remove(self._identified(), _job_id(job)).addCallback(_job_answer)

    def explain(self, job: str) -> Deferred[dict[str, Any]]:
        """Why it is in its state."""
        return self._door.explain(self._identified(), _job_id(job)).addCallback(
            lambda explanation: {"explanation": explanation_to_document(explanation)}
        )

    async def _watch(self, watch: int, job_id: JobId, every: bool) -> dict[str, Any]:
        self._reserve(watch)

        def changed(changed_job: Job) -> None:
            if changed_job.state.terminal:
                self.unsubscribe(watch)
            elif not every:
                return
            told = self.protocol.ask(commands.JobChanged, None, watch=watch, job=job_to_document(changed_job))
            told.addErrback(self._push_failed)

        job, subscription = await self._door.watch(self._identified(), job_id, changed)
        self._keep(watch, subscription.close)
        if job.state.terminal:
            self.unsubscribe(watch)
        return _job_answer(job)

    def watch(self, watch: int, job: str, every: bool | None) -> Deferred[dict[str, Any]]:
        """Tell the client of the outcome, or of every change from now on."""
        return Deferred.fromCoroutine(self._begin(watch, self._watch(watch, _job_id(job), bool(every))))

    async def _stream(
        self, watch: int, job_id: JobId, attempt: int, offsets: dict[str, Any], follow: bool
    ) -> dict[str, Any]:
        self._reserve(watch)
        if attempt < 0:
            raise InvalidArgument(f"attempt: {attempt} is negative")
        places = offsets_from_document(offsets)
        reader = await self._door.output(self._identified(), job_id, attempt, places, follow)
        push = OutputPush(self.protocol, watch, reader, lambda: self._closers.pop(watch, None))
        self._keep(watch, push.close)
        push.start()
        return {}

    def stream(
        self, watch: int, job: str, attempt: int, offsets: dict[str, Any], follow: bool
    ) -> Deferred[dict[str, Any]]:
        """Send an attempt's output."""
        return Deferred.fromCoroutine(self._begin(watch, self._stream(watch, _job_id(job), attempt, offsets, follow)))

    def unsubscribe(self, watch: int) -> dict[str, Any]:
        """End a watch or a stream."""
        self._identified()
        close = self._closers.pop(watch, None)
        if close is not None:
            close()
        return {}

    def begin_upload(self, upload: int, blob: dict[str, Any]) -> Deferred[dict[str, Any]]:
        """A blob is coming."""
        client, announced = self._identified(), blob_from_document("blob", blob)
        if upload in self._uploads:
            raise InvalidArgument(f"upload: {upload} is under way already")
        if len(self._uploads) >= UPLOADS_MAX:
            raise InvalidArgument(f"upload: {UPLOADS_MAX} are under way already, more are not allowed")
        return Deferred.fromCoroutine(self._begin_upload(client, upload, announced))

    async def _begin_upload(self, client: ClientId, upload: int, blob: Blob) -> dict[str, Any]:
        self._uploads[upload] = None
        try:
            incoming = await self._door.upload(client, blob)
        except CloudMyTaskError:
            self._uploads.pop(upload, None)
            raise
        if incoming is None:
            self._uploads.pop(upload, None)
        elif self.protocol.alive and upload in self._uploads:
            self._uploads[upload] = incoming
        else:
            incoming.abort()
        return {"present": incoming is None}

    def upload_piece(self, upload: int, offset: int, data: bytes) -> dict[str, Any]:
        """The next bytes."""
        self._upload(upload).append(offset, data)
        return {}

    def commit_upload(self, upload: int) -> Deferred[dict[str, Any]]:
        """All bytes are here."""
        incoming = self._upload(upload)
        del self._uploads[upload]
        return incoming.commit().addCallback(lambda _: {})

    def abort_upload(self, upload: int) -> dict[str, Any]:
        """Forget it."""
        self._identified()
        incoming = self._uploads.pop(upload, None)
        if incoming is not None:
            incoming.abort()
        return {}

    async def _begin(self, watch: int, work: Any) -> dict[str, Any]:
        """Give the number back if the subscription did not come about."""
        taken = watch in self._closers
        try:
            return dict(await work)
        except CloudMyTaskError:
            if not taken:
                self._closers.pop(watch, None)
            raise

    def _reserve(self, watch: int) -> None:
        self._identified()
        if watch in self._closers:
            raise InvalidArgument(f"watch: {watch} is in use already")
        if len(self._closers) >= SUBSCRIPTIONS_MAX:
            raise InvalidArgument(f"watch: {SUBSCRIPTIONS_MAX} are open already, more are not allowed")
        self._closers[watch] = lambda: None

    def _keep(self, watch: int, close: Callable[[], None]) -> None:
        """Unless the connection, or the client's interest, ended while the subscription was being made."""
        if self.protocol.alive and watch in self._closers:
            self._closers[watch] = close
        else:
            close()

    def _upload(self, upload: int) -> Upload:
        self._identified()
        incoming = self._uploads.get(upload)
        if incoming is None:
            raise UploadFailed(f"upload: {upload} is not under way")
        return incoming

    def _identified(self) -> ClientId:
        if self._client is None:
            raise HelloRequired("Hello must come before any other command")
        return self._client

    def _known(self) -> None:
        if self._anonymous is not None:
            self._anonymous.cancel()
            self._anonymous = None

    def _too_late(self) -> None:
        self._anonymous = None
        transport: Any = self.protocol.transport
        if self.protocol.alive and transport is not None:
            _log.warn("connection dropped: no Hello within {seconds:g} s", seconds=HELLO_TIMEOUT)
            transport.abortConnection()

    def _push_failed(self, failure: Any) -> None:
        """The client did not want to know; if the connection is gone there is nothing more to say."""
        if self.protocol.alive:
            _log.warn("a client refused news: {problem}", problem=failure.getErrorMessage())

    def _lost(self) -> None:
        self._known()
        for close in list(self._closers.values()):
            close()
        self._closers.clear()
        for incoming in list(self._uploads.values()):
            if incoming is not None:
                incoming.abort()
        self._uploads.clear()


class NodeFactory(Factory):
    """Accepts clients. ``connections``: the protocols that are connected, for an orderly end."""

    noisy = False

    def __init__(self, front_door: FrontDoor, clock: Clock) -> None:
        self._door = front_door
        self._clock = clock
        self.connections: dict[int, GuardedAMP] = {}

    def buildProtocol(self, addr: IAddress | None) -> GuardedAMP:  # noqa: ARG002 - Twisted's interface
        """Twisted's interface."""
        session = Session(self._door, self._clock)
        protocol, lost = session.protocol, session.protocol.on_lost
        self.connections[id(protocol)] = protocol

        def gone() -> None:
            self.connections.pop(id(protocol), None)
            lost()

        protocol.on_lost = gone
        return protocol

    def close(self) -> None:
        """End all connections, after what was written to them."""
        for protocol in list(self.connections.values()):
            if protocol.transport is not None:
                protocol.transport.loseConnection()


def _content(data: bytes) -> Content:
    return Content(Blob(Digest(hashlib.sha256(data).hexdigest()), len(data)), data)


def _job_id(text: str) -> JobId:
    return JobId(normalize(text))


def _job_answer(job: Job) -> dict[str, Any]:
    return {"job": job_to_document(job)}


def _page_answer(page: JobPage) -> dict[str, Any]:
    """As many of the page's jobs as an answer has room for; the cursor says where to go on."""
    documents: list[dict[str, Any]] = []
    room = PAGE_MAX
    following = page.next
    for job in page.jobs:
        document = job_to_document(job)
        room -= len(json.dumps(document))
        if room < 0 and documents:
            following = page.jobs[len(documents) - 1].sequence
            break
        documents.append(document)
    return {"page": {"jobs": documents, "next": following}}
