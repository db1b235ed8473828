"""The commits of a simulated store, in virtual time and with the habits of the real writer.

Invariant: what gathers during a commit is the next one. A lazy change waits for its countdown, or for an eager one on
the same slot, which takes it along; all changes of a slot keep their order. Once cut off, nothing fires any more.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from cloudmytask.boundaries import Clock, DelayedCall
from cloudmytask.errors import BlobCorrupt, StoreFailed
from cloudmytask.store.writer import LAZY_SECONDS

T = TypeVar("T")

DELIVERY = 0.0002
"""Seconds from the end of a commit to the news of it: whoever reads in between sees it already."""


@frozen(eq=False)
class _Change:
    """A change that waits for its commit; ``apply`` raises before it has changed anything, or not at all."""

    apply: Callable[[], Any]
    deferred: Deferred[Any]


class GroupCommit:
    """See the module."""

    def __init__(self, clock: Clock, commit_delay: Callable[[], float]) -> None:
        """
        :param commit_delay: asked at the start of each commit for the seconds that it takes.
        """
        self._clock = clock
        self._commit_delay = commit_delay
        self._alive = True
        self._gathered: list[_Change] = []
        self._committing: list[_Change] = []
        self._put_off: dict[Hashable, list[_Change]] = {}
        self._countdown: DelayedCall | None = None
        self._commit: DelayedCall | None = None

    def submit(self, apply: Callable[[], T], *, slot: Hashable = None, lazy: bool = False) -> Deferred[T]:
        """Fires with what ``apply`` returned, or fails with what it raised, after the commit."""
        change = _Change(apply, Deferred())
        if not self._alive:
            return change.deferred
        if lazy:
            self._put_off.setdefault(slot, []).append(change)
            if self._countdown is None:
                self._countdown = self._clock.callLater(LAZY_SECONDS, self._time_is_up)
        else:
            self._gathered += [*(self._put_off.pop(slot, []) if slot is not None else []), change]
            self._begin()
        return change.deferred

    def flush(self) -> Deferred[None]:
        """Fires when everything that was submitted is committed."""
        self._take_put_off()
        return self.submit(lambda: None)

    def cut_off(self, flushed: bool) -> None:
        """The end. ``flushed``: the commit that was under way has just reached the disk, though nobody was told."""
        self._alive = False
        if flushed:
            for change in self._committing:
                _applied(change)
        for call in (self._countdown, self._commit):
            if call is not None and call.active():
                call.cancel()
        self._gathered, self._committing, self._put_off = [], [], {}

    def _time_is_up(self) -> None:
        self._take_put_off()
        self._begin()

    def _take_put_off(self) -> None:
        if self._countdown is not None and self._countdown.active():
            self._countdown.cancel()
        self._countdown = None
        for changes in self._put_off.values():
            self._gathered += changes
        self._put_off = {}

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
