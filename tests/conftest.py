"""No test passes over a failure that was only logged: an unhandled Deferred, an observer's error, a critical event."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any

import hypothesis
import pytest
from hypothesis import HealthCheck, settings
from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

from cloudmytask.client.node_client import NodeClient
from cloudmytask.wire.guard import GuardedAMP
from tests.virtual import Place

# how long an example takes depends on what else the machine does; timings are benchmarks, not tests
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

ExpectFailures = Callable[..., list[Failure]]

# how long a loaded machine takes to make examples says nothing about the code
settings.register_profile("any machine", suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


def pytest_collection_finish(session: pytest.Session) -> None:
    # What exists now outlives the tests: frozen, it costs the collection after each test nothing.
    gc.collect()
    gc.freeze()


@implementer(ILogObserver)
class LoggedFailures:
    """The failures that were logged and not yet expected."""

    def __init__(self) -> None:
        self.events: list[LogEvent] = []

    def __call__(self, event: LogEvent) -> None:
        level = event.get("log_level", LogLevel.info)
        if "log_failure" in event or level in (LogLevel.error, LogLevel.critical):
            self.events.append(event)

    def expect(self, *types: type[BaseException]) -> list[Failure]:
        """Take out the failures of these types; there must be at least one.

        Without types: take out the errors that were logged without a failure.
        """
        gc.collect()
        taken = [each for each in self.events if _is(each, types)]
        assert taken, f"no such failure was logged: {types}; there were {self.events}"
        self.events = [each for each in self.events if each not in taken]
        return [each["log_failure"] for each in taken if "log_failure" in each]

    def __str__(self) -> str:
        return "\n".join(
            formatEvent(each) + (f"\n{each['log_failure'].getTraceback()}" if "log_failure" in each else "")
            for each in self.events
        )


def _is(event: LogEvent, types: tuple[type[BaseException], ...]) -> bool:
    failure = event.get("log_failure")
    return failure is None if not types else failure is not None and failure.check(*types) is not None


@pytest.fixture(autouse=True)
def logged_failures() -> Iterator[LoggedFailures]:
    """Fail the test if anything was logged as a failure, or as an error, that it did not expect."""
    logged = LoggedFailures()
    globalLogPublisher.addObserver(logged)
    try:
        yield logged
        # A Deferred reports its unhandled failure when it is collected.
        gc.collect()
    finally:
        globalLogPublisher.removeObserver(logged)
    if logged.events:
        pytest.fail(f"unexpected failures were logged:\n{logged}", pytrace=False)


@pytest.fixture
def expected_failures(logged_failures: LoggedFailures) -> ExpectFailures:
    """``expected_failures(SomeError)``: failures of that type were logged on purpose; returns them."""
    return logged_failures.expect


@pytest.fixture
def place() -> Place:
    """A virtual host with a node, and the network to it."""
    return Place()


@pytest.fixture
def ann(place: Place) -> NodeClient:
    """A client's connection to that node."""
    return place.connect("ann")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The commands that are asked by anybody, in order."""
    commands: list[str] = []
    ask = GuardedAMP.ask

    def noted(self: GuardedAMP, command: Any, *arguments: Any, **values: Any) -> Deferred[dict[str, Any]]:
        commands.append(command.__name__)
        return ask(self, command, *arguments, **values)

    monkeypatch.setattr(GuardedAMP, "ask", noted)
    return commands
