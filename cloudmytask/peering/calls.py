"""How calls over links are waited for, or not.

Invariant: a declared failure of a call that nobody waits for is noted for whoever debugs, any other one is logged as
what it is, a bug.
"""

from __future__ import annotations

from typing import TypeVar, cast

from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from cloudmytask.boundaries import Clock
from cloudmytask.errors import CloudMyTaskError

_log = Logger(namespace="cloudmytask.calls")
T = TypeVar("T")

NO_ANSWER = (CloudMyTaskError, defer.TimeoutError)
"""What :func:`patiently` may raise."""


def patiently(clock: Clock, seconds: float, pending: Deferred[T]) -> Deferred[T]:
    """``pending``, or ``twisted.internet.defer.TimeoutError`` after so many seconds."""
    return pending.addTimeout(seconds, cast(IReactorTime, clock))  # it uses no more of it than our Clock has


def lightly(pending: Deferred[None]) -> None:
    """A word that is said again, or made up for, should it be lost."""

    def failed(failure: Failure) -> None:
        failure.trap(*NO_ANSWER)
        _log.debug("a peer was not told: {why}", why=failure.getErrorMessage())

    pending.addErrback(failed).addErrback(lambda failure: _log.failure("a peer was not told", failure=failure))
