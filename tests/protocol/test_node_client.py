"""The client library's Deferreds: each of them fires, with an answer or with a declared failure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString
from twisted.internet.error import ConnectError
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure

from cloudmytask.client.connection import connect, new_key
from cloudmytask.client.job_spec import job_spec
from cloudmytask.client.node_client import HELLO_TIMEOUT, NodeClient
from cloudmytask.client.sources import Source
from cloudmytask.codec.people import JobStatus
from cloudmytask.model.errors import (
    ConnectionInterrupted,
    InternalError,
    InvalidArgument,
    NoNode,
    NoSuchJob,
    RequestTimeout,
    UnsupportedVersion,
    WaitTimeout,
)
from cloudmytask.model.job import JobQuery, JobSpec, JobState, QoS, Reason, StreamName
from cloudmytask.node.jobs.ledger import Ledger
from cloudmytask.simulation.runner import ScriptPlan
from cloudmytask.wire.commands import INLINE_PART, WINDOW, Hello, OutputData, OutputEnded, StreamOutput, Unsubscribe
from cloudmytask.wire.guard import CALL_TIMEOUT, GuardedAMP
from cloudmytask.wire.vocabulary import Vocabulary
from tests.virtual import FOREVER, Place

OUT = StreamName.STDOUT


def _quiet(client: NodeClient) -> bool:
    """Whether it remembers nothing of what has ended."""
    begun = client._subscriptions
    return not (begun._open or client.protocol._outstandingRequests)


END = {"attempt": 1, "sizes": {"stdout": 1, "stderr": 0}, "discarded": {"stdout": 0, "stderr": 0}}


def _client_of(place: Place) -> tuple[NodeClient, GuardedAMP]:
    """A client's connection to a node that does what the test has it do; and that node's end of it."""
    responders = {
        Hello: lambda **_: {"version": 1, "node": {}},
        StreamOutput: lambda **_: {},
        Unsubscribe: lambda **_: {},
    }
    node = GuardedAMP(Vocabulary(responders), place.clock)
    place.network.listen("puppet", Factory.forProtocol(lambda: node))
    return place.result(connect(place.network.endpoint("ann", "puppet"), place.clock, "ann")), node


# The paper's two methods


def test_the_papers_two_methods(place: Place, ann: NodeClient) -> None:
    job_id = place.result(ann.submitJob("interactive", b"print('hi')", "--alpha", "0.1", timeout=60.0))
    assert place.result(ann.getScriptJobStatus(job_id)).qos is QoS.INTERACTIVE
    place.clock.advance(5.0)
    status = place.result(ann.getScriptJobStatus(job_id))
    assert (status.id, status.state, status.exit_code, status.reason) == (job_id, JobState.SUCCEEDED, 0, Reason.EXIT)
    assert (status.attempt, status.executor, status.signal) == (1, "node", None)
    assert place.launches[0][1].arguments == ("--alpha", "0.1")
    again = place.result(ann.submitJob(QoS.BATCH, b"print('hi')"))
    assert again != job_id, "without a key each submission is a job of its own"


def test_a_qos_that_there_is_not(place: Place, ann: NodeClient) -> None:
    assert "urgent" in place.refused(ann.submitJob("urgent", b"x"), InvalidArgument)


def test_what_cannot_be_meant_is_refused_and_one_name_is_a_name(place: Place, ann: NodeClient) -> None:
    assert "key: ''" in place.refused(ann.submitJob("batch", b"x", key=""), InvalidArgument)
    assert "variables: ['A=1']" in place.refused(ann.submitJob("batch", b"x", variables=["A=1"]), InvalidArgument)
    assert "argument 1" in place.refused(ann.submitJob("batch", b"x", ["a"]), InvalidArgument)
    assert "job: b'x'" in place.refused(ann.getScriptJobStatus(b"x"), InvalidArgument)  # type: ignore[arg-type]
    job = place.result(ann.submitJob("batch", b"x", 5, avoid="vm", max_open_files=9))
    place.result(ann.wait(job))
    launched = place.launches[0][1]
    assert launched.arguments == ("5",) and launched.limits.open_files == 9
    assert job_spec(Source.of_bytes(b"x"), (), avoid="vm").avoid == ("vm",)


def test_ids_may_be_typed_as_people_type_them(place: Place, ann: NodeClient) -> None:
    job_id = place.result(ann.submitJob("batch", b"x"))
    typed = f" {job_id[:5]}-{job_id[5:].upper().replace('0', 'O').replace('1', 'l')} "
    assert place.result(ann.getScriptJobStatus(typed)).id == job_id
    mistyped = job_id[:-1] + ("a" if job_id[-1] != "a" else "b")
    assert "mistyped" in place.refused(ann.getScriptJobStatus(mistyped), InvalidArgument)
    place.refused(ann.getScriptJobStatus("0" * 17), NoSuchJob)


def test_a_signal_is_told(place: Place, ann: NodeClient) -> None:
    job = place.submit(ann, ScriptPlan(signal=11))
    done = place.wait(ann, job)
    assert (done.state, done.exit_code, done.signal, done.reason) == (JobState.FAILED, None, 11, Reason.SIGNAL)


# Connecting


def test_nobody_listens(place: Place) -> None:
    place.host.kill()
    connecting = connect(place.network.endpoint("ann", "node"), place.clock, "ann")
    assert place.refused(connecting, NoNode)
    assert place.refused(connect(place.network.endpoint("ann", "nowhere"), place.clock, "ann"), NoNode)


def test_there_is_no_such_socket(tmp_path: Path) -> None:
    reactor: Any = MemoryReactorClock()
    endpoint = clientFromString(reactor, f"unix:{tmp_path}/absent.sock")
    failures: list[object] = []
    connect(endpoint, reactor, "ann").addErrback(lambda failure: failures.append(failure.value))
    factory = reactor.unixClients[0][1]
    problem: Any = ConnectError()
    problem.osError = FileNotFoundError(2, "No such file or directory")
    factory.clientConnectionFailed(reactor.connectors[0], Failure(problem))
    assert isinstance(failures[0], NoNode) and "No such file" in str(failures[0])


def test_what_answers_does_not_talk(place: Place) -> None:
    """Connected, and then silence; the connection must not be left behind."""
    silent: Any = Protocol()
    lost: list[object] = []
    silent.connectionLost = lost.append
    place.network.listen("silent", Factory.forProtocol(lambda: silent))
    began = place.clock.seconds()
    connecting = connect(place.network.endpoint("ann", "silent"), place.clock, "ann")
    assert "Hello" in place.refused(connecting, RequestTimeout)
    assert place.clock.seconds() - began == pytest.approx(HELLO_TIMEOUT, abs=0.1)
    place.clock.advance(1.0)
    assert len(lost) == 1


def test_what_answers_hangs_up(place: Place) -> None:
    class Busy(Protocol):
        def connectionMade(self) -> None:
            assert self.transport is not None
            self.transport.loseConnection()

    place.network.listen("busy", Factory.forProtocol(Busy))
    place.refused(connect(place.network.endpoint("ann", "busy"), place.clock, "ann"), ConnectionInterrupted)


def test_what_answers_is_something_else(place: Place) -> None:
    class Web(Protocol):
        def dataReceived(self, data: bytes) -> None:
            assert self.transport is not None
            self.transport.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    place.network.listen("web", Factory.forProtocol(Web))
    place.refused(connect(place.network.endpoint("ann", "web"), place.clock, "ann"), ConnectionInterrupted)


def test_what_answers_speaks_another_version(place: Place) -> None:
    def hello(**_: object) -> dict[str, object]:
        raise UnsupportedVersion("this node speaks protocol version 9")

    place.network.listen("future", Factory.forProtocol(lambda: GuardedAMP(Vocabulary({Hello: hello}), place.clock)))
    connecting = connect(place.network.endpoint("ann", "future"), place.clock, "ann")
    assert "version 9" in place.refused(connecting, UnsupportedVersion)


def test_a_name_that_no_client_has(place: Place) -> None:
    connecting = connect(place.network.endpoint("ann", "node"), place.clock, "two words")
    assert place.refused(connecting, InvalidArgument).startswith("client:")


def test_connecting_is_given_up(place: Place) -> None:
    connecting = place.host.connect("ann", "ann")
    connecting.cancel()
    with pytest.raises(defer.CancelledError):
        place.result(connecting)
    place.clock.advance(1.0)
    later = place.host.connect("ann", "ann")
    place.until(lambda: len(place.network._open) == 2)  # connected, Hello under way
    later.cancel()
    with pytest.raises(defer.CancelledError):
        place.result(later)
    place.clock.advance(1.0)
    assert not place.network._open


# Waiting


def test_wait_for_a_job_that_runs_and_for_one_that_has_ended(place: Place, ann: NodeClient) -> None:
    job = place.submit(ann, ScriptPlan(duration=7.0, exit_code=4))
    began = place.clock.seconds()
    assert place.wait(ann, job).exit_code == 4
    assert place.clock.seconds() - began == pytest.approx(7.0, abs=0.1)
    assert place.wait(ann, job).exit_code == 4
    place.clock.advance(1.0)
    assert _quiet(ann)


def test_wait_has_a_patience(place: Place, ann: NodeClient) -> None:
    job = place.submit(ann, ScriptPlan(duration=100.0))
    began = place.clock.seconds()
    sentence = place.refused(ann.wait(job.id, timeout=2.5), WaitTimeout)
    assert job.id in sentence and "running" in sentence and "2.5 s" in sentence
    assert place.clock.seconds() - began == pytest.approx(2.5, abs=0.1)
    place.clock.advance(1.0)
    assert _quiet(ann) and not place.host.node._ledger._entries[job.id].watchers
    assert place.result(ann.wait(job.id, timeout=200.0)).state is JobState.SUCCEEDED
    place.clock.advance(1.0)
    assert sum(timer.active() for _, _, timer in place.clock._heap) == 2, "only the node's two periodic calls are left"


def test_wait_sleeps_through_retries(place: Place, ann: NodeClient) -> None:
    job = place.submit(ann, ScriptPlan(exit_code=1), ScriptPlan(exit_code=1), ScriptPlan(), retries=2)
    done = place.wait(ann, job)
    assert (done.state, done.attempt) == (JobState.SUCCEEDED, 3)


def test_a_wait_is_given_up(place: Place, ann: NodeClient) -> None:
    job = place.submit(ann, FOREVER)
    waiting = ann.wait(job.id)
    place.clock.advance(1.0)
    waiting.cancel()
    with pytest.raises(defer.CancelledError):
        place.result(waiting)
    place.clock.advance(1.0)
    assert _quiet(ann) and not place.host.node._ledger._entries[job.id].watchers


def test_an_output_is_given_up(place: Place, ann: NodeClient) -> None:
    job = place.submit(ann, ScriptPlan(duration=50.0, output=((0.5, OUT, b"a"), (20.0, OUT, b"b"))))
    seen: list[bytes] = []
    reading = ann.output(job.id, lambda _, data: seen.append(data), follow=True)
    place.clock.advance(1.0)
    reading.cancel()
    with pytest.raises(defer.CancelledError):
        place.result(reading)
    place.clock.advance(40.0)
    assert seen == [b"a"] and _quiet(ann)


def test_a_slow_reader_slows_the_node_down(place: Place, ann: NodeClient) -> None:
    job = place.submit(ann, ScriptPlan(output=((0.1, OUT, b"x" * 2_000_000),)))
    place.wait(ann, job)
    slow: list[Deferred[None]] = []

    def write(stream: StreamName, data: bytes) -> Deferred[None]:
        slow.append(Deferred())
        return slow[-1]

    reading = ann.output(job.id, write)
    place.clock.advance(5 * CALL_TIMEOUT)
    assert len(slow) == WINDOW
    answered = 0
    while not reading.called:
        assert answered < len(slow) <= answered + WINDOW
        slow[answered].callback(None)
        answered += 1
        place.clock.advance(0.1)
    assert place.result(reading).sizes[OUT] == 2_000_000


def test_an_output_ends_after_its_last_piece_is_written(place: Place, ann: NodeClient) -> None:
    job = place.submit(ann, ScriptPlan(output=((0.1, OUT, b"x"),)))
    place.wait(ann, job)
    writing: Deferred[None] = Deferred()
    reading = ann.output(job.id, lambda stream, data: writing)
    place.clock.advance(10.0)
    assert not reading.called
    writing.callback(None)
    assert place.result(reading).sizes[OUT] == 1
    place.clock.advance(1.0)
    assert _quiet(ann)


@pytest.mark.parametrize("failing", [False, True])
def test_a_node_that_tells_the_end_too_early_does_not_end_the_writing(place: Place, failing: bool) -> None:
    """Other nodes may not wait for the answers to their pieces."""
    ann, node = _client_of(place)
    writing: Deferred[None] = Deferred()
    reading = ann.output("0" * 16, lambda stream, data: writing)
    place.clock.advance(1.0)
    piece = node.ask(OutputData, watch=1, stream="stdout", offset=0, data=b"x")
    ended = node.ask(OutputEnded, watch=1, end=END)
    place.result(ended)
    assert not piece.called and not reading.called
    if failing:
        writing.errback(OSError("disk full"))
        with pytest.raises(OSError, match="disk full"):
            place.result(reading)
    else:
        writing.callback(None)
        assert place.result(reading).sizes[OUT] == 1
    assert place.result(piece) == {} and _quiet(ann)


def test_a_malformed_end_is_an_end(place: Place) -> None:
    ann, node = _client_of(place)
    reading = ann.output("0" * 16, lambda stream, data: None)
    place.clock.advance(1.0)
    place.refused(node.ask(OutputEnded, watch=1, end={"attempt": 1}), InvalidArgument)
    assert "malformed" in place.refused(reading, InternalError)
    assert _quiet(ann)


def test_a_piece_of_an_unknown_stream_ends_the_output(place: Place) -> None:
    ann, node = _client_of(place)
    reading = ann.output("0" * 16, lambda stream, data: None)
    place.clock.advance(1.0)
    place.result(node.ask(OutputData, watch=1, stream="stdlog", offset=0, data=b"x"))
    with pytest.raises(ValueError, match="stdlog"):
        place.result(reading)


def test_a_reader_that_fails_ends_its_stream_and_nothing_else(place: Place, ann: NodeClient) -> None:
    job = place.submit(ann, ScriptPlan(output=((0.1, OUT, b"x" * 2_000_000),)))
    place.wait(ann, job)
    reading = ann.output(job.id, lambda stream, data: defer.fail(BrokenPipeError("the reader is gone")))
    with pytest.raises(BrokenPipeError):
        place.result(reading)
    assert place.result(ann.describe())


# The connection ends


def test_the_connection_ends_under_everything(place: Place, ann: NodeClient) -> None:
    job = place.submit(ann, ScriptPlan(duration=None, output=((0.5, OUT, b"a"),)))
    place.reach(ann, job, JobState.RUNNING)
    pending: list[Deferred[Any]] = [
        ann.wait(job.id),
        ann.wait(job.id, timeout=1000.0),
        ann.output(job.id, lambda stream, data: None, follow=True),
    ]
    place.clock.advance(2.0)
    pending += [ann.wait(job.id), ann.getScriptJobStatus(job.id), place.begin(ann), ann.jobs(JobQuery())]
    place.host.kill()
    for each in pending:
        place.refused(each, ConnectionInterrupted)
    assert not ann.connected and _quiet(ann)
    place.refused(ann.wait(job.id), ConnectionInterrupted)
    place.refused(ann.submitJob("batch", b"x"), ConnectionInterrupted)


def test_close_ends_the_connection(place: Place, ann: NodeClient) -> None:
    job = place.submit(ann, FOREVER)
    waiting = ann.wait(job.id)
    place.clock.advance(1.0)
    ann.close()
    ann.close()
    place.refused(waiting, ConnectionInterrupted)
    place.clock.advance(1.0)
    assert not ann.connected and not place.network._open
    ann.close()
    assert place.result(place.connect("ann").getScriptJobStatus(job.id)).state is JobState.RUNNING


def test_a_node_that_does_not_answer(place: Place, ann: NodeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ledger, "find", lambda self, client, job_id: Deferred())
    began = place.clock.seconds()
    place.refused(ann.getScriptJobStatus("0" * 16), RequestTimeout)
    assert place.clock.seconds() - began == pytest.approx(CALL_TIMEOUT, abs=0.1)


def test_the_connection_ends_mid_upload(place: Place, ann: NodeClient) -> None:
    source = Source.of_bytes(b"x" * 5_000_000)
    submitting = ann.submit(JobSpec(script=source.blob), source)
    place.until(lambda: any(len(data) > 100_000 for data in place.host.disk.spools.values()))
    place.host.kill()
    place.refused(submitting, ConnectionInterrupted)
    place.host.start()
    assert not place.host.disk.spools
    again = place.result(place.connect("ann").submit(JobSpec(script=source.blob), source))
    assert again.state is not JobState.FAILED


def test_an_upload_has_a_window(place: Place, ann: NodeClient) -> None:
    source = Source.of_bytes(b"x" * 5_000_000)
    submitting = ann.submit(JobSpec(script=source.blob), source)
    most = 0
    while not submitting.called:
        assert place.clock.step()
        most = max(most, len(ann.protocol._outstandingRequests))
    assert most == WINDOW
    place.result(submitting)


# What cannot cross the wire


def test_arguments_that_no_box_holds_are_refused_without_harm(place: Place, ann: NodeClient) -> None:
    job = place.submit(ann, FOREVER)
    with pytest.raises(InvalidArgument, match=r"^note: 70000 bytes"):
        place.result(defer.maybeDeferred(ann.cancel, job.id, "n" * 70_000))
    with pytest.raises(InvalidArgument, match="not Unicode"):
        place.result(defer.maybeDeferred(ann.cancel, job.id, "\udcff"))
    assert place.result(ann.getScriptJobStatus(job.id)).document["cancelled_by"] is None
    assert _quiet(ann)


def test_files_are_sent_as_well(place: Place, ann: NodeClient, tmp_path: Path) -> None:
    small, large = tmp_path / "small.py", tmp_path / "large.bin"
    small.write_bytes(b"print()")
    large.write_bytes(bytes(range(256)) * 1000)
    script, stdin = Source.of_file(small, INLINE_PART), Source.of_file(large, INLINE_PART)
    assert script.data == b"print()" and stdin.data is None
    job = place.result(ann.submit(JobSpec(script=script.blob), script, stdin))
    place.reach(ann, job, JobState.RUNNING)
    assert place.host.disk.directories[f"{job.id}.1.1"][".cmt-stdin"] == large.read_bytes()


def test_a_file_that_goes_away_while_it_is_sent(place: Place, ann: NodeClient, tmp_path: Path) -> None:
    path = tmp_path / "script.py"
    path.write_bytes(b"#" * 100_000)
    source = Source.of_file(path, INLINE_PART)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        place.result(ann.submit(JobSpec(script=source.blob), source))
    place.clock.advance(1.0)
    assert not place.host.disk.spools and _quiet(ann)


def test_news_of_a_watch_that_was_ended_meanwhile(place: Place, ann: NodeClient) -> None:
    job = place.submit(ann, ScriptPlan(duration=5.0))
    seen: list[JobStatus] = []
    _, end = place.result(ann.watch(job.id, seen.append))
    place.until(lambda: place.record(job).state.terminal)  # the news is on its way
    end()
    place.clock.advance(1.0)
    assert not seen and ann.connected


def test_explanations_cross_the_wire(place: Place, ann: NodeClient) -> None:
    job = place.submit(ann, FOREVER)
    place.reach(ann, job, JobState.RUNNING)
    explanation = place.result(ann.explain(job.id))
    assert "node" in explanation.sentence and any("accepted" in line for line in explanation.details)


def test_keys_are_fresh() -> None:
    keys = {new_key() for _ in range(1000)}
    assert len(keys) == 1000 and {len(key) for key in keys} == {32}


def test_a_broken_answer_is_a_declared_failure(place: Place) -> None:
    def hello(**_: object) -> dict[str, object]:
        return {"version": 1, "node": []}  # encodes, but is no document

    place.network.listen("odd", Factory.forProtocol(lambda: GuardedAMP(Vocabulary({Hello: hello}), place.clock)))
    with pytest.raises((InvalidArgument, InternalError)):
        place.result(connect(place.network.endpoint("ann", "odd"), place.clock, "ann"))
