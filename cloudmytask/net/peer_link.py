"""One link between two instances: what its owner calls over it (``boundaries.Link``), and what this end answers,
through ``boundaries.PeerDoor``, as one table says.

Invariant: whatever arrives is decoded and checked before anybody sees it, and nothing reaches a method of the door that
the other end may not call; what this end follows on a link ends with it, and its followers learn of that from
:attr:`PeerLink.gone`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from attrs import frozen
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

from cloudmytask.api.principals import check_allowed, peer_principal
from cloudmytask.boundaries import AttemptSink, PeerDoor
from cloudmytask.codec import decode, encode
from cloudmytask.core.admission import attempt_id, offer_of, traveling_job_of
from cloudmytask.core.blobs import blob_of
from cloudmytask.listeners import Listeners
from cloudmytask.model.cluster import (
    AttachAnswer,
    Ban,
    BanPage,
    BanReport,
    BusMessage,
    Capacity,
    NodeId,
    Offer,
    OfferAnswer,
    Path,
    PeerIdentity,
    RemoteEnd,
)
from cloudmytask.model.errors import InvalidArgument, NoSuchJob
from cloudmytask.model.fields import Count
from cloudmytask.model.job import AttemptId, Blob, Content, JobSpec, Offsets, Reason, StreamName, TravelingJob
from cloudmytask.net.incoming import IncomingUploads
from cloudmytask.wire import peer_commands as commands
from cloudmytask.wire.announcement import Unreadable, decode_message, encode_message
from cloudmytask.wire.commands import INLINE_PART, AbortUpload, BeginUpload, CommitUpload, NodeCommand, UploadPiece
from cloudmytask.wire.guard import GuardedAMP, Responder
from cloudmytask.wire.transfer import send_blob

T = TypeVar("T")

OFFER_TIMEOUT = 10.0
"""Seconds that a target may take to say yes or no."""
TREE_TIMEOUT = 3.0
"""Seconds for an answer about the overlay."""
RELAYED_MAX = 40
"""Messages in one ``Relay``, so that they fit into one value."""


class PeerLink:
    """Implements ``boundaries.Link`` on an introduced connection."""

    def __init__(self, protocol: GuardedAMP, peer: PeerIdentity, key: bytes | None) -> None:
        self._protocol = protocol
        self._key = key
        self.peer = peer
        self.principal = peer_principal(peer, keyed=key is not None)
        self._numbers = itertools.count(1)
        self.sinks: dict[int, AttemptSink] = {}
        """What is followed over this link, by the numbers that we gave."""
        self.gone: Listeners[[]] = Listeners()
        self._lost = False

    @property
    def alive(self) -> bool:
        return not self._lost and self._protocol.alive

    def lost(self) -> None:
        """The connection is gone."""
        self._lost = True
        self.sinks.clear()
        self.gone.tell_last()

    def close(self) -> None:
        self._protocol.close()

    # boundaries.Link

    def ping(self, timeout: float) -> Deferred[Capacity]:
        return self._protocol.ask(commands.Ping, timeout).addCallback(_capacity)

    def offer(self, offer: Offer, contents: Sequence[Content], sink: AttemptSink) -> Deferred[OfferAnswer]:
        number = next(self._numbers)
        self.sinks[number] = sink

        def answered(box: Mapping[str, Any]) -> OfferAnswer:
            answer = decode(OfferAnswer, box["answer"])
            if not answer.accepted:
                self.sinks.pop(number, None)
            return answer

        def failed(failure: Failure) -> Failure:
            self.sinks.pop(number, None)
            return failure

        asked = self._protocol.ask(
            commands.OfferJob,
            OFFER_TIMEOUT,
            watch=number,
            offer=encode(offer),
            **_riding(offer.spec, contents),
        )
        return asked.addCallbacks(answered, failed)

    def hand_over(self, job: TravelingJob, contents: Sequence[Content]) -> Deferred[OfferAnswer]:
        asked = self._protocol.ask(
            commands.HandOverJob, OFFER_TIMEOUT, job=encode(job), **_riding(job.job.spec, contents)
        )
        return asked.addCallback(lambda box: decode(OfferAnswer, box["answer"]))

    def send_blob(self, blob: Blob, read: Callable[[int, int], Deferred[bytes]]) -> Deferred[None]:
        return Deferred.fromCoroutine(send_blob(self._protocol, next(self._numbers), blob, read))

    def follow(self, attempt: AttemptId, offsets: Mapping[StreamName, int], sink: AttemptSink) -> Deferred[None]:
        number = next(self._numbers)
        self.sinks[number] = sink
        places = {stream.value: offset for stream, offset in offsets.items()}

        def failed(failure: Failure) -> Failure:
            self.sinks.pop(number, None)
            return failure

        asked = self._protocol.ask(
            commands.FollowAttempt, OFFER_TIMEOUT, watch=number, attempt=str(attempt), offsets=places
        )
        return asked.addCallbacks(_nothing, failed)

    def stop_attempt(self, attempt: AttemptId, reason: Reason, hurry: bool) -> Deferred[None]:
        asked = self._protocol.ask(commands.StopAttempt, attempt=str(attempt), reason=reason.value, hurry=hurry)
        return asked.addCallback(_nothing)

    def ask_for_work(self, capacity: Capacity) -> Deferred[int]:
        asked = self._protocol.ask(commands.AskForWork, TREE_TIMEOUT, capacity=encode(capacity))
        return asked.addCallback(lambda box: int(decode(Count, box["coming"], "coming")))

    def attach(self, root: NodeId, depth: int) -> Deferred[AttachAnswer]:
        asked = self._protocol.ask(commands.Attach, TREE_TIMEOUT, root=root, depth=depth)
        return asked.addCallback(lambda box: decode(AttachAnswer, box["answer"]))

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
        asked = self._protocol.ask(commands.ExchangeBans, OFFER_TIMEOUT, bans=encode(BanPage(tuple(bans))))
        return asked.addCallback(lambda box: decode(BanPage, box["bans"]).bans)

    def report(self, report: BanReport) -> Deferred[bool]:
        asked = self._protocol.ask(commands.AddToBlackListRequest, OFFER_TIMEOUT, report=encode(report))
        return asked.addCallback(lambda box: bool(box["banned"]))

    def check_banned(self, client: str) -> Deferred[Ban | None]:
        asked = self._protocol.ask(commands.CheckBanned, OFFER_TIMEOUT, client=client)
        return asked.addCallback(lambda box: None if box["ban"] is None else decode(Ban, box["ban"]))


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


class PeerAnswers:
    """The responders of one link."""

    def __init__(self, link: PeerLink, protocol: GuardedAMP, door: PeerDoor, key: bytes | None) -> None:
        self.link = link
        self.door = door
        self.key = key
        self._protocol = protocol
        self.uploads = IncomingUploads(lambda blob: self._call(self.door.receive_blob, blob))
        link.gone.add(self.uploads.abort_all)

    def responders(self) -> dict[type[NodeCommand], Responder]:
        """What this end answers."""
        return {command: partial(self._respond, answer) for command, answer in ANSWERS.items()}

    def sink(self, watch: int) -> RemoteSink:
        """The follower at the other end that has this number."""
        return RemoteSink(self._protocol, watch)

    def messages(self, encoded: Sequence[bytes]) -> list[BusMessage]:
        """:raises InvalidArgument: one of them is not of our cluster, or cannot be read."""
        try:
            return [decode_message(each, self.link.peer.cluster, self.key) for each in encoded]
        except Unreadable as problem:
            raise InvalidArgument(f"messages: {problem}") from None

    def _respond(self, answer: PeerAnswer, **arguments: Any) -> Deferred[dict[str, Any]]:
        values = answer.decode(self, **arguments)
        if isinstance(answer.method, str):
            method: Callable[..., Any] = getattr(self.door, answer.method)
            return maybeDeferred(self._call, method, *values).addCallback(answer.encode)
        return maybeDeferred(answer.method, self, *values).addCallback(answer.encode)

    def _call(self, method: Callable[..., T], *values: Any) -> T:
        check_allowed(self.link.principal, method)
        return method(self.link, *values)


@frozen
class PeerAnswer:
    """How one command of a peer is answered.

    :ivar method: of ``boundaries.PeerDoor``, which is called with the link and what ``decode`` gives; or a function of
        the link itself.
    :ivar decode: makes values of the command's arguments. :ivar encode: makes the answer of the result.
    """

    method: str | Callable[..., Any]
    decode: Callable[..., tuple[Any, ...]] = lambda _link, **arguments: tuple(arguments.values())
    encode: Callable[[Any], dict[str, Any]] = lambda _result: {}


def _started(answers: PeerAnswers, watch: int) -> Deferred[None]:
    sink = answers.link.sinks.get(watch)
    if sink is None:
        raise NoSuchJob("nobody here follows that attempt any more")
    return sink.started()


def _output(answers: PeerAnswers, watch: int, stream: StreamName, offset: int, data: bytes) -> Deferred[None] | None:
    sink = answers.link.sinks.get(watch)
    return None if sink is None else sink.output(stream, offset, data)


def _ended(answers: PeerAnswers, watch: int, end: RemoteEnd) -> Deferred[None] | None:
    sink = answers.link.sinks.pop(watch, None)
    return None if sink is None else sink.ended(end)


def _offset(offset: int) -> int:
    if offset < 0:
        raise InvalidArgument(f"offset: {offset} is negative")
    return offset


def _contents(*parts: bytes | None) -> list[Content]:
    """What came along with a job."""
    return [Content(blob_of(data), data) for data in parts if data]


def _answer(result: Any) -> dict[str, Any]:
    return {"answer": encode(result)}


ANSWERS: Mapping[type[NodeCommand], PeerAnswer] = {
    commands.Ping: PeerAnswer("pinged", encode=lambda capacity: {"capacity": encode(capacity)}),
    commands.OfferJob: PeerAnswer(
        "offered",
        lambda link, watch, offer, script, stdin: (offer_of(offer), _contents(script, stdin), link.sink(watch)),
        _answer,
    ),
    commands.HandOverJob: PeerAnswer(
        "handed_over", lambda _link, job, script, stdin: (traveling_job_of(job), _contents(script, stdin)), _answer
    ),
    commands.FollowAttempt: PeerAnswer(
        "followed",
        lambda link, watch, attempt, offsets: (
            attempt_id("attempt", attempt),
            decode(Offsets, offsets, "offsets"),
            link.sink(watch),
        ),
    ),
    commands.StopAttempt: PeerAnswer(
        "attempt_stopped",
        lambda _link, attempt, reason, hurry: (
            attempt_id("attempt", attempt),
            decode(Reason, reason, "reason"),
            hurry,
        ),
    ),
    commands.AttemptStarted: PeerAnswer(_started),
    commands.AttemptOutput: PeerAnswer(
        _output,
        lambda _link, watch, stream, offset, data: (
            watch,
            decode(StreamName, stream, "stream"),
            _offset(offset),
            data,
        ),
    ),
    commands.AttemptEnded: PeerAnswer(_ended, lambda _link, watch, end: (watch, decode(RemoteEnd, end))),
    commands.AskForWork: PeerAnswer(
        "asked_for_work",
        lambda _link, capacity: (decode(Capacity, capacity),),
        lambda coming: {"coming": coming},
    ),
    commands.Attach: PeerAnswer(
        "attached",
        lambda _link, root, depth: (decode(NodeId, root, "root"), decode(Count, depth, "depth")),
        _answer,
    ),
    commands.Detach: PeerAnswer("detached"),
    commands.TellPath: PeerAnswer(
        "path_told", lambda _link, term, path: (decode(Count, term, "term"), decode(Path, path, "path"))
    ),
    commands.Relay: PeerAnswer("relayed", lambda link, messages: (link.messages(messages),)),
    commands.ExchangeBans: PeerAnswer(
        "bans_exchanged",
        lambda _link, bans: (decode(BanPage, bans).bans,),
        lambda bans: {"bans": encode(BanPage(tuple(bans)))},
    ),
    commands.AddToBlackListRequest: PeerAnswer(
        "reported", lambda _link, report: (decode(BanReport, report),), lambda banned: {"banned": banned}
    ),
    commands.CheckBanned: PeerAnswer(
        "banned_checked", encode=lambda ban: {"ban": None if ban is None else encode(ban)}
    ),
    BeginUpload: PeerAnswer(
        lambda link, upload, blob: link.uploads.begin(upload, blob),
        lambda _link, upload, blob: (upload, decode(Blob, blob, "blob")),
        lambda answer: dict(answer),
    ),
    UploadPiece: PeerAnswer(lambda link, upload, offset, data: link.uploads.piece(upload, offset, data)),
    CommitUpload: PeerAnswer(lambda link, upload: link.uploads.commit(upload)),
    AbortUpload: PeerAnswer(lambda link, upload: link.uploads.abort(upload)),
}
"""Every command between introduced instances: the one place where a command and a method of the door meet."""


def _riding(spec: JobSpec, contents: Sequence[Content]) -> dict[str, bytes | None]:
    """What rides along with a job."""
    riding = {content.blob: content.data for content in contents if len(content.data) <= INLINE_PART}
    return {"script": riding.get(spec.script), "stdin": None if spec.stdin is None else riding.get(spec.stdin)}


def _capacity(box: Mapping[str, Any]) -> Capacity:
    return decode(Capacity, box["capacity"])


def _nothing(_: object) -> None:
    return None
