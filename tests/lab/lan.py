"""A local network on one machine: hosts as network namespaces on a bridge, for anybody who may make user namespaces.

Invariant: all of it lives below one process, the keeper, and in its namespaces, files included. It ends with the
``with`` block or with the test process, however that ends, and leaves nothing behind.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil
from attrs import define, field, frozen

from tests.integration.daemons import environment
from tests.lab import keeper
from tests.lab.obstacle import PATH, UNSHARE
from tests.lab.switch import Switch
from tests.lab.waiting import PATIENCE


class LanFailed(Exception):
    """The lab could not be built, or its keeper is gone."""


@frozen
class Completed:
    """What a command left."""

    code: int
    """Negative: the signal that ended it."""
    stdout: str
    stderr: str


@define(eq=False)
class Running:
    """A process on a host."""

    lan: Lan
    number: int
    code: int | None = None

    def signal(self, number: int) -> None:
        """Send it a signal; nothing happens if it has ended."""
        self.lan.tell(kill=self.number, signal=number)

    def ended(self, patience: float = PATIENCE) -> int:
        """Wait for its end; the exit code. :raises AssertionError: it did not end."""
        deadline = time.monotonic() + patience
        while self.code is None:
            assert self.lan.listen(deadline), f"process {self.number} has not ended; {self.stderr[-2000:]}"
        return self.code

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        while self.lan.listen(time.monotonic()):
            pass
        return self.code is not None

    @property
    def stdout(self) -> str:
        """What it has written so far."""
        return self._file("out").read_text(errors="replace")

    @property
    def stderr(self) -> str:
        """What it has written so far."""
        return self._file("err").read_text(errors="replace")

    def completed(self, patience: float = PATIENCE) -> Completed:
        """Wait for its end and take its output, once. :raises AssertionError: it did not end."""
        done = Completed(self.ended(patience), self.stdout, self.stderr)
        self._file("out").unlink()
        self._file("err").unlink()
        return done

    def _file(self, suffix: str) -> Path:
        return self.lan.outside(keeper.ROOM / f"{self.number}.{suffix}")


@define(eq=False)
class Lan:
    """Hosts 1, 2 … of one network."""

    hosts: int = 5
    _process: subprocess.Popen[bytes] = field(init=False)
    _pid: int = field(init=False, default=0)
    _started: dict[int, Running] = field(init=False, factory=dict)
    _count: int = field(init=False, default=0)
    _heard: bytes = field(init=False, default=b"")
    switch: Switch = field(init=False)
    """What makes faults."""

    def __enter__(self) -> Lan:
        """:raises LanFailed: it cannot be built, for the reason given."""
        self._process = subprocess.Popen(
            [*UNSHARE, sys.executable, "-IS", keeper.__file__, str(self.hosts)],
            env={**os.environ, "PATH": PATH},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            assert self.listen(time.monotonic() + PATIENCE), "the keeper does not become ready"
            [inside] = psutil.Process(self._process.pid).children()
            self._pid = inside.pid
            self.switch = Switch(self.hosts, self._on_switch)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._process.stdin.close()
        try:
            # It waits until everything inside is gone.
            self._process.wait(PATIENCE)
        finally:
            self._process.kill()
            self._process.wait()
            self._process.stdout.close()
            self._process.stderr.close()

    def address(self, host: int) -> str:
        """Its IPv4 address."""
        return f"10.77.0.{host}"

    def directory(self, host: int) -> Path:
        """The host's own directory, as the host sees it."""
        return keeper.ROOM / self.name(host)

    def outside(self, path: Path) -> Path:
        """How the tests see a path of the lab."""
        return Path(f"/proc/{self._pid}/root") / path.relative_to("/")

    def name(self, host: int) -> str:
        """``h1``, ``h2`` …"""
        assert 1 <= host <= self.hosts, f"there is no host {host} among {self.hosts}"
        return f"h{host}"

    def start(self, host: int, *line: str, extra: Mapping[str, str] | None = None) -> Running:
        """Start a process on a host, in the host's own directory, without a terminal."""
        return self._start(self.name(host), self.directory(host), line, extra)

    def run(
        self, host: int, *line: str, extra: Mapping[str, str] | None = None, patience: float = PATIENCE
    ) -> Completed:
        """Run to the end. :raises AssertionError: there is none within ``patience`` seconds."""
        return self.start(host, *line, extra=extra).completed(patience)

    def power_off(self, host: int) -> None:
        """SIGKILL to everything that runs on a host, at once."""
        self._on_switch("sh", "-c", f"ip netns pids {self.name(host)} | xargs -r kill -KILL")

    def interface_down(self, host: int) -> None:
        """Switch off the host's own interface: it has no route any more, and its sends fail."""
        self._on_switch("ip", "-n", self.name(host), "link", "set", "eth0", "down")

    def interface_up(self, host: int) -> None:
        """Switch it on again, if need be, with its route for multicast."""
        self._on_switch("ip", "-n", self.name(host), "link", "set", "eth0", "up")
        self._on_switch("ip", "-n", self.name(host), "route", "replace", *keeper.MULTICAST_ROUTE.split())

    @property
    def keeper(self) -> int:
        """Process id of the keeper, as the tests see it."""
        return self._pid

    def processes(self, host: int) -> list[psutil.Process]:
        """All that runs on a host now, zombies excepted, as the tests see it."""
        network = self.outside(Path("/run/netns", self.name(host))).stat().st_ino
        return [each for each in psutil.Process(self._pid).children(recursive=True) if _network(each) == network]

    def tell(self, **order: object) -> None:
        """Give the keeper an order."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()

    def listen(self, deadline: float) -> bool:
        """Take one word of the keeper; False if there is none until ``deadline``, in monotonic seconds.

        :raises LanFailed: the keeper is gone, or could not build the lab.
        """
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        while b"\n" not in self._heard:
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                return False
            piece = os.read(self._process.stdout.fileno(), 65536)
            if not piece:
                raise LanFailed(f"the keeper ended: {self._process.stderr.read().decode()}")
            self._heard += piece
        line, self._heard = self._heard.split(b"\n", 1)
        word: dict[str, Any] = json.loads(line)
        if "failed" in word:
            raise LanFailed(word["failed"])
        if "ended" in word:
            self._started.pop(word["ended"]).code = word["code"]
        return True

    def _start(self, host: str, directory: Path, line: Iterable[str], extra: Mapping[str, str] | None) -> Running:
        self._count += 1
        running = self._started[self._count] = Running(self, self._count)
        for stream in ("out", "err"):
            # Whoever looks before the process is there finds it empty.
            self.outside(keeper.ROOM / f"{self._count}.{stream}").touch()
        self.tell(
            start=self._count,
            host=host,
            line=list(line),
            environment={**environment({"PATH": PATH, **(extra or {})})},
            directory=str(directory),
        )
        return running

    def _on_switch(self, *line: str) -> None:
        done = self._start(keeper.SWITCH, keeper.ROOM, line, None).completed()
        assert done.code == 0, (line, done)


def _network(process: psutil.Process) -> int | None:
    """Which network a process is in; None if it has ended."""
    try:
        return Path(f"/proc/{process.pid}/ns/net").stat().st_ino
    except FileNotFoundError:
        return None


KILLED = -signal.SIGKILL
"""Exit code of a process that was killed."""
