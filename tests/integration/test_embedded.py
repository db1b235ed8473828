"""``cmt run`` where there is no node: one is started for the time being, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from cloudmytask.service.embedded import PREFIX
from tests.integration.commands import Commands
from tests.integration.daemons import PATIENCE

SLEEP = "import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(3600)\n"


@pytest.fixture
def cmt(tmp_path: Path) -> Commands:
    (tmp_path / "t").mkdir()
    return Commands(tmp_path, "unix:/nowhere", {"TMPDIR": str(tmp_path / "t")})


def left(cmt: Commands) -> list[str]:
    return [path.name for path in (cmt.directory / "t").iterdir()]


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


def test_it_runs_and_says_so_in_one_line(cmt: Commands) -> None:
    script = cmt.script("import sys\nprint(sys.stdin.read())\nsys.exit(3)\n")
    done = cmt("run", script, stdin=b"input")
    assert (done.returncode, done.stdout) == (3, b"input\n")
    assert done.stderr == (
        b"cmt: no node reachable ($CMT_NODE unix:/nowhere: No such file or directory); running on an embedded node\n"
    )
    assert left(cmt) == []
    assert cmt("run", "-q", script).stderr == b""


def test_a_failure_leaves_nothing_behind(cmt: Commands) -> None:
    assert cmt("run", "-q", "--timeout", "0", cmt.script("print()\n")).returncode == 125
    assert left(cmt) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_script_and_node(cmt: Commands, number: int, code: int) -> None:
    with cmt.started("run", "-q", cmt.script(SLEEP)) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        assert len(left(cmt)) == 1
        process.send_signal(number)
        assert process.wait(PATIENCE) == code
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert not alive(pid)
    assert left(cmt) == []


def test_the_second_interrupt_kills(cmt: Commands) -> None:
    script = cmt.script(
        "import os, signal, time\nsignal.signal(signal.SIGTERM, lambda *_: os.write(1, b'not yet\\n'))\n"
        "print('ready', flush=True)\nwhile True: time.sleep(3600)\n"
    )
    with cmt.started("run", "-q", script) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == b"not yet\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130
    assert left(cmt) == []


def test_two_at_once_do_not_disturb_each_other(cmt: Commands) -> None:
    fifo = cmt.directory / "fifo"
    os.mkfifo(fifo)
    first = cmt.script(f"print('ready', flush=True)\nopen({str(fifo)!r}).read()\nprint('first')\n", "first.py")
    with cmt.started("run", "-q", first) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        assert cmt("run", "-q", cmt.script("print('second')\n")).stdout == b"second\n"
        assert len(left(cmt)) == 1
        fifo.write_text("")
        assert process.communicate(timeout=PATIENCE) == (b"first\n", b"")
        assert process.returncode == 0
    assert left(cmt) == []


def test_what_a_killed_one_left_is_swept_by_the_next(cmt: Commands) -> None:
    with cmt.started("run", "-q", cmt.script(SLEEP)) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        process.kill()
        process.wait(PATIENCE)
    (abandoned,) = left(cmt)
    assert abandoned.startswith(PREFIX)
    assert alive(pid)
    stranger = cmt.directory / "t" / "cmt-something-else"
    stranger.mkdir()
    assert cmt("run", "-q", cmt.script("print('next')\n")).stdout == b"next\n"
    assert not alive(pid)
    assert left(cmt) == [stranger.name]


def test_a_temporary_directory_whose_path_is_too_long_for_a_socket(cmt: Commands) -> None:
    deep = cmt.directory / "t" / ("d" * 100)
    deep.mkdir()
    cmt.environment["TMPDIR"] = str(deep)
    done = cmt("run", "-q", cmt.script("print('ran')\n"))
    assert (done.returncode, done.stdout, done.stderr) == (0, b"ran\n", b"")
    assert list(deep.iterdir()) == []


def test_other_verbs_start_no_node(cmt: Commands) -> None:
    assert cmt("submit", cmt.script("print()\n")).returncode == 5
    assert left(cmt) == []
