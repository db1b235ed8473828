"""Real nodes on loopback, in one multicast group of their own, for as long as a benchmark needs them.

Invariant: all of them have ended when the group is left, however it is left.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from attrs import define, field, frozen

HOST = "127.0.0.1"
READY_TIME = 60.0
"""Seconds that a node may take until it serves."""
END_TIME = 20.0
"""Seconds that one may take to end before it is killed."""


@frozen(eq=False)
class Daemon:
    """A node that serves.

    :ivar ready_at: when it said so, by ``time.monotonic``.
    :ivar port: on :data:`HOST`.
    """

    name: str
    socket: Path
    process: subprocess.Popen[bytes]
    ready_at: float
    port: int

    @property
    def pid(self) -> int:
        """Of the node."""
        return self.process.pid


@define(eq=False)
class Daemons:
    """Nodes ``n0``, ``n1`` ... below a directory; a context manager.

    :ivar options: of each node, besides where it is.
    :ivar before: a command line that executes the rest of its arguments, put before each node's.
    :ivar logs: the directory of what they print; the same as their states' if absent.
    """

    directory: Path
    options: Sequence[str] = ("--slots", "1")
    before: Sequence[str] = ()
    logs: Path | None = None
    running: list[Daemon] = field(init=False, factory=list)
    _started: int = field(init=False, default=0)
    _manager: socket.socket = field(init=False)

    def __enter__(self) -> Daemons:
        self._manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._manager.bind("")  # a name in the abstract namespace, chosen by the kernel: unix(7)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end(self.running)
        self._manager.close()

    def start(self, count: int = 1) -> list[Daemon]:
        """Start so many more, all at once.

        :returns: them, when all serve.
        :raises TimeoutError: one does not.
        """
        names = [f"n{number}" for number in range(self._started, self._started + count)]
        self._started += count
        return self._begin(names)

    def again(self, ended: Daemon) -> Daemon:
        """Start one that has ended by itself once more, on its state.

        :raises TimeoutError: it does not serve.
        """
        ended.process.wait()
        self.running.remove(ended)
        [found] = self._begin([ended.name])
        return found

    @property
    def group(self) -> tuple[str, int]:
        """Where they multicast."""
        own = os.getpid()
        return f"239.255.77.{own % 200 + 20}", 20000 + own % 10000

    @property
    def cluster(self) -> str:
        """What they call it."""
        return f"bench-{os.getpid()}"

    def _begin(self, names: Sequence[str]) -> list[Daemon]:
        begun = [self._launch(name) for name in names]
        try:
            ready = self._ready({process.pid for _, _, process in begun})
        except BaseException:
            for _, _, process in begun:
                process.kill()
                process.wait()
            raise
        found = [
            Daemon(name, self.directory / name / "node.sock", process, ready[process.pid], port)
            for name, port, process in begun
        ]
        self.running.extend(found)
        return found

    def end(self, daemons: Sequence[Daemon]) -> None:
        """End them in order; kill those that take too long."""
        ended = list(daemons)
        for each in ended:
            each.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + END_TIME
        for each in ended:
            try:
                each.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                each.process.kill()
                each.process.wait()
            self.running.remove(each)

    def _launch(self, name: str) -> tuple[str, int, subprocess.Popen[bytes]]:
        state, port = self.directory / name, free_port()
        twistd = str(Path(sys.executable).with_name("twistd"))
        command = [*self.before, sys.executable, twistd, "-n", "--pidfile=", "cmt-node"]
        command += ["--state", str(state), "--name", name, "--listen", f"{HOST}:{port}"]
        command += ["--group", "{}:{}".format(*self.group), "--interface", HOST]
        command += ["--cluster", self.cluster, "--load-source", "none", "--drain-timeout", "0s", *self.options]
        address = self._manager.getsockname().decode().replace("\0", "@")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("CMT_", "XDG_"))}
        with (self.logs or self.directory).joinpath(f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                env={**kept, "NOTIFY_SOCKET": address},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for us: we end them
            )
        return name, port, process

    def _ready(self, wanted: set[int]) -> dict[int, float]:
        """Who said when that it serves; told apart by the credentials that the kernel adds: unix(7)."""
        self._manager.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        deadline = time.monotonic() + READY_TIME
        ready: dict[int, float] = {}
        with selectors.DefaultSelector() as selector:
            selector.register(self._manager, selectors.EVENT_READ)
            while wanted - set(ready):
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    missing = len(wanted - set(ready))
                    raise TimeoutError(f"{missing} nodes did not come up; see the logs in {self.directory}")
                words, ancillary, _, _ = self._manager.recvmsg(4096, 1024)
                sender = int.from_bytes(ancillary[0][2][:4], sys.byteorder)
                if b"READY=1" in words.splitlines():
                    ready[sender] = time.monotonic()
        return ready


def free_port() -> int:
    """One that nobody has now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, its children not counted."""
    return _times(pid, 11)


def children_cpu_seconds(pid: int) -> float:
    """User and system time of a process's children that it has waited for."""
    return _times(pid, 13)


def _times(pid: int, first: int) -> float:
    """Two fields of /proc/PID/stat, counted after the name: proc_pid_stat(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[first]) + int(fields[first + 1])) / os.sysconf("SC_CLK_TCK")
