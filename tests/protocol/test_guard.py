"""A connection that no peer can hurt: bounded, answered, and ended in time."""

from __future__ import annotations

import os
import struct
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from attrs import define, field
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.protocol import Factory
from twisted.internet.testing import StringTransport
from twisted.protocols import amp

from cloudmytask.core.blobs import blob_of
from cloudmytask.model.errors import (
    BlobMissing,
    CloudMyTaskError,
    ConnectionInterrupted,
    InternalError,
    InvalidArgument,
    NoNode,
    RequestTimeout,
)
from cloudmytask.simulation.clock import VirtualClock
from cloudmytask.simulation.network import Network
from cloudmytask.wire import guard, sending
from cloudmytask.wire.commands import AbortUpload, BeginUpload, CommitUpload, DescribeNode, Unsubscribe
from cloudmytask.wire.guard import BOX_DEADLINE, BOX_MAX, CALL_TIMEOUT, KEYS_MAX, GuardedAMP
from cloudmytask.wire.transfer import send_blob
from cloudmytask.wire.vocabulary import DESCRIPTION_MAX, Vocabulary
from tests.conftest import ExpectFailures
from tests.virtual import Stranger, result_of, until

Responder = Callable[..., object]


def _key(text: bytes) -> bytes:
    return struct.pack("!H", len(text)) + text


@define(eq=False)
class Line:
    """A guarded end that answers ``Unsubscribe`` and ``CommitUpload``, and what may be connected to it."""

    unsubscribe: Responder = lambda watch: {}
    commit: Responder = lambda upload: {}
    clock: VirtualClock = field(factory=VirtualClock)
    network: Network = field(init=False)
    server: GuardedAMP = field(init=False)
    ended: list[float] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        self.network = Network(self.clock)
        vocabulary = Vocabulary({Unsubscribe: self.unsubscribe, CommitUpload: self.commit})
        self.server = GuardedAMP(vocabulary, self.clock, lambda: self.ended.append(self.clock.seconds()))
        self.network.listen("server", Factory.forProtocol(lambda: self.server))

    def stranger(self) -> Stranger:
        stranger = Stranger(self.clock)
        self._connect(stranger.protocol)
        return stranger

    def client(self) -> GuardedAMP:
        client = GuardedAMP(Vocabulary({}), self.clock)
        self._connect(client)
        return client

    def _connect(self, protocol: Any) -> None:
        connecting = self.network.endpoint("client", "server").connect(Factory.forProtocol(lambda: protocol))
        result_of(connecting, self.clock)

    def result(self, deferred: Deferred[Any]) -> Any:
        return result_of(deferred, self.clock)

    @property
    def timers(self) -> int:
        """Calls that are still to come."""
        return sum(timer.active() for _, _, timer in self.clock._heap)


# Boxes


def test_a_box_at_the_limits_is_taken() -> None:
    line = Line()
    stranger = line.stranger()
    filler = {b"%03d" % number: b"x" * 16_000 for number in range(KEYS_MAX - 3)}
    assert sum(len(key) + len(value) for key, value in filler.items()) > 0.9 * BOX_MAX
    stranger.accept(b"Unsubscribe", {b"watch": b"1", **filler})
    stranger.accept(b"Unsubscribe", {b"watch": b"1", **filler})
    assert not line.ended and line.timers == 0


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 100_000])
def test_boxes_may_arrive_in_any_pieces(piece: int) -> None:
    line = Line()
    stranger = line.stranger()
    boxes = b"".join(
        amp.AmpBox({amp.COMMAND: b"Unsubscribe", amp.ASK: b"%d" % tag, b"watch": b"1", b"more": b"x" * tag}).serialize()
        for tag in (1, 2, 300)
    )
    for at in range(0, len(boxes), piece):
        stranger.write(boxes[at : at + piece])
        line.clock.advance(0.001)
    line.clock.advance(1.0)
    assert [box[amp.ANSWER] for box in stranger.boxes] == [b"1", b"2", b"300"]
    assert not line.ended and line.timers == 0


def test_a_box_without_end_by_its_size() -> None:
    line = Line()
    stranger = line.stranger()
    sent = 0
    while not stranger.lost:
        stranger.write(_key(b"%d" % (sent % 32)) + _key(b"x" * 65_535))
        sent += 65_535
        line.clock.advance(0.01)
        assert sent <= BOX_MAX + 3 * 65_537
    assert sent > BOX_MAX / 2
    assert len(line.ended) == 1 and line.timers == 0


def test_a_box_of_too_many_keys() -> None:
    line = Line()
    stranger = line.stranger()
    stranger.accept(b"Unsubscribe", {b"watch": b"1", **{b"%d" % number: b"" for number in range(KEYS_MAX - 3)}})
    call = {amp.COMMAND: b"Unsubscribe", amp.ASK: b"x", b"watch": b"1"}
    stranger.send({**call, **{b"%d" % number: b"" for number in range(KEYS_MAX - 2)}})
    line.clock.advance(1.0)
    assert stranger.lost and not stranger.boxes


@pytest.mark.parametrize(
    "bytes_without_end",
    [
        pytest.param(_key(b"key") + _key(b"x" * 65_535), id="one key again and again"),
        pytest.param(b"".join(_key(b"%d" % n) + _key(b"x" * 3000) for n in range(20)), id="some keys"),
        pytest.param(b"\xff" * 65_536, id="lengths that no key has"),
        pytest.param(b"GET / HTTP/1.1\r\n" * 4096, id="another protocol"),
    ],
)
def test_memory_stays_flat_though_bytes_go_on_arriving(bytes_without_end: bytes) -> None:
    """Even if the transport does not heed that we want to be rid of the peer."""
    clock, transport = VirtualClock(), StringTransport()
    protocol = GuardedAMP(Vocabulary({}), clock)
    protocol.makeConnection(transport)
    tracemalloc.start()
    try:
        for _ in range(300):
            protocol.dataReceived(bytes_without_end)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert transport.disconnecting
    assert peak < 2 * BOX_MAX


@pytest.mark.parametrize("begun", [_key(b"_command"), b"\0\x08_comma", b"\0"], ids=["a key", "half a key", "a byte"])
def test_a_box_that_does_not_end_in_time(begun: bytes) -> None:
    line = Line()
    stranger = line.stranger()
    began = line.clock.seconds()
    stranger.write(begun)
    for _ in range(int(BOX_DEADLINE) - 1):  # a byte a second does not help
        line.clock.advance(1.0)
        stranger.write(b"\1")
    assert not line.ended
    line.clock.advance(2.0)
    assert stranger.lost and line.ended[0] - began == pytest.approx(BOX_DEADLINE, abs=0.1)


def test_a_connection_at_rest_has_no_deadline() -> None:
    line = Line()
    stranger = line.stranger()
    stranger.accept(b"Unsubscribe", {b"watch": b"1"})
    line.clock.advance(100 * BOX_DEADLINE)
    stranger.accept(b"Unsubscribe", {b"watch": b"1"})


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: node\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(200)),
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\xff" * 1000,
        b"\0" * 1000,
        os.urandom(100_000),
    ],
)
def test_garbage_ends_the_connection_quietly(garbage: bytes) -> None:
    line = Line()
    stranger = line.stranger()
    stranger.write(garbage)
    line.clock.advance(1.0)
    line.clock.advance(BOX_DEADLINE)
    assert stranger.lost and len(line.ended) == 1 and line.timers == 0


@pytest.mark.parametrize(
    "box",
    [
        pytest.param({b"stray": b"1"}, id="neither command nor answer"),
        pytest.param({amp.ANSWER: b"1"}, id="an answer to nothing"),
        pytest.param({amp.ERROR: b"1", amp.ERROR_CODE: b"X", amp.ERROR_DESCRIPTION: b""}, id="an error for nothing"),
        pytest.param({amp.ANSWER: b"", b"x": b""}, id="an answer without a tag"),
        pytest.param({amp.COMMAND: b"Unsubscribe", amp.ANSWER: b"1"}, id="a command that is an answer too"),
        pytest.param(
            {amp.COMMAND: b"Unsubscribe", amp.ASK: b"1", amp.ERROR: b"1"}, id="a command that is an error too"
        ),
        pytest.param({amp.COMMAND: b"Unsubscribe", b"watch": b"x"}, id="a command that wants no answer"),
        pytest.param({amp.COMMAND: b"\xff" * 60_000, amp.ASK: b"1"}, id="a command whose name is no name"),
    ],
)
def test_a_box_that_fits_nothing_ends_the_connection_quietly(box: dict[bytes, bytes]) -> None:
    line = Line()
    stranger = line.stranger()
    stranger.send(box)
    line.clock.advance(1.0)
    assert stranger.lost and len(line.ended) == 1 and line.timers == 0


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param({}, id="no code"),
        pytest.param({amp.ERROR_CODE: b"X"}, id="no description"),
        pytest.param({amp.ERROR_DESCRIPTION: b"x"}, id="nothing but a description"),
    ],
)
def test_an_error_that_says_nothing(broken: dict[bytes, bytes]) -> None:
    line = Line()
    stranger = line.stranger()
    asked = line.server.ask(DescribeNode)
    line.clock.advance(0.1)
    [call] = stranger.calls(b"DescribeNode")
    stranger.send({amp.ERROR: call[amp.ASK], **broken})
    with pytest.raises(ConnectionInterrupted):
        line.result(asked)
    assert stranger.lost or line.ended


# Failures of responders


def test_an_unforeseen_failure_harms_nobody_else(expected_failures: ExpectFailures) -> None:
    slow: Deferred[dict[str, Any]] = Deferred()

    def broken(watch: int) -> dict[str, Any]:
        raise ZeroDivisionError("a secret of ours")

    line = Line(unsubscribe=broken, commit=lambda upload: slow)
    client = line.client()
    other = client.ask(CommitUpload, upload=1)
    with pytest.raises(InternalError) as raised:
        line.result(client.ask(Unsubscribe, watch=1))
    assert "Unsubscribe" in str(raised.value) and "secret" not in str(raised.value)
    [logged] = expected_failures(ZeroDivisionError)
    assert "broken" in logged.getTraceback()
    assert not other.called
    slow.callback({})
    assert line.result(other) == {}
    assert not line.ended


@pytest.mark.parametrize("failure", [KeyError("late"), NoNode("not a wire error"), amp.RemoteAmpError(b"X", "y")])
def test_what_is_not_declared_is_contained(failure: Exception, expected_failures: ExpectFailures) -> None:
    line = Line(unsubscribe=lambda watch: fail(failure))
    client = line.client()
    for _ in range(2):
        with pytest.raises(InternalError):
            line.result(client.ask(Unsubscribe, watch=1))
    assert len(expected_failures(type(failure))) == 2
    assert client.alive


def test_an_answer_that_cannot_be_encoded_is_contained(expected_failures: ExpectFailures) -> None:
    line = Line()
    vocabulary = Vocabulary({DescribeNode: lambda: {"node": {"name": object()}}, Unsubscribe: lambda watch: {}})
    line.server = GuardedAMP(vocabulary, line.clock)
    client = line.client()
    with pytest.raises(InternalError):
        line.result(client.ask(DescribeNode))
    expected_failures(TypeError)
    assert line.result(client.ask(Unsubscribe, watch=1)) == {}


def test_declared_failures_keep_type_and_sentence() -> None:
    line = Line(unsubscribe=lambda watch: fail(BlobMissing(f"käse {watch}")))
    with pytest.raises(BlobMissing, match=r"^käse 12$"):
        line.result(line.client().ask(Unsubscribe, watch=12))


def test_a_long_sentence_is_cut() -> None:
    line = Line(unsubscribe=lambda watch: fail(InvalidArgument("ä" * 70_000)))
    with pytest.raises(InvalidArgument) as raised:
        line.result(line.client().ask(Unsubscribe, watch=12))
    assert str(raised.value) == "ä" * DESCRIPTION_MAX


# Calls of ours


def test_every_call_ends_in_time() -> None:
    never: Deferred[dict[str, Any]] = Deferred()
    line = Line(unsubscribe=lambda watch: never)
    client = line.client()
    began = line.clock.seconds()
    with pytest.raises(RequestTimeout, match="Unsubscribe: no answer within 30 s"):
        line.result(client.ask(Unsubscribe, watch=1))
    assert line.clock.seconds() - began == CALL_TIMEOUT
    with pytest.raises(RequestTimeout, match=r"within 0\.5 s"):
        line.result(client.ask(Unsubscribe, 0.5, watch=1))
    never.callback({})
    line.clock.advance(1.0)
    assert client.alive, "the late answer must not be taken for a stray one"
    assert line.result(client.ask(Unsubscribe, watch=1)) == {}


def test_a_call_may_be_given_all_the_time_it_takes() -> None:
    slow: Deferred[dict[str, Any]] = Deferred()
    line = Line(unsubscribe=lambda watch: slow)
    asked = line.client().ask(Unsubscribe, None, watch=1)
    line.clock.advance(100 * CALL_TIMEOUT)
    assert not asked.called
    slow.callback({})
    assert line.result(asked) == {}


@pytest.mark.parametrize("clean", [True, False])
def test_a_lost_connection_fails_what_is_outstanding(clean: bool) -> None:
    line = Line(unsubscribe=lambda watch: Deferred())
    client = line.client()
    asked = [client.ask(Unsubscribe, watch=number) for number in range(5)]
    line.clock.advance(1.0)
    if clean:
        line.server.transport.loseConnection()  # type: ignore[union-attr]  # it is connected
    else:
        line.network.cut_off("server")
    for each in asked:
        with pytest.raises(ConnectionInterrupted, match="Unsubscribe"):
            line.result(each)
    assert not client.alive and line.timers == 0
    with pytest.raises(ConnectionInterrupted, match="is closed"):
        line.result(client.ask(Unsubscribe, watch=1))


def test_a_cancelled_call_is_forgotten() -> None:
    answers: list[Deferred[dict[str, Any]]] = []

    def later(watch: int) -> Deferred[dict[str, Any]]:
        answers.append(Deferred())
        return answers[-1]

    line = Line(unsubscribe=later)
    client = line.client()
    asked = client.ask(Unsubscribe, watch=1)
    asked.addErrback(lambda failure: None)
    line.clock.advance(1.0)
    asked.cancel()
    answers[0].callback({})
    line.clock.advance(1.0)
    assert client.alive and line.timers == 0


def test_a_command_that_the_other_end_lacks() -> None:
    line = Line()
    with pytest.raises(InternalError, match="DescribeNode: the other end does not know this command"):
        line.result(line.client().ask(DescribeNode))


def test_an_error_code_of_a_later_version() -> None:
    line = Line()
    stranger = line.stranger()
    asked = line.server.ask(DescribeNode)
    line.clock.advance(0.1)
    [call] = stranger.calls(b"DescribeNode")
    stranger.send({amp.ERROR: call[amp.ASK], amp.ERROR_CODE: b"QuotaExceeded", amp.ERROR_DESCRIPTION: b"too much"})
    with pytest.raises(InternalError, match="too much"):
        line.result(asked)
    assert line.server.alive


def test_an_answer_that_is_malformed() -> None:
    line = Line()
    stranger = line.stranger()
    asked = line.server.ask(DescribeNode)
    line.clock.advance(0.1)
    [call] = stranger.calls(b"DescribeNode")
    stranger.send({amp.ANSWER: call[amp.ASK], b"node": b"[]"})
    with pytest.raises(CloudMyTaskError):
        line.result(asked)
    assert line.server.alive


def test_answers_come_in_whatever_order() -> None:
    waiting: dict[int, Deferred[dict[str, Any]]] = {}

    def respond(watch: int) -> Deferred[dict[str, Any]]:
        waiting[watch] = Deferred()
        return waiting[watch] if watch else succeed({})

    line = Line(unsubscribe=respond)
    client = line.client()
    asked = [client.ask(Unsubscribe, watch=number) for number in range(3)]
    assert line.result(asked[0]) == {}
    waiting[2].callback({})
    assert line.result(asked[2]) == {} and not asked[1].called
    waiting[1].callback({})
    assert line.result(asked[1]) == {}


# Reading and being read from


@pytest.mark.parametrize("holds", [(0.01, 0.5, 2.0), (2.0, 0.5, 0.01), (2.0, 2.0)])
def test_of_holds_that_overlap_the_last_to_end_counts(holds: tuple[float, ...]) -> None:
    line = Line()
    stranger = line.stranger()
    began = line.clock.seconds()
    for seconds in holds:
        line.server.hold(seconds)
    stranger.accept(b"Unsubscribe", {b"watch": b"1"})
    assert line.clock.seconds() - began == pytest.approx(2.0, abs=0.1)


def test_a_hold_ends_with_its_connection() -> None:
    line = Line()
    client = line.client()
    line.server.hold(60.0)
    client.close()
    line.clock.advance(1.0)
    assert line.ended and line.timers == 0


def test_an_answer_that_comes_after_the_connection_costs_nothing() -> None:
    coming: Deferred[dict[str, Any]] = Deferred()
    line = Line(unsubscribe=lambda watch: coming)
    stranger = line.stranger()
    stranger.write(amp.AmpBox({amp.COMMAND: b"Unsubscribe", amp.ASK: b"1", b"watch": b"1"}).serialize())
    line.clock.advance(1.0)
    stranger.protocol.transport.abortConnection()
    line.clock.advance(1.0)
    assert line.ended
    coming.callback({})
    assert line.server._sending is not None and line.server._sending.size == 0 and line.timers == 0


def test_an_upload_that_is_given_up_while_it_begins_is_called_off() -> None:
    asked: list[str] = []

    def begin(upload: int, blob: object) -> Deferred[dict[str, Any]]:
        asked.append("begun")
        return Deferred()

    def call_off(upload: int) -> dict[str, Any]:
        asked.append(f"called off {upload}")
        return {}

    line = Line()
    line.server.answer_with(Vocabulary({BeginUpload: begin, AbortUpload: call_off}))
    client = line.client()
    sending_it = Deferred.fromCoroutine(send_blob(client, 3, blob_of(b"x"), lambda *_: succeed(b"x")))
    line.clock.advance(CALL_TIMEOUT + 1.0)
    with pytest.raises(RequestTimeout):
        line.result(sending_it)
    line.clock.advance(1.0)
    assert asked == ["begun", "called off 3"]


def test_a_box_that_was_interrupted_by_a_hold_has_its_time() -> None:
    line = Line()
    stranger = line.stranger()
    box = amp.AmpBox({amp.COMMAND: b"Unsubscribe", amp.ASK: b"1", b"watch": b"1"}).serialize()
    stranger.write(box[:9])
    line.clock.advance(1.0)
    line.server.hold(2 * BOX_DEADLINE)
    stranger.write(box[9:])
    line.clock.advance(2 * BOX_DEADLINE + 1.0)
    assert [each[amp.ANSWER] for each in stranger.boxes] == [b"1"]


def test_a_box_that_does_not_go_on_after_a_hold_has_a_deadline_too() -> None:
    line = Line()
    stranger = line.stranger()
    stranger.write(_key(amp.COMMAND)[:9])
    line.clock.advance(1.0)
    line.server.hold(2 * BOX_DEADLINE)
    line.clock.advance(2 * BOX_DEADLINE)
    assert not line.ended
    line.clock.advance(BOX_DEADLINE + 1.0)
    assert stranger.lost and len(line.ended) == 1 and line.timers == 0


ANSWER = {"node": {"text": "x" * 50_000}}


@define(eq=False)
class Deaf(Line):
    """One whose answers are large, and a stranger who asks and does not read."""

    asked: int = 0

    def describe(self) -> dict[str, Any]:
        self.asked += 1
        return ANSWER

    def deaf_stranger(self) -> Stranger:
        self.server = GuardedAMP(Vocabulary({DescribeNode: self.describe}), self.clock, lambda: self.ended.append(1.0))
        stranger = self.stranger()
        stranger.protocol.transport.pauseProducing()
        return stranger

    @property
    def unsent(self) -> int:
        assert self.server._sending is not None
        return self.server._sending.size


def _ask_again_and_again(line: Deaf, stranger: Stranger, number: int) -> None:
    for tag in range(number):
        stranger.send({amp.COMMAND: b"DescribeNode", amp.ASK: b"%d" % tag})
        if tag % 10 == 0:
            line.clock.advance(0.01)


def test_a_client_that_does_not_read_is_not_read_from() -> None:
    line = Deaf()
    stranger = line.deaf_stranger()
    _ask_again_and_again(line, stranger, 2000)
    assert sending.UNSENT_MAX < line.unsent < sending.UNSENT_MAX + 100_000
    assert line.asked < 200 and not line.ended
    stranger.protocol.transport.resumeProducing()
    until(lambda: len(stranger.boxes) == 2000, line.clock)
    assert line.unsent == 0 and line.timers == 0


def test_requests_that_came_in_one_piece_are_not_answered_into_the_void_either() -> None:
    line = Deaf()
    stranger = line.deaf_stranger()
    stranger.write(amp.AmpBox({amp.COMMAND: b"DescribeNode", amp.ASK: b"1"}).serialize() * 2000)
    line.clock.advance(1.0)
    assert line.asked < 200 and line.unsent < sending.UNSENT_MAX + 100_000
    stranger.protocol.transport.resumeProducing()
    until(lambda: len(stranger.boxes) == 2000, line.clock)


def test_a_client_that_reads_nothing_at_all_is_given_up() -> None:
    line = Deaf()
    stranger = line.deaf_stranger()
    _ask_again_and_again(line, stranger, 300)
    line.clock.advance(sending.STALL_TIMEOUT - 5.0)
    assert not line.ended
    line.clock.advance(10.0)
    assert line.ended and line.unsent == 0 and line.timers == 0


def test_a_client_that_reads_slowly_is_served() -> None:
    line = Deaf()
    stranger = line.deaf_stranger()
    _ask_again_and_again(line, stranger, 100)
    for _ in range(20):
        line.clock.callLater(sending.STALL_TIMEOUT / 2, lambda: None)  # advance() runs past timers that were cancelled
        line.clock.advance(sending.STALL_TIMEOUT / 2)
        stranger.protocol.transport.resumeProducing()
        line.clock.advance(0.001)
        stranger.protocol.transport.pauseProducing()
    assert not line.ended and len(stranger.boxes) == 100


def test_a_connection_that_is_closed_ends_though_nobody_reads() -> None:
    line = Deaf()
    stranger = line.deaf_stranger()
    _ask_again_and_again(line, stranger, 100)
    line.server.close()
    line.clock.advance(1.0)
    assert not line.ended
    line.clock.advance(sending.STALL_TIMEOUT)
    assert line.ended and line.timers == 0


def test_a_connection_that_is_closed_says_first_what_was_to_be_said() -> None:
    line = Deaf()
    stranger = line.deaf_stranger()
    _ask_again_and_again(line, stranger, 50)
    line.server.close()
    stranger.protocol.transport.resumeProducing()
    line.clock.advance(1.0)
    assert stranger.lost and len(stranger.boxes) == 50


def test_so_many_requests_are_answered_at_a_time() -> None:
    waiting: list[Deferred[dict[str, Any]]] = []

    def later(watch: int) -> Deferred[dict[str, Any]]:
        waiting.append(Deferred())
        return waiting[-1]

    line = Line(unsubscribe=later)
    stranger = line.stranger()
    request = amp.AmpBox({amp.COMMAND: b"Unsubscribe", amp.ASK: b"1", b"watch": b"1"}).serialize()
    stranger.write(request * 2 * guard.REQUESTS_MAX)
    line.clock.advance(1.0)
    assert len(waiting) == guard.REQUESTS_MAX
    for answer in waiting:
        answer.callback({})
        line.clock.advance(0.001)
    assert len(waiting) == 2 * guard.REQUESTS_MAX


def test_a_callback_that_fails_leaves_the_connection_its_end(expected_failures: ExpectFailures) -> None:
    def broken() -> None:
        raise ZeroDivisionError

    line = Line()
    stranger = line.stranger()
    line.server.gone.add(broken)
    asked = line.server.ask(DescribeNode)
    stranger.protocol.transport.loseConnection()
    with pytest.raises(ConnectionInterrupted):
        line.result(asked)
    line.clock.advance(1.0)
    expected_failures(ZeroDivisionError)
    assert line.timers == 0
