"""Installing the monotonic reactor: over none, over itself, over another one, and not over one that is in use."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.daemons import run

INSTALL = "from cloudmytask.reactor import install\ninstall()\n"
SHOW = """
import time
from twisted.internet import reactor
assert reactor.seconds is time.monotonic
call = reactor.callLater(5, int)
assert abs(call.getTime() - time.monotonic() - 5) < 1
print(type(reactor).__name__)
"""
REPORT_FAILURE = """
import os
from twisted.internet import reactor
from cloudmytask import reactor as ours
def install():
    try:
        ours.install()
    except Exception as error:
        print(type(error).__name__, error, flush=True)
        os._exit(3)
"""


@pytest.mark.parametrize(
    ("program", "reactor"),
    [
        (INSTALL + SHOW, "MonotonicReactor"),
        (INSTALL + INSTALL + SHOW, "MonotonicReactor"),
        ("from twisted.internet import pollreactor\npollreactor.install()\n" + INSTALL + SHOW, "PollReactor"),
    ],
    ids=["over none", "over itself", "over another"],
)
def test_the_reactor_is_monotonic(tmp_path: Path, program: str, reactor: str) -> None:
    done = run([], tmp_path, runner=program)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{reactor}\n", "")


@pytest.mark.parametrize(
    "use",
    ["reactor.callLater(1, int)\ninstall()", "reactor.callWhenRunning(install)\nreactor.run()"],
    ids=["it has a timer", "it runs"],
)
def test_a_reactor_in_use_is_an_error_that_says_what_to_do(tmp_path: Path, use: str) -> None:
    done = run([], tmp_path, runner=REPORT_FAILURE + use)
    assert done.returncode == 3
    assert done.stdout.startswith(
        "StartFailed The reactor EPollReactor is in use already and follows the wall clock; call"
    )
    assert "cloudmytask.reactor.install()" in done.stdout
