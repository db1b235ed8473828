"""One verb's time in the reactor: start it, do the work, stop it.

Invariant: the work is a coroutine that ends once; its exit code or its failure becomes the verb's. A signal ends it by
cancelling what it waits for, unless the verb has a better idea; its ``finally`` blocks may still wait.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import (
    FilteringLogObserver,
    ILogObserver,
    LogEvent,
    LogLevel,
    LogLevelFilterPredicate,
    formatEvent,
    globalLogBeginner,
)
from twisted.python.failure import Failure
from zope.interface import provider

from cloudmytask import reactor as monotonic
from cloudmytask.cli.failures import Interrupted
from cloudmytask.cli.terminal.console import STDERR, say, write

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Those that ask us to end."""


@define(eq=False)
class Invocation:
    """What a verb's work may use.

    :ivar reactor: Twisted's.
    :ivar on_signal: called in the reactor with the number of each signal that asks us to end.
    """

    reactor: Any
    on_signal: Callable[[int], object] = field(init=False)
    _given_up: Exception | None = field(init=False, default=None)
    _work: Deferred[int] | None = field(init=False, default=None)
    _result: int | Failure | None = field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        self.on_signal = self.abort

    def abort(self, number: int) -> None:
        """Give up the work because of a signal."""
        self.give_up(Interrupted(number))

    def give_up(self, problem: Exception) -> None:
        """Cancel the work; it then ends with ``problem``. The first reason stands."""
        if self._given_up is None:
            self._given_up = problem
        if self._work is not None:
            self._work.cancel()

    def conduct(self, work: Callable[[Invocation], Coroutine[Deferred[Any], Any, int]]) -> int:
        """Run the reactor for as long as ``work`` takes; what it returned or raised."""
        self.reactor.callWhenRunning(self._begin, work)
        self.reactor.run()
        result = self._result
        if isinstance(result, Failure):
            if self._given_up is not None and result.check(CancelledError):
                raise self._given_up
            result.raiseException()
        assert isinstance(result, int)
        return result

    def _begin(self, work: Callable[[Invocation], Coroutine[Deferred[Any], Any, int]]) -> None:
        self._catch_signals()
        self._work = Deferred.fromCoroutine(work(self))
        self._work.addBoth(self._ended)

    def _ended(self, result: int | Failure) -> None:
        self._work = None
        self._result = result
        self.reactor.stop()

    def _catch_signals(self) -> None:
        """Instead of Twisted's own handlers, which it has installed by now. One that was ignored stays ignored."""

        def received(number: int, _frame: FrameType | None) -> None:
            # By its attribute: who is told may change while the work goes on.
            self.reactor.callFromThread(lambda: self.on_signal(number))

        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, received)


def conduct(work: Callable[[Invocation], Coroutine[Deferred[Any], Any, int]]) -> int:
    """Run ``work`` in the global reactor, on monotonic time; what it returned or raised. Once in a process's life.

    :raises Interrupted: a signal ended it.
    """
    monotonic.install()
    # Not before: an import installs Twisted's own, on wall time.
    from twisted.internet import reactor

    globalLogBeginner.beginLoggingTo(
        [FilteringLogObserver(_tell, [LogLevelFilterPredicate(LogLevel.error)])],
        redirectStandardIO=False,
        discardBuffer=True,
    )
    return Invocation(reactor).conduct(work)


@provider(ILogObserver)
def _tell(event: LogEvent) -> None:
    """An error that nobody foresaw, in the client or in an embedded node: a bug, so its traceback is wanted."""
    say(formatEvent(event))
    if "log_failure" in event:
        write(STDERR, event["log_failure"].getTraceback().encode("utf-8", "backslashreplace"))
