"""Links between instances: introductions, what is refused, and what a stranger may not do."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.protocols import amp

from cloudmytask.codec import body_digest, decode, encode
from cloudmytask.core.blobs import blob_of
from cloudmytask.core.job_id import job_id
from cloudmytask.core.peer_records import end_of, offer_of
from cloudmytask.model.cluster import (
    SLOTS_MAX,
    AttachAnswer,
    Ban,
    BanPage,
    BanReport,
    BanVersion,
    BootId,
    Capacity,
    NodeId,
    Offer,
    OfferAnswer,
    PeerIdentity,
    RemoteEnd,
    Role,
    RootKey,
)
from cloudmytask.model.errors import InvalidArgument
from cloudmytask.model.job import (
    Attempt,
    AttemptId,
    Blob,
    Cancellation,
    ClientId,
    Digest,
    Job,
    JobQuery,
    JobSpec,
    JobState,
    Outcome,
    Output,
    Owner,
    Reason,
    Stamp,
    StreamName,
    TravelingJob,
    Usage,
)
from cloudmytask.net.peer_links import REQUESTS, REQUESTS_BURST
from cloudmytask.wire import peer_commands
from cloudmytask.wire.commands import NodeCommand
from cloudmytask.wire.peer_proof import Side, proof
from tests.virtual import Stranger, until
from tests.virtual_cluster import Company

US = PeerIdentity("cmt", Role.NODE, NodeId("a" * 32), BootId("0" * 16), "stranger", "127.0.0.9:7001")
NONCE = b"n" * 16
BLOB = Blob(Digest("0" * 64), 5)
ATTEMPT = AttemptId(job_id(ClientId("ann"), "key"), 1, 1)
OFFER = Offer(ATTEMPT, ClientId("ann"), JobSpec(script=BLOB), US, 1, (US.node_id,))


@pytest.fixture
def company() -> Company:
    return Company(1)


@pytest.fixture
def stranger(company: Company) -> Stranger:
    """Somebody on a connection to the only node."""
    return _connect(company)


def _connect(company: Company) -> Stranger:
    from twisted.internet.protocol import Factory

    stranger = Stranger(company.clock)
    company.result(company.network.endpoint("stranger", "a").connect(Factory.forProtocol(lambda: stranger.protocol)))
    return stranger


def _document(value: Any) -> bytes:
    return json.dumps(value).encode()


def _hello(identity: PeerIdentity = US) -> dict[bytes, bytes]:
    told = _document(encode(identity))
    return {b"version": b"1", b"identity": told, b"nonce": NONCE}


def _introduce(stranger: Stranger) -> Stranger:
    stranger.accept(b"PeerHello", _hello())
    stranger.accept(b"ProvePeer", {b"proof": b""})
    return stranger


def test_an_introduction_makes_a_link(company: Company, stranger: Stranger) -> None:
    answer = stranger.accept(b"PeerHello", _hello())
    identity = decode(PeerIdentity, json.loads(answer[b"identity"]))
    assert (identity.name, identity.node_id) == ("a", company.hosts["a"].node.identity.node_id)
    stranger.accept(b"ProvePeer", {b"proof": b""})
    assert json.loads(stranger.accept(b"Ping")[b"pulse"])["capacity"]["slots"] == 1


@pytest.mark.parametrize(
    ("identity", "code", "words"),
    [
        (PeerIdentity("other", *_fields), "ForeignCluster", "cluster 'cmt'")
        for _fields in [(Role.NODE, US.node_id, US.boot_id, US.name, US.address)]
    ],
)
def test_a_foreign_cluster_is_refused(stranger: Stranger, identity: PeerIdentity, code: str, words: str) -> None:
    refused, sentence = stranger.refused(b"PeerHello", _hello(identity))
    assert refused == code and words in sentence
    _introduce(stranger)  # the connection survived


def test_a_peer_of_our_own_id_is_refused(company: Company, stranger: Stranger) -> None:
    me = company.hosts["a"].node.identity
    twin = PeerIdentity("cmt", Role.NODE, me.node_id, US.boot_id, "twin", US.address)
    assert stranger.refused(b"PeerHello", _hello(twin))[0] == "ForeignCluster"


def test_a_version_that_is_not_spoken(stranger: Stranger) -> None:
    assert stranger.refused(b"PeerHello", {**_hello(), b"version": b"99"})[0] == "UnsupportedVersion"
    assert stranger.refused(b"PeerHello", {**_hello(), b"nonce": b"short"})[0] == "InvalidArgument"
    assert stranger.refused(b"ProvePeer", {b"proof": b""})[0] == "HelloRequired"


def test_a_rogue_client_cannot_call_a_peers_commands(stranger: Stranger) -> None:
    for name in (b"OfferJob", b"ExchangeBans", b"Ping", b"Attach"):
        assert stranger.refused(name)[0] == "UNHANDLED"
    stranger.hello("mallory")
    for name in (b"OfferJob", b"AskForWork", b"StopAttempt"):
        assert stranger.refused(name)[0] == "UNHANDLED"
    assert stranger.refused(b"PeerHello", _hello())[0] == "NotPermitted"
    stranger.accept(b"DescribeNode")


def test_row_21_a_peer_that_asks_too_fast_is_read_from_slowly(company: Company, stranger: Stranger) -> None:
    _introduce(stranger)
    asked = int(REQUESTS_BURST + 5 * REQUESTS)
    stranger.write(amp.AmpBox({amp.COMMAND: b"Ping", amp.ASK: b"1"}).serialize() * asked)
    company.clock.advance(1.0)
    assert REQUESTS_BURST <= len(stranger.boxes) < REQUESTS_BURST + 3 * REQUESTS
    company.clock.advance(5.0)
    assert len(stranger.boxes) == asked and not stranger.lost, "each of them has its answer"


def test_a_client_does_not_become_a_link_by_what_it_began_before(stranger: Stranger) -> None:
    stranger.accept(b"PeerHello", _hello())
    stranger.hello("mallory")
    assert stranger.refused(b"ProvePeer", {b"proof": b""})[0] == "HelloRequired"
    assert stranger.refused(b"Ping")[0] == "UNHANDLED"
    stranger.accept(b"DescribeNode")


def test_a_peer_cannot_call_a_clients_commands(stranger: Stranger) -> None:
    _introduce(stranger)
    assert stranger.refused(b"SubmitJob", {b"key": b"k", b"spec": b"{}"})[0] == "UNHANDLED"


def test_a_csu_hands_no_jobs_over(stranger: Stranger) -> None:
    csu = PeerIdentity("cmt", Role.CSU, US.node_id, US.boot_id, "csu", US.address)
    stranger.accept(b"PeerHello", _hello(csu))
    stranger.accept(b"ProvePeer", {b"proof": b""})
    told = _document(encode(OFFER))
    assert stranger.refused(b"OfferJob", {b"watch": b"1", b"offer": told})[0] == "NotPermitted"


def test_only_who_knows_the_key_is_let_in() -> None:
    company = Company(2, key=b"k" * 32)
    company.acquainted()
    ann = company.connect("a")
    jobs = [company.submit(ann) for _ in range(2)]
    assert {company.wait(ann, job).executor for job in jobs} == {"a", "b"}
    stranger = _connect(company)
    answer = stranger.accept(b"PeerHello", _hello())
    assert answer[b"proof"]
    assert stranger.refused(b"ProvePeer", {b"proof": b""})[0] == "ForeignCluster"
    assert stranger.refused(b"Ping")[0] == "UNHANDLED"


def test_a_proof_is_good_for_one_side_of_one_link() -> None:
    them = PeerIdentity("cmt", Role.NODE, NodeId("b" * 32), US.boot_id, "b", "127.0.0.2:7001")
    nonces, identities = (b"1" * 16, b"2" * 16), (US, them)
    right = proof(b"key", Side.CALLER, nonces, identities)
    assert right and right == proof(b"key", Side.CALLER, nonces, identities)
    others = [
        proof(b"other", Side.CALLER, nonces, identities),
        proof(b"key", Side.CALLED, nonces, identities),
        proof(b"key", Side.CALLER, nonces[::-1], identities),
        proof(b"key", Side.CALLER, nonces, identities[::-1]),
    ]
    assert right not in others and len(set(others)) == 4
    assert proof(None, Side.CALLER, nonces, identities) == b""


COMMANDS = [
    command
    for command in vars(peer_commands).values()
    if isinstance(command, type) and issubclass(command, NodeCommand) and command is not NodeCommand
]
GOOD: dict[bytes, bytes] = {
    **_hello(),
    b"proof": b"",
    b"watch": b"1",
    b"offer": _document(encode(OFFER)),
    b"script": b"print()",
    b"stdin": b"",
    b"job": OFFER.attempt.job.encode(),
    b"attempt": str(OFFER.attempt).encode(),
    b"offsets": b'{"stdout": 0}',
    b"stream": b"stdout",
    b"offset": b"0",
    b"data": b"abc",
    b"end": b"{}",
    b"reason": b"cancelled",
    b"hurry": b"False",
    b"capacity": _document(encode(Capacity(1, 1))),
    b"root": b"a" * 32,
    b"depth": b"0",
    b"term": b"0",
    b"path": b"\x00\x20" + b"a" * 32,
    b"messages": b"\x00\x01x",
    b"bans": b'{"bans": []}',
    b"report": b"{}",
    b"client": b"mallory",
}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.__name__)
def test_a_peer_that_sends_garbage_is_answered_and_stays(stranger: Stranger, command: type[NodeCommand]) -> None:
    introduction = command in (peer_commands.PeerHello, peer_commands.ProvePeer)
    if not introduction:
        _introduce(stranger)
    good = {name: GOOD[name] for name, _ in command.arguments}
    for name, argument in command.arguments:
        malformed = () if isinstance(argument, amp.String | amp.ListOf) else (b"\xff\xfe", b"{", b"[[[")
        for value in malformed:
            code, sentence = stranger.refused(command.commandName, {**good, name: value})
            assert (code, sentence.partition(":")[0]) == ("InvalidArgument", name.decode()), sentence
        if not argument.optional:
            missing = {other: value for other, value in good.items() if other != name}
            assert stranger.refused(command.commandName, missing)[0] == "InvalidArgument"
    if not introduction:
        stranger.accept(b"Ping")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"attempt": {"job": "abc", "epoch": 1, "number": 1}}, "attempt.job"),
        ({"client": "../x"}, "client"),
        ({"attempt": {"job": OFFER.attempt.job, "epoch": 1, "number": -1}}, "attempt.number"),
        ({"attempt": {"job": OFFER.attempt.job.upper(), "epoch": 1, "number": 1}}, "attempt.job"),
        ({"hops": "many"}, "hops"),
        ({"visited": ["x"]}, "visited"),
        ({"visited": ["a" * 32] * 66}, "visited"),
        ({"spec": {}}, "script"),
        ({"origin": None}, "origin"),
    ],
)
def test_a_malformed_offer_names_what_is_wrong(stranger: Stranger, change: dict[str, Any], word: str) -> None:
    _introduce(stranger)
    told = _document({**encode(OFFER), **change})
    code, sentence = stranger.refused(b"OfferJob", {b"watch": b"1", b"offer": told})
    assert code == "InvalidArgument" and word in sentence
    stranger.accept(b"Ping")


HANDED = Job(
    id=ATTEMPT.job,
    client=OFFER.client,
    spec=OFFER.spec,
    body=Digest("1" * 64),
    sequence=3,
    owner=Owner.alone(US.node_id, US.name),
    state=JobState.WAITING,
    submitted_at=1e9,
    retention=60.0,
    attempts=(Attempt(1, "b", 1e9, outcome=Outcome(Reason.EXIT, 1, usage=Usage(1.0)), stdout=Output(BLOB, 3)),),
    trail=(Stamp(1e9, "accepted", "a", "note"),),
    cancellation=Cancellation(1e9, "ann", "enough"),
)
NO_NUMBERS: tuple[Any, ...] = (True, 2**63, 10**400, 1e308, float("nan"), float("inf"), "1", "", [], [1], {}, {"a": 1})
NO_TEXTS: tuple[Any, ...] = (True, 0, 1e308, float("nan"), [], ["x"], {}, {"a": 1})
ODD: dict[tuple[str | int, ...], tuple[Any, ...]] = {
    **dict.fromkeys(
        [
            ("submitted_at",),
            ("sequence",),
            ("ended_at",),
            ("owner", "epoch"),
            ("attempts", 0, "number"),
            ("attempts", 0, "staged_at"),
            ("attempts", 0, "started_at"),
            ("attempts", 0, "stdout", "discarded"),
            ("attempts", 0, "stdout", "blob", "size"),
            ("attempts", 0, "outcome", "usage", "peak_memory"),
            ("trail", 0, "at"),
            ("cancellation", "at"),
            ("spec", "script", "size"),
        ],
        (-1, *NO_NUMBERS),
    ),
    ("retention",): tuple(value for value in NO_NUMBERS if value not in (1e308, 2**63)),
    ("attempts", 0, "outcome", "exit_code"): NO_NUMBERS,
    **dict.fromkeys(
        [
            ("id",),
            ("client",),
            ("body",),
            ("state",),
            ("moved_to",),
            ("owner", "node_id"),
            ("owner", "name"),
            ("attempts", 0, "executor"),
            ("attempts", 0, "outcome", "reason"),
            ("attempts", 0, "outcome", "detail"),
            ("trail", 0, "stage"),
            ("trail", 0, "node"),
            ("trail", 0, "note"),
            ("cancellation", "by"),
            ("spec", "script_name"),
            ("spec", "qos"),
        ],
        NO_TEXTS,
    ),
    **dict.fromkeys([("id",), ("client",), ("body",), ("state",), ("owner", "node_id")], ("", "../x", *NO_TEXTS)),
    **dict.fromkeys(
        [("attempts",), ("trail",), ("owner", "custodians"), ("spec", "arguments"), ("spec", "variables")],
        ("text", 1, True, {"a": 1}, [1], [[]]),
    ),
    **dict.fromkeys([("owner",), ("spec",), ("cancellation",), ("attempts", 0), ("trail", 0)], ("text", 1, True, [])),
}


def _refusals(stranger: Stranger, place: tuple[str | int, ...], values: Iterable[object]) -> list[str]:
    """Hand a job over with each of the values at one place of its record: each is refused by the name of that."""
    sentences = []
    path = "job" + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place)
    for value in values:
        told: Any = encode(TravelingJob(HANDED))
        changed = told["job"]
        for step in place[:-1]:
            changed = changed.setdefault(step, {}) if isinstance(changed, dict) else changed[step]
        changed[place[-1]] = value
        code, sentence = stranger.refused(b"HandOverJob", {b"job": _document(told)})
        assert code == "InvalidArgument", (value, sentence)
        assert sentence.startswith(path), (value, sentence)
        sentences.append(sentence)
    return sentences


@pytest.mark.parametrize("place", ODD, ids=lambda place: ".".join(map(str, place)))
def test_an_odd_record_is_refused_and_not_stored(
    company: Company, stranger: Stranger, place: tuple[str | int, ...]
) -> None:
    _introduce(stranger)
    assert all(len(sentence) < 250 for sentence in _refusals(stranger, place, ODD[place]))
    assert company.result(company.connect("a", "ann").jobs(JobQuery())) == []


def test_a_job_that_is_taken_over_is_kept_no_longer_than_this_node_keeps_any(
    company: Company, stranger: Stranger
) -> None:
    _introduce(stranger)
    script = b"print()"
    spec = JobSpec(script=blob_of(script))
    told = encode(TravelingJob(evolve(HANDED, spec=spec, attempts=(), cancellation=None, retention=1e12)))
    answer = stranger.accept(b"HandOverJob", {b"job": _document(told), b"script": script})
    assert json.loads(answer[b"answer"])["accepted"]
    (job,) = company.result(company.connect("a", "ann").jobs(JobQuery()))
    assert job.document["retention"] == company.hosts["a"].config.retention_max


def test_an_offer_of_blobs_that_are_missing(stranger: Stranger) -> None:
    _introduce(stranger)
    told = _document(encode(OFFER))
    answer = json.loads(stranger.accept(b"OfferJob", {b"watch": b"1", b"offer": told})[b"answer"])
    assert not answer["accepted"] and answer["missing"] == [{"digest": BLOB.digest, "size": 5}]


@pytest.mark.parametrize(
    ("offer", "why"),
    [
        ({"visited": "me"}, "visited"),
        ({"hops": 9}, "hops"),
    ],
)
def test_no_job_is_taken_that_was_here_or_went_too_far(
    company: Company, stranger: Stranger, offer: dict[str, Any], why: str
) -> None:
    _introduce(stranger)
    me = company.hosts["a"].node.identity.node_id
    change = {"visited": [US.node_id, me]} if "visited" in offer else offer
    told = _document({**encode(OFFER), **change})
    answer = json.loads(stranger.accept(b"OfferJob", {b"watch": b"1", b"offer": told})[b"answer"])
    assert (answer["accepted"], answer["why"]) == (False, why)


def test_a_peer_that_accepts_and_never_answers(company: Company) -> None:
    """A listener that takes connections and says nothing does not hold a job up."""
    from twisted.internet.protocol import Factory, Protocol

    company.network.listen("silent", Factory.forProtocol(Protocol))
    company.network.name("127.0.0.99:7001", "silent")
    asked: list[object] = []
    company.hosts["a"].node.cluster_member.pool.dial("127.0.0.99:7001").addBoth(asked.append)
    until(lambda: bool(asked), company.clock, patience=10.0)


FIELDS = ["job", "client", "spec", "accepted", "capacity", "bans", "slots", "outcome", "reason", "identity", "cluster"]
NUMBERS = st.integers(0, 2**40)
NAMES = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=20)
CAPACITIES = st.builds(
    Capacity,
    slots=st.integers(0, SLOTS_MAX),
    free=st.integers(0, SLOTS_MAX),
    load=st.none() | st.floats(0, 1),
    cpu=st.none() | st.floats(0, 1),
    threshold=st.floats(0, 1),
    stamp=NUMBERS,
)
ENDS = st.builds(
    RemoteEnd,
    outcome=st.builds(
        Outcome,
        reason=st.sampled_from(Reason),
        exit_code=st.none() | st.integers(0, 255),
        signal=st.none() | st.integers(1, 64),
        usage=st.builds(Usage, wall_seconds=st.none() | st.floats(0, 1e6), peak_memory=st.none() | NUMBERS),
        detail=NAMES,
    ),
    discarded=st.fixed_dictionaries({"stdout": NUMBERS, "stderr": NUMBERS}),
    interrupted=st.booleans(),
    executor=NAMES,
    capacity=CAPACITIES,
    trail=st.lists(st.builds(Stamp, at=st.floats(0, 1e9), stage=NAMES, node=NAMES, note=NAMES), max_size=3).map(tuple),
)


@given(ENDS)
def test_the_last_word_comes_across_unchanged(end: RemoteEnd) -> None:
    assert decode(RemoteEnd, json.loads(json.dumps(encode(end)))) == end


@given(CAPACITIES, st.booleans(), NAMES)
def test_answers_come_across_unchanged(capacity: Capacity, accepted: bool, why: str) -> None:
    answer = OfferAnswer(accepted, capacity, why, not accepted, (BLOB,))
    assert decode(OfferAnswer, json.loads(json.dumps(encode(answer)))) == answer


def test_the_rest_comes_across_unchanged() -> None:
    attach = AttachAnswer(False, RootKey(3, US.node_id), (US.node_id,), "full", ((US.node_id, US.address),))
    assert decode(AttachAnswer, encode(attach)) == attach
    ban = Ban(ClientId("m"), "why", "ann", 60.0, 30.0, BanVersion(2, True, US.node_id), True, ("a", "b"))
    assert decode(BanPage, encode(BanPage((ban,)))).bans == (ban,)
    report = BanReport(ClientId("m"), "flood", US.node_id, "a", 7)
    assert decode(BanReport, encode(report)) == report
    assert offer_of(encode(OFFER)) == OFFER


UNFIT: dict[tuple[str | int, ...], tuple[Any, ...]] = {
    ("state",): ("staging", "running", "succeeded", "expired"),
    ("moved_to",): ("b at 10.0.0.2:7000",),
    ("removed",): (True,),
    ("ended_at",): (1e9,),
    ("retention",): (-1.0,),
    ("owner", "epoch"): (2**31 + 1, 2**63 - 1),
    ("owner", "name"): ("x" * 65,),
    ("owner", "custodians"): ([US.node_id] * 101,),
    ("attempts", 0, "number"): (2, 2**63 - 1),
    ("attempts", 0, "epoch"): (2, 2**63 - 1),
    ("attempts", 0, "executor"): ("x" * 65,),
    ("attempts", 0, "outcome"): (None,),
    ("attempts", 0, "outcome", "detail"): ("x" * 241,),
    ("attempts", 0, "outcome", "usage"): ({"wall_seconds": 1e300}, {"cpu_seconds": -1.0}, {"peak_memory": 2**62}),
    ("attempts", 0, "stdout", "discarded"): (2**62,),
    ("attempts", 0, "stdout", "blob", "size"): (2**62,),
    ("trail", 0, "stage"): ("x" * 65,),
    ("trail", 0, "node"): ("x" * 65,),
    ("trail", 0, "note"): ("x" * 2001,),
    ("trail",): ([encode(HANDED)["trail"][0]] * 241,),
    ("cancellation", "by"): ("x" * 65,),
    ("cancellation", "note"): ("x" * 2001,),
}


@pytest.mark.parametrize("place", UNFIT, ids=lambda place: ".".join(map(str, place)))
def test_row_17_a_record_that_does_not_fit_is_refused_by_its_field(
    stranger: Stranger, place: tuple[str | int, ...]
) -> None:
    _introduce(stranger)
    assert _refusals(stranger, place, UNFIT[place])


def test_row_17_nobodys_word_counts_for_the_digest_of_a_job(company: Company, stranger: Stranger) -> None:
    """Who submits the job's key again is not told that it belongs to another body."""
    _introduce(stranger)
    script = b"print()"
    spec = JobSpec(script=blob_of(script))
    identity = job_id(ClientId("ann"), "key")
    handed = evolve(HANDED, id=identity, client=ClientId("ann"), spec=spec, attempts=(), cancellation=None)
    told = _document(encode(TravelingJob(handed)))
    assert json.loads(stranger.accept(b"HandOverJob", {b"job": told, b"script": script})[b"answer"])["accepted"]
    live = company.hosts["a"].node._ledger.live(identity)
    assert live is not None and live.body == body_digest(spec)


def test_row_17_a_last_word_out_of_all_proportion_is_cut_to_measure() -> None:
    end = RemoteEnd(
        Outcome(Reason.EXIT, 0, usage=Usage(1e308, -1.0, 2**63 - 1), detail="x" * 100_000),
        {StreamName.STDOUT: 2**63 - 1},
        False,
        "b",
        Capacity(1, 1),
        (Stamp(1e9, "s" * 1000, "n" * 1000, "t" * 100_000),),
    )
    read = end_of(encode(end))
    assert len(json.dumps(encode(read))) < 5000 and read.discarded[StreamName.STDOUT] < 2**62
    assert read.outcome.usage.wall_seconds is not None and read.outcome.usage.wall_seconds < 1e9
    assert read.outcome.usage.cpu_seconds == 0.0


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(FIELDS), inner),
)


@given(JSON)
def test_no_document_raises_anything_but_an_invalid_argument(document: Any) -> None:
    for kind in (Offer, OfferAnswer, RemoteEnd, PeerIdentity, Capacity, AttachAnswer, BanPage, BanReport, TravelingJob):
        with suppress(InvalidArgument):
            decode(kind, document)
