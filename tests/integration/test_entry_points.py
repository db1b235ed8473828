"""Every way to start a node: it runs on monotonic time, and if it cannot start it says why in one line and ends."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import stat
import subprocess
from pathlib import Path

import pytest

from tests.integration.daemons import PATIENCE, ROOT, TWIST, TWISTD, node, run

LOOK_AT_THE_CLOCK = """
import time
wall, step = time.time, [0.0]
time.time = lambda: wall() + step[0]

from twisted.internet.base import ReactorBase

def look(reactor):
    steps = [3600.0, -7200.0]
    def stepped(began):
        elapsed = time.monotonic() - began
        # By the wall clock, the first would fire at once and the second in an hour.
        assert elapsed >= 0.2, elapsed
        following()
    def following():
        if steps:
            reactor.callLater(0.2, stepped, time.monotonic())
            step[0] += steps.pop(0)
        else:
            with open("seen", "w") as seen:
                seen.write(type(reactor).__name__)
            reactor.stop()
    assert abs(reactor.seconds() - time.monotonic()) < 60, reactor.seconds()
    following()

begin = ReactorBase.startRunning
def starting(self, *args, **kwargs):
    self.callWhenRunning(look, self)
    begin(self, *args, **kwargs)
ReactorBase.startRunning = starting
"""

# Nothing is rehearsed, as if what is in the way came between rehearsal and start.
NO_REHEARSAL = "from cloudmytask.service import command_line\ncommand_line.rehearse = lambda config: None\n"

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a directory that belongs to somebody else")


@pytest.fixture
def tac(tmp_path: Path) -> Path:
    """The .tac file that we ship, with a state directory of its own."""
    text = (ROOT / "tac" / "cmt-node.tac").read_text()
    assert "parseOptions([])" in text
    file = tmp_path / "cmt-node.tac"
    file.write_text(text.replace("parseOptions([])", "parseOptions(['--state', 'state'])"))
    return file


@pytest.mark.parametrize(
    ("runner", "arguments", "reactor"),
    [
        (TWISTD, ["-n", "cmt-node", "--state", "state"], "MonotonicReactor"),
        (TWISTD, ["cmt-node", "--state", "state"], "MonotonicReactor"),
        (TWISTD, ["-ny", "cmt-node.tac"], "MonotonicReactor"),
        (TWISTD, ["-n", "--reactor=poll", "cmt-node", "--state", "state"], "PollReactor"),
        (TWIST, ["cmt-node", "--state", "state"], "MonotonicReactor"),
        (TWIST, ["--reactor=poll", "cmt-node", "--state", "state"], "PollReactor"),
    ],
    ids=["twistd-n", "twistd", "tac", "twistd-poll", "twist", "twist-poll"],
)
@pytest.mark.usefixtures("tac")
def test_a_step_of_the_wall_clock_moves_no_timer(
    tmp_path: Path, runner: str, arguments: list[str], reactor: str
) -> None:
    seen = tmp_path / "seen"
    os.mkfifo(seen)
    # The daemon is no child of ours: its word on the pipe is what is waited for.
    reader = subprocess.Popen(["cat", str(seen)], stdout=subprocess.PIPE, text=True)
    try:
        done = run(arguments, tmp_path, runner=runner, before=LOOK_AT_THE_CLOCK)
        assert done.returncode == 0, done
        assert reader.communicate(timeout=PATIENCE)[0] == reactor
    finally:
        reader.kill()
        reader.wait()


def test_a_node_in_the_foreground_serves_logs_and_ends(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with node(
        ["-n", "--pidfile=", "cmt-node", "--state", "state", "--name", "n1", "--listen", "[::1]:0"], tmp_path
    ) as it:
        assert stat.S_IMODE(state.stat().st_mode) == 0o700
        assert stat.S_IMODE((state / "node.sock").stat().st_mode) == 0o600
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(state / "node.sock"))
        it.terminate()
        assert it.ended() == 0
    assert not (state / "node.sock").exists()
    assert (tmp_path / "stdout").read_text() == ""
    lines = [json.loads(line) for line in (tmp_path / "stderr").read_text().splitlines()]
    assert {line["level"] for line in lines} == {"info"}
    assert any(line["event"].startswith("node n1 ") and "serves" in line["event"] for line in lines)


def test_a_daemon_logs_to_its_state_directory_and_ends(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(PATIENCE)
        before = "import os\nos.environ['NOTIFY_SOCKET'] = os.path.abspath('notify')\n"
        done = run(["--pidfile=node.pid", "cmt-node", "--state", "state"], tmp_path, before=before)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert manager.recv(4096).startswith(b"READY=1")
        pid = int((tmp_path / "node.pid").read_text())
        ended = os.pidfd_open(pid)
        os.kill(pid, signal.SIGTERM)
        try:
            ready, _, _ = select.select([ended], [], [], PATIENCE)
            assert ready, "the daemon still runs"
        finally:
            os.close(ended)
    assert not (tmp_path / "node.pid").exists()
    log = tmp_path / "state" / "node.log"
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert lines[-1]["event"] == "Server Shut Down."


def test_twist_ends_in_order_and_writes_our_lines(tmp_path: Path) -> None:
    with node(["cmt-node", "--state", "state"], tmp_path, runner=TWIST) as it:
        it.terminate()
        assert it.ended() == 0
    for line in (tmp_path / "stdout").read_text().splitlines():
        assert {"time", "level", "system", "event"} <= set(json.loads(line))


@pytest.mark.parametrize(
    ("before", "after"),
    [(["--logfile=chosen.log"], []), ([], ["--log", "chosen.log"]), (["--logfile=chosen.log"], ["--log", "other.log"])],
    ids=["twistd's option", "the node's option", "twistd's wins"],
)
def test_the_log_goes_where_it_was_asked_to(tmp_path: Path, before: list[str], after: list[str]) -> None:
    with node(["-n", "--pidfile=", *before, "cmt-node", "--state", "state", *after], tmp_path) as it:
        it.terminate()
        assert it.ended() == 0
    assert (tmp_path / "stderr").read_text() == ""
    assert not (tmp_path / "other.log").exists()
    lines = (tmp_path / "chosen.log").read_text().splitlines()
    assert json.loads(lines[-1])["event"] == "Server Shut Down."


RUNNERS = pytest.mark.parametrize(
    ("runner", "options"),
    [(TWISTD, ["-n", "--pidfile=x.pid"]), (TWISTD, ["--pidfile=x.pid"]), (TWIST, [])],
    ids=["twistd-n", "twistd", "twist"],
)


def refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """It ended with one clear line, and with nothing else."""
    assert done.returncode == 1
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert line.startswith("cmt-node: ")
    for word in words:
        assert word in line


@RUNNERS
def test_a_busy_port_is_one_line(tmp_path: Path, runner: str, options: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        done = run([*options, "cmt-node", "--state", "state", "--listen", address], tmp_path, runner=runner)
    refused(done, address, "Address already in use")
    assert not (tmp_path / "x.pid").exists()


@RUNNERS
def test_a_second_node_is_one_line_and_the_first_lives_on(tmp_path: Path, runner: str, options: list[str]) -> None:
    with node(["-n", "--pidfile=", "cmt-node", "--state", "state"], tmp_path) as first:
        done = run([*options, "cmt-node", "--state", "state"], tmp_path, runner=runner)
        refused(done, f"in use by another node (process {first.process.pid})")
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "state" / "node.sock"))


@as_root
@RUNNERS
def test_a_foreign_state_directory_is_one_line(tmp_path: Path, runner: str, options: list[str]) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    os.chown(tmp_path / "state", 12_345, -1)
    refused(run([*options, "cmt-node", "--state", "state"], tmp_path, runner=runner), "belongs to another user")


@RUNNERS
def test_a_database_of_something_else_is_one_line(tmp_path: Path, runner: str, options: list[str]) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    (tmp_path / "state" / "jobs.sqlite").write_bytes(b"not a database at all, but long enough to be looked at" * 100)
    refused(run([*options, "cmt-node", "--state", "state"], tmp_path, runner=runner), "jobs.sqlite")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--slots", "0"], ["--slots: 0 is out of range: give 1 to 4096."]),
        (["--listen", "0.0.0.0:7001"], ["until instances have certificates"]),
        (["--listen", "127.0.0.1:0", "--listen", "example.org:1"], ["'example.org:1' is not a loopback address"]),
        (["--nonsense"], ["--nonsense"]),
        (["surplus"], ["Wrong number of arguments"]),
        (["--config", "absent.toml"], ["absent.toml: there is no such file."]),
        (["--state", "x" * 120], ["107 at most"]),
        (["--log", "absent/node.log"], ["absent/node.log cannot be opened: No such file or directory."]),
    ],
)
def test_what_is_wrong_with_the_options_is_one_line(tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    refused(run(["-n", "--pidfile=", "cmt-node", "--state", "state", *arguments], tmp_path), *words)


def test_a_wrong_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_text("slot = 1\n")
    refused(
        run(["-n", "cmt-node", "-c", "node.toml"], tmp_path), "node.toml: unknown option 'slot'; did you mean 'slots'?"
    )


def test_a_tac_that_cannot_start_is_one_line(tmp_path: Path, tac: Path) -> None:
    (tmp_path / "state").touch()
    refused(run(["-ny", tac.name], tmp_path), "a file is in its place")


@pytest.mark.parametrize("option", ["--uid=nobody", "--chroot=/"])
def test_a_change_of_user_or_root_is_refused(tmp_path: Path, option: str) -> None:
    refused(run(["-n", option, "cmt-node", "--state", "state"], tmp_path), "does not change its user")


def test_a_daemon_without_a_log_is_refused(tmp_path: Path) -> None:
    refused(run(["cmt-node", "--state", "state", "--log", "-"], tmp_path), "give log a file")


def test_an_obstacle_that_came_after_the_rehearsal_is_one_line_in_the_foreground(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    arguments = ["-n", "--pidfile=x.pid", "cmt-node", "--state", "state", "--log", "chosen.log"]
    refused(run(arguments, tmp_path, before=NO_REHEARSAL), "a file is in its place")
    assert not (tmp_path / "x.pid").exists()


def test_an_obstacle_that_came_after_the_rehearsal_ends_the_daemon(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    arguments = ["--pidfile=x.pid", "cmt-node", "--state", "state", "--log", "chosen.log"]
    done = run(arguments, tmp_path, before=NO_REHEARSAL)
    assert done.returncode == 1
    assert "An error has occurred" in done.stderr
    assert not (tmp_path / "x.pid").exists()
    lines = [json.loads(line) for line in (tmp_path / "chosen.log").read_text().splitlines()]
    [last] = [line for line in lines if line["level"] == "critical"]
    assert "a file is in its place" in last["event"]


def test_help_shows_every_option_with_unit_and_default(tmp_path: Path) -> None:
    done = run(["cmt-node", "--help"], tmp_path)
    text = " ".join(done.stdout.split())
    assert done.returncode == 0
    for words in ("--drain-timeout=", '[default: "30s"]', "seconds, or text such as 90s", "--listen=", "--config="):
        assert words in text
