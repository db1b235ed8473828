"""A real node that is short of something: nobody's job fails for it, and all run when it is over.

Rows 4, 6, 7 and 8 of the list of attacks, and a node whose interpreter is gone.
"""

from __future__ import annotations

import json
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.integration import daemons
from tests.integration.commands import Commands
from tests.integration.daemons import PATIENCE, free_ports, until
from tests.integration.small_disk import small_disk

JOBS = 20


def _arguments(state: Path, *options: str) -> list[str]:
    return ["--nodaemon", "--pidfile=", "cmt-node", "--state", str(state), "--name", "n", "--slots", "4", *options]


@contextmanager
def _node(
    directory: Path, *options: str, before: str = "", state: Path | None = None
) -> Iterator[tuple[Any, Commands]]:
    state = state or directory / "state"
    alone = ("--load-source", "none", "--listen", "", "--group", "")
    with daemons.node(_arguments(state, *alone, *options), directory, before=before) as node:
        yield node, Commands(directory, f"unix:{state}/node.sock")


def _states(cmt: Commands) -> dict[str, int]:
    found: dict[str, int] = {}
    for job in cmt.json("ps", "--all").get("jobs", []):
        found[job["state"]] = found.get(job["state"], 0) + 1
    return found


def _submit(cmt: Commands, count: int = JOBS, source: str = "print(42)") -> None:
    cmt.script(source)
    program = (
        "import sys\nfrom cloudmytask import Client\n"
        "with Client() as cloud:\n"
        f"    for _ in range({count}): print(cloud.submit(sys.argv[1]).id)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "script.py"],
        cwd=cmt.directory,
        env=cmt.environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0 and len(done.stdout.split()) == count, done


def _short(cmt: Commands) -> list[str]:
    (node,) = cmt.json("nodes")["nodes"]
    return list(node["short"])


def _limited(which: str, soft: int, hard: int) -> str:
    return f"import resource\nresource.setrlimit(resource.{which}, ({soft}, {hard}))\n"


def _log(directory: Path) -> str:
    return (directory / "stdout").read_text() + (directory / "stderr").read_text()


def test_row_06_silent_connections_beyond_the_descriptors_fail_no_job(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    options = ("--listen", f"127.0.0.1:{port}")
    with (
        _node(tmp_path, *options, before=_limited("RLIMIT_NOFILE", 1024, 1024)) as (node, cmt),
        ExitStack() as open_ones,
    ):
        _submit(cmt, 40, "import time\ntime.sleep(0.3)\nprint(42)")
        for _ in range(1000):
            open_ones.enter_context(socket.create_connection(("127.0.0.1", port), PATIENCE))
        time.sleep(2.0)  # in which it starts scripts, or finds that it cannot
        open_ones.close()
        until(lambda: _states(cmt) == {"succeeded": 40})
        assert node.process.poll() is None and _short(cmt) == []


def _fill_descriptors(pid: int, free: int) -> None:
    """Leave a process so many descriptors."""
    used = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + free, resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]))


def test_row_06_a_node_without_descriptors_keeps_its_jobs_and_says_so(tmp_path: Path) -> None:
    with _node(tmp_path) as (node, cmt):
        before = resource.prlimit(node.process.pid, resource.RLIMIT_NOFILE)
        assert cmt("run", cmt.script("print(42)")).stdout == b"42\n"
        _fill_descriptors(node.process.pid, 3)
        _submit(cmt, 10)
        until(lambda: _short(cmt) == ["descriptors"])
        assert "short of file descriptors" in cmt.text("why", "last")
        resource.prlimit(node.process.pid, resource.RLIMIT_NOFILE, before)
        until(lambda: _states(cmt) == {"succeeded": 11})
        assert _short(cmt) == []
    assert _log(tmp_path).count("takes nothing new until that is over") == 1


def test_field_01_a_node_whose_interpreter_is_gone_keeps_its_jobs(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.symlink_to(sys.executable)
    before = f"import sys\nsys.executable = {str(python)!r}\n"
    with _node(tmp_path, before=before) as (_, cmt):
        python.rename(tmp_path / "away")
        _submit(cmt)
        until(lambda: _short(cmt) == ["interpreter"])
        assert "short of a Python interpreter" in cmt.text("why", "last")
        assert set(_states(cmt)) <= {"pending", "waiting", "staging"}
        (tmp_path / "away").rename(python)
        until(lambda: _states(cmt) == {"succeeded": JOBS})
    log = _log(tmp_path)
    assert log.count("takes nothing new until that is over") == 1 and log.count("has a Python interpreter again") == 1


NO_PROCESSES = """
import errno, os
from pathlib import Path
flag = Path("no-processes").absolute()
real = os.posix_spawn
def spawn(*arguments, **options):
    if flag.exists():
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return real(*arguments, **options)
os.posix_spawn = spawn
"""


def test_row_07_a_node_that_can_start_no_process_keeps_its_jobs(tmp_path: Path) -> None:
    """The kernel's answer is made here: a limit of processes does not hold for root, whom tests often run as."""
    flag = tmp_path / "no-processes"
    with _node(tmp_path, before=NO_PROCESSES) as (_, cmt):
        flag.touch()
        _submit(cmt)
        until(lambda: _short(cmt) == ["processes"])
        assert "short of processes" in cmt.text("why", "last")
        flag.unlink()
        until(lambda: _states(cmt) == {"succeeded": JOBS})


@pytest.mark.parametrize("disk_min", ["0", "4M"])
def test_row_04_jobs_wait_while_the_disk_is_full(tmp_path: Path, disk_min: str) -> None:
    with (
        small_disk(tmp_path, 24) as disk,
        _node(tmp_path, "--disk-min", disk_min, state=disk / "state") as (_, cmt),
    ):
        gate = tmp_path / "gate"
        holding = f"import os, time\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.05)\nprint(42)"
        _submit(cmt, 4, holding)
        until(lambda: _states(cmt) == {"running": 4})
        _submit(cmt, 8)
        ballast = disk / "ballast"
        with ballast.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
            while True:
                file.write(b"x" * 4096)
        gate.touch()
        time.sleep(2.0)  # nothing tells that a node goes on to do nothing
        assert "failed" not in _states(cmt), _states(cmt)
        ballast.unlink()
        until(lambda: _states(cmt) == {"succeeded": 12})


POISON = "import os, signal, time\ntime.sleep(2)\nos.kill(os.getppid(), signal.SIGKILL)\ntime.sleep(60)"


def _ended(cmt: Commands, *jobs: str) -> bool:
    """Whether they have their outcomes; not so while the node is dead."""
    try:
        return [cmt.json("status", job)["state"] for job in jobs] == ["succeeded", "lost"]
    except (json.JSONDecodeError, KeyError):
        return False


def test_row_08_a_job_that_kills_its_node_is_given_up(tmp_path: Path) -> None:
    """Started again and again, as a service manager does."""
    deaths = 0
    jobs: tuple[str, ...] = ()
    ended = False
    while not ended:
        with _node(tmp_path) as (node, cmt):
            if not jobs:
                jobs = (cmt.submit("import time\ntime.sleep(6)\nprint(42)"), cmt.submit(POISON))
            deadline = time.monotonic() + PATIENCE
            while node.process.poll() is None and not ended:
                assert time.monotonic() < deadline
                ended = _ended(cmt, *jobs)
            if ended:
                why = cmt.text("why", jobs[1])
                assert "its node died during attempt 1 on n, attempt 2 on n, attempt 3 on n" in why
            else:
                deaths += 1
    assert deaths == 3
