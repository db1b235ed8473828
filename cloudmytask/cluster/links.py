"""The links that this instance has, by the node at the other end; either end may have dialed.

Invariant: callers who want the same link at the same time share one dial, and each of them gets an answer within
``DIAL_TIMEOUT``. A link that is gone is never handed out. Of two ends that dial at once both links stay. A link that
neither end has used for a while nor depends on is closed, by agreement, and its end is no reason to suspect anybody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from attrs import Factory, define, field
from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from cloudmytask.boundaries import Clock, DelayedCall, Link, Links
from cloudmytask.listeners import Listeners
from cloudmytask.model.cluster import BootId, Capacity, NodeId, PeerIdentity
from cloudmytask.model.errors import (
    CloudMyTaskError,
    ConnectionInterrupted,
    ForeignCluster,
    NodeDraining,
    NoNode,
    NoSuchNode,
    NotPermitted,
    RequestTimeout,
)
from cloudmytask.periodic import Periodic, every

_log = Logger()

DIAL_TIMEOUT = 5.0
"""Seconds after which a peer that takes the connection and says nothing is given up."""
BEAT = 1.0
"""Seconds between two questions whether the other end of a held link is still there."""
BEAT_PATIENCE = 0.5
"""Seconds for each answer."""
MISSED_MAX = 3
"""Questions without an answer after which a held link is closed."""
IDLE = 300.0
"""Seconds after which a link that nobody uses is closed."""
LINKS_MAX = 200
"""Links beyond which it is :data:`IDLE_CROWDED` seconds: a connection costs a descriptor at both ends."""
IDLE_CROWDED = 10.0
LOOK = 10.0
"""Seconds between two looks for such links."""


@define(eq=False)
class _Open:
    link: Link
    missed: int = 0
    retiring: bool = False
    """It is not handed out any more, and its end is no loss."""

    @property
    def usable(self) -> bool:
        return self.link.alive and not self.retiring

    @property
    def depended_on(self) -> bool:
        """Whether somebody here follows something over it, or waits for an answer. One of those who are told of its end
        is the pool."""
        return self.link.waiting or len(self.link.gone) > 1


@define(eq=False)
class LinkPool:
    """Keeps the open links and dials new ones. ``start`` begins the beats."""

    _clock: Clock
    _links: Links
    _me: PeerIdentity
    find: Callable[[NodeId], str | None] = field(default=lambda _node_id: None)
    """The address of a node, as announced; the roster's knowledge."""
    _open: dict[NodeId, list[_Open]] = field(init=False, default=Factory(dict))
    _dialing: dict[str, list[Deferred[Link]]] = field(init=False, default=Factory(dict))
    _held: set[NodeId] = field(init=False, default=Factory(set))
    linked: Listeners[[NodeId]] = field(init=False, default=Factory(Listeners))
    """Told of each new link."""
    lost: Listeners[[NodeId]] = field(init=False, default=Factory(Listeners))
    """Told when the last link to a node is lost; not of what was closed here, or by agreement."""
    answered: Listeners[[NodeId, BootId, Capacity]] = field(init=False, default=Factory(Listeners))
    """Told of each answer to a beat."""
    _series: list[Periodic] = field(init=False, default=Factory(list))
    _closed: bool = field(init=False, default=False)

    def start(self) -> None:
        """Begin the beats over held links, and to close idle ones."""
        self._series = [every(self._clock, BEAT, self._beat), every(self._clock, LOOK, self._retire_idle)]

    def close(self) -> None:
        """Close every link, dial no more; callers who wait are told so."""
        self._closed = True
        for series in self._series:
            series.stop()
        for entries in list(self._open.values()):
            for entry in list(entries):
                entry.link.close()
        self._open.clear()

    def live(self, node_id: NodeId) -> Link | None:
        """The newest link to that node that is not gone."""
        entry = self._newest(node_id)
        return None if entry is None else entry.link

    def get(self, where: str) -> Deferred[Link]:
        """A link to a node, by its id or its ``HOST:PORT``; an existing one if there is one.

        Fails with ``NoSuchNode`` if nothing is known of that id, ``NoNode`` if nobody or somebody else is there, or
        the reason why the other end does not accept us.
        """
        if ":" in where:
            known = next((node_id for node_id in self._open if self._is_at(node_id, where)), None)
            live = self.live(known) if known is not None else None
            return succeed(live) if live is not None else self.dial(where)
        node_id = NodeId(where)
        live = self.live(node_id)
        if live is not None:
            return succeed(live)
        address = self.find(node_id)
        if address is None:
            return fail(NoSuchNode(f"no node {where} is known here"))

        def is_meant(link: Link) -> Link:
            if link.peer.node_id != node_id:
                raise NoNode(f"at {address} there is {link.peer.name}, not the node that was looked for")
            return link

        return self.dial(address).addCallback(is_meant)

    def dial(self, address: str) -> Deferred[Link]:
        """A new link to the instance at ``HOST:PORT``."""
        if self._closed:
            return fail(ConnectionInterrupted("this instance is shutting down"))
        waiter: Deferred[Link] = Deferred()
        waiting = self._dialing.get(address)
        if waiting is not None:
            waiting.append(waiter)
            return waiter
        waiting = self._dialing[address] = [waiter]
        # A caller who gives up waiting does not stop the dial: others may wait for it.
        timer = self._clock.callLater(
            DIAL_TIMEOUT, self._dialed, address, waiting, None, RequestTimeout(f"{address} did not answer in time")
        )
        self._links.connect(address).addCallbacks(
            lambda link: self._connected(address, waiting, timer, link),
            lambda failure: self._failed(address, waiting, timer, failure),
        ).addErrback(lambda failure: _log.failure("a new link could not be taken up", failure=failure))
        return waiter

    def welcome(self, link: Link) -> None:
        """There is a new link, dialed by either end; one that is known already is not taken twice.

        :raises ForeignCluster: the peer is not of our cluster. :raises NotPermitted: it claims to be us.
        """
        peer = link.peer
        if any(entry.link is link for entry in self._open.get(peer.node_id, ())):
            return
        if peer.cluster != self._me.cluster:
            raise ForeignCluster(f"{peer.name} belongs to cluster {peer.cluster!r}, this is {self._me.cluster!r}")
        if peer.node_id == self._me.node_id:
            raise NotPermitted(f"{peer.name} at {peer.address} has the node id of {self._me.name}")
        if self._closed:
            raise NodeDraining(f"{self._me.name} is shutting down")
        entry = _Open(link)
        self._open.setdefault(peer.node_id, []).append(entry)
        self.linked.tell(peer.node_id)
        link.gone.add(lambda: self._gone(peer.node_id, entry))

    def hold(self, node_ids: Iterable[NodeId]) -> None:
        """Ask over the links to exactly these nodes, again and again, whether they are there."""
        self._held = set(node_ids)

    def retired(self, link: Link) -> bool:
        """The other end does not need a link any more; whether nobody here does. Then it is handed out no more."""
        node_id = link.peer.node_id
        entry = next((entry for entry in self._open.get(node_id, ()) if entry.link is link), None)
        if entry is None:
            return True
        entry.retiring = entry.retiring or not self._needs(node_id, entry)
        return entry.retiring

    def close_links(self, node_id: NodeId) -> None:
        """Close all links to a node that is known to be gone."""
        for entry in list(self._open.get(node_id, ())):
            entry.link.close()
            self._gone(node_id, entry)

    def _is_at(self, node_id: NodeId, address: str) -> bool:
        return any(entry.usable and entry.link.peer.address == address for entry in self._open[node_id])

    def _connected(self, address: str, waiting: list[Deferred[Link]], timer: DelayedCall, link: Link) -> None:
        if timer.active():
            timer.cancel()
        try:
            self.welcome(link)
        except CloudMyTaskError as error:
            link.close()
            self._dialed(address, waiting, None, error)
        else:
            self._dialed(address, waiting, link, None)

    def _failed(self, address: str, waiting: list[Deferred[Link]], timer: DelayedCall, failure: Failure) -> None:
        if timer.active():
            timer.cancel()
        if not isinstance(failure.value, CloudMyTaskError):
            _log.failure("dialing {address} failed", failure=failure, address=address)
        self._dialed(address, waiting, None, failure.value)

    def _dialed(
        self, address: str, waiting: list[Deferred[Link]], link: Link | None, error: BaseException | None
    ) -> None:
        if self._dialing.get(address) is waiting:
            del self._dialing[address]
        waiters, waiting[:] = list(waiting), []
        for waiter in waiters:
            if waiter.called:
                continue  # it was cancelled
            if link is not None:
                waiter.callback(link)
            else:
                assert error is not None
                waiter.errback(error)

    def _gone(self, node_id: NodeId, entry: _Open) -> None:
        entries = self._open.get(node_id)
        if entries is None or entry not in entries:
            return
        entries.remove(entry)
        if not entries:
            del self._open[node_id]
            if not self._closed and not entry.retiring:
                self.lost.tell(node_id)

    def _beat(self) -> None:
        for node_id in sorted(self._held):
            entry = self._newest(node_id)
            if entry is not None:
                self._ask(node_id, entry)

    def _newest(self, node_id: NodeId) -> _Open | None:
        return next((entry for entry in reversed(self._open.get(node_id, ())) if entry.usable), None)

    def _needs(self, node_id: NodeId, entry: _Open) -> bool:
        return entry.depended_on or (node_id in self._held and entry is self._newest(node_id))

    def _retire_idle(self) -> None:
        patience = IDLE if sum(map(len, self._open.values())) <= LINKS_MAX else IDLE_CROWDED
        for node_id, entries in list(self._open.items()):
            for entry in [each for each in entries if each.link.idle >= patience]:
                if entry.retiring:
                    entry.link.close()  # the other end said that it would, and is gone
                elif not self._needs(node_id, entry):
                    self._retire(entry)

    def _retire(self, entry: _Open) -> None:
        entry.retiring = True

        def answered(agreed: bool) -> None:
            entry.retiring = agreed
            if agreed:
                entry.link.close()

        def failed(failure: Failure) -> None:
            failure.trap(CloudMyTaskError)
            entry.retiring = False
            entry.link.close()  # a peer that does not answer this question may be gone

        entry.link.retire().addCallbacks(answered, failed).addErrback(
            lambda failure: _log.failure("an idle link could not be closed", failure=failure)
        )

    def _ask(self, node_id: NodeId, entry: _Open) -> None:
        def answered(capacity: Capacity) -> None:
            entry.missed = 0
            self.answered.tell(node_id, entry.link.peer.boot_id, capacity)

        def missed(failure: Failure) -> None:
            failure.trap(CloudMyTaskError)
            entry.missed += 1
            if entry.missed >= MISSED_MAX:
                _log.info("{peer} does not answer any more", peer=entry.link.peer.name)
                entry.link.close()
                self._gone(node_id, entry)

        entry.link.ping(BEAT_PATIENCE).addCallbacks(answered, missed).addErrback(
            lambda failure: _log.failure("a beat over a link failed", failure=failure)
        )
