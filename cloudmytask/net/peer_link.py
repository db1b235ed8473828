"""One link between two instances: the calls of ``boundaries.Link``, and the answers through ``boundaries.PeerDoor``.

Invariant: whatever arrives is decoded and checked before the door sees it; what this end follows on a link ends with
it, and its followers learn of that from :meth:`PeerLink.on_lost`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from cloudmytask.boundaries import AttemptSink, PeerDoor
from cloudmytask.cluster import (
    AttachAnswer,
    Ban,
    BanReport,
    BusMessage,
    Capacity,
    NodeId,
    Offer,
    OfferAnswer,
    PeerIdentity,
    RemoteEnd,
)
from cloudmytask.core.spec_document import blob_from_document
from cloudmytask.errors import InvalidArgument, NoSuchJob
from cloudmytask.model import Blob, Content, Digest, Job, JobId, Reason, StreamName
from cloudmytask.net.incoming import IncomingUploads
from cloudmytask.wire import peer_commands as commands
from cloudmytask.wire import peer_documents as documents
from cloudmytask.wire.announcement import Unreadable, decode_message, encode_message
from cloudmytask.wire.commands import INLINE_PART, AbortUpload, BeginUpload, CommitUpload, NodeCommand, UploadPiece
from cloudmytask.wire.documents import offsets_from_document
from cloudmytask.wire.guard import GuardedAMP, Responder
from cloudmytask.wire.transfer import send_blob

_log = Logger(namespace="cloudmytask.peers")

OFFER_TIMEOUT = 10.0
"""Seconds that a target may take to say yes or no."""
TREE_TIMEOUT = 3.0
"""Seconds for an answer about the overlay."""
RELAYED_MAX = 40
"""Messages in one ``Relay``, so that they fit into one value."""


class PeerLink:
    """Implements ``boundaries.Link`` on an introduced connection."""

    def __init__(self, protocol: GuardedAMP, peer: PeerIdentity, door: PeerDoor, key: bytes | None) -> None:
        self._protocol = protocol
        self._door = door
        self._key = key
        self.peer = peer
        self._numbers = count(1)
        self._sinks: dict[int, AttemptSink] = {}
        self._told: list[Callable[[], None]] = []
        self._lost = False
        self._uploads = IncomingUploads(lambda blob: door.receive_blob(self, blob))

    @property
    def alive(self) -> bool:
        return not self._lost and self._protocol.alive

    def on_lost(self, told: Callable[[], None]) -> None:
        if self._lost:
            told()
        else:
            self._told.append(told)

    def lost(self) -> None:
        """The connection is gone."""
        self._lost = True
        self._sinks.clear()
        self._uploads.abort_all()
        told, self._told = self._told, []
        for each in told:
            each()

    def close(self) -> None:
        if self._protocol.transport is not None:
            self._protocol.transport.loseConnection()

    # boundaries.Link

    def ping(self, timeout: float) -> Deferred[Capacity]:
        return self._protocol.ask(commands.Ping, timeout).addCallback(_capacity)

    def offer(self, offer: Offer, contents: Sequence[Content], sink: AttemptSink) -> Deferred[OfferAnswer]:
        number = next(self._numbers)
        self._sinks[number] = sink
        riding = {content.blob: content.data for content in contents if len(content.data) <= INLINE_PART}
        script, stdin = offer.spec.script, offer.spec.stdin

        def answered(box: Mapping[str, Any]) -> OfferAnswer:
            answer = documents.answer_from_document(box["answer"])
            if not answer.accepted:
                self._sinks.pop(number, None)
            return answer

        def failed(failure: Failure) -> Failure:
            self._sinks.pop(number, None)
            return failure

        asked = self._protocol.ask(
            commands.OfferJob,
            OFFER_TIMEOUT,
            watch=number,
            offer=documents.offer_to_document(offer),
            script=riding.get(script),
            stdin=None if stdin is None else riding.get(stdin),
        )
        return asked.addCallbacks(answered, failed)

    def hand_over(self, job: Job, contents: Sequence[Content]) -> Deferred[OfferAnswer]:
        riding = {content.blob: content.data for content in contents if len(content.data) <= INLINE_PART}
        script, stdin = job.spec.script, job.spec.stdin
        asked = self._protocol.ask(
            commands.HandOverJob,
            OFFER_TIMEOUT,
            job=documents.job_to_handover(job),
            script=riding.get(script),
            stdin=None if stdin is None else riding.get(stdin),
        )
        return asked.addCallback(lambda box: documents.answer_from_document(box["answer"]))

    def send_blob(self, blob: Blob, read: Callable[[int, int], Deferred[bytes]]) -> Deferred[None]:
        return Deferred.fromCoroutine(send_blob(self._protocol, next(self._numbers), blob, read))

    def follow(
        self, job_id: JobId, attempt: int, offsets: Mapping[StreamName, int], sink: AttemptSink
    ) -> Deferred[None]:
        number = next(self._numbers)
        self._sinks[number] = sink
        places = {stream.value: offset for stream, offset in offsets.items()}

        def failed(failure: Failure) -> Failure:
            self._sinks.pop(number, None)
            return failure

        asked = self._protocol.ask(
            commands.FollowAttempt, OFFER_TIMEOUT, watch=number, job=job_id, attempt=attempt, offsets=places
        )
        return asked.addCallbacks(_nothing, failed)

    def stop_attempt(self, job_id: JobId, attempt: int, reason: Reason, hurry: bool) -> Deferred[None]:
        asked = self._protocol.ask(commands.StopAttempt, job=job_id, attempt=attempt, reason=reason.value, hurry=hurry)
        return asked.addCallback(_nothing)

    def ask_for_work(self, capacity: Capacity) -> Deferred[int]:
        asked = self._protocol.ask(commands.AskForWork, TREE_TIMEOUT, capacity=documents.capacity_to_document(capacity))
        return asked.addCallback(lambda box: documents.count("coming", box["coming"]))

    def attach(self, root: NodeId, depth: int) -> Deferred[AttachAnswer]:
        asked = self._protocol.ask(commands.Attach, TREE_TIMEOUT, root=root, depth=depth)
        return asked.addCallback(lambda box: documents.attach_from_document(box["answer"]))

    def detach(self) -> Deferred[None]:
        return self._protocol.ask(commands.Detach, TREE_TIMEOUT).addCallback(_nothing)

    def tell_path(self, term: int, path: Sequence[NodeId]) -> Deferred[None]:
        return self._protocol.ask(commands.TellPath, TREE_TIMEOUT, term=term, path=list(path)).addCallback(_nothing)

    def relay(self, messages: Sequence[BusMessage]) -> Deferred[None]:
        encoded = [encode_message(message, self._key) for message in messages]
        batches = [encoded[start : start + RELAYED_MAX] for start in range(0, len(encoded), RELAYED_MAX)] or [[]]

        async def send() -> None:
            for batch in batches:
                await self._protocol.ask(commands.Relay, TREE_TIMEOUT, messages=batch)

        return Deferred.fromCoroutine(send())

    def exchange_bans(self, bans: Sequence[Ban]) -> Deferred[Sequence[Ban]]:
        asked = self._protocol.ask(commands.ExchangeBans, OFFER_TIMEOUT, bans=documents.bans_to_document(bans))
        return asked.addCallback(lambda box: documents.bans_from_document(box["bans"]))

    def report(self, report: BanReport) -> Deferred[bool]:
        asked = self._protocol.ask(
            commands.AddToBlackListRequest, OFFER_TIMEOUT, report=documents.report_to_document(report)
        )
        return asked.addCallback(lambda box: bool(box["banned"]))

    def check_banned(self, client: str) -> Deferred[Ban | None]:
        asked = self._protocol.ask(commands.CheckBanned, OFFER_TIMEOUT, client=client)
        return asked.addCallback(
            lambda box: None if box["ban"] is None else documents.ban_from_document("ban", box["ban"])
        )

    # the other end's calls

    def responders(self) -> dict[type[NodeCommand], Responder]:
        """What this end answers."""
        return {
            commands.Ping: lambda: {"capacity": documents.capacity_to_document(self._door.pinged(self))},
            commands.OfferJob: self._offered,
            commands.HandOverJob: self._handed_over,
            commands.FollowAttempt: self._followed,
            commands.StopAttempt: self._attempt_stopped,
            commands.AttemptStarted: self._attempt_started,
            commands.AttemptOutput: self._attempt_output,
            commands.AttemptEnded: self._attempt_ended,
            commands.AskForWork: lambda capacity: {
                "coming": self._door.asked_for_work(self, documents.capacity_from_document(capacity))
            },
            commands.Attach: self._attached,
            commands.Detach: lambda: self._door.detached(self),
            commands.TellPath: self._path_told,
            commands.Relay: self._relayed,
            commands.ExchangeBans: lambda bans: {
                "bans": documents.bans_to_document(self._door.bans_exchanged(self, documents.bans_from_document(bans)))
            },
            commands.AddToBlackListRequest: lambda report: {
                "banned": self._door.reported(self, documents.report_from_document(report))
            },
            commands.CheckBanned: self._banned_checked,
            BeginUpload: lambda upload, blob: self._uploads.begin(upload, blob_from_document("blob", blob)),
            UploadPiece: self._upload_piece,
            CommitUpload: lambda upload: self._uploads.commit(upload).addCallback(_empty),
            AbortUpload: self._upload_aborted,
        }

    def _offered(
        self, watch: int, offer: Mapping[str, Any], script: bytes | None, stdin: bytes | None
    ) -> Deferred[dict[str, Any]]:
        contents = [_content(data) for data in (script, stdin) if data]
        sink = RemoteSink(self._protocol, watch)
        answered = self._door.offered(self, documents.offer_from_document(offer), contents, sink)
        return answered.addCallback(lambda answer: {"answer": documents.answer_to_document(answer)})

    def _handed_over(
        self, job: Mapping[str, Any], script: bytes | None, stdin: bytes | None
    ) -> Deferred[dict[str, Any]]:
        contents = [_content(data) for data in (script, stdin) if data]
        taken = self._door.handed_over(self, documents.job_from_handover(job), contents)
        return taken.addCallback(lambda answer: {"answer": documents.answer_to_document(answer)})

    def _followed(self, watch: int, job: str, attempt: int, offsets: Mapping[str, Any]) -> Deferred[dict[str, Any]]:
        places = offsets_from_document(offsets)
        sink = RemoteSink(self._protocol, watch)
        return self._door.followed(self, documents.job_id("job", job), attempt, places, sink).addCallback(_empty)

    def _attempt_stopped(self, job: str, attempt: int, reason: str, hurry: bool) -> None:
        if reason not in tuple(Reason):
            raise InvalidArgument(f"reason: {reason[:60]!r} is none of {', '.join(Reason)}")
        self._door.attempt_stopped(self, documents.job_id("job", job), attempt, Reason(reason), hurry)

    def _attempt_started(self, watch: int) -> Deferred[dict[str, Any]]:
        sink = self._sinks.get(watch)
        if sink is None:
            raise NoSuchJob("nobody here follows that attempt any more")
        return sink.started().addCallback(_empty)

    def _attempt_output(
        self, watch: int, stream: str, offset: int, data: bytes
    ) -> Deferred[dict[str, Any]] | dict[str, Any]:
        sink = self._sinks.get(watch)
        if stream not in tuple(StreamName):
            raise InvalidArgument(f"stream: {stream[:60]!r} is none of {', '.join(StreamName)}")
        if offset < 0:
            raise InvalidArgument(f"offset: {offset} is negative")
        return {} if sink is None else sink.output(StreamName(stream), offset, data).addCallback(_empty)

    def _attempt_ended(self, watch: int, end: Mapping[str, Any]) -> Deferred[dict[str, Any]] | dict[str, Any]:
        found = documents.end_from_document(end)
        sink = self._sinks.pop(watch, None)
        return {} if sink is None else sink.ended(found).addCallback(_empty)

    def _attached(self, root: str, depth: int) -> dict[str, Any]:
        answer = self._door.attached(self, documents.node_id("root", root), documents.count("depth", depth))
        return {"answer": documents.attach_to_document(answer)}

    def _path_told(self, term: int, path: list[str]) -> None:
        found = documents.several("path", path, documents.node_id, 1000)
        self._door.path_told(self, documents.count("term", term), found)

    def _relayed(self, messages: list[bytes]) -> None:
        try:
            found = [decode_message(each, self.peer.cluster, self._key) for each in messages]
        except Unreadable as problem:
            raise InvalidArgument(f"messages: {problem}") from None
        self._door.relayed(self, found)

    def _banned_checked(self, client: str) -> dict[str, Any]:
        ban = self._door.banned_checked(self, client)
        return {"ban": None if ban is None else documents.ban_to_document(ban)}

    def _upload_piece(self, upload: int, offset: int, data: bytes) -> None:
        self._uploads.piece(upload, offset, data)

    def _upload_aborted(self, upload: int) -> None:
        self._uploads.abort(upload)


class RemoteSink:
    """Implements ``boundaries.AttemptSink``: the follower at the other end of a link."""

    def __init__(self, protocol: GuardedAMP, watch: int) -> None:
        self._protocol = protocol
        self._watch = watch

    def started(self) -> Deferred[None]:
        return self._protocol.ask(commands.AttemptStarted, watch=self._watch).addCallback(_nothing)

    def output(self, stream: StreamName, offset: int, data: bytes) -> Deferred[None]:
        asked = self._protocol.ask(
            commands.AttemptOutput, watch=self._watch, stream=stream.value, offset=offset, data=data
        )
        return asked.addCallback(_nothing)

    def ended(self, end: RemoteEnd) -> Deferred[None]:
        document = maybeDeferred(documents.end_to_document, end)
        return document.addCallback(
            lambda told: self._protocol.ask(commands.AttemptEnded, watch=self._watch, end=told)
        ).addCallback(_nothing)


def _capacity(box: Mapping[str, Any]) -> Capacity:
    return documents.capacity_from_document(box["capacity"])


def _nothing(_: object) -> None:
    return None


def _empty(_: object) -> dict[str, Any]:
    return {}


def _content(data: bytes) -> Content:
    return Content(Blob(Digest(hashlib.sha256(data).hexdigest()), len(data)), data)
