"""Notifications to systemd, received by a real datagram socket."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
from twisted.logger import ILogObserver, LogEvent, LogLevel, globalLogPublisher

from cloudmytask.systemd import Notifier


def receiver(address: str) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    made.bind(address)
    made.settimeout(10)
    return made


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, Notifier]]:
    """A service manager's socket, and a notifier that was told about it the way systemd does."""
    shown = str(tmp_path / "notify") if request.param == "path" else f"@cloudmytask-{os.getpid()}"
    with receiver(shown.replace("@", "\0", 1)) as listening:
        yield listening, Notifier.from_environment({"NOTIFY_SOCKET": shown})


def test_the_daemons_life_as_systemd_hears_it(manager: tuple[socket.socket, Notifier]) -> None:
    listening, notifier = manager
    notifier.ready("Serving on\n2 slots")
    notifier.status("1 script runs")
    notifier.watchdog()
    notifier.stopping("Draining", 42.5)
    assert [listening.recv(4096).decode() for _ in range(4)] == [
        "READY=1\nSTATUS=Serving on 2 slots",
        "STATUS=1 script runs",
        "WATCHDOG=1",
        "STOPPING=1\nEXTEND_TIMEOUT_USEC=42500000\nSTATUS=Draining",
    ]


def test_nothing_happens_without_a_manager() -> None:
    notifier = Notifier.from_environment({"WATCHDOG_USEC": "1000000"})
    assert notifier == Notifier(None, None)
    notifier.ready("x")
    notifier.watchdog()


@pytest.mark.parametrize(
    ("environ", "interval"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "77"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "78"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-1"}, None),
        ({"WATCHDOG_USEC": "often"}, None),
    ],
)
def test_the_watchdog_is_fed_twice_in_its_time(environ: dict[str, str], interval: float | None) -> None:
    assert Notifier.from_environment({"NOTIFY_SOCKET": "/x", **environ}, pid=77).watchdog_interval == interval


def test_a_manager_that_is_gone_does_no_harm(tmp_path: Path) -> None:
    heard: list[LogEvent] = []
    observer = cast(ILogObserver, heard.append)
    globalLogPublisher.addObserver(observer)
    try:
        Notifier(str(tmp_path / "nobody")).ready("x")
    finally:
        globalLogPublisher.removeObserver(observer)
    [event] = heard
    assert event["log_level"] == LogLevel.warn
    assert event["lines"] == ["READY=1", "STATUS=x"]


def test_a_manager_that_does_not_read_does_not_block(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with receiver(address):
        notifier = Notifier(address)
        for _ in range(10_000):
            notifier.watchdog()
