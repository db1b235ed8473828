"""Rude clients, and the legal one as its parent sees it: plain sockets that say what no program of ours would.

Invariant: everything here blocks, and belongs to the benchmark's own process; what is measured runs in others.
"""

from __future__ import annotations

import itertools
import json
import select
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attrs import define, field, frozen
from twisted.protocols import amp

from benchmarks.daemons import HOST, Daemon
from cloudmytask.codec import encode
from cloudmytask.model.cluster import BootId, NodeId, PeerIdentity, Role
from cloudmytask.wire import commands, peer_commands

NEVER = 60.0
"""Seconds that stand for what did not happen."""
_tags = itertools.count(1)


def box(command: type[amp.Command], **arguments: Any) -> bytes:
    """A request as it goes over the wire."""
    made = command.makeArguments(arguments, None)
    made[amp.COMMAND] = command.commandName
    made[amp.ASK] = b"%x" % next(_tags)
    return bytes(made.serialize())


class Rude:
    """One connection of a client that has no manners. ``name`` None: it does not say who it is."""

    def __init__(self, where: Path | int, name: str | None = "mallory") -> None:
        if isinstance(where, Path):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.connect(str(where))
        else:
            self.socket = socket.create_connection((HOST, where))
        if name is not None:
            self.ask(commands.Hello, versions=[commands.PROTOCOL_VERSION], role="client", client=name)

    def ask(self, command: type[amp.Command], **arguments: Any) -> dict[bytes, bytes]:
        """Ask and wait for the answer."""
        self.socket.sendall(box(command, **arguments))
        return self.answer()

    def answer(self) -> dict[bytes, bytes]:
        """The next box."""
        found: dict[bytes, bytes] = {}
        while key := self._exactly(int.from_bytes(self._exactly(2), "big")):
            found[key] = self._exactly(int.from_bytes(self._exactly(2), "big"))
        return found

    def push(self, data: bytes, seconds: float) -> None:
        """Send as much of it as the other end takes in that time, and read nothing."""
        deadline = time.monotonic() + seconds
        self.socket.setblocking(False)
        view = memoryview(data)
        while view and (left := deadline - time.monotonic()) > 0:
            if select.select([], [self.socket], [], left)[1]:
                try:
                    view = view[self.socket.send(view[: 1 << 16]) :]
                except OSError:
                    return
        self.socket.setblocking(True)

    def close(self) -> None:
        """Hang up."""
        self.socket.close()

    def _exactly(self, size: int) -> bytes:
        parts = b""
        while len(parts) < size:
            part = self.socket.recv(size - len(parts))
            if not part:
                raise ConnectionError("the node hung up")
            parts += part
        return parts


def linked(port: int, cluster: str) -> Rude:
    """A connection that has become a link, of a node that nobody knows."""
    made = Rude(port, None)
    identity = PeerIdentity(cluster, Role.NODE, NodeId("e" * 32), BootId("e" * 16), "mallory", f"{HOST}:1")
    made.ask(peer_commands.PeerHello, version=peer_commands.PEER_VERSION, identity=encode(identity), nonce=b"n" * 16)
    made.ask(peer_commands.ProvePeer, proof=b"")
    return made


class Flood(threading.Thread):
    """Sends one request over and over on a connection, and throws the answers away, until :meth:`end`."""

    def __init__(self, connection: Rude, request: bytes) -> None:
        super().__init__(daemon=True)
        self._connection, self._requests = connection, request * 200
        self.over = threading.Event()
        self.sent = 0

    def run(self) -> None:
        """Thread's interface."""
        made = self._connection.socket
        made.setblocking(False)
        pending = memoryview(self._requests)
        while not self.over.is_set():
            readable, writable, _ = select.select([made], [made] if pending else [], [], 0.1)
            try:
                if readable and not made.recv(1 << 18):
                    return
                if writable:
                    taken = made.send(pending)
                    self.sent += taken
                    pending = pending[taken:] or memoryview(self._requests)
            except BlockingIOError:
                continue
            except OSError:
                return

    def end(self) -> None:
        """Stop, and hang up."""
        self.over.set()
        self.join()
        self._connection.close()


@frozen
class Legal:
    """How the legal client fared."""

    statuses: list[float]
    jobs: list[float]
    failed: list[str]
    lost: int

    @property
    def p99(self) -> float:
        """Of the status, in seconds."""
        return quantile(self.statuses, 0.99)

    def __str__(self) -> str:
        return (
            f"others: {len(self.statuses)} statuses, p50 {quantile(self.statuses, 0.5) * 1000:.1f} ms, p99"
            f" {self.p99 * 1000:.1f} ms; {len(self.jobs)} jobs, p50 {quantile(self.jobs, 0.5) * 1000:.0f} ms, p99"
            f" {quantile(self.jobs, 0.99) * 1000:.0f} ms; {len(self.failed)} failed"
        )


def quantile(values: list[float], part: float) -> float:
    """The value that this part of them is not above; :data:`NEVER` if there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else NEVER


@define
class _Running:
    """A legal client that is at work; ``found`` is there after its end."""

    found: Legal | None = field(init=False, default=None)

    @property
    def result(self) -> Legal:
        """How it fared."""
        assert self.found is not None
        return self.found


@contextmanager
def beside(where: Path) -> Iterator[_Running]:
    """A legal client that is at work meanwhile."""
    command = [sys.executable, "-m", "benchmarks.rude.beside", str(where)]
    running = _Running()
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    try:
        process.stdout.readline()
        yield running
        # its last job and question are given a minute; what has no answer by then counts with the time it took
        output, _ = process.communicate(timeout=60)
        running.found = Legal(**json.loads(output))
    except subprocess.TimeoutExpired:
        running.found = Legal([60.0], [], [], 0)
    finally:
        process.kill()
        process.wait()


def resident(daemon: Daemon) -> float:
    """MiB that a daemon has in memory."""
    lines = Path(f"/proc/{daemon.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


class Watched(threading.Thread):
    """Looks at a daemon's memory each tenth of a second."""

    def __init__(self, daemon: Daemon) -> None:
        super().__init__(daemon=True)
        self._daemon = daemon
        self._over = threading.Event()
        self.before = self.most = resident(daemon)

    def run(self) -> None:
        """Thread's interface."""
        while not self._over.wait(0.1):
            self.most = max(self.most, resident(self._daemon))

    def growth(self) -> float:
        """End it; the most MiB beyond what it was at the beginning."""
        self._over.set()
        self.join()
        return self.most - self.before


def median(values: list[float]) -> float:
    """The middle one; :data:`NEVER` if there are none."""
    return statistics.median(values) if values else NEVER
