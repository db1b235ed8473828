"""What one end of a link answers to the other: through ``boundaries.PeerDoor``.

Invariant: whatever arrives is decoded and checked before the door sees it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred

from cloudmytask.boundaries import PeerDoor
from cloudmytask.codec import decode, encode
from cloudmytask.core.blobs import blob_of
from cloudmytask.model.cluster import BanPage, BanReport, Capacity, NodeId, Path, RemoteEnd
from cloudmytask.model.errors import InvalidArgument, NoSuchJob
from cloudmytask.model.fields import Count
from cloudmytask.model.job import Blob, Content, Offsets, Reason, StreamName
from cloudmytask.net.incoming import IncomingUploads
from cloudmytask.net.peer_link import PeerLink
from cloudmytask.wire import peer_commands as commands
from cloudmytask.wire.announcement import Unreadable, decode_message
from cloudmytask.wire.commands import AbortUpload, BeginUpload, CommitUpload, NodeCommand, UploadPiece
from cloudmytask.wire.guard import GuardedAMP, Responder
from cloudmytask.wire.peer_checks import attempt_id, offer_of, traveling_job_of


class PeerAnswers:
    """The responders of one link."""

    def __init__(self, link: PeerLink, protocol: GuardedAMP, door: PeerDoor, key: bytes | None) -> None:
        self._link = link
        self._protocol = protocol
        self._door = door
        self._key = key
        self._uploads = IncomingUploads(lambda blob: door.receive_blob(link, blob))
        link.gone.add(self._uploads.abort_all)

    def responders(self) -> dict[type[NodeCommand], Responder]:
        """What this end answers."""
        return {
            commands.Ping: lambda: {"capacity": encode(self._door.pinged(self._link))},
            commands.OfferJob: self._offered,
            commands.HandOverJob: self._handed_over,
            commands.FollowAttempt: self._followed,
            commands.StopAttempt: self._attempt_stopped,
            commands.AttemptStarted: self._attempt_started,
            commands.AttemptOutput: self._attempt_output,
            commands.AttemptEnded: self._attempt_ended,
            commands.AskForWork: lambda capacity: {
                "coming": self._door.asked_for_work(self._link, decode(Capacity, capacity))
            },
            commands.Attach: self._attached,
            commands.Detach: lambda: self._door.detached(self._link),
            commands.TellPath: self._path_told,
            commands.Relay: self._relayed,
            commands.ExchangeBans: lambda bans: {
                "bans": encode(BanPage(tuple(self._door.bans_exchanged(self._link, decode(BanPage, bans).bans))))
            },
            commands.AddToBlackListRequest: lambda report: {
                "banned": self._door.reported(self._link, decode(BanReport, report))
            },
            commands.CheckBanned: self._banned_checked,
            BeginUpload: lambda upload, blob: self._uploads.begin(upload, decode(Blob, blob, "blob")),
            UploadPiece: lambda upload, offset, data: self._uploads.piece(upload, offset, data),
            CommitUpload: lambda upload: self._uploads.commit(upload).addCallback(_empty),
            AbortUpload: self._upload_aborted,
        }

    def _offered(
        self, watch: int, offer: Mapping[str, Any], script: bytes | None, stdin: bytes | None
    ) -> Deferred[dict[str, Any]]:
        contents = _contents(script, stdin)
        sink = RemoteSink(self._protocol, watch)
        answered = self._door.offered(self._link, offer_of(offer), contents, sink)
        return answered.addCallback(lambda answer: {"answer": encode(answer)})

    def _handed_over(
        self, job: Mapping[str, Any], script: bytes | None, stdin: bytes | None
    ) -> Deferred[dict[str, Any]]:
        contents = _contents(script, stdin)
        taken = self._door.handed_over(self._link, traveling_job_of(job), contents)
        return taken.addCallback(lambda answer: {"answer": encode(answer)})

    def _followed(self, watch: int, attempt: str, offsets: Mapping[str, Any]) -> Deferred[dict[str, Any]]:
        places: dict[StreamName, int] = decode(Offsets, offsets, "offsets")
        sink = RemoteSink(self._protocol, watch)
        found = attempt_id("attempt", attempt)
        return self._door.followed(self._link, found, places, sink).addCallback(_empty)

    def _attempt_stopped(self, attempt: str, reason: str, hurry: bool) -> None:
        found = attempt_id("attempt", attempt)
        self._door.attempt_stopped(self._link, found, decode(Reason, reason, "reason"), hurry)

    def _attempt_started(self, watch: int) -> Deferred[dict[str, Any]]:
        sink = self._link.sinks.get(watch)
        if sink is None:
            raise NoSuchJob("nobody here follows that attempt any more")
        return sink.started().addCallback(_empty)

    def _attempt_output(
        self, watch: int, stream: str, offset: int, data: bytes
    ) -> Deferred[dict[str, Any]] | dict[str, Any]:
        sink, name = self._link.sinks.get(watch), decode(StreamName, stream, "stream")
        if offset < 0:
            raise InvalidArgument(f"offset: {offset} is negative")
        return {} if sink is None else sink.output(name, offset, data).addCallback(_empty)

    def _attempt_ended(self, watch: int, end: Mapping[str, Any]) -> Deferred[dict[str, Any]] | dict[str, Any]:
        found = decode(RemoteEnd, end)
        sink = self._link.sinks.pop(watch, None)
        return {} if sink is None else sink.ended(found).addCallback(_empty)

    def _attached(self, root: str, depth: int) -> dict[str, Any]:
        answer = self._door.attached(self._link, decode(NodeId, root, "root"), decode(Count, depth, "depth"))
        return {"answer": encode(answer)}

    def _path_told(self, term: int, path: list[str]) -> None:
        found = decode(Path, path, "path")
        self._door.path_told(self._link, decode(Count, term, "term"), found)

    def _relayed(self, messages: list[bytes]) -> None:
        try:
            found = [decode_message(each, self._link.peer.cluster, self._key) for each in messages]
        except Unreadable as problem:
            raise InvalidArgument(f"messages: {problem}") from None
        self._door.relayed(self._link, found)

    def _banned_checked(self, client: str) -> dict[str, Any]:
        ban = self._door.banned_checked(self._link, client)
        return {"ban": None if ban is None else encode(ban)}

    def _upload_aborted(self, upload: int) -> None:
        self._uploads.abort(upload)


class RemoteSink:
    """Implements ``boundaries.AttemptSink``: the follower at the other end of a link. What waits for its disk has no
    timeout: it ends with the link."""

    def __init__(self, protocol: GuardedAMP, watch: int) -> None:
        self._protocol = protocol
        self._watch = watch

    def started(self) -> Deferred[None]:
        return self._protocol.ask(commands.AttemptStarted, None, watch=self._watch).addCallback(_nothing)

    def output(self, stream: StreamName, offset: int, data: bytes) -> Deferred[None]:
        asked = self._protocol.ask(
            commands.AttemptOutput, None, watch=self._watch, stream=stream.value, offset=offset, data=data
        )
        return asked.addCallback(_nothing)

    def ended(self, end: RemoteEnd) -> Deferred[None]:
        document = maybeDeferred(encode, end)
        return document.addCallback(
            lambda told: self._protocol.ask(commands.AttemptEnded, None, watch=self._watch, end=told)
        ).addCallback(_nothing)


def _nothing(_: object) -> None:
    return None


def _empty(_: object) -> dict[str, Any]:
    return {}


def _contents(*parts: bytes | None) -> list[Content]:
    """What came along with a job."""
    return [Content(blob_of(data), data) for data in parts if data]
