"""The simulated network: what TCP would do, in virtual time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import error
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure

from cloudmytask.simulation.clock import VirtualClock
from cloudmytask.simulation.network import CONNECT_TIMEOUT, Network

Wire = tuple["Ear", "Ear"]


class Ear(Protocol):
    """Remembers what it hears and how it ends."""

    def __init__(self) -> None:
        self.heard = b""
        self._lost: type[BaseException] | None = None

    @property
    def lost(self) -> type[BaseException] | None:
        """Why the connection was lost."""
        return self._lost

    def dataReceived(self, data: bytes) -> None:
        self.heard += data

    def connectionLost(self, reason: Failure = Failure(error.ConnectionDone())) -> None:  # noqa: B008 - Twisted's
        self._lost = reason.type

    def write(self, data: bytes) -> None:
        transport: Any = self.transport
        transport.write(data)

    def close(self) -> None:
        transport: Any = self.transport
        transport.loseConnection()


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def network(clock: VirtualClock) -> Network:
    return Network(clock, lambda _here, _there: 0.01)


def _listen(network: Network, host: str) -> list[Ear]:
    ears: list[Ear] = []

    def build() -> Ear:
        ears.append(Ear())
        return ears[-1]

    network.listen(host, Factory.forProtocol(build))
    return ears


def _connecting(network: Network, here: str, there: str) -> tuple[list[object], Deferred[IProtocol]]:
    done = network.endpoint(here, there).connect(Factory.forProtocol(Ear))
    results: list[object] = []
    done.addBoth(results.append)
    return results, done


@pytest.fixture
def wire(network: Network, clock: VirtualClock) -> Wire:
    """A connection from a to b."""
    ears = _listen(network, "b")
    results, _ = _connecting(network, "a", "b")
    clock.advance(0.02)
    near = results[0]
    assert isinstance(near, Ear)
    return near, ears[0]


def _failed(results: list[object], why: type[Exception]) -> bool:
    return bool(results) and isinstance(results[0], Failure) and results[0].check(why) is not None


def test_bytes_arrive_in_order_though_latency_varies(clock: VirtualClock) -> None:
    delays = iter([0.01, 0.5, 0.1, 0.01, 0.01])
    network = Network(clock, lambda _here, _there: next(delays))
    ears = _listen(network, "b")
    results, _ = _connecting(network, "a", "b")
    clock.advance(0.01)
    near = results[0]
    assert isinstance(near, Ear)
    for piece in (b"1", b"2", b"3"):
        near.write(piece)
    clock.advance(0.49)
    assert ears[0].heard == b""
    clock.advance(0.02)
    assert ears[0].heard == b"123"


def test_what_a_dying_process_had_written_arrives_before_the_reset(
    wire: Wire, network: Network, clock: VirtualClock
) -> None:
    near, far = wire
    near.write(b"last words")
    network.cut_off("a")
    clock.advance(0.02)
    assert (far.heard, far.lost) == (b"last words", error.ConnectionLost)
    assert near.lost is None, "the dead hear nothing"


def test_nothing_happens_to_a_dead_process_that_was_connecting(network: Network, clock: VirtualClock) -> None:
    ears = _listen(network, "b")
    results, _ = _connecting(network, "a", "b")
    network.cut_off("a")
    clock.advance(1.0)
    assert not results and not ears


def test_a_partition_stalls_a_stream_and_healing_resumes_it(wire: Wire, network: Network, clock: VirtualClock) -> None:
    near, far = wire
    network.paths.partition(["a"], ["b", "c"])
    near.write(b"1")
    far.write(b"x")
    clock.advance(network.patience - 1.0)
    near.write(b"2")
    assert (far.heard, near.heard, far.lost, near.lost) == (b"", b"", None, None)
    network.paths.heal()
    near.write(b"3")
    clock.advance(0.02)
    assert (far.heard, near.heard) == (b"123", b"x")
    clock.advance(10 * network.patience)
    assert (far.lost, near.lost) == (None, None), "what was acknowledged does not time out"


def test_a_partition_that_lasts_times_out_the_end_that_waits(wire: Wire, network: Network, clock: VirtualClock) -> None:
    near, far = wire
    network.paths.partition(["a"], ["b"])
    near.write(b"1")
    clock.advance(network.patience + 1.0)
    assert (near.lost, far.lost) == (error.TimeoutError, None), "the other end has nothing to wait for"
    network.paths.heal()
    clock.advance(1.0)
    assert (far.heard, far.lost) == (b"", None)
    far.write(b"still there?")
    clock.advance(1.0)
    assert far.lost is error.ConnectionLost


def test_a_one_way_cut(wire: Wire, network: Network, clock: VirtualClock) -> None:
    """What goes the open way arrives; but no acknowledgment comes back."""
    near, far = wire
    network.paths.cut("b", "a")
    near.write(b"1")
    far.write(b"2")
    clock.advance(1.0)
    assert (far.heard, near.heard) == (b"1", b"")
    clock.advance(network.patience)
    assert (near.lost, far.lost) == (error.TimeoutError, error.TimeoutError)


def test_a_one_way_cut_that_is_mended(wire: Wire, network: Network, clock: VirtualClock) -> None:
    near, far = wire
    network.paths.cut("b", "a")
    near.write(b"1")
    far.write(b"2")
    clock.advance(1.0)
    network.paths.mend("b", "a")
    clock.advance(2 * network.patience)
    assert (far.heard, near.heard, near.lost, far.lost) == (b"1", b"2", None, None)


def test_a_silent_host_swallows_everything(wire: Wire, network: Network, clock: VirtualClock) -> None:
    near, far = wire
    network.paths.silence("b")
    network.cut_off("b")
    near.write(b"anybody?")
    clock.advance(network.patience - 1.0)
    assert near.lost is None, "no reset comes from a host without power"
    clock.advance(2.0)
    assert repr((near.lost, far.heard)) == repr((error.TimeoutError, b""))


def test_a_host_that_comes_back_knows_nothing_of_old_connections(
    wire: Wire, network: Network, clock: VirtualClock
) -> None:
    near, far = wire
    network.paths.silence("b")
    network.cut_off("b")
    near.write(b"1")
    clock.advance(5.0)
    network.paths.restore("b")
    clock.advance(1.0)
    assert (far.heard, near.lost) == (b"", error.ConnectionLost)


@pytest.mark.parametrize("die", [False, True])
def test_whoever_closes_behind_a_cut(wire: Wire, network: Network, clock: VirtualClock, die: bool) -> None:
    """An orderly end is repeated until it arrives, a reset is not."""
    near, far = wire
    network.paths.partition(["a"], ["b"])
    near.write(b"bye")
    if die:
        network.cut_off("a")
    else:
        near.close()
    clock.advance(5.0)
    assert (near.lost, far.lost) == (None if die else error.ConnectionDone, None)
    network.paths.heal()
    clock.advance(1.0)
    assert (far.heard, far.lost) == ((b"", None) if die else (b"bye", error.ConnectionDone))


def test_connecting_waits_for_a_path(network: Network, clock: VirtualClock) -> None:
    ears = _listen(network, "b")
    network.paths.cut("b", "a")
    results, _ = _connecting(network, "a", "b")
    clock.advance(CONNECT_TIMEOUT - 1.0)
    assert not results
    network.paths.mend("b", "a")
    clock.advance(1.0)
    assert isinstance(results[0], Ear) and len(ears) == 1
    clock.advance(CONNECT_TIMEOUT)
    assert ears[0].lost is None


def test_connecting_to_a_silent_host_times_out(network: Network, clock: VirtualClock) -> None:
    _listen(network, "b")
    network.paths.silence("b")
    results, _ = _connecting(network, "a", "b")
    clock.advance(CONNECT_TIMEOUT - 1.0)
    assert not results
    clock.advance(2.0)
    assert _failed(results, error.TimeoutError)
    network.paths.heal()
    clock.advance(1.0)
    assert len(results) == 1


def test_connecting_may_be_given_up(network: Network, clock: VirtualClock) -> None:
    ears = _listen(network, "b")
    network.paths.silence("b")
    results, done = _connecting(network, "a", "b")
    clock.advance(1.0)
    done.cancel()
    network.paths.heal()
    clock.advance(2 * CONNECT_TIMEOUT)
    assert _failed(results, CancelledError) and len(results) == 1 and not ears


def test_a_host_where_nobody_listens_refuses(network: Network, clock: VirtualClock) -> None:
    results, _ = _connecting(network, "a", "b")
    clock.advance(0.02)
    assert _failed(results, error.ConnectionRefusedError)


def test_whoever_is_in_no_side_reaches_both(network: Network) -> None:
    paths = network.paths
    paths.partition(["a"], ["b"])
    assert paths.reaches("a", "a")
    assert [paths.reaches("a", "b"), paths.reaches("c", "a"), paths.reaches("b", "c")] == [False, True, True]
    paths.partition()
    assert paths.reaches("a", "b")


STEPS: dict[str, Callable[[Network], None]] = {
    "partition": lambda network: network.paths.partition(["a"], ["b"]),
    "there": lambda network: network.paths.cut("a", "b"),
    "back": lambda network: network.paths.cut("b", "a"),
    "mend": lambda network: network.paths.mend("a", "b"),
    "silence": lambda network: network.paths.silence("b"),
    "restore": lambda network: network.paths.restore("b"),
    "heal": lambda network: network.paths.heal(),
}


@given(st.lists(st.tuples(st.sampled_from(["write", "answer", *STEPS]), st.floats(0, 20)), max_size=30))
def test_a_stream_never_loses_or_reorders_anything_in_its_midst(steps: list[tuple[str, float]]) -> None:
    clock = VirtualClock()
    network = Network(clock, lambda here, _there: 0.01 if here == "a" else 0.7)
    ears = _listen(network, "b")
    results, _ = _connecting(network, "a", "b")
    clock.advance(0.02)
    near, far = results[0], ears[0]
    assert isinstance(near, Ear)
    said: dict[Ear, bytes] = {near: b"", far: b""}
    for number, (step, seconds) in enumerate(steps):
        if step in STEPS:
            STEPS[step](network)
        else:
            speaker = near if step == "write" else far
            if speaker.lost is None:
                said[speaker] += b"%d;" % number
                speaker.write(b"%d;" % number)
        clock.advance(seconds)
        assert said[near].startswith(far.heard) and said[far].startswith(near.heard)
    network.paths.heal()
    clock.advance(2 * network.patience)
    if near.lost is None and far.lost is None:
        assert (far.heard, near.heard) == (said[near], said[far])
    assert not network._stalled and not network._connecting
