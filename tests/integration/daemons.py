"""Starting real nodes the way people do, and waiting for what they say instead of for time to pass."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from cloudmytask.process.program import STATE_TAG
from cloudmytask.process.sweep import sweep

PATIENCE = 30.0
"""Seconds until something that never happens fails a test."""
ROOT = Path(__file__).parents[2]

TWISTD = "from twisted.scripts.twistd import run\nrun()\n"
"""What the ``twistd`` command does."""
TWIST = "import sys\nfrom twisted.application.twist._twist import Twist\nsys.exit(Twist.main())\n"
"""What ``python -m twisted`` does."""


def command(arguments: list[str], *, runner: str = TWISTD, before: str = "") -> list[str]:
    """A command line that runs ``before`` in the same process first, to look at it from inside or to break it."""
    return [sys.executable, "-c", before + runner, *arguments]


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Ours, without what a node would take as meant for it."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("XDG_", "CMT_")) and name not in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
    }
    return {**kept, **(extra or {})}


def free_ports(count: int) -> list[int]:
    """TCP ports that nobody listens on just now."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def until(look: Callable[[], bool]) -> None:
    """Wait for it to become true. Each look takes a process its time, so this does not spin."""
    deadline = time.monotonic() + PATIENCE
    while not look():
        assert time.monotonic() < deadline, "it never came to pass"


def run(arguments: list[str], cwd: Path, *, runner: str = TWISTD, before: str = "") -> subprocess.CompletedProcess[str]:
    """Run to the end, without a terminal."""
    return subprocess.run(
        command(arguments, runner=runner, before=before),
        cwd=cwd,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def left_running(below: Path) -> dict[str, list[int]]:
    """The processes of scripts that nodes with their state below a directory have started: state directory → pids."""
    found: dict[str, list[int]] = {}
    for entry in Path("/proc").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            variables = (entry / "environ").read_bytes().split(b"\0") if entry.name.isdigit() else []
            for tag in (v.partition(b"=")[2].decode() for v in variables if v.startswith(f"{STATE_TAG}=".encode())):
                if Path(tag).is_relative_to(below):
                    found.setdefault(tag, []).append(int(entry.name))
    return found


def sweep_below(directory: Path) -> None:
    """Kill those processes."""
    for tag in left_running(directory):
        sweep(tag)


class Node:
    """A node in the foreground, and what it tells its service manager."""

    def __init__(self, process: subprocess.Popen[bytes], manager: socket.socket) -> None:
        self.process = process
        self._manager = manager

    def told(self) -> dict[str, str]:
        """The next notification."""
        lines = self._manager.recv(4096).decode().splitlines()
        return dict(line.split("=", 1) for line in lines)

    def until(self, key: str) -> dict[str, str]:
        """The next notification that has ``key``."""
        while key not in (told := self.told()):
            pass
        return told

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def ended(self) -> int:
        """Wait for the end; the exit code."""
        return self.process.wait(PATIENCE)


@contextmanager
def node(
    arguments: list[str],
    cwd: Path,
    *,
    runner: str = TWISTD,
    before: str = "",
    extra: Mapping[str, str] | None = None,
    ready: bool = True,
) -> Iterator[Node]:
    """A node in the foreground; entered when it says that it is ready. If it still runs at the end it is killed, and if
    it was killed so are its scripts, which outlive it.

    Its output is in ``stdout`` and ``stderr`` below ``cwd``.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(cwd / "notify"))
        manager.settimeout(PATIENCE)
        env = environment({"NOTIFY_SOCKET": str(cwd / "notify"), **(extra or {})})
        with (cwd / "stdout").open("wb") as stdout, (cwd / "stderr").open("wb") as stderr:
            process = subprocess.Popen(
                command(arguments, runner=runner, before=before),
                cwd=cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
            )
        try:
            made = Node(process, manager)
            if ready:
                assert made.until("READY")["READY"] == "1"
            yield made
        finally:
            process.kill()
            if process.wait() == -signal.SIGKILL:
                sweep_below(cwd)
            (cwd / "notify").unlink()
