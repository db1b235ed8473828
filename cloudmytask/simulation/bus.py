"""The multicast group of one simulation, and each host's place in it.

Invariant: a message passes the codec once for all who hear it; its receivers hear it in the order in which they joined,
each that is not cut off, and never twice but by ``duplication``. What is under way to a bus that was closed is gone.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from attrs import define, field

from cloudmytask.model.cluster import BusMessage, BusStatistics
from cloudmytask.simulation.network import Network
from cloudmytask.simulation.paths import Paths
from cloudmytask.wire.announcement import decode_message, encode_message

Heard = Callable[[BusMessage], None]


def over_the_wire(message: BusMessage) -> BusMessage:
    """To bytes and back."""
    return decode_message(encode_message(message, None), message.cluster, None)


@define(eq=False, repr=False)
class SimulatedGroup:
    """Delivers messages to all hosts. Faults of the network are faults of the group too; those of ``paths`` are the
    group's alone.

    :ivar latency: seconds from one host to another. Receivers with the same latency cost one event together.
    :ivar loss: share of all deliveries, 0..1, that never happen.
    :ivar duplication: share of all deliveries, 0..1, that happen once more.
    :ivar codec: what becomes of a message on its way; what it raises is a bug of the sender.
    """

    network: Network
    random: random.Random
    latency: Callable[[str, str], float] = field(default=lambda _here, _there: 0.0005)
    loss: float = 0.0
    duplication: float = 0.0
    codec: Callable[[BusMessage], BusMessage] = over_the_wire
    paths: Paths = field(init=False, factory=Paths)
    messages: int = field(init=False, default=0)
    """Sent so far, by all."""
    _members: dict[SimulatedBus, None] = field(init=False, factory=dict)

    def bus(self, host: str) -> SimulatedBus:
        """A bus for one life of a host's instance."""
        return SimulatedBus(self, host)

    def join(self, bus: SimulatedBus) -> None:
        """It hears everything from now on."""
        self._members[bus] = None

    def leave(self, bus: SimulatedBus) -> None:
        """It hears nothing any more."""
        self._members.pop(bus, None)

    def send(self, sender: SimulatedBus, message: BusMessage) -> None:
        """Deliver to all but the sender."""
        self.messages += 1
        message = self.codec(message)
        here = sender.host
        receivers = [bus for bus in self._members if bus is not sender]
        if not (self.paths.whole and self.network.paths.whole):
            receivers = [bus for bus in receivers if self._reaches(here, bus.host)]
        chance = self.random.random
        if self.loss:
            receivers = [bus for bus in receivers if chance() >= self.loss]
        if self.duplication:
            receivers += [bus for bus in receivers if chance() < self.duplication]
        by_latency: dict[float, list[SimulatedBus]] = {}
        for bus in receivers:
            by_latency.setdefault(self.latency(here, bus.host), []).append(bus)
        for latency, buses in by_latency.items():
            self.network.clock.callLater(latency, _deliver, buses, message)

    def _reaches(self, here: str, there: str) -> bool:
        return self.network.paths.reaches(here, there) and self.paths.reaches(here, there)


def _deliver(buses: list[SimulatedBus], message: BusMessage) -> None:
    for bus in buses:
        bus.deliver(message)


@define(eq=False, repr=False)
class SimulatedBus:
    """Implements ``boundaries.Bus`` for one life of an instance."""

    _group: SimulatedGroup
    host: str
    _heard: Heard | None = field(init=False, default=None)
    _sent: int = field(init=False, default=0)
    _received: int = field(init=False, default=0)

    def open(self, heard: Heard) -> None:
        self._heard = heard
        self._group.join(self)

    def send(self, message: BusMessage) -> None:
        if self._heard is not None:
            self._sent += 1
            self._group.send(self, message)

    def close(self) -> None:
        self._heard = None
        self._group.leave(self)

    def statistics(self) -> BusStatistics:
        return BusStatistics(group="simulated", joined=self._heard is not None, sent=self._sent, heard=self._received)

    def deliver(self, message: BusMessage) -> None:
        """A message arrives."""
        heard = self._heard
        if heard is not None:
            self._received += 1
            heard(message)
