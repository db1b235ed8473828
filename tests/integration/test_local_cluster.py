"""``make cluster``, mostly with instances that only pretend: what it starts, says and ends."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.daemons import PATIENCE, environment, free_ports

STARTER = """
import sys
from benchmarks import local_cluster
local_cluster.END_TIME = 0.5
local_cluster.Planned.command = lambda self, directory, cluster: [sys.executable, "-c", self.plugin, self.name]
ports = [int(port) for port in sys.argv[2].split(",")]
plan = [local_cluster.Planned(f"i{n}", port, sys.argv[3]) for n, port in enumerate(ports)]
local_cluster.introduction = lambda cluster: "up " + " ".join(str(each.process.pid) for each in cluster.instances)
local_cluster.main(sys.argv[1:2], plan)
"""
REAL = """
import sys
from benchmarks import local_cluster
first, second, third, group = map(int, sys.argv[2].split(","))
local_cluster.GROUP = f"239.255.77.77:{group}"
plan = [local_cluster.Planned("a", first), local_cluster.Planned("b", second)]
local_cluster.main(sys.argv[1:2], [*plan, local_cluster.Planned("csu", third, "cmt-csu", ())])
"""
SERVING = """
import os, signal, socket, sys
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
    manager.connect("\\0" + os.environ["NOTIFY_SOCKET"][1:])
    manager.send(b"STATUS=soon")
    manager.send(b"READY=1\\nSTATUS=serving")
"""
WAITING = SERVING + "signal.pause()\n"
STUBBORN = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SERVING + "while True: signal.pause()\n"
SILENT = "import sys\nprint('no such luck')\nsys.exit(3)\n"


@contextmanager
def _cluster(
    directory: Path, program: str, ports: list[int], starter: str = STARTER
) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", starter, str(directory / "cluster"), ",".join(map(str, ports)), program],
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate()


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().rstrip("\n")


def _pids(process: subprocess.Popen[str]) -> list[int]:
    up, *pids = _line(process).split()
    assert up == "up"
    return [int(pid) for pid in pids]


def _gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_all_of_them(tmp_path: Path, number: signal.Signals) -> None:
    with _cluster(tmp_path, WAITING, free_ports(3)) as process:
        pids = _pids(process)
        assert len(pids) == 3
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=PATIENCE)
        assert (process.returncode, stdout, stderr) == (0, "ending ...\n", "")
        assert all(map(_gone, pids))


def test_with_real_instances_it_says_how_to_talk_to_them(tmp_path: Path) -> None:
    ports = free_ports(4)
    with _cluster(tmp_path, "", ports, REAL) as process:
        words = [_line(process)]
        assert words == ["2 nodes and a CSU; Ctrl-C ends them."]
        while "primes.py" not in words[-1]:
            words.append(_line(process))
        assert f"  export CMT_NODE=127.0.0.1:{ports[0]}" in words
        assert (tmp_path / "cluster" / "csu").is_dir()
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=PATIENCE)
        assert (process.returncode, stdout, stderr) == (0, "ending ...\n", "")


def test_one_that_is_killed_is_told_of_and_the_others_go_on(tmp_path: Path) -> None:
    with _cluster(tmp_path, WAITING, free_ports(2)) as process:
        first, second = _pids(process)
        os.kill(first, signal.SIGKILL)
        assert _line(process) == "i0 has ended (killed by SIGKILL); to start it again:"
        assert sys.executable in _line(process)
        assert not _gone(second)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE)
        assert _gone(second)


def test_it_ends_with_the_last_of_them(tmp_path: Path) -> None:
    with _cluster(tmp_path, WAITING, free_ports(1)) as process:
        (pid,) = _pids(process)
        os.kill(pid, signal.SIGTERM)
        assert process.wait(PATIENCE) == 0


def test_one_that_does_not_end_is_killed(tmp_path: Path) -> None:
    with _cluster(tmp_path, STUBBORN, free_ports(1)) as process:
        (pid,) = _pids(process)
        process.send_signal(signal.SIGTERM)
        stdout, _ = process.communicate(timeout=PATIENCE)
        assert stdout == "ending ...\ni0 does not end, so it is killed\n"
        assert _gone(pid)


def test_one_that_does_not_come_up_ends_the_others_and_shows_its_last_words(tmp_path: Path) -> None:
    with _cluster(tmp_path, SILENT, free_ports(2)) as process:
        _, stderr = process.communicate(timeout=PATIENCE)
        assert process.returncode == 1
        assert re.search(r"i0 did not come up; the end of .*i0\.log:\nno such luck", stderr)


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with _cluster(tmp_path, WAITING, [*free_ports(1), port]) as process:
            stdout, stderr = process.communicate(timeout=PATIENCE)
    assert (process.returncode, stdout) == (1, "")
    assert stderr == f"cluster: 127.0.0.1:{port}: Address already in use; is such a cluster running already?\n"
