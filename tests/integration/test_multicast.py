"""The multicast bus over the loopback interface, and over one that appears late."""

from __future__ import annotations

import errno
import json
import os
import random
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from attrs import define, field
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorMulticast
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher

from cloudmytask.boundaries import Clock
from cloudmytask.model.cluster import Announcement, BootId, BusMessage, Capacity, NodeId, Obituary, Role
from cloudmytask.net.datagrams import FOREIGN_MAX, LOG_INTERVAL, OTHERS, DatagramCounts
from cloudmytask.net.multicast import RECEIVE_BUFFER, MulticastBus, NullBus
from cloudmytask.simulation.clock import VirtualClock
from cloudmytask.wire.announcement import MESSAGE_MAX, Foreign, Malformed, encode_message

HERE = "127.0.0.1"
KEY = b"0123456789abcdef"


def announcement(node: str, sequence: int = 1, *, boot: str = "0" * 16, cluster: str = "lab") -> Announcement:
    return Announcement(
        cluster=cluster,
        role=Role.NODE,
        node_id=NodeId(node * 32),
        boot_id=BootId(boot),
        incarnation=0,
        sequence=sequence,
        name=f"node-{node}",
        address="127.0.0.1:7001",
        interval=1.0,
        capacity=Capacity(2, 1),
    )


def obituary(reporter: str, subject: str) -> Obituary:
    return Obituary("lab", NodeId(reporter * 32), NodeId(subject * 32), BootId("0" * 16), 0)


def free_group() -> tuple[str, int]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((HERE, 0))
        return f"239.255.{random.randrange(1, 255)}.{random.randrange(1, 255)}", probe.getsockname()[1]


@define
class Listener:
    """Keeps what it hears; :meth:`expect` waits for it."""

    messages: list[BusMessage] = field(factory=list)
    _wanted: int = 0
    _waiting: Deferred[None] | None = None

    def heard(self, message: BusMessage) -> None:
        self.messages.append(message)
        if self._waiting is not None and len(self.messages) >= self._wanted:
            waiting, self._waiting = self._waiting, None
            waiting.callback(None)

    async def expect(self, *messages: BusMessage) -> None:
        """Exactly these have come, and then no other."""
        self._wanted = len(messages)
        if len(self.messages) < self._wanted:
            self._waiting = Deferred()
            await self._waiting
        assert self.messages == list(messages)


class Group:
    """Buses in one group of its own on the loopback interface."""

    def __init__(self) -> None:
        from twisted.internet import reactor

        self.reactor = reactor
        self.address = free_group()
        self.buses: list[MulticastBus] = []

    def bus(
        self, cluster: str = "lab", key: bytes | None = None, *, interface: str = HERE, reactor: Any = None
    ) -> MulticastBus:
        chosen = cast(IReactorMulticast, self.reactor if reactor is None else reactor)
        bus = MulticastBus(chosen, cast(Clock, self.reactor), self.address, interface, cluster, key)
        self.buses.append(bus)
        return bus

    def open(self, cluster: str = "lab", key: bytes | None = None) -> tuple[MulticastBus, Listener]:
        bus, listener = self.bus(cluster, key), Listener()
        bus.open(listener.heard)
        assert bus.statistics().joined, bus.statistics().error
        return bus, listener

    @contextmanager
    def stranger(self) -> Iterator[socket.socket]:
        """A socket that sends to the group."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(HERE))
            yield stranger


@pytest.fixture
def group() -> Iterator[Group]:
    group = Group()
    yield group
    for bus in group.buses:
        bus.close()


@contextmanager
def logged(words: str) -> Iterator[list[str]]:
    """The lines that have these words in them."""
    lines: list[str] = []

    def observe(event: LogEvent) -> None:
        line = formatEvent(event)
        if words in line:
            lines.append(line)

    observer = cast(ILogObserver, observe)
    globalLogPublisher.addObserver(observer)
    try:
        yield lines
    finally:
        globalLogPublisher.removeObserver(observer)


@ensureDeferred
@pytest.mark.parametrize("key", [None, KEY])
async def test_each_hears_the_others_and_not_itself(group: Group, key: bytes | None) -> None:
    (a, by_a), (b, by_b), (_, by_c) = (group.open(key=key) for _ in range(3))
    a.send(announcement("a"))
    b.send(announcement("b"))
    a.send(obituary("a", "c"))
    b.send(announcement("b", 2))
    # a's own came before b's last, on the same socket
    await by_a.expect(announcement("b"), announcement("b", 2))
    await by_b.expect(announcement("a"), obituary("a", "c"))
    await by_c.expect(announcement("a"), announcement("b"), obituary("a", "c"), announcement("b", 2))
    found = a.statistics()
    assert (found.group, found.error) == ("{}:{}".format(*group.address), "")
    assert (found.sent, found.heard, found.unsent, found.malformed, found.forged) == (2, 2, 0, 0, 0)


@ensureDeferred
async def test_a_twin_with_our_id_and_an_earlier_life_are_heard(group: Group) -> None:
    (a, by_a), (twin, _) = group.open(), group.open()
    a.send(announcement("a", boot="1" * 16))
    twin.send(announcement("a", boot="2" * 16))
    await by_a.expect(announcement("a", boot="2" * 16))


@ensureDeferred
async def test_what_is_not_for_us_is_counted_and_nobody_answers(group: Group) -> None:
    bus, listener = group.open(key=KEY)
    good = encode_message(announcement("b"), KEY)
    malformed = [b"", good[:20], good + b" " * 2000, os.urandom(300), good + bytes(MESSAGE_MAX + 1 - len(good))]
    forged = [
        good[:-1],
        encode_message(announcement("b"), None),
        encode_message(announcement("b"), b"another key 0123"),
    ]
    foreign = [encode_message(announcement("b", cluster="lab-2"), key) for key in (None, KEY)]
    with (
        logged("malformed datagram") as bad,
        logged("forged datagram") as wrong,
        logged("another cluster") as far,
        group.stranger() as stranger,
    ):
        for each in (*malformed, *forged, *foreign, good):
            stranger.sendto(each, group.address)
        await listener.expect(announcement("b"))
        with pytest.raises(BlockingIOError):
            stranger.recv(1, socket.MSG_DONTWAIT)
    found = bus.statistics()
    assert (found.heard, found.malformed, found.forged, found.foreign) == (1, 5, 3, {"lab-2": 2})
    assert (len(bad), len(wrong), len(far)) == (1, 1, 1), "once a minute"


@ensureDeferred
async def test_an_oversized_datagram_is_not_taken_for_its_beginning(group: Group) -> None:
    bus, listener = group.open()
    with group.stranger() as stranger:
        stranger.sendto(encode_message(announcement("b"), None) + b" " * 5000, group.address)
        stranger.sendto(encode_message(announcement("c"), None), group.address)
    await listener.expect(announcement("c"))
    assert bus.statistics().malformed == 1


@ensureDeferred
async def test_a_listener_that_fails_does_not_end_the_bus(group: Group, expected_failures: Callable[..., Any]) -> None:
    bus, listener = group.bus(), Listener()

    def heard(message: BusMessage) -> None:
        listener.heard(message)
        if len(listener.messages) == 1:
            raise ZeroDivisionError

    bus.open(heard)
    other, _ = group.open()
    other.send(announcement("b", 1))
    other.send(announcement("b", 2))
    await listener.expect(announcement("b", 1), announcement("b", 2))
    expected_failures(ZeroDivisionError)


def test_the_receive_buffer_is_large_or_it_is_said(group: Group) -> None:
    with logged("receive buffer") as lines:
        bus, _ = group.open()
    granted = bus.statistics().receive_buffer
    assert granted > 0
    assert bool(lines) == (granted < RECEIVE_BUFFER)


def test_a_closed_bus_sends_nothing_and_closes_twice(group: Group) -> None:
    bus, _ = group.open()
    bus.close()
    bus.close()
    bus.send(announcement("a"))
    found = bus.statistics()
    assert (found.joined, found.sent, found.unsent) == (False, 0, 1)


@define
class FakePort:
    """A port whose writes fail as told; its socket is a real one, in no group."""

    failing: int | None = None
    written: list[bytes] = field(factory=list)
    stopped: bool = False
    maxThroughput: int = 0
    _handle: socket.socket = field(factory=lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))

    def write(self, datagram: bytes, _address: object) -> None:
        if self.failing is not None:
            raise OSError(self.failing, os.strerror(self.failing))
        self.written.append(datagram)

    def getHandle(self) -> socket.socket:
        return self._handle

    def stopListening(self) -> None:
        self.stopped = True
        self._handle.close()


@define
class FakeReactor:
    ports: list[FakePort] = field(factory=list)

    def listenMulticast(self, *_arguments: Any, **_keywords: Any) -> FakePort:
        self.ports.append(FakePort())
        return self.ports[-1]


def rehearsed(interface: str = HERE) -> tuple[MulticastBus, FakeReactor, VirtualClock]:
    reactor, clock = FakeReactor(), VirtualClock()
    bus = MulticastBus(cast(IReactorMulticast, reactor), clock, ("239.255.1.1", 7700), interface, "lab", None)
    return bus, reactor, clock


def test_a_send_that_fails_is_counted_and_the_next_one_goes_out() -> None:
    bus, reactor, _clock = rehearsed()
    bus.open(Listener().heard)
    [port] = reactor.ports
    port.failing = errno.ENOBUFS
    with logged("cannot send") as lines:
        bus.send(announcement("a"))
        bus.send(announcement("a", 2))
    assert len(lines) == 1
    assert (bus.statistics().unsent, bus.statistics().joined) == (2, True)
    assert bus.statistics().error == f"cannot send: {os.strerror(errno.ENOBUFS)}"
    port.failing = None
    bus.send(announcement("a", 3))
    assert (bus.statistics().sent, bus.statistics().error, len(port.written)) == (1, "", 1)
    bus.close()
    assert port.stopped


@pytest.mark.parametrize("number", [errno.ENETUNREACH, errno.ENODEV, errno.EADDRNOTAVAIL])
def test_an_interface_that_went_away_is_joined_again(number: int) -> None:
    bus, reactor, clock = rehearsed()
    bus.open(Listener().heard)
    reactor.ports[0].failing = number
    bus.send(announcement("a"))
    assert not bus.statistics().joined
    assert reactor.ports[0].stopped
    clock.step()
    assert bus.statistics().joined
    bus.send(announcement("a", 2))
    assert (bus.statistics().sent, bus.statistics().unsent) == (1, 1)
    bus.close()


def test_without_an_interface_it_is_tried_again_and_again_until_closed() -> None:
    bus, reactor, clock = rehearsed(interface="203.0.113.1")
    with logged("cannot join") as lines:
        bus.open(Listener().heard)
        for _ in range(20):
            assert clock.step()
    assert len(lines) == 1
    assert all(port.stopped for port in reactor.ports)
    assert 60 < clock.seconds() < 600, "with backoff"
    bus.send(announcement("a"))
    found = bus.statistics()
    assert (found.joined, found.unsent) == (False, 1)
    assert found.error.startswith("cannot join on 203.0.113.1: ")
    bus.close()
    tried = len(reactor.ports)
    while clock.step():
        pass
    assert len(reactor.ports) == tried


def test_foreign_clusters_are_counted_in_a_fixed_amount_of_memory_and_log() -> None:
    clock = VirtualClock()
    counts = DatagramCounts(clock)
    with logged("another cluster") as lines, logged("malformed datagram") as malformed:
        for number in range(1000):
            counts.unreadable(Foreign(f"cluster-{number}"))
            counts.unreadable(Malformed("x"))
        assert (len(lines), len(malformed)) == (1, 1)
        clock.callLater(LOG_INTERVAL, counts.unreadable, Foreign("cluster-0"))
        clock.step()
    assert len(lines) == 2
    found = counts.statistics("", True, "", 0)
    assert len(found.foreign) == FOREIGN_MAX + 1
    assert (found.foreign["cluster-0"], found.foreign[OTHERS]) == (2, 1000 - FOREIGN_MAX)
    assert found.malformed == 1000


def test_no_bus_hears_nothing() -> None:
    bus = NullBus()
    bus.open(Listener().heard)
    bus.send(announcement("a"))
    bus.close()
    assert not bus.statistics().joined


LATE = """
import json, os, subprocess, sys
from cloudmytask import reactor as monotonic
monotonic.install()
from twisted.internet import reactor
from cloudmytask.net.multicast import MulticastBus
from tests.integration.test_multicast import announcement

def ip(*words):
    subprocess.run(["ip", *words], check=True)

class Bus:
    def __init__(self, interface):
        self.heard = []
        self.bus = MulticastBus(reactor, reactor, ("239.255.7.7", 7707), interface, "lab", None)
        self.bus.open(self.received)
    def received(self, message):
        self.heard.append(message.sequence)
        stages.send(None)

def told(buses):
    # both retry on their own, so each is asked until it has joined
    while not all(each.bus.statistics().joined for each in buses):
        reactor.callLater(0.05, step)
        yield

def story():
    ip("link", "set", "lo", "up")
    first, second = buses = [Bus("10.9.8.7"), Bus("10.9.8.7")]
    found = {"before": first.bus.statistics().error}
    first.bus.send(announcement("a", 1))
    ip("link", "add", "late0", "type", "bridge")
    ip("addr", "add", "10.9.8.7/24", "dev", "late0")
    ip("link", "set", "late0", "multicast", "on", "up")
    yield from told(buses)
    first.bus.send(announcement("a", 2))
    while not second.heard:
        yield
    ip("link", "del", "late0")
    first.bus.send(announcement("a", 3))
    second.bus.send(announcement("b", 1))
    found["gone"] = [each.bus.statistics().joined for each in buses]
    ip("link", "add", "late0", "type", "bridge")
    ip("addr", "add", "10.9.8.7/24", "dev", "late0")
    ip("link", "set", "late0", "multicast", "on", "up")
    yield from told(buses)
    first.bus.send(announcement("a", 4))
    while 4 not in second.heard:
        yield
    found["heard"] = second.heard
    found["unsent"] = first.bus.statistics().unsent
    print(json.dumps(found), flush=True)
    for each in buses:
        each.bus.close()
    reactor.callLater(0, reactor.stop)
    yield

def step():
    stages.send(None)

stages = story()
reactor.callWhenRunning(step)
reactor.run()
"""


def _namespaces() -> bool:
    try:
        command = ["unshare", "-Urn", "ip", "link", "add", "late0", "type", "bridge"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not _namespaces(), reason="no network namespaces without privileges, or no bridges in them")
def test_an_interface_that_appears_late_is_joined_and_so_is_one_that_returns() -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        ["unshare", "-Urn", sys.executable, "-c", LATE],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["before"].startswith("cannot join on 10.9.8.7: ")
    assert found["gone"] == [False, False]
    assert found["heard"] == [2, 4]
    assert found["unsent"] == 2
