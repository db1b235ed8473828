"""Row 17: every record that a peer can send, with odd values in any of its places: it is answered or refused with a
sentence, never by an internal error, and what was stored can be read back and listed.

``make fuzz`` does it 100,000 times.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from attrs import define, evolve, field
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.protocols import amp

from cloudmytask.codec import dump, encode, to_text
from cloudmytask.codec.compact import to_compact
from cloudmytask.codec.records import job_from_record, job_to_record
from cloudmytask.codec.text import load
from cloudmytask.core.blobs import blob_of
from cloudmytask.model.cluster import (
    Ban,
    BanPage,
    BanReport,
    BanVersion,
    BootId,
    Capacity,
    NodeId,
    Obituary,
    Offer,
    RemoteEnd,
    RootKey,
    TreePosition,
)
from cloudmytask.model.job import ClientId, JobQuery, JobSpec, Outcome, Reason, Stamp, StreamName, TravelingJob
from cloudmytask.wire.announcement import Unreadable, decode_message
from cloudmytask.wire.envelope import envelope
from tests.protocol.test_peer_link import ATTEMPT, HANDED, OFFER, US, _connect, _introduce
from tests.virtual import Stranger
from tests.virtual_cluster import Company

EXAMPLES = int(os.environ.get("FUZZ", "300"))
SCRIPT = b"print()"
SPEC = JobSpec(script=blob_of(SCRIPT), stdin=blob_of(b"in"), arguments=("a",), variables={"A": "b"}, timeout=5.0)
OWN = evolve(HANDED, spec=SPEC, cancellation=None)
BAN = Ban(ClientId("m"), "floods", "ann", 60.0, 30.0, BanVersion(2, True, US.node_id), False, ("a", "b"))
END = RemoteEnd(
    Outcome(Reason.EXIT, 0), {StreamName.STDOUT: 1}, False, "b", Capacity(1, 1), (Stamp(1e9, "started", "b", "note"),)
)
RECORDS: dict[str, tuple[bytes, bytes, Any]] = {
    "offer": (b"OfferJob", b"offer", encode(Offer(ATTEMPT, ClientId("ann"), SPEC, US, 1, (US.node_id,)))),
    "bare offer": (b"OfferJob", b"offer", encode(OFFER)),
    "traveling job": (b"HandOverJob", b"job", encode(TravelingJob(OWN, None))),
    "first job": (b"HandOverJob", b"job", encode(TravelingJob(evolve(OWN, attempts=()), 5.0))),
    "bans": (b"ExchangeBans", b"bans", encode(BanPage((BAN, evolve(BAN, client=ClientId("n")))))),
    "report": (b"AddToBlackListRequest", b"report", encode(BanReport(ClientId("m"), "floods", US.node_id, "a", 3))),
    "last word": (b"AttemptEnded", b"end", encode(END)),
    "offsets": (b"FollowAttempt", b"offsets", {"stdout": 0, "stderr": 5}),
    "capacity": (b"AskForWork", b"capacity", encode(Capacity(4, 2, 0.5, 0.5, 0.75, 3))),
}
OTHERS: dict[bytes, bytes] = {b"watch": b"1", b"script": SCRIPT, b"stdin": b"in", b"attempt": str(ATTEMPT).encode()}
NAMES: dict[bytes, tuple[bytes, ...]] = {
    b"OfferJob": (b"watch", b"script", b"stdin"),
    b"HandOverJob": (b"script", b"stdin"),
    b"AttemptEnded": (b"watch",),
    b"FollowAttempt": (b"watch", b"attempt"),
}
ODD = st.one_of(
    st.sampled_from([None, True, False, 0, 1, -1, 2**16 + 1, 2**31, 2**53, 2**62, 2**63 - 1, 2**63, 10**30]),
    st.sampled_from([0.0, -0.5, 1e-300, 1e9, 1e18, 1e308, -1e308]),
    st.sampled_from(["", "x", "a" * 32, "f" * 16, "\ud800", "\0", "../x", "x" * 70, "x" * 3000, "running", "expired"]),
    st.sampled_from([[], {}, [[]], [1], {"a": 1}, ["a" * 32] * 70]),
    st.integers(),
    st.text(max_size=10),
)
CHANGES = st.lists(st.tuples(st.integers(0, 10_000), ODD), min_size=1, max_size=3)


def places(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a document."""
    if path:
        yield path
    if isinstance(document, dict | list):
        for key in document if isinstance(document, dict) else range(len(document)):
            yield from places(document[key], (*path, key))


def changed(document: Any, changes: list[tuple[int, Any]]) -> Any:
    """The document with odd values in some of its places."""
    document = copy.deepcopy(document)
    for number, value in changes:
        found = list(places(document))
        if not found:
            break
        *above, last = found[number % len(found)]
        inner = document
        for step in above:
            inner = inner[step]
        inner[last] = copy.deepcopy(value)  # not into itself
    return document


@define(eq=False)
class Fuzzed:
    """A cluster of two, and somebody who has a link to ``a``."""

    company: Company = field(factory=lambda: Company(2))
    stranger: Stranger = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.company.acquainted()
        self.connect()

    def connect(self) -> None:
        self.stranger = _introduce(_connect(self.company))

    def ask(self, command: bytes, arguments: dict[bytes, bytes]) -> dict[bytes, bytes]:
        if self.stranger.lost:
            self.connect()
        return self.stranger.ask(command, arguments)


@pytest.fixture(scope="module")
def fuzzed() -> Fuzzed:
    return Fuzzed()


settled = settings(
    max_examples=EXAMPLES, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@settled
@given(st.sampled_from(sorted(RECORDS)), CHANGES)
def test_row_17_no_record_is_an_internal_error(fuzzed: Fuzzed, name: str, changes: list[tuple[int, Any]]) -> None:
    command, argument, document = RECORDS[name]
    told = dump(changed(document, changes))
    arguments = {each: OTHERS[each] for each in NAMES.get(command, ())}
    if len(told) > 60_000:
        return
    answer = fuzzed.ask(command, {**arguments, argument: told})
    assert answer.get(amp.ERROR_CODE) not in (b"InternalError", b"UNKNOWN", b"UNHANDLED"), answer


@settled
@given(st.booleans(), CHANGES)
def test_row_17_no_announcement_is_a_bug(fuzzed: Fuzzed, obituary: bool, changes: list[tuple[int, Any]]) -> None:
    """A datagram is malformed, or it is believed within reason."""
    a, b = (fuzzed.company.hosts[name].node.cluster_member for name in "ab")
    word = evolve(
        b.announcer.current(),
        node_id=NodeId("c" * 32),
        tree=TreePosition(RootKey(1, NodeId("b" * 32)), 1, NodeId("b" * 32), (NodeId("c" * 32),)),
    )
    message = Obituary(word.cluster, US.node_id, word.node_id, BootId("0" * 16), 0) if obituary else word
    sealed = envelope(word.cluster, None).seal(dump(changed(load(to_compact(message)), changes)))
    with suppress(Unreadable):
        a.detector.heard(decode_message(sealed, word.cluster, None))
    fuzzed.company.clock.advance(0.05)


def test_row_17_what_was_stored_is_read_back_and_listed(fuzzed: Fuzzed) -> None:
    """After all that was sent by the tests before."""
    company = fuzzed.company
    host = company.hosts["a"]
    for job in host.disk.jobs.values():
        assert job_from_record(to_text(job.spec), job_to_record(job)) == job
        listed = company.result(company.connect("a", job.client).jobs(JobQuery()))
        assert isinstance(listed, list)
    position = host.node.cluster_member.announcer.current()
    sealed = envelope(position.cluster, None).seal(to_compact(position))
    assert decode_message(sealed, position.cluster, None) == position, "what we announce others can read"
