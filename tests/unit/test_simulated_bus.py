"""The simulated multicast group."""

from __future__ import annotations

import random
from typing import Any

from attrs import define, evolve, field

from cloudmytask.boundaries import Bus
from cloudmytask.model.cluster import BootId, BusMessage, NodeId, Obituary
from cloudmytask.simulation.bus import SimulatedBus, SimulatedGroup
from cloudmytask.simulation.clock import VirtualClock
from cloudmytask.simulation.network import Network

MESSAGE = Obituary("c", NodeId("a" * 32), NodeId("b" * 32), BootId("c" * 16), 1)


@define(eq=False)
class Room:
    """Hosts in one group."""

    options: dict[str, Any] = field(factory=dict)
    hosts: str = "abc"
    clock: VirtualClock = field(factory=VirtualClock)
    heard: list[tuple[str, BusMessage]] = field(factory=list)
    network: Network = field(init=False)
    group: SimulatedGroup = field(init=False)
    buses: dict[str, SimulatedBus] = field(init=False, factory=dict)

    def __attrs_post_init__(self) -> None:
        self.network = Network(self.clock)
        self.group = SimulatedGroup(self.network, random.Random(1), **self.options)
        for host in self.hosts:
            self.open(host)

    def open(self, host: str) -> Bus:
        bus = self.buses[host] = self.group.bus(host)
        bus.open(lambda message: self.heard.append((host, message)))
        return bus

    def say(self, host: str, message: BusMessage = MESSAGE) -> str:
        """Who hears it."""
        self.buses[host].send(message)
        self.clock.advance(1.0)
        heard, self.heard = self.heard, []
        assert all(each == message for _, each in heard)
        return "".join(who for who, _ in heard)


def test_everybody_else_hears_in_the_order_of_joining() -> None:
    room = Room(hosts="cab")
    assert (room.say("a"), room.say("c")) == ("cb", "ab")


def test_who_leaves_hears_nothing_not_even_what_was_under_way() -> None:
    room = Room()
    room.buses["a"].send(MESSAGE)
    room.buses["b"].close()
    assert room.say("a") == "cc"
    room.buses["b"].send(MESSAGE)
    room.clock.advance(1.0)
    assert not room.heard, "nor does it say anything"
    room.open("b")
    assert room.say("a") == "cb"


def test_a_partition_of_the_network_is_one_of_the_group() -> None:
    room = Room()
    room.network.paths.partition("ab", "c")
    assert (room.say("a"), room.say("c")) == ("b", "")
    room.network.paths.heal()
    room.network.paths.silence("b")
    assert (room.say("a"), room.say("b")) == ("c", "")


def test_a_fault_of_the_group_alone() -> None:
    room = Room()
    room.group.paths.cut("a", "b")
    assert (room.say("a"), room.say("b")) == ("c", "ac")
    assert room.network.open_between("a", "b")


def test_loss_and_duplication_are_as_frequent_as_asked_for() -> None:
    room = Room({"loss": 0.2, "duplication": 0.1})
    heard = [room.say("a") for _ in range(2_000)]
    share = sum("b" in each for each in heard) / 2_000, sum(each.count("b") == 2 for each in heard) / 2_000
    assert 0.77 < share[0] < 0.83 and 0.06 < share[1] < 0.1
    assert [len(each) for each in heard] == [len(Room({"loss": 0.2, "duplication": 0.1}).say("a"))] + [
        len(each) for each in heard[1:]
    ], "by the same dice each time"


def test_an_announcement_is_coded_once_and_costs_an_event_for_each_latency() -> None:
    coded: list[BusMessage] = []

    def codec(message: BusMessage) -> BusMessage:
        coded.append(evolve(message))
        return coded[-1]

    room = Room({"codec": codec, "latency": lambda _, there: 0.1 if there in "de" else 0.2}, hosts="abcdefgh")
    room.buses["a"].send(MESSAGE)
    events = 0
    while room.clock.step():
        events += 1
    assert (events, len(coded)) == (2, 1)
    assert "".join(who for who, _ in room.heard) == "debcfgh"
    assert all(message is coded[0] for _, message in room.heard)


def test_statistics() -> None:
    room = Room()
    room.say("a")
    room.say("b")
    found = room.buses["a"].statistics()
    assert (found.joined, found.sent, found.heard, room.group.messages) == (True, 1, 1, 2)
    room.buses["a"].close()
    assert not room.buses["a"].statistics().joined
