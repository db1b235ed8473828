"""A client's connection to a node, command by command, and what is left of it when it ends."""

from __future__ import annotations

import json
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred, fail

from cloudmytask.api.client_api import RIDES_MAX, ClientApi
from cloudmytask.api.principals import client_principal
from cloudmytask.boundaries import BansChanged, JobEvent, MemberChanged, OutputEnd
from cloudmytask.client.node_client import NodeClient
from cloudmytask.client.sources import Source
from cloudmytask.codec.people import JobStatus
from cloudmytask.core.blobs import UPLOAD_PREFIX, blob_of
from cloudmytask.model.errors import (
    BlobMissing,
    IdempotencyConflict,
    InternalError,
    InvalidArgument,
    JobExpired,
    JobNotFinished,
    NoSuchJob,
    QueueFull,
    ScriptTooLarge,
    UploadFailed,
)
from cloudmytask.model.job import (
    AttemptId,
    Blob,
    ClientId,
    JobId,
    JobPage,
    JobQuery,
    JobSpec,
    JobState,
    QoS,
    StreamName,
)
from cloudmytask.net import channels, client_calls, push
from cloudmytask.net import client_session as session_module
from cloudmytask.net.incoming import UPLOADS_MAX
from cloudmytask.node.running.outputs import Reader
from cloudmytask.simulation.runner import ScriptPlan
from cloudmytask.wire.commands import INLINE_PART, PIECE, WINDOW
from tests.conftest import ExpectFailures
from tests.virtual import FOREVER, Place, Stranger

OUT, ERR = StreamName.STDOUT, StreamName.STDERR
BIG = bytes(range(256)) * 4 * 100
"""More than rides along."""


@pytest.fixture
def stranger(place: Place) -> Stranger:
    stranger = place.stranger()
    stranger.hello()
    return stranger


def _sessions(place: Place) -> list[session_module.ClientSession]:
    """The node's ends of its connections."""
    factory: Any = place.network._listening["node"]
    return list(factory._sessions.values())


def _begin_upload(stranger: Stranger, blob: Blob, number: int = 1) -> dict[bytes, bytes]:
    document = json.dumps({"digest": blob.digest, "size": blob.size}).encode()
    return {b"upload": b"%d" % number, b"blob": document}


def _uploads(place: Place) -> list[str]:
    return [name for name in place.host.disk.spools if name.startswith(UPLOAD_PREFIX)]


# Hello


def test_a_connection_that_never_says_who_it_is(place: Place) -> None:
    silent, talking = place.stranger(), place.stranger()
    talking.refused(b"DescribeNode")
    place.clock.advance(session_module.HELLO_TIMEOUT - 1.0)
    assert [silent.lost, talking.lost] == [False, False]
    place.clock.advance(2.0)
    assert [silent.lost, talking.lost] == [True, True]


def test_hello_describes_the_node(place: Place, ann: NodeClient) -> None:
    assert ann.node["name"] == "node" and ann.node["slots"] == 2 and ann.node["state"] == "up"
    place.submit(ann, FOREVER)
    described = place.result(ann.describe())
    assert (described["running"], described["free"], described["uptime"] > 0) == (1, 1, True)


# Submit


@pytest.mark.parametrize("script", [b"x", b"x" * INLINE_PART, b"x" * (INLINE_PART + 1), BIG], ids=len)
@pytest.mark.parametrize("stdin", [None, b"", b"in", BIG], ids=lambda data: "none" if data is None else str(len(data)))
def test_script_and_stdin_arrive_whole_whichever_way(place: Place, script: bytes, stdin: bytes | None) -> None:
    ann = place.connect()
    source = Source.of_bytes(script)
    spec = JobSpec(script=source.blob, arguments=("a", "ü"))
    job = place.result(ann.submit(spec, source, None if stdin is None else Source.of_bytes(stdin)))
    place.reach(ann, job, JobState.RUNNING)
    [files] = place.host.disk.directories.values()
    assert files == {"script.py": script, **({} if stdin is None else {".cmt-stdin": stdin})}
    [(_, launch)] = place.launches
    assert launch.arguments == ("a", "ü") and (launch.stdin is None) == (stdin is None)
    assert place.wait(ann, job).state is JobState.SUCCEEDED
    assert not _uploads(place) and not place.host.disk.directories


def test_the_smallest_box_rides_with_the_largest_document(place: Place, ann: NodeClient) -> None:
    """Arguments as large as a node takes them, a script and an input that ride along: all in one box."""
    script = Source.of_bytes(b"s" * INLINE_PART)
    arguments = ("ä" * 60_000, "ä" * 60_000, "x" * 100_000)
    job = place.result(
        ann.submit(JobSpec(script=script.blob, arguments=arguments), script, Source.of_bytes(BIG[:INLINE_PART]))
    )
    assert place.wait(ann, job).state is JobState.SUCCEEDED
    assert place.launches[0][1].arguments == arguments


def test_a_document_that_no_box_holds_is_refused_before_it_is_sent(place: Place, ann: NodeClient) -> None:
    script = Source.of_bytes(b"x")
    spec = JobSpec(script=script.blob, arguments=("\x01" * 100_000, "\x01" * 100_000))
    sentence = place.refused(ann.submit(spec, script), InvalidArgument)
    assert sentence.startswith("spec: ") and "limit" in sentence
    assert place.result(ann.describe())


def test_a_script_of_65_mib(place: Place, ann: NodeClient, stranger: Stranger) -> None:
    blob = Blob(blob_of(b"").digest, 65 * 1024**2)
    spec = json.dumps({"script": {"digest": blob.digest, "size": blob.size}}).encode()
    code, sentence = stranger.refused(b"SubmitJob", {b"key": b"k", b"spec": spec})
    assert code == "ScriptTooLarge" and str(64 * 1024**2) in sentence and str(blob.size) in sentence
    place = Place({"script_max": 1000})
    ann = place.connect()
    assert "1000" in place.refused(ann.submitJob("batch", b"x" * 1001), ScriptTooLarge)
    assert place.result(ann.submitJob("batch", b"x" * 1000))


def test_the_same_key_is_the_same_job(place: Place, ann: NodeClient) -> None:
    spec, source = place.spec(ScriptPlan(duration=5.0))
    first = place.result(ann.submit(spec, source, key="k"))
    again = place.result(ann.submit(spec, source, key="k"))
    assert first.id == again.id
    place.wait(ann, first)
    assert place.result(ann.submit(spec, source, key="k")).state is JobState.SUCCEEDED
    assert len(place.launches) == 1
    assert place.result(place.connect("ben").submit(spec, source, key="k")).id != first.id


def test_twins_under_way_at_once_are_one_job_and_acknowledged_only_when_durable(place: Place, ann: NodeClient) -> None:
    place.commit = 0.5
    for blob in (b"small", BIG):
        source = Source.of_bytes(blob)
        spec = JobSpec(script=source.blob)
        if source.blob.size > INLINE_PART:  # here already, so that both look for it at the same moment
            place.result(ann.submit(spec, source, key="before"))
        twins = [client.submit(spec, source, key=f"k{len(blob)}") for client in (ann, place.connect("ann"))]
        acknowledged = [place.result(twin) for twin in twins]
        assert acknowledged[0].id == acknowledged[1].id
        assert acknowledged[0].id in place.host.disk.jobs
    assert len({launch.id.job for _, launch in place.launches}) == len(place.launches) == 3


@pytest.mark.parametrize("script", [b"small", BIG], ids=["inline", "uploaded"])
def test_a_twin_is_not_acknowledged_before_the_first_is_durable(script: bytes) -> None:
    place = Place()
    ann, other = place.connect("ann"), place.connect("ann")
    source = Source.of_bytes(script)
    spec = JobSpec(script=source.blob)
    place.result(ann.submit(spec, source, key="before"))
    place.commit = 1.0
    told: list[tuple[float, JobStatus]] = []
    for client in (ann, other):
        client.submit(spec, source, key="k").addCallback(lambda job: told.append((place.clock.seconds(), job)))
    place.until(lambda: len(told) == 2)
    [job_id] = {job.id for _, job in told}
    assert place.launches[-1][0] < told[0][0] - 0.9, "it starts before it is durable"
    assert told[1][0] - told[0][0] < 0.1 and told[0][0] > 1.0
    assert job_id in place.host.disk.jobs


@pytest.mark.parametrize("script", [b"small", BIG], ids=["inline", "uploaded"])
def test_another_body_under_the_same_key(script: bytes) -> None:
    place = Place()
    ann, other = place.connect("ann"), place.connect("ann")
    source = Source.of_bytes(script)
    place.result(ann.submit(JobSpec(script=source.blob), source, key="before"))
    first = ann.submit(JobSpec(script=source.blob), source, key="key-7")
    second = other.submit(JobSpec(script=source.blob, arguments=("x",)), source, key="key-7")
    accepted = place.result(first)
    sentence = place.refused(second, IdempotencyConflict)
    assert "key-7" in sentence and accepted.id in sentence
    place.wait(ann, accepted)
    place.refused(other.submit(JobSpec(script=source.blob, qos=QoS.IDLE), source, key="key-7"), IdempotencyConflict)
    place.restart()
    ann = place.connect("ann")
    place.refused(ann.submit(JobSpec(script=source.blob, retries=1), source, key="key-7"), IdempotencyConflict)
    assert place.result(ann.getScriptJobStatus(accepted.id)).state is JobState.SUCCEEDED


# Uploads


@pytest.mark.parametrize(
    ("pieces", "failure"),
    [
        pytest.param([(0, b"abcd"), (5, b"f")], "offset 5", id="a gap"),
        pytest.param([(0, b"abcd"), (3, b"e")], "offset 3", id="an overlap"),
        pytest.param([(0, b"abcd"), (-1, b"e")], "offset -1", id="before the beginning"),
        pytest.param([(0, b"abcdef!")], "announced 6", id="more than announced"),
    ],
)
def test_a_piece_out_of_place(place: Place, stranger: Stranger, pieces: list[tuple[int, bytes]], failure: str) -> None:
    blob = blob_of(b"abcdef")
    stranger.accept(b"BeginUpload", _begin_upload(stranger, blob))
    for offset, data in pieces[:-1]:
        stranger.accept(b"UploadPiece", {b"upload": b"1", b"offset": b"%d" % offset, b"data": data})
    offset, data = pieces[-1]
    code, sentence = stranger.refused(b"UploadPiece", {b"upload": b"1", b"offset": b"%d" % offset, b"data": data})
    assert code == "UploadFailed" and failure in sentence
    stranger.accept(b"AbortUpload", {b"upload": b"1"})
    assert not _uploads(place) and not place.host.disk.blobs


@pytest.mark.parametrize("sent", [b"", b"abc", b"abcdeX"])
def test_bytes_that_are_not_those_announced(place: Place, stranger: Stranger, sent: bytes) -> None:
    blob = blob_of(b"abcdef")
    stranger.accept(b"BeginUpload", _begin_upload(stranger, blob))
    stranger.accept(b"UploadPiece", {b"upload": b"1", b"offset": b"0", b"data": sent})
    code, sentence = stranger.refused(b"CommitUpload", {b"upload": b"1"})
    assert code == "UploadFailed" and blob.digest in sentence and blob_of(sent).digest in sentence
    assert not _uploads(place) and not place.host.disk.blobs
    assert stranger.refused(b"CommitUpload", {b"upload": b"1"})[0] == "UploadFailed"
    assert json.loads(stranger.accept(b"BeginUpload", _begin_upload(stranger, blob))[b"present"].lower()) is False


def test_an_upload_that_the_disk_has_no_room_for_leaves_nothing(place: Place, stranger: Stranger) -> None:
    for full_from in ("the first byte", "the last"):
        stranger.accept(b"BeginUpload", _begin_upload(stranger, blob_of(b"abcdef")))
        place.host.disk.full = full_from == "the first byte"
        stranger.accept(b"UploadPiece", {b"upload": b"1", b"offset": b"0", b"data": b"abcdef"})
        place.host.disk.full = True
        assert stranger.refused(b"CommitUpload", {b"upload": b"1"})[0] == "DiskShort"
        place.host.disk.full = False
        assert not _uploads(place) and not place.host.disk.blobs


def test_what_is_here_already_need_not_be_sent(place: Place, stranger: Stranger) -> None:
    begin = _begin_upload(stranger, blob_of(BIG))
    assert stranger.accept(b"BeginUpload", begin)[b"present"] == b"False"
    for offset in range(0, len(BIG), PIECE):
        data = BIG[offset : offset + PIECE]
        stranger.accept(b"UploadPiece", {b"upload": b"1", b"offset": b"%d" % offset, b"data": data})
    stranger.accept(b"CommitUpload", {b"upload": b"1"})
    assert stranger.accept(b"BeginUpload", begin)[b"present"] == b"True"
    assert not _uploads(place)
    assert stranger.refused(b"CommitUpload", {b"upload": b"1"})[0] == "UploadFailed"


def test_how_many_uploads_are_under_way_at_once(place: Place, stranger: Stranger) -> None:
    for number in range(UPLOADS_MAX):
        stranger.accept(b"BeginUpload", _begin_upload(stranger, blob_of(b"%d" % number), number))
    code, sentence = stranger.refused(b"BeginUpload", _begin_upload(stranger, blob_of(b"x"), 99))
    assert code == "InvalidArgument" and str(UPLOADS_MAX) in sentence
    code, sentence = stranger.refused(b"BeginUpload", _begin_upload(stranger, blob_of(b"x"), 3))
    assert code == "InvalidArgument" and sentence.startswith("upload: 3 ")
    stranger.accept(b"AbortUpload", {b"upload": b"3"})
    stranger.accept(b"BeginUpload", _begin_upload(stranger, blob_of(b"x"), 99))


def test_no_blob_is_larger_than_any_may_be(stranger: Stranger) -> None:
    code, sentence = stranger.refused(b"BeginUpload", _begin_upload(stranger, Blob(blob_of(b"").digest, 2**62)))
    assert code == "InvalidArgument" and sentence.startswith("size: ")


def test_an_upload_given_up_while_it_begins(place: Place, stranger: Stranger) -> None:
    begin = _begin_upload(stranger, blob_of(b"abc"))
    stranger.send({b"_command": b"BeginUpload", b"_ask": b"b", **begin})
    stranger.send({b"_command": b"AbortUpload", b"_ask": b"a", b"upload": b"1"})
    place.clock.advance(1.0)
    assert stranger.refused(b"UploadPiece", {b"upload": b"1", b"offset": b"0", b"data": b"abc"})[0] == "UploadFailed"
    assert not _uploads(place)


def test_a_number_that_is_used_again_while_its_first_upload_begins(place: Place, stranger: Stranger) -> None:
    """The first turns out to be needless, which is nothing to the second."""
    piece = {b"upload": b"1", b"offset": b"0", b"data": b"abc"}
    stranger.accept(b"BeginUpload", _begin_upload(stranger, blob_of(b"abc")))
    stranger.accept(b"UploadPiece", piece)
    stranger.accept(b"CommitUpload", {b"upload": b"1"})
    stranger.send({b"_command": b"BeginUpload", b"_ask": b"a", **_begin_upload(stranger, blob_of(b"abc"))})
    stranger.send({b"_command": b"AbortUpload", b"_ask": b"b", b"upload": b"1"})
    stranger.accept(b"BeginUpload", _begin_upload(stranger, blob_of(b"xyz")))
    stranger.accept(b"UploadPiece", {**piece, b"data": b"xyz"})
    stranger.accept(b"CommitUpload", {b"upload": b"1"})
    assert not _uploads(place) and blob_of(b"xyz").digest in place.host.disk.blobs


# Clients that vanish


def test_a_client_that_vanishes_mid_upload(place: Place, stranger: Stranger) -> None:
    for number in range(3):
        stranger.accept(b"BeginUpload", _begin_upload(stranger, blob_of(b"%d" % number * 100), number))
        piece = {b"upload": b"%d" % number, b"offset": b"0", b"data": b"%d" % number * 50}
        stranger.accept(b"UploadPiece", piece)
    [session] = _sessions(place)
    assert len(_uploads(place)) == len(session.uploads.under_way) == 3
    place.network.cut_off("stranger")
    place.clock.advance(1.0)
    assert not _uploads(place) and not session.uploads.under_way and not _sessions(place)
    assert not place.host.disk.blobs


def test_a_client_that_vanishes_while_its_upload_begins(place: Place, stranger: Stranger) -> None:
    stranger.send({b"_command": b"BeginUpload", b"_ask": b"b", **_begin_upload(stranger, blob_of(b"abc"))})
    session = _sessions(place)[0]
    place.until(lambda: bool(session.uploads.under_way))
    place.network.cut_off("stranger")
    place.clock.advance(1.0)
    assert not _uploads(place) and not session.uploads.under_way


def test_a_client_that_vanishes_mid_run_mid_watch_and_mid_output(place: Place) -> None:
    ann = place.connect("ann")
    output = tuple((second / 4, OUT, b"x" * 1000) for second in range(40))
    job = place.submit(ann, ScriptPlan(duration=10.0, output=output))
    seen: list[JobStatus] = []
    place.result(ann.watch(job.id, seen.append))
    waiting = ann.wait(job.id)
    reading = ann.output(job.id, lambda stream, data: None, follow=True)
    place.clock.advance(3.0)
    [session] = _sessions(place)
    assert len(session.channels.held) == 3
    place.network.cut_off("ann")
    place.clock.advance(1.0)
    assert not session.channels.held and not _sessions(place)
    entry = place.host.node._ledger._entries[JobId(job.id)]
    live = place.host.node._outputs.live(AttemptId(JobId(job.id), 1, 1))
    assert live is not None
    assert not entry.watchers and not entry.signal._waiters and not live.grown._waiters
    for deferred in (waiting, reading):  # the vanished client itself hears nothing any more
        assert not deferred.called
    again = place.connect("ann")
    assert place.wait(again, job).state is JobState.SUCCEEDED
    assert len(place.read(again, job)[0]) == 40_000
    assert not place.host.disk.spools and not place.host.disk.directories


# Status, lists, absence


def test_another_clients_job_answers_exactly_like_an_absent_one(place: Place, ann: NodeClient) -> None:
    mine, absent = place.submit(ann, FOREVER), place.submit(ann)
    place.wait(ann, absent)
    place.result(ann.remove(absent.id))
    place.host.disk.jobs.pop(JobId(absent.id))
    ben = place.connect("ben")

    def answers(job_id: str) -> list[str]:
        calls: list[Deferred[Any]] = [
            ben.getScriptJobStatus(job_id),
            ben.cancel(job_id),
            ben.retry(job_id, "k"),
            ben.remove(job_id),
            ben.explain(job_id),
            ben.wait(job_id),
            ben.output(job_id, lambda stream, data: None),
        ]
        return [place.refused(call, NoSuchJob).replace(job_id, "ID") for call in calls]

    assert answers(mine.id) == answers(absent.id)
    assert place.result(ben.page(JobQuery())) == ([], None)
    assert place.result(ann.getScriptJobStatus(mine.id)).state is JobState.RUNNING


def test_listing_page_by_page(place: Place, ann: NodeClient) -> None:
    place = Place({"queue_max": 100})
    ann, ben = place.connect("ann"), place.connect("ben")
    jobs = [place.submit(ann, name=f"n{number % 3}").id for number in range(10)]
    place.submit(ben)
    newest = list(reversed(jobs))
    page, cursor = place.result(ann.page(JobQuery(limit=4)))
    assert [job.id for job in page] == newest[:4]
    place.submit(ann)  # what comes meanwhile does not move the pages
    page, cursor = place.result(ann.page(JobQuery(limit=4, before=cursor)))
    assert [job.id for job in page] == newest[4:8]
    page, cursor = place.result(ann.page(JobQuery(limit=4, before=cursor)))
    assert [job.id for job in page] == newest[8:] and cursor is None
    assert len(place.result(ann.jobs(JobQuery(limit=3)))) == 11
    assert len(place.result(ann.jobs(JobQuery(limit=3), limit=5))) == 5
    assert [j.id for j in place.result(ann.jobs(JobQuery(name="n1")))] == [newest[2], newest[5], newest[8]]
    assert [j.id for j in place.result(ann.jobs(JobQuery(prefix=jobs[4][:9])))] == [jobs[4]]


def test_a_page_has_a_size_in_bytes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place({"queue_max": 100})
    ann = place.connect("ann")
    jobs = [place.submit(ann, FOREVER) for _ in range(12)]
    monkeypatch.setattr(client_calls, "PAGE_MAX", 7 * len(json.dumps(dict(jobs[0].document))))
    page, cursor = place.result(ann.page(JobQuery(limit=100)))
    assert 5 <= len(page) < 12 and cursor is not None
    assert [job.id for job in place.result(ann.jobs(JobQuery()))] == [job.id for job in reversed(jobs)]


def test_listing_by_state_knows_what_is_only_in_memory(place: Place, ann: NodeClient) -> None:
    running = [place.submit(ann, FOREVER).id for _ in range(2)]
    waiting = [place.submit(ann, FOREVER).id for _ in range(2)]
    done = place.result(ann.cancel(waiting.pop()))
    assert done.state is JobState.CANCELLED

    def listed(*states: JobState) -> set[str]:
        return {job.id for job in place.result(ann.jobs(JobQuery(states=frozenset(states), limit=1)))}

    assert listed(JobState.RUNNING) == set(running)
    assert listed(JobState.WAITING) == set(waiting)
    assert listed(JobState.PENDING) == listed(JobState.SUCCEEDED) == set()
    assert listed(JobState.WAITING, JobState.CANCELLED) == {*waiting, done.id}
    assert listed() == {*running, *waiting, done.id}


def test_a_job_whose_time_has_come_is_expired_in_every_answer_even_before_the_sweep() -> None:
    place = Place({"retention": 10.0, "sweep_interval": 3600.0})
    ann = place.connect()
    job = place.submit(ann)
    place.wait(ann, job)
    place.clock.advance(10.0)
    assert place.record(job).state is JobState.SUCCEEDED, "the sweep has not come yet"
    assert place.result(ann.getScriptJobStatus(job.id)).state is JobState.EXPIRED
    assert place.result(ann.jobs(JobQuery())) == []
    assert place.result(ann.jobs(JobQuery(states=frozenset({JobState.SUCCEEDED})))) == []
    place.refused(ann.output(job.id, lambda stream, data: None), JobExpired)
    assert "expired" in place.refused(ann.retry(job.id), JobExpired)
    assert place.result(ann.wait(job.id)).state is JobState.EXPIRED
    assert "etention" in place.result(ann.explain(job.id)).sentence


# Watches


def _states(place: Place, client: NodeClient, job: JobStatus) -> list[JobState]:
    seen: list[JobStatus] = []
    now, _ = place.result(client.watch(job.id, seen.append))
    place.wait(client, job)
    place.clock.advance(100.0)
    return [now.state, *(job.state for job in seen)]


def test_a_watch_tells_every_state_the_terminal_one_last(place: Place, ann: NodeClient) -> None:
    blocker = place.submit(ann, ScriptPlan(duration=4.0))
    other = place.submit(ann, ScriptPlan(duration=9.0))
    job = place.submit(ann, ScriptPlan(exit_code=1), ScriptPlan(), retries=1)
    assert _states(place, ann, job) == [
        JobState.WAITING,
        JobState.STAGING,
        JobState.RUNNING,
        JobState.WAITING,
        JobState.STAGING,
        JobState.RUNNING,
        JobState.SUCCEEDED,
    ]
    place.wait(ann, blocker)
    place.wait(ann, other)
    assert not _sessions(place)[0].channels.held, "a watch ends with the outcome"


def test_a_watch_tells_the_cancel_too(place: Place, ann: NodeClient) -> None:
    job = place.submit(ann, ScriptPlan(duration=None, term_delay=1.0))
    seen: list[JobStatus] = []
    place.reach(ann, job, JobState.RUNNING)
    place.result(ann.watch(job.id, seen.append))
    place.result(place.connect("ann").cancel(job.id, "enough"))
    place.wait(ann, job)
    assert [(each.state, each.document["cancelled_by"]) for each in seen] == [
        (JobState.RUNNING, "ann"),
        (JobState.CANCELLED, "ann"),
    ]


def test_a_watch_of_a_job_that_has_ended(place: Place, ann: NodeClient) -> None:
    job = place.submit(ann)
    place.wait(ann, job)
    assert _states(place, ann, job) == [JobState.SUCCEEDED]
    assert not _sessions(place)[0].channels.held


def test_a_watch_that_was_ended_tells_nothing_more(place: Place, ann: NodeClient, stranger: Stranger) -> None:
    job = place.submit(ann, ScriptPlan(duration=5.0))
    seen: list[JobStatus] = []
    _, end = place.result(ann.watch(job.id, seen.append))
    end()
    place.wait(ann, job)
    assert not seen
    mine = json.loads(stranger.accept(b"SubmitJob", {b"key": b"k", b"spec": b"{}", b"script": b"1"})[b"job"])["id"]
    stranger.accept(b"WatchJob", {b"watch": b"5", b"job": mine.encode(), b"every": b"True"})
    stranger.accept(b"Unsubscribe", {b"watch": b"5"})
    stranger.accept(b"Unsubscribe", {b"watch": b"5"})
    stranger.accept(b"Unsubscribe", {b"watch": b"77"})
    place.clock.advance(60.0)
    stranger.calls(b"JobChanged")
    assert json.loads(stranger.accept(b"GetScriptJobStatus", {b"job": mine.encode()})[b"job"])["state"] == "succeeded"
    assert not stranger.calls(b"JobChanged")


def test_a_number_is_in_use_once(place: Place, stranger: Stranger) -> None:
    job = json.loads(stranger.accept(b"SubmitJob", {b"key": b"k", b"spec": b"{}", b"script": b"1"})[b"job"])["id"]
    watch = {b"watch": b"5", b"job": job.encode()}
    stranger.accept(b"WatchJob", watch)
    code, sentence = stranger.refused(b"WatchJob", watch)
    assert code == "InvalidArgument" and sentence.startswith("watch: 5 ")
    stream = {**watch, b"attempt": b"0", b"offsets": b"{}", b"follow": b"True"}
    assert stranger.refused(b"StreamOutput", stream)[0] == "InvalidArgument"
    assert len(_sessions(place)[0].channels.held) == 1, "a refusal takes nothing away from the watch that is there"
    stranger.refused(b"WatchJob", {b"watch": b"6", b"job": b"0" * 17})
    stranger.accept(b"WatchJob", {**watch, b"watch": b"6"})


def _stream_of(job: str, number: int = 1) -> dict[bytes, bytes]:
    """Arguments of StreamOutput: all that is there of stdout."""
    return {
        b"watch": b"%d" % number,
        b"job": job.encode(),
        b"attempt": b"0",
        b"offsets": b'{"stdout": 0}',
        b"follow": b"False",
    }


def _ended_job(place: Place, stranger: Stranger, output: bytes) -> str:
    """A job of the stranger's that has written ``output``."""
    place.plans["script.py"] = (ScriptPlan(duration=1.0, output=((0.1, OUT, output),)),)
    job = json.loads(stranger.accept(b"SubmitJob", {b"key": b"k", b"spec": b"{}", b"script": b"1"})[b"job"])["id"]
    place.clock.advance(5.0)
    return str(job)


def test_a_number_that_is_used_again_while_its_first_stream_is_being_made(place: Place, stranger: Stranger) -> None:
    job = _ended_job(place, stranger, b"x" * 1000)
    stream = _stream_of(job)
    stranger.send({b"_command": b"StreamOutput", b"_ask": b"a", **stream})
    stranger.send({b"_command": b"Unsubscribe", b"_ask": b"b", b"watch": b"1"})
    stranger.send({b"_command": b"StreamOutput", b"_ask": b"c", **stream})
    place.clock.advance(1.0)
    [piece] = stranger.calls(b"OutputData")
    stranger.answer(piece)
    place.clock.advance(1.0)
    assert len(stranger.calls(b"OutputEnded")) == 1
    assert not _sessions(place)[0].channels.held


def test_a_number_that_is_used_again_while_its_first_watch_fails(place: Place, stranger: Stranger) -> None:
    """Whatever is made under the number since is not touched by that."""
    job = _ended_job(place, stranger, b"x")
    unknown = {b"watch": b"1", b"job": b"0" * 16, b"every": b"True"}
    place.plans["script.py"] = (FOREVER,)
    mine = json.loads(stranger.accept(b"SubmitJob", {b"key": b"l", b"spec": b"{}", b"script": b"2"})[b"job"])["id"]
    stranger.send({b"_command": b"StreamOutput", b"_ask": b"a", **_stream_of(job), b"job": unknown[b"job"]})
    stranger.send({b"_command": b"Unsubscribe", b"_ask": b"b", b"watch": b"1"})
    stranger.send({b"_command": b"WatchJob", b"_ask": b"c", **unknown, b"job": mine.encode()})
    place.clock.advance(1.0)
    [channel] = _sessions(place)[0].channels.held.values()
    assert channel.is_open
    stranger.accept(b"CancelJob", {b"job": mine.encode()})
    place.clock.advance(1.0)
    told = [json.loads(call[b"job"])["state"] for call in stranger.calls(b"JobChanged")]
    assert told[-1] == "cancelled"


def test_how_many_subscriptions_one_connection_has(
    place: Place, stranger: Stranger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channels, "CHANNELS_MAX", 5)
    place.plans["script.py"] = (FOREVER,)
    job = json.loads(stranger.accept(b"SubmitJob", {b"key": b"k", b"spec": b"{}", b"script": b"1"})[b"job"])["id"]
    for number in range(5):
        stranger.accept(b"WatchJob", {b"watch": b"%d" % number, b"job": job.encode()})
    code, sentence = stranger.refused(b"WatchJob", {b"watch": b"5", b"job": job.encode()})
    assert code == "InvalidArgument" and sentence.startswith("watch: 5 ")
    stranger.accept(b"Unsubscribe", {b"watch": b"2"})
    stranger.accept(b"WatchJob", {b"watch": b"5", b"job": job.encode()})


# Output


def test_output_of_both_streams_from_offsets(place: Place, ann: NodeClient) -> None:
    job = place.submit(ann, ScriptPlan(duration=1.0, output=((0.1, OUT, b"0123456789"), (0.2, ERR, b"abc"))))
    for _ in range(2):
        out, err, end = place.read(ann, job, follow=True)
        assert (out, err) == (b"0123456789", b"abc")
        assert end == OutputEnd(attempt=1, sizes={OUT: 10, ERR: 3}, discarded={OUT: 0, ERR: 0})
        place.wait(ann, job)
    assert place.read(ann, job, offsets={OUT: 4})[:2] == (b"456789", b"")
    assert place.read(ann, job, offsets={OUT: 4, ERR: 1})[:2] == (b"456789", b"bc")
    assert place.read(ann, job, offsets={OUT: 10, ERR: 2**62})[:2] == (b"", b"")
    assert place.read(ann, job, offsets={})[:2] == (b"", b"")


def test_output_so_far_and_output_to_come(place: Place, ann: NodeClient) -> None:
    plan = ScriptPlan(duration=10.0, output=((0.5, OUT, b"early"), (9.0, OUT, b" late")))
    job = place.submit(ann, plan)
    assert place.read(ann, job)[0] == b""
    place.clock.advance(1.0)
    assert place.read(ann, job)[0] == b"early"
    pieces: list[tuple[float, bytes]] = []
    reading = ann.output(job.id, lambda _, data: pieces.append((place.clock.seconds(), data)), follow=True)
    began = place.launches[0][0]
    place.result(reading)
    assert [data for _, data in pieces] == [b"early", b" late"]
    assert pieces[1][0] - began == pytest.approx(9.0, abs=0.01), "it comes when it is written"


def test_output_is_followed_from_before_the_first_attempt(place: Place, ann: NodeClient) -> None:
    for _ in range(2):
        place.submit(ann, ScriptPlan(duration=5.0))
    job = place.submit(ann, ScriptPlan(output=((0.5, OUT, b"at last"),)))
    assert place.read(ann, job)[2].attempt == 0, "no attempt yet, and nobody waits for one"
    assert place.read(ann, job, follow=True)[0] == b"at last"


def test_following_a_job_that_never_starts(place: Place, ann: NodeClient) -> None:
    for _ in range(2):
        place.submit(ann, FOREVER)
    job = place.submit(ann, FOREVER)
    reading = ann.output(job.id, lambda stream, data: None, follow=True)
    place.clock.advance(5.0)
    assert not reading.called
    place.result(ann.cancel(job.id))
    assert place.result(reading) == OutputEnd(0, dict.fromkeys(StreamName, 0), dict.fromkeys(StreamName, 0))


def test_output_attempt_by_attempt(place: Place, ann: NodeClient) -> None:
    plans = [ScriptPlan(exit_code=1, output=((0.5, OUT, b"try %d" % number),)) for number in (1, 2, 3)]
    job = place.submit(ann, *plans, retries=2)
    following = [place.read(ann, job, attempt=number, follow=True) for number in (1, 2, 3)]
    assert [(out, end.attempt) for out, _, end in following] == [(b"try 1", 1), (b"try 2", 2), (b"try 3", 3)]
    place.wait(ann, job)
    assert [place.read(ann, job, attempt=number)[0] for number in (1, 2, 3, 0)] == [
        b"try 1",
        b"try 2",
        b"try 3",
        b"try 3",
    ]
    assert place.read(ann, job, attempt=9, follow=True)[2].attempt == 0


def test_output_beyond_the_cap_is_counted() -> None:
    place = Place({"output_max": 1000})
    ann = place.connect()
    pieces = ((0.1, OUT, b"a" * 999), (0.2, OUT, b"bcd"), (0.3, OUT, b"e" * 5000), (0.3, ERR, b"f" * 1000))
    job = place.submit(ann, ScriptPlan(duration=2.0, output=pieces))
    live = place.read(ann, job, follow=True)
    place.wait(ann, job)
    for out, err, end in (live, place.read(ann, job)):
        assert (out, err) == (b"a" * 999 + b"b", b"f" * 1000)
        assert end.discarded == {OUT: 5002, ERR: 0} and end.sizes == {OUT: 1000, ERR: 1000}


def test_a_reader_that_is_slower_than_the_job_reads_on_in_the_store(place: Place, ann: NodeClient) -> None:
    body = bytes(range(256)) * 4096  # 1 MiB
    job = place.submit(ann, ScriptPlan(duration=1.0, output=((0.1, OUT, body),)))
    got = bytearray()
    waiting: list[Any] = []

    def write(stream: StreamName, data: bytes) -> Any:
        got.extend(data)
        waiting.append(Deferred())
        return waiting[-1]

    place.reach(ann, job, JobState.RUNNING)
    reading = ann.output(job.id, write, follow=True)
    place.wait(place.connect("ann"), job)
    place.clock.advance(5.0)
    assert len(waiting) == WINDOW
    while not reading.called:
        assert place.clock.step()
        while waiting:
            waiting.pop().callback(None)
    place.result(reading)
    assert bytes(got) == body


def test_no_more_than_a_window_is_unanswered(place: Place, stranger: Stranger) -> None:
    place.plans["script.py"] = (ScriptPlan(duration=1.0, output=((0.1, OUT, b"x" * (PIECE * 40)),)),)
    job = json.loads(stranger.accept(b"SubmitJob", {b"key": b"k", b"spec": b"{}", b"script": b"1"})[b"job"])["id"]
    place.clock.advance(5.0)
    stream = {b"watch": b"1", b"job": job.encode(), b"attempt": b"0", b"offsets": b'{"stdout": 0}', b"follow": b"True"}
    stranger.accept(b"StreamOutput", stream)
    place.clock.advance(300.0)
    unanswered = stranger.calls(b"OutputData")
    assert len(unanswered) == WINDOW and not stranger.lost, "a slow client costs a window, for as long as it likes"
    received = 0
    while unanswered:
        call = unanswered.pop(0)
        assert int(call[b"offset"]) == received and len(call[b"data"]) <= PIECE
        received += len(call[b"data"])
        stranger.answer(call)
        place.clock.advance(0.1)
        unanswered += stranger.calls(b"OutputData")
        assert len(unanswered) <= WINDOW
    assert received == PIECE * 40
    [end] = stranger.calls(b"OutputEnded")
    assert json.loads(end[b"end"])["sizes"]["stdout"] == received
    stranger.answer(end)
    place.clock.advance(1.0)
    assert not _sessions(place)[0].channels.held


def test_many_lines_are_few_messages_and_the_first_come_at_once(place: Place, ann: NodeClient) -> None:
    lines = tuple((1.0 + number / 10_000, OUT, b"%d\n" % number) for number in range(10_000))
    job = place.submit(ann, ScriptPlan(duration=2.0, output=lines))
    place.reach(ann, job, JobState.RUNNING)
    began = place.clock.seconds()
    got: list[tuple[float, bytes]] = []
    reading = ann.output(job.id, lambda _, data: got.append((place.clock.seconds() - began, data)), follow=True)
    place.result(reading)
    assert b"".join(data for _, data in got) == b"".join(data for _, _, data in lines)
    assert len(got) < 300, "not one for each line"
    assert max(there[0] - here[0] for here, there in pairwise(got)) < 0.1, "and nobody waits to see them"
    assert got[0][0] < 1.05


def test_a_client_that_takes_nothing_costs_bounded_memory(place: Place, stranger: Stranger) -> None:
    """The script writes on and on; what the node holds for the client is a window."""
    pieces = tuple((second / 10, OUT, b"x" * 100_000) for second in range(100))
    place.plans["script.py"] = (ScriptPlan(duration=20.0, output=pieces),)
    job = json.loads(stranger.accept(b"SubmitJob", {b"key": b"k", b"spec": b"{}", b"script": b"1"})[b"job"])["id"]
    stream = {b"watch": b"1", b"job": job.encode(), b"attempt": b"0", b"offsets": b'{"stdout": 0}', b"follow": b"True"}
    stranger.accept(b"StreamOutput", stream)
    place.clock.advance(60.0)
    [session] = _sessions(place)
    assert len(session.protocol._outstandingRequests) <= WINDOW
    assert sum(len(call[b"data"]) for call in stranger.calls(b"OutputData")) <= WINDOW * PIECE
    stranger.accept(b"Unsubscribe", {b"watch": b"1"})
    place.clock.advance(60.0)
    assert not stranger.calls(b"OutputData") and not stranger.calls(b"OutputEnded")


def test_a_client_that_refuses_a_piece_gets_no_more(place: Place, stranger: Stranger) -> None:
    place.plans["script.py"] = (ScriptPlan(duration=1.0, output=((0.1, OUT, b"x" * (PIECE * 40)),)),)
    job = json.loads(stranger.accept(b"SubmitJob", {b"key": b"k", b"spec": b"{}", b"script": b"1"})[b"job"])["id"]
    place.clock.advance(5.0)
    stream = {b"watch": b"1", b"job": job.encode(), b"attempt": b"0", b"offsets": b'{"stdout": 0}', b"follow": b"True"}
    stranger.accept(b"StreamOutput", stream)
    place.clock.advance(1.0)
    for call in stranger.calls(b"OutputData"):
        stranger.send({b"_error": call[b"_ask"], b"_error_code": b"UNKNOWN", b"_error_description": b"no, thanks"})
    place.clock.advance(10.0)
    assert not stranger.calls(b"OutputData") and not stranger.lost
    stranger.accept(b"DescribeNode")


def test_the_end_comes_when_every_piece_was_answered(place: Place, stranger: Stranger) -> None:
    stranger.accept(b"StreamOutput", _stream_of(_ended_job(place, stranger, b"x" * (PIECE + 1))))
    place.clock.advance(1.0)
    first, last = stranger.calls(b"OutputData")
    stranger.answer(first)
    place.clock.advance(60.0)
    assert not stranger.calls(b"OutputEnded")
    stranger.answer(last)
    place.clock.advance(1.0)
    assert len(stranger.calls(b"OutputEnded")) == 1


def test_a_stream_of_which_pieces_are_refused_gives_its_number_back(place: Place, stranger: Stranger) -> None:
    job = _ended_job(place, stranger, b"x")
    for _ in range(2):
        stranger.accept(b"StreamOutput", _stream_of(job))
        place.clock.advance(1.0)
        [call] = stranger.calls(b"OutputData")
        stranger.send({b"_error": call[b"_ask"], b"_error_code": b"UNKNOWN", b"_error_description": b"no, thanks"})
        place.clock.advance(1.0)
    assert not stranger.calls(b"OutputEnded") and not _sessions(place)[0].channels.held


def test_a_reader_that_breaks_ends_its_stream(
    place: Place, ann: NodeClient, monkeypatch: pytest.MonkeyPatch, expected_failures: ExpectFailures
) -> None:
    """A mistake of the node's own: the client hears of it, and the connection serves on."""
    job = place.submit(ann, FOREVER)
    place.reach(ann, job, JobState.RUNNING)
    with monkeypatch.context() as broken:
        broken.setattr(Reader, "next", lambda self, size: fail(ZeroDivisionError("a bug")))
        sentence = place.refused(ann.output(job.id, lambda stream, data: None, follow=True), InternalError)
    assert "its log says how" in sentence
    expected_failures(ZeroDivisionError)
    place.clock.advance(1.0)
    assert not _sessions(place)[0].channels.held
    assert place.read(ann, job)[2].attempt == 1


def test_output_that_goes_away_while_it_is_read(place: Place, ann: NodeClient) -> None:
    job = place.submit(ann, ScriptPlan(duration=1.0, output=((0.1, OUT, b"x" * (PIECE * 40)),)))
    place.wait(ann, job)
    place.host.disk.corrupt[blob_of(b"x" * (PIECE * 40)).digest] = None
    assert "do not match" in place.refused(ann.output(job.id, lambda stream, data: None), InternalError)
    place.result(ann.remove(job.id))
    place.refused(ann.output(job.id, lambda stream, data: None), JobExpired)


# The rest of a job's life


def test_retry_is_a_new_job_of_the_same_spec(place: Place, ann: NodeClient) -> None:
    job = place.submit(ann, ScriptPlan(exit_code=3), arguments=("a",), key="one")
    assert "can be retried" in place.refused(ann.retry(job.id), JobNotFinished)
    assert place.wait(ann, job).exit_code == 3
    again = place.result(ann.retry(job.id, "two"))
    assert again.id != job.id
    assert place.result(ann.retry(job.id, "two")).id == again.id
    place.wait(ann, again)
    assert [launch.arguments for _, launch in place.launches] == [("a",), ("a",)]
    assert place.record(again).spec == place.record(job).spec


def test_remove_ends_retention(place: Place, ann: NodeClient) -> None:
    job = place.submit(ann, ScriptPlan(output=((0.1, OUT, b"out"),)))
    assert "cancel it" in place.refused(ann.remove(job.id), JobNotFinished)
    place.wait(ann, job)
    gone = place.result(ann.remove(job.id))
    assert gone.state is JobState.EXPIRED
    assert "was removed" in place.refused(ann.remove(job.id), JobExpired)
    assert place.result(ann.getScriptJobStatus(job.id)).state is JobState.EXPIRED
    assert "removed it" in place.result(ann.explain(job.id)).sentence
    assert place.result(ann.jobs(JobQuery())) == []
    place.clock.advance(40.0)
    assert not place.host.disk.blobs, "the sweep has freed the bytes"


def test_the_queue_is_full(place: Place) -> None:
    place = Place({"slots": 1, "queue_max": 2})
    ann = place.connect()
    jobs = [place.submit(ann, FOREVER) for _ in range(3)]
    sentence = place.refused(place.begin(ann), QueueFull)
    assert "queue_max is 2" in sentence
    assert len(place.host.disk.jobs) == 3
    place.result(ann.cancel(jobs[2].id))
    assert place.submit(ann)


def test_a_blob_that_is_missing(place: Place, stranger: Stranger) -> None:
    spec = json.dumps({"script": {"digest": "0" * 64, "size": 5}}).encode()
    code, sentence = stranger.refused(b"SubmitJob", {b"key": b"k", b"spec": spec})
    assert code == BlobMissing.__name__ and "0" * 64 in sentence
    assert not place.host.disk.jobs


def test_upload_failures_are_declared_ones(place: Place, ann: NodeClient) -> None:
    """A source whose bytes change while they are sent."""
    lying = Source(blob=blob_of(b"y" * len(BIG)), data=BIG)
    place.refused(ann.submit(JobSpec(script=lying.blob), lying), UploadFailed)
    assert not _uploads(place) and place.result(ann.describe())["running"] == 0


def test_a_connection_stays_whose_it_is(place: Place, stranger: Stranger) -> None:
    again = {b"versions": b"\x00\x011", b"role": b"client"}
    code, sentence = stranger.refused(b"Hello", {**again, b"client": b"somebody.else"})
    assert (code, sentence[-29:]) == ("InvalidArgument", "cannot become somebody.else's")


# Clients that do not keep up


def _open_streams(stranger: Stranger, job: str, numbers: range) -> None:
    for number in numbers:
        arguments = {b"watch": b"%d" % number, b"job": job.encode(), b"attempt": b"1", b"follow": b"True"}
        stranger.accept(b"StreamOutput", {**arguments, b"offsets": b'{"stdout": 0}'})


def test_the_streams_of_one_connection_hold_a_bounded_amount_together(place: Place) -> None:
    ann = place.connect("ann")
    job = place.submit(ann, ScriptPlan(duration=None, output=((0.1, OUT, b"x" * 2_000_000),)))
    place.clock.advance(1.0)
    stranger = place.stranger()
    stranger.hello("ann")
    _open_streams(stranger, job.id, range(200))
    place.clock.advance(5.0)
    pieces = stranger.calls(b"OutputData")
    assert pieces and sum(len(piece[b"data"]) for piece in pieces) <= push.OUTPUT_MAX
    [session] = [each for each in _sessions(place) if each.channels.held]
    assert session._budget.streams == 200 and session._budget.share == push.OUTPUT_MAX // 200
    for piece in pieces:  # whoever answers gets more
        stranger.answer(piece)
    place.clock.advance(1.0)
    assert stranger.calls(b"OutputData")


def test_a_stream_among_silent_ones_goes_on_when_those_end(place: Place) -> None:
    ann = place.connect("ann")
    job = place.submit(ann, ScriptPlan(duration=None, output=((0.1, OUT, b"x" * 2_000_000),)))
    place.clock.advance(1.0)
    stranger = place.stranger()
    stranger.hello("ann")
    _open_streams(stranger, job.id, range(30))
    place.clock.advance(1.0)
    silent = stranger.calls(b"OutputData")
    for number in range(29):
        stranger.accept(b"Unsubscribe", {b"watch": b"%d" % number})
    for piece in silent:
        stranger.answer(piece)
    read = 0
    while read < 2_000_000 - 100 * PIECE:
        place.clock.advance(1.0)
        pieces = stranger.calls(b"OutputData")
        for piece in pieces:
            stranger.answer(piece)
        mine = [piece for piece in pieces if piece[b"watch"] == b"29"]
        assert mine
        read += sum(len(piece[b"data"]) for piece in mine)


def test_a_client_that_is_behind_is_told_of_the_last_change(place: Place) -> None:
    stranger = place.stranger()
    stranger.hello("ann")
    ann = place.connect("ann")
    jobs = [place.submit(ann, ScriptPlan(duration=1.0), ScriptPlan(duration=1.0)) for _ in range(4)]
    for number, job in enumerate(jobs):
        stranger.accept(b"WatchJob", {b"watch": b"%d" % number, b"job": job.id.encode(), b"every": b"True"})
    [session] = [each for each in _sessions(place) if each.channels.held]
    sending = session.protocol._sending
    assert sending is not None
    sending.pauseProducing()  # as a transport does whose other end reads no more
    place.clock.advance(10.0)
    assert not stranger.calls(b"JobChanged") and len(session._changes._waiting) == 4
    sending.resumeProducing()
    place.clock.advance(1.0)
    told = [json.loads(call[b"job"])["state"] for call in stranger.calls(b"JobChanged")]
    assert told == ["succeeded"] * 4


def test_a_client_that_answers_nothing_costs_a_bounded_amount(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(push, "CHANGES_MAX", 3)
    stranger = place.stranger()
    stranger.hello("ann")
    ann = place.connect("ann")
    job = place.submit(ann, ScriptPlan(duration=1.0))
    for number in range(6):
        stranger.accept(b"WatchJob", {b"watch": b"%d" % number, b"job": job.id.encode()})
    place.wait(ann, job)
    told = stranger.calls(b"JobChanged")
    assert len(told) == 3
    stranger.answer(told[0])
    place.clock.advance(0.1)
    assert [call[b"watch"] for call in stranger.calls(b"JobChanged")] == [b"3"]
    stranger.accept(b"Unsubscribe", {b"watch": b"4"})
    for call in told[1:]:
        stranger.answer(call)
    place.clock.advance(0.1)
    assert [call[b"watch"] for call in stranger.calls(b"JobChanged")] == [b"5"]


# A script in two exchanges


def _run_at_once(stranger: Stranger, spec: JobSpec, script: bytes, **more: bytes) -> dict[bytes, bytes]:
    document = json.dumps({"script_name": spec.script_name}).encode()
    arguments = {b"key": b"k", b"spec": document, b"script": script}
    return stranger.accept(b"SubmitJob", {**arguments, **{name.encode(): value for name, value in more.items()}})


def test_a_script_is_run_by_one_call_and_the_rest_is_pushed(place: Place) -> None:
    stranger = place.stranger()
    stranger.hello("ann")
    spec, source = place.spec(ScriptPlan(duration=1.0, output=((0.5, OUT, b"hello"), (0.6, ERR, b"oh"))))
    assert source.data is not None
    answer = _run_at_once(stranger, spec, source.data, watch=b"1", every=b"True", output=b"True", stream=b"2")
    assert json.loads(answer[b"job"])["state"] in ("pending", "staging", "running") and b"stdout" not in answer
    place.clock.advance(5.0)
    pieces = stranger.calls(b"OutputData")
    assert [(piece[b"watch"], piece[b"stream"], piece[b"data"]) for piece in pieces] == [
        (b"2", b"stdout", b"hello"),
        (b"2", b"stderr", b"oh"),
    ]
    told = stranger.calls(b"JobChanged")
    assert {call[b"watch"] for call in told} == {b"1"}
    assert json.loads(told[-1][b"job"])["state"] == "succeeded"
    assert (told[-1][b"stdout"], told[-1][b"stderr"]) == (b"hello", b"oh")
    assert all(b"stdout" not in call for call in told[:-1])
    for piece in pieces:
        stranger.answer(piece)
    place.clock.advance(1.0)
    assert [call[b"watch"] for call in stranger.calls(b"OutputEnded")] == [b"2"]
    assert not _sessions(place)[0].channels.held


def test_a_job_that_is_over_is_answered_with_its_output(place: Place, ann: NodeClient) -> None:
    plan = ScriptPlan(duration=0.1, output=((0.05, OUT, b"hello"),))
    spec, source = place.spec(plan)
    job = place.result(ann.submit(spec, source, key="k"))
    place.wait(ann, job)
    stranger = place.stranger()
    stranger.hello("ann")
    assert source.data is not None
    again = _run_at_once(stranger, spec, source.data, watch=b"1", output=b"True")
    assert (again[b"known"], json.loads(again[b"job"])["state"]) == (b"True", "succeeded")
    assert (again[b"stdout"], again[b"stderr"]) == (b"hello", b"")
    watched = stranger.accept(b"WatchJob", {b"watch": b"1", b"job": job.id.encode(), b"output": b"True"})
    assert (watched[b"stdout"], watched[b"stderr"]) == (b"hello", b"")
    assert b"stdout" not in stranger.accept(b"WatchJob", {b"watch": b"1", b"job": job.id.encode()})


def test_a_large_output_does_not_ride_along(place: Place, ann: NodeClient) -> None:
    job = place.submit(ann, ScriptPlan(duration=0.1, output=((0.05, OUT, b"x" * (RIDES_MAX + 1)),)))
    place.wait(ann, job)
    stranger = place.stranger()
    stranger.hello("ann")
    watched = stranger.accept(b"WatchJob", {b"watch": b"1", b"job": job.id.encode(), b"output": b"True"})
    assert b"stdout" not in watched and b"stderr" not in watched


@pytest.mark.parametrize("numbers", [{"watch": b"7"}, {"stream": b"7"}, {"watch": b"8", "stream": b"8"}])
def test_a_number_in_use_keeps_the_job_from_being_submitted(place: Place, numbers: dict[str, bytes]) -> None:
    ann = place.connect("ann")
    other = place.submit(ann, FOREVER)
    stranger = place.stranger()
    stranger.hello("ann")
    stranger.accept(b"WatchJob", {b"watch": b"7", b"job": other.id.encode()})
    arguments = {b"key": b"k", b"spec": b"{}", b"script": b"x"}
    code, sentence = stranger.refused(
        b"SubmitJob", {**arguments, **{name.encode(): value for name, value in numbers.items()}}
    )
    assert code == "InvalidArgument" and "in use" in sentence
    assert len(place.result(ann.jobs(JobQuery()))) == 1
    assert list(_sessions(place)[-1].channels.held) == [7]


def test_costly_requests_of_one_connection_take_turns_and_end_with_it(place: Place) -> None:
    stranger = place.stranger()
    stranger.hello("ann")
    asked: list[Deferred[Any]] = []

    def slowly(*_: object) -> Deferred[Any]:
        asked.append(Deferred())
        return asked[-1]

    door: Any = _sessions(place)[0]._api
    door._door = SimpleNamespace(jobs_of=lambda: SimpleNamespace(jobs=slowly), admit=lambda *_: 0.0)
    for number in range(20):
        stranger.send({b"_command": b"ListJobs", b"_ask": b"%d" % number})
    place.clock.advance(1.0)
    assert len(asked) == session_module.HEAVY_MAX
    stranger.protocol.transport.loseConnection()
    place.clock.advance(1.0)
    for each in asked:
        each.callback(JobPage((), None))
    assert len(asked) == session_module.HEAVY_MAX, "nobody is left to hear the others"


def test_the_events_of_a_client_are_its_own_jobs_and_the_cluster(place: Place) -> None:
    front = place.host.node.front_door
    principal = client_principal("ann", UNIXAddress(None))
    seen: list[JobEvent | MemberChanged | BansChanged] = []
    watch = ClientApi(front, principal).events(seen.append)
    ann, ben = place.connect("ann"), place.connect("ben")
    job = place.submit(ann, ScriptPlan(duration=0.1))
    place.wait(ben, place.submit(ben, ScriptPlan(duration=0.1)))
    place.wait(ann, job)
    jobs = [event for event in seen if isinstance(event, JobEvent)]
    assert {each.job for each in jobs} == {job.id} and jobs[-1].state is JobState.SUCCEEDED
    place.result(front.ban(ClientId("root"), ClientId("mallory"), "test", 60.0))
    assert [event.bans[0].client for event in seen if isinstance(event, BansChanged)] == ["mallory"]
    watch.close()
    number = len(seen)
    place.wait(ann, place.submit(ann, ScriptPlan(duration=0.1)))
    assert len(seen) == number
