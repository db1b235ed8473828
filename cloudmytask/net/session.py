"""A node's end of a client's connection: one session, its commands answered through the front door.

Invariant: whatever a client began on a connection (watches, output streams, uploads) ends with it; jobs do not.
"""

from __future__ import annotations

import json
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from cloudmytask.boundaries import Clock, DelayedCall, FrontDoor, Submission
from cloudmytask.codec import decode, encode
from cloudmytask.codec.people import job_to_document, node_to_document
from cloudmytask.core.blobs import blob_of
from cloudmytask.core.job_id import normalize
from cloudmytask.model.errors import HelloRequired, InvalidArgument, NotPermitted, UnsupportedVersion
from cloudmytask.model.job import (
    Blob,
    ClientId,
    Content,
    Job,
    JobId,
    JobPage,
    JobQuery,
    JobSpec,
    Offsets,
    QoS,
    StreamName,
)
from cloudmytask.net.cluster_session import ClusterResponders
from cloudmytask.net.incoming import IncomingUploads
from cloudmytask.net.interests import Interests
from cloudmytask.net.peer_links import Introduction, PeerLinks
from cloudmytask.net.push import OutputPush
from cloudmytask.wire import commands, peer_commands
from cloudmytask.wire.guard import GuardedAMP, Vocabulary

_log = Logger(namespace="cloudmytask.net")

HELLO_TIMEOUT = 10.0
"""Seconds that a connection may stay anonymous."""
PAGE_MAX = 512 * 1024
"""Bytes of jobs in one page of a listing, however many were asked for."""


class Session:
    """What one connection has begun, and the responders to its commands."""

    def __init__(self, front_door: FrontDoor, clock: Clock, links: PeerLinks | None = None) -> None:
        self._door = front_door
        self._links = links
        self._introduction: Introduction | None = None
        self._client: ClientId | None = None
        self.interests = Interests()
        self.uploads = IncomingUploads(lambda blob: front_door.upload(self._identified(), blob))
        cluster = ClusterResponders(front_door, self._identified, self._peer)
        vocabulary = Vocabulary(
            {
                **cluster.responders(),
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
                peer_commands.PeerHello: self.peer_hello,
                peer_commands.ProvePeer: self.prove_peer,
            },
            self._admit,
            self._malformed,
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
        identity = self._door.identify(client)
        if self._client not in (None, identity):
            raise InvalidArgument(f"client: this connection is {self._client}'s and cannot become {identity}'s")
        self._client = identity
        self._known()
        _log.debug("client {client} with {software}", client=client, software=software)
        return {"version": commands.PROTOCOL_VERSION, "node": node_to_document(self._door.describe())}

    def peer_hello(self, version: int, identity: dict[str, Any], nonce: bytes) -> dict[str, Any]:
        """Another instance is there: the connection is to become a link."""
        if self._client is not None:
            raise NotPermitted(f"this connection is client {self._client}'s and cannot become a link")
        self._introduction = None
        if self._links is not None:
            self._introduction = self._links.introduction(self.protocol, lambda _link: self._known())
        if self._introduction is None:
            raise NotPermitted("this node has no peers")
        return self._introduction.hello(version, identity, nonce)

    def prove_peer(self, proof: bytes) -> dict[str, Any]:
        """It proves that it is of our cluster."""
        if self._introduction is None:
            raise HelloRequired("PeerHello must come before ProvePeer")
        return self._introduction.prove(proof)

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
                content = Content(blob_of(data), data)
                document = {**document, field: {"digest": content.blob.digest, "size": content.blob.size}}
                if data:
                    contents.append(content)
        spec = decode(JobSpec, document)
        if qos_name is not None:
            spec = evolve(spec, qos=decode(QoS, qos_name, "qos"))
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
        return self._door.jobs(self._identified(), _query(query or {})).addCallback(_page_answer)

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
            lambda explanation: {"explanation": encode(explanation)}
        )

    async def _watch(self, client: ClientId, watch: int, job_id: JobId, every: bool) -> dict[str, Any]:
        with self.interests.making(watch) as interest:

            def changed(changed_job: Job) -> None:
                if not interest.lasts:
                    return
                if changed_job.state.terminal:
                    interest.end()
                elif not every:
                    return
                told = self.protocol.ask(commands.JobChanged, None, watch=watch, job=job_to_document(changed_job))
                told.addErrback(self._push_failed)

            job, subscription = await self._door.watch(client, job_id, changed)
            interest.made(subscription.close)
            if job.state.terminal:
                interest.end()
            return _job_answer(job)

    def watch(self, watch: int, job: str, every: bool | None) -> Deferred[dict[str, Any]]:
        """Tell the client of the outcome, or of every change from now on."""
        return Deferred.fromCoroutine(self._watch(self._identified(), watch, _job_id(job), bool(every)))

    async def _stream(
        self, client: ClientId, watch: int, job_id: JobId, attempt: int, places: dict[StreamName, int], follow: bool
    ) -> dict[str, Any]:
        with self.interests.making(watch) as interest:
            reader = await self._door.output(client, job_id, attempt, places, follow)
            push = OutputPush(self.protocol, watch, reader, interest.end)
            interest.made(push.close)
            if interest.lasts:
                push.start()
        return {}

    def stream(
        self, watch: int, job: str, attempt: int, offsets: dict[str, Any], follow: bool
    ) -> Deferred[dict[str, Any]]:
        """Send an attempt's output."""
        client, job_id, places = self._identified(), _job_id(job), decode(Offsets, offsets, "offsets")
        if attempt < 0:
            raise InvalidArgument(f"attempt: {attempt} is negative")
        return Deferred.fromCoroutine(self._stream(client, watch, job_id, attempt, places, follow))

    def unsubscribe(self, watch: int) -> dict[str, Any]:
        """End a watch or a stream."""
        self._identified()
        self.interests.end(watch)
        return {}

    def begin_upload(self, upload: int, blob: dict[str, Any]) -> Deferred[dict[str, Any]]:
        """A blob is coming."""
        self._identified()
        return self.uploads.begin(upload, decode(Blob, blob, "blob"))

    def upload_piece(self, upload: int, offset: int, data: bytes) -> Deferred[dict[str, Any]]:
        """The next bytes."""
        self._identified()
        return self.uploads.piece(upload, offset, data)

    def commit_upload(self, upload: int) -> Deferred[dict[str, Any]]:
        """All bytes are here."""
        self._identified()
        return self.uploads.commit(upload).addCallback(lambda _: {})

    def abort_upload(self, upload: int) -> dict[str, Any]:
        """Forget it."""
        self._identified()
        self.uploads.abort(upload)
        return {}

    def _admit(self, size: int) -> None:
        """A request came; too fast a client is slowed down by not being read from."""
        if self._client is not None:
            delay = self._door.admit(self._client, size)
            if delay > 0:
                self.protocol.hold(delay)

    def _malformed(self) -> None:
        if self._client is not None:
            self._door.malformed(self._client)

    def _identified(self) -> ClientId:
        if self._client is None:
            raise HelloRequired("Hello must come before any other command")
        return self._client

    def _peer(self) -> object:
        transport: Any = self.protocol.transport
        return transport.getPeer()

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
        self.interests.end_all()
        self.uploads.abort_all()


def _job_id(text: str) -> JobId:
    return JobId(normalize(text))


def _query(document: object) -> JobQuery:
    query = decode(JobQuery, document)
    return evolve(query, prefix=normalize(query.prefix)) if query.prefix else query


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
