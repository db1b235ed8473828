"""One link between two instances: what its owner calls over it (``boundaries.Link``), and what this end answers,
through ``boundaries.PeerDoor``, as one table says.

Invariant: all that arrives is decoded and checked before anybody sees it, and nothing reaches a method of the door that
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
from twisted.logger import Logger

from cloudmytask.api.principals import check_allowed, peer_principal
from cloudmytask.boundaries import AttemptSink, PeerDoor
from cloudmytask.codec import decode, encode
from cloudmytask.core.ban_checks import bans_of
from cloudmytask.core.blobs import blob_of
from cloudmytask.core.peer_records import attempt_id, end_of, offer_of, traveling_job_of
from cloudmytask.listeners import Listeners
from cloudmytask.model.cluster import (
    AttachAnswer,
    Ban,
    BanPage,
    BanReport,
    BusMessage,
    Capacity,
    Counter,
    NodeId,
    Offer,
    OfferAnswer,
    Path,
    PeerIdentity,
    Pulse,
)
from cloudmytask.model.errors import InvalidArgument
from cloudmytask.model.fields import Count
from cloudmytask.model.job import AttemptId, Blob, Content, JobSpec, Offsets, Reason, StreamName, TravelingJob
from cloudmytask.net.attempt_sinks import PUSH_TIMEOUT, AttemptSinks, RemoteSink
from cloudmytask.net.incoming import IncomingUploads
from cloudmytask.wire import peer_commands as commands
from cloudmytask.wire.announcement import Unreadable, decode_message, encode_message
from cloudmytask.wire.commands import INLINE_PART, AbortUpload, BeginUpload, CommitUpload, NodeCommand, UploadPiece
from cloudmytask.wire.guard import GuardedAMP
from cloudmytask.wire.transfer import send_blob
from cloudmytask.wire.vocabulary import Responder

_log = Logger()
T = TypeVar("T")

OFFER_TIMEOUT = 10.0
"""Seconds that a target may take to say yes or no."""
TREE_TIMEOUT = 3.0
"""Seconds for an answer about the overlay."""
SLOWEST_DISK = 10 * 1024 * 1024
"""Bytes a second that the other end must be able to make durable at the least."""
RELAYED_MAX = 40
"""Messages in one ``Relay``, so that they fit into one value."""


class PeerLink:
    """Implements ``boundaries.Link`` on an introduced connection."""

    def __init__(self, protocol: GuardedAMP, peer: PeerIdentity, key: bytes | None) -> None:
        self._protocol = protocol
        self._key = key
        self.peer = peer
        self.principal = peer_principal(peer, keyed=key is not None)
        self.sinks = AttemptSinks(itertools.count(1))
        """What is followed over this link."""
        self.gone: Listeners[[]] = Listeners()
        self._lost = False

    @property
    def alive(self) -> bool:
        return not self._lost and self._protocol.alive

    @property
    def waiting(self) -> bool:
        return self._protocol.waiting

    @property
    def idle(self) -> float:
        return self._protocol.idle

    def lost(self) -> None:
        """The connection is gone."""
        self._lost = True
        self.sinks.clear()
        self.gone.tell_last()

    def close(self) -> None:
        self._protocol.close()

    def odd_ban(self, why: str) -> None:
        """An entry of the other end's list of bans is malformed."""
        _log.warn("{peer} sent a ban that is not taken: {why}", peer=self.peer.name, why=why)

    # boundaries.Link

    def ping(self, timeout: float) -> Deferred[Pulse]:
        return self._protocol.ask(commands.Ping, timeout).addCallback(lambda box: decode(Pulse, box["pulse"]))

    def retire(self) -> Deferred[bool]:
        return self._protocol.ask(commands.RetireLink, TREE_TIMEOUT).addCallback(lambda box: bool(box["agreed"]))

    def offer(self, offer: Offer, contents: Sequence[Content], sink: AttemptSink) -> Deferred[OfferAnswer]:
        number = self.sinks.add(sink)

        def answered(box: Mapping[str, Any]) -> OfferAnswer:
            answer = decode(OfferAnswer, box["answer"])
            if not answer.accepted:
                self.sinks.forget(number)
            return answer

        riding = _riding(offer.spec, contents)
        asked = self._protocol.ask(commands.OfferJob, OFFER_TIMEOUT, watch=number, offer=encode(offer), **riding)
        return self.sinks.forget_on_failure(number, asked.addCallback(answered))

    def hand_over(self, job: TravelingJob, contents: Sequence[Content]) -> Deferred[OfferAnswer]:
        asked = self._protocol.ask(
            commands.HandOverJob, OFFER_TIMEOUT, job=encode(job), **_riding(job.job.spec, contents)
        )
        return asked.addCallback(lambda box: decode(OfferAnswer, box["answer"]))

    def send_blob(self, blob: Blob, read: Callable[[int, int], Deferred[bytes]]) -> Deferred[None]:
        patience = PUSH_TIMEOUT + blob.size / SLOWEST_DISK
        return Deferred.fromCoroutine(send_blob(self._protocol, next(self.sinks.numbers), blob, read, patience))

    def follow(self, attempt: AttemptId, offsets: Mapping[StreamName, int], sink: AttemptSink) -> Deferred[None]:
        number = self.sinks.add(sink)
        places = {stream.value: offset for stream, offset in offsets.items()}
        asked = self._protocol.ask(
            commands.FollowAttempt, OFFER_TIMEOUT, watch=number, attempt=str(attempt), offsets=places
        )
        return self.sinks.forget_on_failure(number, asked.addCallback(_nothing))

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
        return asked.addCallback(lambda box: bans_of(box["bans"], self.odd_ban))

    def report(self, report: BanReport) -> Deferred[bool]:
        asked = self._protocol.ask(commands.AddToBlackListRequest, OFFER_TIMEOUT, report=encode(report))
        return asked.addCallback(lambda box: bool(box["banned"]))

    def check_banned(self, client: str) -> Deferred[Ban | None]:
        asked = self._protocol.ask(commands.CheckBanned, OFFER_TIMEOUT, client=client)
        return asked.addCallback(lambda box: None if box["ban"] is None else decode(Ban, box["ban"]))


class PeerAnswers:
    """The responders of one link."""

    def __init__(self, link: PeerLink, protocol: GuardedAMP, door: PeerDoor, key: bytes | None) -> None:
        self.link = link
        self.sinks = link.sinks
        self.door = door
        self.key = key
        self._protocol = protocol
        self.uploads = IncomingUploads(lambda blob: self._call(self.door.receive_blob, blob))
        protocol.gone.add(self.uploads.abort_all)

    def responders(self) -> dict[type[NodeCommand], Responder]:
        """What this end answers."""
        return {command: partial(self._respond, answer) for command, answer in ANSWERS.items()}

    def sink(self, watch: int) -> RemoteSink:
        """The follower at the other end that has this number."""
        return RemoteSink(self._protocol, watch)

    def messages(self, encoded: Sequence[bytes]) -> list[BusMessage]:
        """The announcements and obituaries of a box.

        :raises InvalidArgument: one of them is not of our cluster, or cannot be read.
        """
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


def _contents(*parts: bytes | None) -> list[Content]:
    """What came along with a job."""
    return [Content(blob_of(data), data) for data in parts if data]


def _answer(result: Any) -> dict[str, Any]:
    return {"answer": encode(result)}


ANSWERS: Mapping[type[NodeCommand], PeerAnswer] = {
    commands.Ping: PeerAnswer("pinged", encode=lambda pulse: {"pulse": encode(pulse)}),
    commands.RetireLink: PeerAnswer("retired", encode=lambda agreed: {"agreed": agreed}),
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
        lambda _link, attempt, reason, hurry: (attempt_id("attempt", attempt), decode(Reason, reason, "reason"), hurry),
    ),
    commands.AttemptStarted: PeerAnswer(lambda link, watch: link.sinks.started(watch)),
    commands.AttemptOutput: PeerAnswer(
        lambda link, *piece: link.sinks.output(*piece),
        lambda _link, watch, stream, offset, data: (watch, decode(StreamName, stream, "stream"), offset, data),
    ),
    commands.AttemptEnded: PeerAnswer(
        lambda link, watch, end: link.sinks.ended(watch, end),
        lambda _link, watch, end: (watch, end_of(end)),
    ),
    commands.AskForWork: PeerAnswer(
        "asked_for_work", lambda _link, capacity: (decode(Capacity, capacity),), lambda coming: {"coming": coming}
    ),
    commands.Attach: PeerAnswer(
        "attached", lambda _link, root, depth: (decode(NodeId, root, "root"), decode(Count, depth, "depth")), _answer
    ),
    commands.Detach: PeerAnswer("detached"),
    commands.TellPath: PeerAnswer(
        "path_told", lambda _link, term, path: (decode(Counter, term, "term"), decode(Path, path, "path"))
    ),
    commands.Relay: PeerAnswer("relayed", lambda link, messages: (link.messages(messages),)),
    commands.ExchangeBans: PeerAnswer(
        "bans_exchanged",
        lambda answers, bans: (bans_of(bans, answers.link.odd_ban),),
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


def _nothing(_: object) -> None:
    return None
