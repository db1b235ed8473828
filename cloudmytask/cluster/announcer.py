"""Says over and over who this instance is and how it does (paper 3.2.3), at the pace of ``core.announcing``.

Invariant: an error in one announcement is logged and the next one follows all the same; sequence numbers grow by one,
the incarnation only when somebody thinks this instance dead.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, evolve, field
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger

from cloudmytask.boundaries import Clock, DelayedCall, Entropy
from cloudmytask.core.announcing import AnnouncementPace, Condition, worth_telling
from cloudmytask.model.cluster import Announcement, BusMessage, Capacity, PeerIdentity, Pulse
from cloudmytask.version import VERSION

_log = Logger()

FAREWELLS = 3
"""How often the last word is said, since any one may be lost."""
FAREWELL_GAP = 0.05
"""Seconds between them."""


@define(eq=False)
class Announcer:
    """Publishes announcements. ``condition`` makes what is to be said now, ``present`` counts the other instances."""

    _clock: Clock
    _entropy: Entropy
    _me: PeerIdentity
    _publish: Callable[[BusMessage], None]
    _condition: Callable[[], Condition]
    _present: Callable[[], int]
    _pace: AnnouncementPace = field(factory=AnnouncementPace)
    _sequence: int = field(init=False, default=0)
    _incarnation: int = field(init=False, default=0)
    _told: Condition | None = field(init=False, default=None)
    """What was said last."""
    _urgent: bool = field(init=False, default=False)
    _timer: DelayedCall | None = field(init=False, default=None)
    _running: bool = field(init=False, default=False)

    @property
    def interval(self) -> float:
        """Seconds between announcements where nothing changes."""
        return self._pace.heartbeat(self._present() + 1)

    @property
    def gap(self) -> float:
        """Seconds between announcements at the least."""
        return self._pace.gap(self._present() + 1)

    def current(self) -> Announcement:
        """What would be said now, without a new sequence number."""
        return self._stamped(self._condition())

    def start(self) -> None:
        """Say the first word now."""
        self._running = True
        self._due()

    def stop(self) -> None:
        """Say nothing more. Idempotent."""
        self._running = False
        self._cancel()

    def changed(self) -> None:
        """Something about this instance may have changed: say so as soon as the budget allows, if others decide by
        it. Cheap enough to be called after every change."""
        if self._running and not self._urgent and worth_telling(self._told, self._condition()):
            self._hurry(0.0)

    def greet(self) -> None:
        """A new instance is here and should soon know us."""
        if self._running and not self._urgent:
            self._hurry(self._entropy.random.random() * self.gap)

    def pulse(self, capacity: Capacity) -> Pulse:
        """What proves over a link that we live, and how far our announcements are."""
        return Pulse(capacity, self._incarnation, self._sequence)

    def refute(self, incarnation: int) -> None:
        """Somebody declared our ``incarnation`` dead: say that we live. That is one more than what we said before,
        however high that was: others hold nothing dead that they never heard of."""
        if incarnation >= self._incarnation:
            self._incarnation += 1
            _log.info("thought dead; announcing incarnation {incarnation}", incarnation=self._incarnation)
            if self._running:
                self._hurry(0.0)

    def leave(self) -> Deferred[None]:
        """Say goodbye and nothing more; fires when that is done."""
        self.stop()
        done: Deferred[None] = Deferred()

        def farewell(left: int) -> None:
            self._say(leaving=True)
            if left > 1:
                self._clock.callLater(FAREWELL_GAP, farewell, left - 1)
            else:
                done.callback(None)

        farewell(FAREWELLS)
        return done

    def _hurry(self, delay: float) -> None:
        self._urgent = True
        self._schedule(delay)

    def _schedule(self, delay: float = 0.0) -> None:
        self._cancel()
        now = self._clock.seconds()
        due = self._pace.due(now, urgent=self._urgent, delay=delay)
        self._timer = self._clock.callLater(max(0.0, due - now), self._due)

    def _cancel(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def _due(self) -> None:
        self._say()
        self._urgent = False
        self._pace.sent(self._clock.seconds(), self._present() + 1, self._entropy.random.random())
        if self._running:
            self._schedule()

    def _say(self, *, leaving: bool = False) -> None:
        def say() -> None:
            condition = self._condition()
            self._sequence += 1
            self._told = condition
            self._publish(evolve(self._stamped(condition), leaving=leaving))

        maybeDeferred(say).addErrback(
            lambda failure: _log.failure("an announcement failed; the next one follows", failure=failure)
        )

    def _stamped(self, condition: Condition) -> Announcement:
        me = self._me
        return Announcement(
            cluster=me.cluster,
            role=me.role,
            node_id=me.node_id,
            boot_id=me.boot_id,
            incarnation=self._incarnation,
            sequence=self._sequence,
            name=me.name,
            address=me.address,
            interval=self.interval,
            capacity=condition.capacity,
            backlog=condition.backlog,
            tree=condition.tree,
            draining=condition.draining,
            short=condition.short,
            insecure=condition.insecure,
            bans=condition.bans,
            version=VERSION,
        )
