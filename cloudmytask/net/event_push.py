"""Tells a client of the events of many jobs.

Invariant: a client that is behind costs a bounded number of events, of which it misses the oldest; one that does not
answer loses its connection.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from attrs import define, field
from twisted.logger import Logger

from cloudmytask.boundaries import JobEvent
from cloudmytask.codec import encode
from cloudmytask.model.errors import RequestTimeout
from cloudmytask.wire.commands import JobEvents
from cloudmytask.wire.guard import GuardedAMP

_log = Logger()

FOLLOWED_MAX = 4
"""Times that one connection may follow events."""
EVENTS_MAX = 1000
"""Events that wait for one of them."""
BATCH = 200
"""Events that are told at a time; the next go when they are answered."""
ANSWER_TIMEOUT = 60.0
"""Seconds that an answer may take."""


@define(eq=False)
class EventPush:
    """The events that one client is told of, under the number that it gave."""

    _protocol: GuardedAMP
    _watch: int
    _waiting: deque[JobEvent] = field(init=False, factory=lambda: deque(maxlen=EVENTS_MAX))
    _unanswered: bool = field(init=False, default=False)
    _closed: bool = field(init=False, default=False)

    def tell(self, event: JobEvent) -> None:
        """Tell the client, as soon as it has answered what it was told before."""
        if not self._closed:
            self._waiting.append(event)  # of too many the oldest goes
            self._flush()

    def close(self) -> None:
        """The client, or its interest, is gone. Idempotent."""
        self._closed = True
        self._waiting.clear()

    def _flush(self) -> None:
        if self._unanswered or not self._waiting or not self._protocol.alive:
            return
        batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
        self._unanswered = True
        events = {"jobs": [encode(event) for event in batch]}
        told = self._protocol.ask(JobEvents, ANSWER_TIMEOUT, watch=self._watch, events=events)
        told.addErrback(self._refused).addCallback(self._answered)

    def _refused(self, failure: Any) -> None:
        if failure.check(RequestTimeout):
            _log.warn("connection dropped: events were not answered within {seconds:g} s", seconds=ANSWER_TIMEOUT)
            self._protocol.close()
        elif self._protocol.alive:
            _log.warn("a client refused events: {problem}", problem=failure.getErrorMessage())

    def _answered(self, _answer: object) -> None:
        self._unanswered = False
        self._flush()
