"""The rows in which somebody asks for too much, or announces what is not there: rows 1, 2, 18 and 21 of the table.

Invariant: each row has nodes of its own, which have ended when it returns its figures.
"""

from __future__ import annotations

import select
import socket
import threading
import time
from pathlib import Path

from attrs import evolve

from benchmarks.announcements import announcement
from benchmarks.daemons import HOST, Daemons
from benchmarks.reporting import Figure
from benchmarks.rude.company import Flood, Legal, Rude, Watched, beside, box, linked, median, quantile
from benchmarks.rude.shortages import NODE, at, ended
from cloudmytask.model.cluster import Backlog, Capacity
from cloudmytask.wire import commands, peer_commands
from cloudmytask.wire.announcement import encode_message

JOBS = 600
LISTS = 4500
UNREAD = 30.0
"""Seconds for which the client does not read."""
STREAMS = 50
"""On each of so many connections, a thousand in all:"""
CONNECTIONS = 20
FAKES = 200
FORWARDED = 6
"""Jobs for elsewhere, each given half a minute."""


def _status(name: str, legal: Legal, goal: float) -> Figure:
    value = legal.p99 * 1000
    return Figure(f"{name}: others' status p99", value, "ms", f"<= {goal:g}", value <= goal, str(legal))


def _memory(name: str, growth: float, goal: float, note: str) -> Figure:
    return Figure(f"{name}: memory grows by", growth, "MiB", f"<= {goal:g}", growth <= goal, note)


def lists(directory: Path) -> list[Figure]:
    """Row 1: a client with 600 jobs asks for its jobs, and does not read; then it reads, with 50 under way."""
    with Daemons(directory, NODE) as daemons:
        [node] = daemons.start()
        with at(node) as cloud:
            for job in [cloud.submit(b"pass") for _ in range(JOBS)]:
                job.wait(120)
        request = box(commands.ListJobs)
        with beside(node.socket) as unread:
            watched = Watched(node)
            watched.start()
            rude = Rude(node.socket)
            began = time.monotonic()
            rude.push(request * LISTS, UNREAD)
            time.sleep(max(0.0, began + UNREAD - time.monotonic()))
            rude.close()
            growth = watched.growth()
            time.sleep(2)
        name = "row 1, 4,500 lists unread"
        found = [_memory(name, growth, 32, f"from {watched.before:.0f} MiB"), _status(name, unread.result, 50)]
        with beside(node.socket) as read:
            rude, over = Rude(node.socket), threading.Event()
            rude.socket.sendall(request * 50)
            reader = threading.Thread(target=_answered, args=(rude, request, over))
            reader.start()
            time.sleep(15)
            over.set()
            reader.join()
            rude.close()
        return [*found, _status("row 1, 50 lists under way", read.result, 50)]


def _answered(rude: Rude, request: bytes, over: threading.Event) -> None:
    while not over.is_set():
        rude.answer()
        rude.socket.sendall(request)


def streams(directory: Path) -> list[Figure]:
    """Row 2: a thousand streams on 20 connections, of an output of 4 MiB, and no piece is answered."""
    with Daemons(directory, NODE) as daemons:
        [node] = daemons.start()
        with at(node) as cloud:
            job = cloud.submit(b"import os\nfor _ in range(64): os.write(1, b'x' * 65536)\n")
            job.wait(30)
        with beside(node.socket) as legal:
            watched = Watched(node)
            watched.start()
            rude = [Rude(node.socket) for _ in range(CONNECTIONS)]
            for number in range(STREAMS):
                for each in rude:
                    asked = {"watch": number + 1, "job": str(job.id), "attempt": 0, "follow": True}
                    each.socket.setblocking(False)
                    try:
                        each.socket.send(box(commands.StreamOutput, offsets={"stdout": 0}, **asked))
                    except OSError:
                        continue
                _drain(rude, 0.0)
            _drain(rude, 15.0)
            growth = watched.growth()
            for each in rude:
                each.close()
        name = "row 2, 1,000 streams on 20 connections, unanswered"
        return [_memory(name, growth, 64, f"from {watched.before:.0f} MiB; {legal.result}")]


def _drain(rude: list[Rude], seconds: float) -> None:
    """Read what comes, and answer none of it."""
    deadline = time.monotonic() + seconds
    open_ones = [each.socket for each in rude]
    while open_ones:
        readable = select.select(open_ones, [], [], max(0.0, min(0.1, deadline - time.monotonic())))[0]
        for each in readable:
            try:
                if not each.recv(1 << 18):
                    open_ones.remove(each)
            except OSError:
                open_ones.remove(each)
        if time.monotonic() >= deadline:
            return


def black_holes(directory: Path) -> list[Figure]:
    """Row 18: 200 free nodes are announced where connections are taken and nothing is said."""
    with (
        Daemons(directory, ("--slots", "1")) as daemons,
        socket.socket() as hole,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        nodes = daemons.start(2)
        hole.bind((HOST, 0))
        hole.listen(1000)
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(HOST))
        over = threading.Event()
        where = f"{HOST}:{hole.getsockname()[1]}"

        def announce() -> None:
            sequence = 1
            while not over.is_set():
                for number in range(FAKES):
                    told = evolve(
                        announcement(number + 1, sequence),
                        cluster=daemons.cluster,
                        address=where,
                        tree=None,
                        capacity=Capacity(4, 4, 0.0, 0.0, 0.75, sequence),
                        backlog=Backlog(),
                    )
                    sender.sendto(encode_message(told, None), daemons.group)
                sequence += 1
                over.wait(1.0)

        announcing = threading.Thread(target=announce)
        announcing.start()
        time.sleep(3)
        taken = []
        with at(nodes[0]) as cloud:
            busy = cloud.submit(b"import time; time.sleep(300)", local=True)
            time.sleep(1)
            for _ in range(FORWARDED):
                began = time.monotonic()
                ended(cloud.submit(b"print(42)", avoid=["n0"]), 30)
                taken.append(time.monotonic() - began)
            busy.cancel()
        over.set()
        announcing.join()
        worst = max(taken[1:])
        note = f"{FORWARDED} jobs one after the other: first {taken[0]:.2f} s, then median {median(taken[1:]):.2f} s"
        name = "row 18, 200 announced nodes that say nothing: a forwarded job after the first"
        return [Figure(name, worst, "s", "<= 1", worst <= 1, note)]


def floods(directory: Path) -> list[Figure]:
    """Row 21: requests without an introduction on four connections, and over a link."""
    found: list[Figure] = []
    for name, over_link, request in (
        ("row 21, requests without Hello on 4 connections", False, box(commands.DescribeNode)),
        ("row 21, requests over a link", True, box(peer_commands.Ping)),
    ):
        place = directory / str(len(found))
        place.mkdir()
        with Daemons(place, NODE) as daemons:
            [node] = daemons.start()
            rude = [linked(node.port, daemons.cluster)] if over_link else [Rude(node.port, None) for _ in range(4)]
            with beside(node.socket) as legal:
                flooding = [Flood(each, request) for each in rude]
                for each in flooding:
                    each.start()
                time.sleep(12)
                sent = sum(each.sent for each in flooding) / len(request) / 12
                for each in flooding:
                    each.end()
            value = max(legal.result.p99, quantile(legal.result.jobs, 0.99)) * 1000
            note = f"{sent:.0f} requests/s taken; {legal.result}"
            found.append(Figure(f"{name}: legal p99", value, "ms", "<= 300", value <= 300, note))
    return found
