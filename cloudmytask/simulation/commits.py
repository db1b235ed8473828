"""The commits of a simulated store, in virtual time and with the habits of the real writer.

Invariant: what gathers during a commit is the next one, in the order in which it was submitted. Once cut off, nothing
fires any more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from cloudmytask.boundaries import Clock, DelayedCall
from cloudmytask.model.errors import BlobCorrupt, StoreFailed

T = TypeVar("T")

DELIVERY = 0.0002
"""Seconds from the end of a commit to the news of it: a read in between sees it already."""


@frozen(eq=False)
class _Change:
    """A change that waits for its commit; ``apply`` raises before it has changed anything, or not at all."""

    apply: Callable[[], Any]
    deferred: Deferred[Any]


class GroupCommit:
    """Commits in virtual time what gathered before."""

    def __init__(self, clock: Clock, commit_delay: Callable[[], float]) -> None:
        """Nothing is committed before :meth:`submit`.

        :param commit_delay: asked at the start of each commit for the seconds that it takes.
        """
        self._clock = clock
        self._commit_delay = commit_delay
        self._alive = True
        self._gathered: list[_Change] = []
        self._committing: list[_Change] = []
        self._commit: DelayedCall | None = None

    def submit(self, apply: Callable[[], T]) -> Deferred[T]:
        """Fires with what ``apply`` returned, or fails with what it raised, after the commit."""
        change = _Change(apply, Deferred())
        if self._alive:
            self._gathered.append(change)
            self._begin()
        return change.deferred

    def cut_off(self, flushed: bool) -> None:
        """The end. ``flushed``: the commit that was under way has just reached the disk, though nobody was told."""
        self._alive = False
        if flushed:
            for change in self._committing:
                _applied(change)
        if self._commit is not None and self._commit.active():
            self._commit.cancel()
        self._gathered, self._committing = [], []

    def _begin(self) -> None:
        """Start a commit of all that has gathered, unless one is under way: its end will start the next."""
        if not self._committing and self._gathered:
            self._committing, self._gathered = self._gathered, []
            self._commit = self._clock.callLater(self._commit_delay(), self._finish)

    def _finish(self) -> None:
        batch, self._committing = self._committing, []
        # all of it reaches the disk before anybody is told of any of it
        results = [(change.deferred, _applied(change)) for change in batch]
        self._clock.callLater(DELIVERY, self._deliver, results)
        self._begin()

    def _deliver(self, results: list[tuple[Deferred[Any], object]]) -> None:
        for deferred, result in results:
            # what one caller does when told may bring the node down
            if not self._alive:
                return
            if isinstance(result, Failure):
                deferred.errback(result)
            else:
                deferred.callback(result)


def _applied(change: _Change) -> object:
    try:
        return change.apply()
    except (StoreFailed, BlobCorrupt):
        return Failure()
