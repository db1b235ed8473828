"""Announcements over links, where multicast does not reach everybody.

An instance that does not hear another one on the bus, though it lives, asks its neighbors in the overlay for what they
have heard, and is told everything from then on. So does one that has just declared another dead, in case nobody else
misses it; without neighbors it asks anybody. What came by such a way goes on along the whole tree, so that the others
hear of it too. Seeds are sought out while they are not known, and every few seconds a peer taken at random is asked,
the dead included, which joins what a partition parted.

Invariant: a message goes over each link of the tree once: only what was news to us is passed on, and not to whom it
came from. Where everybody hears everybody nothing is relayed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import Factory, define, field
from twisted.logger import Logger
from twisted.python.failure import Failure

from cloudmytask.boundaries import Clock, Entropy, Link
from cloudmytask.cluster.failure_detector import FailureDetector
from cloudmytask.cluster.links import LinkPool
from cloudmytask.core.membership import SILENCE, Member
from cloudmytask.deferreds import lightly
from cloudmytask.model.cluster import Announcement, BusMessage, NodeId, Obituary, PeerIdentity, Standing
from cloudmytask.model.errors import CloudMyTaskError
from cloudmytask.periodic import Periodic, every

_log = Logger()

LOOK = 1.0
"""Seconds between two looks whether anybody is not heard, and between two exchanges of a node without neighbors."""
ASKED = 10.0
"""Seconds for which somebody who asked is told everything."""
ASK_AGAIN = 3.0
"""Seconds after which it asks again."""
EXCHANGE = 5.0
"""Seconds between two exchanges with a peer taken at random, and between two attempts to reach a seed."""
PENDING_MAX = 10_000
"""Messages that wait for the next batch to one neighbor."""


@define(eq=False)
class Relaying:
    """Passes on messages along the tree, and asks neighbors and seeds for what the bus does not bring.

    ``neighbors`` names those in the overlay; ``own`` makes our announcement; ``gap`` is the time between two batches,
    seconds; ``seeds`` are addresses, ``HOST:PORT``.
    """

    _clock: Clock
    _entropy: Entropy
    _me: PeerIdentity
    _detector: FailureDetector
    _pool: LinkPool
    _own: Callable[[], Announcement]
    _gap: Callable[[], float]
    _seeds: tuple[str, ...] = ()
    neighbors: Callable[[], Sequence[NodeId]] = field(default=tuple)
    _pending: dict[NodeId, dict[object, BusMessage]] = field(init=False, default=Factory(dict))
    _batch_due: bool = field(init=False, default=False)
    _wanted: dict[NodeId, float] = field(init=False, default=Factory(dict))
    """Until when a neighbor wants everything."""
    _declared: dict[NodeId, float] = field(init=False, default=Factory(dict))
    """Whom we declared dead ourselves, and until when neighbors are asked whether they hear it."""
    _asked: dict[NodeId, float] = field(init=False, default=Factory(dict))
    _answered: dict[NodeId, float] = field(init=False, default=Factory(dict))
    _series: list[Periodic] = field(init=False, default=Factory(list))

    def start(self) -> None:
        """Seek the seeds, and relay where it turns out to be needed."""
        self._detector.news.add(self._news)
        self._series = [every(self._clock, LOOK, self._look), every(self._clock, EXCHANGE, self._exchange)]
        self._seek()

    def stop(self) -> None:
        """Relay nothing more. Idempotent."""
        for series in self._series:
            series.stop()
        self._series = []
        self._flush()

    def relayed(self, link: Link, messages: Sequence[BusMessage]) -> None:
        """A peer tells what it heard, or asks (an empty sequence)."""
        peer = link.peer.node_id
        for message in messages:
            self._detector.relayed(message, peer)
        if messages:
            return
        now = self._clock.seconds()
        self._wanted[peer] = now + ASKED
        if now >= self._answered.get(peer, float("-inf")) + LOOK:
            self._answered[peer] = now
            self.tell_all(link)

    def exchange(self, link: Link) -> None:
        """Tell the other end all that we have heard, and ask for the same."""
        self.tell_all(link)
        self._send(link, ())

    def tell_all(self, link: Link) -> None:
        """Tell the other end of everybody who is here, ourselves included."""
        peer = link.peer.node_id
        messages = [m.announcement for m in self._detector.members() if m.present and m.node_id != peer]
        self._send(link, [self._own(), *messages])

    # what is news

    def _news(self, message: BusMessage, by: NodeId | None) -> None:
        relayed = by is not None and by != self._me.node_id
        if isinstance(message, Obituary) and by == self._me.node_id:
            self._declared[message.subject] = self._clock.seconds() + ASKED
        if not relayed and not self._wanted:
            return
        now = self._clock.seconds()
        for neighbor in self.neighbors():
            if neighbor == by or (isinstance(message, Announcement) and message.node_id == neighbor):
                continue
            if relayed or now < self._wanted.get(neighbor, 0.0):
                self._put(neighbor, message)

    def _put(self, neighbor: NodeId, message: BusMessage) -> None:
        pending = self._pending.setdefault(neighbor, {})
        key = (message.subject, message.boot_id) if isinstance(message, Obituary) else message.node_id
        if key not in pending and len(pending) >= PENDING_MAX:
            return  # the next announcement of its sender makes up for it
        pending.pop(key, None)
        pending[key] = message
        if not self._batch_due:
            self._batch_due = True
            self._clock.callLater(self._gap(), self._flush)

    def _flush(self) -> None:
        self._batch_due = False
        batches, self._pending = self._pending, {}
        for neighbor, pending in batches.items():
            link = self._pool.live(neighbor)
            if link is not None:
                self._send(link, tuple(pending.values()))

    # who is not heard

    def _look(self) -> None:
        now = self._clock.seconds()
        neighbors = self.neighbors()
        if not neighbors:
            self._exchange()  # nobody else passes on what we say
        for known in (self._wanted, self._asked, self._answered):
            for stranger in known.keys() - neighbors:
                if known[stranger] < now - ASKED:
                    del known[stranger]
        self._declared = {each: until for each, until in self._declared.items() if now < until}
        deaf = any(map(self._detector.is_dead, self._declared)) or any(
            self._misses(member, now) for member in self._detector.members()
        )
        for neighbor in neighbors:
            member, link = self._detector.get(neighbor), self._pool.live(neighbor)
            if link is None or (not deaf and member is not None and self._hears(member, now)):
                continue
            if now >= self._asked.get(neighbor, float("-inf")) + ASK_AGAIN:
                self._asked[neighbor] = now
                self._wanted[neighbor] = now + ASKED
                self.exchange(link)

    def _hears(self, member: Member, now: float) -> bool:
        return now < member.direct + SILENCE * member.interval

    def _misses(self, member: Member, now: float) -> bool:
        """It lives, as others tell, and for longer than it takes to suspect a dead one it was not heard."""
        return member.standing is Standing.ALIVE and now >= member.direct + SILENCE * member.interval + LOOK

    def _exchange(self) -> None:
        self._seek()
        now = self._clock.seconds()
        # Those heard on the bus need no exchange, and while all are, the dead will be, should they return.
        unheard = [m for m in self._detector.members() if m.standing is not Standing.LEFT and not self._hears(m, now)]
        if unheard and (any(member.present for member in unheard) or not self._detector.present()):
            self._approach(self._entropy.random.choice(unheard).announcement.address)
        elif self._declared and not self.neighbors():
            present = [member for member in self._detector.members() if member.present]
            if present:
                self._approach(self._entropy.random.choice(present).announcement.address)

    def acquaint(self, link: Link) -> None:
        """Somebody of another tree: make sure that each side hears of the other."""
        member = self._detector.get(link.peer.node_id)
        if member is None or not self._hears(member, self._clock.seconds()):
            self.exchange(link)

    def _seek(self) -> None:
        known = {member.announcement.address for member in self._detector.members() if member.present}
        for seed in self._seeds:
            if seed != self._me.address and seed not in known:
                self._approach(seed)

    def _approach(self, address: str) -> None:
        def failed(failure: Failure) -> None:
            _log.debug("{address} is not reached: {why}", address=address, why=failure.getErrorMessage())
            failure.trap(CloudMyTaskError)

        self._pool.get(address).addCallbacks(self.exchange, failed).addErrback(
            lambda failure: _log.failure("an exchange failed", failure=failure)
        )

    def _send(self, link: Link, messages: Sequence[BusMessage]) -> None:
        lightly(link.relay(messages))
