"""How a node ends: in order with the first signal, at once with the second, and never with a lie in its exit code."""

from __future__ import annotations

import json
import signal
import socket
from pathlib import Path

import pytest

from tests.integration.daemons import TWIST, TWISTD, node

FOREGROUND = ["-n", "--pidfile=", "cmt-node", "--state", "state"]

# A node whose scripts would run on for ever: draining ends only when it is cut short.
ENDLESS_DRAIN = """
from twisted.internet.defer import Deferred
from cloudmytask.node.node import Node
forever = Deferred()
Node.drain = lambda self: forever
Node.stop_now = lambda self: forever.callback(None)
"""

NO_CLOSE = """
from twisted.internet.defer import fail
from cloudmytask.store.sqlite_store import SqliteStore
SqliteStore.close = lambda self: fail(OSError("the disk is gone"))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_drains_and_the_second_ends_it_at_once(tmp_path: Path, number: signal.Signals) -> None:
    before = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n" + ENDLESS_DRAIN
    with node(FOREGROUND, tmp_path, before=before) as it:
        it.process.send_signal(number)
        told = it.until("STOPPING")
        assert int(told["EXTEND_TIMEOUT_USEC"]) > 30_000_000
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "state" / "node.sock"))
        assert it.process.poll() is None
        it.process.send_signal(number)
        assert it.ended() == 0


def test_a_signal_that_was_ignored_from_the_start_stays_ignored(tmp_path: Path) -> None:
    before = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    with node(FOREGROUND, tmp_path, before=before) as it:
        it.process.send_signal(signal.SIGINT)
        it.terminate()
        assert it.ended() == 0
    text = (tmp_path / "stderr").read_text()
    assert "received SIGTERM" in text
    assert "received SIGINT" not in text


@pytest.mark.parametrize("runner", [TWISTD, TWIST], ids=["twistd", "twist"])
def test_a_shutdown_that_failed_is_logged_told_and_still_releases_the_claim(tmp_path: Path, runner: str) -> None:
    arguments = FOREGROUND if runner is TWISTD else FOREGROUND[2:]
    with node(arguments, tmp_path, runner=runner, before=NO_CLOSE) as it:
        it.terminate()
        assert it.ended() == 1
    log = (tmp_path / ("stderr" if runner is TWISTD else "stdout")).read_text()
    lines = [json.loads(line) for line in log.splitlines()]
    [failure] = [line for line in lines if "failure" in line]
    assert "the disk is gone" in failure["failure"]
    assert "close the store" in failure["event"]
    assert not (tmp_path / "state" / "node.sock").exists()


def test_the_watchdog_is_fed_also_while_draining(tmp_path: Path) -> None:
    with node(FOREGROUND, tmp_path, before=ENDLESS_DRAIN, extra={"WATCHDOG_USEC": "200000"}) as it:
        assert it.until("WATCHDOG") == {"WATCHDOG": "1"}
        it.terminate()
        it.until("STOPPING")
        assert it.until("WATCHDOG") == {"WATCHDOG": "1"}
        it.terminate()
        assert it.ended() == 0


def test_a_node_starts_again_on_the_state_of_a_killed_one(tmp_path: Path) -> None:
    with node(FOREGROUND, tmp_path) as it:
        it.process.kill()
        it.ended()
    assert (tmp_path / "state" / "node.sock").is_socket()
    with node(FOREGROUND, tmp_path) as it:
        it.terminate()
        assert it.ended() == 0
