"""What 2,000 announcements a second cost their receiver, as a share of one core.

One process sends at a steady rate, one by one, so that each is a wake-up; another one receives with the bus of a node
and keeps the last of each sender.
Prints JSON. Usage: python -m benchmarks.announcements [--rate N] [--seconds S] [--malformed]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import socket
import subprocess
import sys
import time
from typing import Any, cast

from cloudmytask import reactor as monotonic
from cloudmytask.model.cluster import (
    Announcement,
    Backlog,
    BootId,
    BusMessage,
    Capacity,
    NodeId,
    Role,
    RootKey,
    TreePosition,
)
from cloudmytask.model.job import ClientId, QoS
from cloudmytask.wire.announcement import encode_message

GOAL = 0.10
"""Share of a core."""
RATE = 2000
SECONDS = 10.0
SENDERS = 500
"""Nodes that the announcements are from."""
KEY = b"benchmark of announcements"
CLUSTER = "bench"
HERE = "127.0.0.1"
TICK = 0.0002
"""Seconds that the sender sleeps."""


def announcement(number: int, sequence: int) -> Announcement:
    """One of a node in the middle of the tree that has work."""
    nodes = [NodeId(f"{number + offset:032x}") for offset in range(6)]
    return Announcement(
        cluster=CLUSTER,
        role=Role.NODE,
        node_id=nodes[0],
        boot_id=BootId(f"{number:08x}deadbeef"),
        incarnation=0,
        sequence=sequence,
        name=f"lab-{number}",
        address=f"10.1.{number // 250}.{number % 250 + 1}:7700",
        interval=1.0,
        capacity=Capacity(4, sequence % 5, 0.1 + sequence % 7 / 10, 0.5, 0.75, sequence),
        backlog=Backlog({QoS.BATCH: sequence % 9}, sequence % 11 / 3, ((ClientId("ann"), 2), (ClientId("bob"), 1))),
        tree=TreePosition(RootKey(1, nodes[5]), 3, nodes[1], tuple(nodes[2:5])),
        insecure=True,
        bans="00ff00ff00ff00ff",
        version="0.1.0",
    )


def send(group: tuple[str, int], rate: int, malformed: bool) -> None:
    """Until killed."""
    datagrams = [encode_message(announcement(number, number), KEY) for number in range(SENDERS)]
    if malformed:
        chance = random.Random(7)
        datagrams = [each[:40] + chance.randbytes(len(each) - 40) for each in datagrams]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(HERE))
        began, sent = time.monotonic(), 0
        while True:
            due = int((time.monotonic() - began) * rate)
            for number in range(sent, due):
                sender.sendto(datagrams[number % SENDERS], group)
            sent = due
            time.sleep(TICK)


def receive(group: tuple[str, int], seconds: float) -> dict[str, Any]:
    """CPU and counts of this process between two moments while it receives."""
    monotonic.install()
    from twisted.internet import reactor

    from cloudmytask.boundaries import Clock
    from cloudmytask.net.multicast import MulticastBus

    heard: dict[NodeId, BusMessage] = {}

    def take(message: BusMessage) -> None:
        if isinstance(message, Announcement):
            heard[message.node_id] = message

    running: Any = reactor
    bus = MulticastBus(running, cast(Clock, reactor), group, HERE, CLUSTER, KEY)
    bus.open(take)
    moments: list[tuple[float, float, int]] = []

    def look() -> None:
        used, found = resource.getrusage(resource.RUSAGE_SELF), bus.statistics()
        moments.append((time.monotonic(), used.ru_utime + used.ru_stime, found.heard + found.malformed + found.forged))

    running.callLater(1.0, look)
    running.callLater(1.0 + seconds, look)
    running.callLater(1.0 + seconds, running.stop)
    running.run()
    (began, cpu_before, before), (ended, cpu_after, after) = moments
    found = bus.statistics()
    return {
        "announcements_per_second": round((after - before) / (ended - began), 1),
        "cpu_share_of_a_core": round((cpu_after - cpu_before) / (ended - began), 4),
        "cpu_microseconds_each": round((cpu_after - cpu_before) / max(1, after - before) * 1e6, 1),
        "senders": len(heard),
        "heard": found.heard,
        "malformed": found.malformed,
        "forged": found.forged,
        "bytes_each": len(encode_message(announcement(1, 1), KEY)),
    }


def measure(rate: int = RATE, seconds: float = SECONDS, malformed: bool = False) -> dict[str, Any]:
    """Both processes, and the receiver's figures.

    :param malformed: the datagrams have a wrong MAC instead.
    """
    group = f"239.255.{random.randrange(1, 255)}.{random.randrange(1, 255)}", random.randrange(20_000, 30_000)
    common = [sys.executable, "-m", "benchmarks.announcements", "--group", f"{group[0]}:{group[1]}"]
    options = ["--rate", str(rate), "--seconds", str(seconds), *(["--malformed"] if malformed else [])]
    sender = subprocess.Popen([*common, "--part", "send", *options])
    try:
        done = subprocess.run([*common, "--part", "receive", *options], check=True, capture_output=True, text=True)
    finally:
        sender.kill()
        sender.wait()
    found: dict[str, Any] = json.loads(done.stdout)
    met = found["cpu_share_of_a_core"] <= GOAL and found["announcements_per_second"] >= 0.99 * rate
    return {**found, "goal": GOAL, "met": met, "cores": os.cpu_count()}


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rate", type=int, default=RATE, help="announcements per second")
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--malformed", action="store_true", help="send datagrams with a wrong MAC")
    parser.add_argument("--part", choices=["send", "receive"], help=argparse.SUPPRESS)
    parser.add_argument("--group", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part is None:
        print(json.dumps(measure(given.rate, given.seconds, given.malformed), indent=2))
        return
    address, _, port = given.group.rpartition(":")
    if given.part == "send":
        send((address, int(port)), given.rate, given.malformed)
    else:
        print(json.dumps(receive((address, int(port)), given.seconds)))


if __name__ == "__main__":
    main()
