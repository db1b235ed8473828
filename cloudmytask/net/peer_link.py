"""One link between two instances, as its owner calls over it (``boundaries.Link``).

Invariant: every answer is decoded and checked; what this end follows on a link ends with it, and its followers learn of
that from :attr:`PeerLink.gone`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from cloudmytask.boundaries import AttemptSink
from cloudmytask.codec import decode, encode
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
    PeerIdentity,
)
from cloudmytask.model.fields import Count
from cloudmytask.model.job import AttemptId, Blob, Content, JobSpec, Reason, StreamName, TravelingJob
from cloudmytask.wire import peer_commands as commands
from cloudmytask.wire.announcement import encode_message
from cloudmytask.wire.commands import INLINE_PART
from cloudmytask.wire.guard import GuardedAMP
from cloudmytask.wire.transfer import send_blob

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


def _riding(spec: JobSpec, contents: Sequence[Content]) -> dict[str, bytes | None]:
    """What rides along with a job."""
    riding = {content.blob: content.data for content in contents if len(content.data) <= INLINE_PART}
    return {"script": riding.get(spec.script), "stdin": None if spec.stdin is None else riding.get(spec.stdin)}


def _capacity(box: Mapping[str, Any]) -> Capacity:
    return decode(Capacity, box["capacity"])


def _nothing(_: object) -> None:
    return None
