"""Datagrams are handed on at once while they are few, and in turns while they are many."""

from __future__ import annotations

from typing import Any

from attrs import define, field

from cloudmytask.net.datagrams import OFTEN, REST, WINDOW, PacedDatagrams
from cloudmytask.simulation.clock import VirtualClock


@define
class Wire:
    """A kernel's buffer and the transport that reads it: each datagram is a wake-up, unless reading rests."""

    clock: VirtualClock
    reading: bool = True
    wake_ups: int = 0
    arrived_at: list[float] = field(factory=list)
    delays: list[float] = field(factory=list)
    _protocol: Any = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._protocol = PacedDatagrams(self.clock, self._taken)
        self._protocol.transport = self

    def _taken(self, _datagram: bytes) -> None:
        self.delays.append(self.clock.seconds() - self.arrived_at.pop(0))

    def arrive(self) -> None:
        self.arrived_at.append(self.clock.seconds())
        if self.reading:
            self._turn()

    def _turn(self) -> None:
        self.wake_ups += 1
        while self.arrived_at:
            self._protocol.datagramReceived(b"x", ("127.0.0.1", 1))

    def stopReading(self) -> None:
        self.reading = False

    def startReading(self) -> None:
        self.reading = True
        if self.arrived_at:
            self._turn()

    def stop(self) -> None:
        self._protocol.stopProtocol()

    def run(self, rate: float, seconds: float) -> None:
        for number in range(int(rate * seconds)):
            self.clock.callLater(number / rate, self.arrive)
        while self.clock.step():
            pass


def test_few_are_handed_on_at_once() -> None:
    wire = Wire(VirtualClock())
    wire.run(OFTEN * 0.9, 5)
    assert wire.wake_ups == len(wire.delays) == int(OFTEN * 0.9) * 5
    assert max(wire.delays) == 0


def test_many_take_few_wake_ups_and_wait_for_a_rest_at_most() -> None:
    wire = Wire(VirtualClock())
    wire.run(2000, 5)
    assert len(wire.delays) == 10_000
    assert max(wire.delays) <= REST + 1e-9
    assert wire.wake_ups <= 2000 * WINDOW + 5 / REST + 1


def test_after_a_flood_each_is_handed_on_at_once_again() -> None:
    wire = Wire(VirtualClock())
    wire.run(2000, 1)
    wire.run(50, 1)
    wire.delays.clear()
    wire.run(50, 1)
    assert max(wire.delays) == 0


def test_nothing_is_read_after_the_end() -> None:
    wire = Wire(VirtualClock())
    wire.run(2000, 0.2)
    wire.arrive()
    assert not wire.reading
    wire.stop()
    wire.stop()
    assert not wire.clock.step()
    assert not wire.reading
