"""The blacklist as every instance holds it: the cluster's bans, and those of this instance alone.

A node that is abused bans the client here, for a short term; only an administrator, or a CSU to which two nodes
reported the client, makes a ban of the cluster. So one rogue node keeps nobody out but of itself.

Invariant: what is in force here is in force at once, and on disk a moment later; a ban that was told to anybody as
accepted is on disk. Entries that leave through this class have in ``until`` the seconds that remain.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from cloudmytask.boundaries import Clock, Link, WallClock
from cloudmytask.codec.ban_list import bans_from_text, bans_to_text
from cloudmytask.core.admission import check_client
from cloudmytask.core.ban_checks import check_reason, check_term, sound
from cloudmytask.core.bans import BanList, arriving, leaving, sentence
from cloudmytask.listeners import Listeners
from cloudmytask.model.cluster import Ban, NodeId
from cloudmytask.model.errors import Banned, InvalidArgument
from cloudmytask.model.job import ClientId

_log = Logger()

KEY = "bans"
"""Under which the store remembers the list."""
LOCAL_TERM = 600.0
"""Seconds of a ban by a single node."""
PAGE = 100
"""Entries in one message; it has room for so many of the largest."""

Remember = Callable[[str, str], Deferred[None]]
"""``JobStore.remember``, or the like."""


@define(eq=False)
class Blacklist:
    """The bans in force here, and those that were lifted. :meth:`recall` first."""

    _node_id: NodeId
    _name: str
    _clock: Clock
    _wall: WallClock
    _remember: Remember
    _shared: BanList = field(init=False, factory=BanList)
    _own: BanList = field(init=False, factory=BanList)
    changes: Listeners[[Sequence[Ban], Link | None]] = field(init=False, factory=Listeners)
    """Told of every new entry of the cluster's list, a lifted one too, and over which link it came."""
    enforced: Listeners[[Ban]] = field(init=False, factory=Listeners)
    """Told of every ban that comes into force here, the cluster's or this instance's."""
    _saving: bool = field(init=False, default=False)
    _unsaved: list[Deferred[None]] = field(init=False, factory=list)
    _page: int = field(init=False, default=0)

    def recall(self, text: str | None) -> None:
        """Take up what an earlier life remembered; a list that has rotted is logged, and the peers send it again."""
        if text is None:
            return
        now = self._clock.seconds()
        try:
            shared, own = bans_from_text(text, now, self._wall())
        except ValueError as error:
            _log.error("the remembered list of bans cannot be read: {reason}", reason=str(error))
            return
        for entries, bans in ((self._shared, shared), (self._own, own)):
            for ban, known_until in bans:
                entries.recall(ban, known_until, now)

    @property
    def digest(self) -> str:
        """For the announcement."""
        return self._shared.digest(self._clock.seconds())

    def in_force(self, client: ClientId) -> Ban | None:
        """The ban that ``client`` is under here: the cluster's, or else this instance's."""
        now = self._clock.seconds()
        ban = self._shared.in_force(client, now) or self._own.in_force(client, now)
        return None if ban is None else leaving(ban, now)

    def why(self, client: ClientId) -> str:
        """The sentence for ``client``; empty if it is not banned."""
        ban = self.in_force(client)
        return "" if ban is None else sentence(ban, 0.0)

    def check(self, client: ClientId) -> None:
        """Check that the client may be served.

        :raises Banned: the sentence says why, by whom, and for how long still.
        """
        if why := self.why(client):
            raise Banned(why)

    def bans(self) -> tuple[Ban, ...]:
        """All in force here, in the order of their clients."""
        now = self._clock.seconds()
        found = {
            ban.client: ban for entries in (self._own, self._shared) for ban in entries.current(now) if not ban.lifted
        }
        return tuple(leaving(ban, now) for _, ban in sorted(found.items()))

    def ban(self, by: ClientId, client: ClientId, reason: str, term: float) -> Deferred[Ban]:
        """An administrator's wish; fires when it is durable. See ``ClusterDoor.ban``.

        :raises InvalidArgument, Banned: ``by`` bans itself, or is banned.
        """
        self.check(by)
        if by == client:
            raise InvalidArgument(f"client: {client} would ban itself")
        check_client(client)
        now = self._clock.seconds()
        ban = self._shared.ban(client, check_reason(reason), by, check_term(term), self._node_id, now, admin=True)
        return self._decided(ban)

    def ban_everywhere(self, client: ClientId, reason: str, reporters: tuple[str, ...], term: float) -> Ban:
        """A CSU's decision, upon the word of ``reporters`` (names of nodes)."""
        now = self._clock.seconds()
        ban = self._shared.ban(client, reason, self._name, term, self._node_id, now, admin=False, reporters=reporters)
        self._tell((ban,), None)
        self._save_soon()
        return leaving(ban, now)

    def ban_here(self, client: ClientId, reason: str) -> Ban:
        """Ban at this instance only, for :data:`LOCAL_TERM`; nobody else hears of it from the list."""
        now = self._clock.seconds()
        names = (self._name,)
        ban = self._own.ban(client, reason, self._name, LOCAL_TERM, self._node_id, now, admin=False, reporters=names)
        _log.warn(
            "client {client} is banned here for {term:g} s: {reason}", client=client, term=LOCAL_TERM, reason=reason
        )
        self._save_soon()
        self._enforce(ban)
        return leaving(ban, now)

    def lift(self, by: ClientId, client: ClientId) -> Deferred[Ban]:
        """End the cluster's ban and this instance's; fires when that is durable. See ``ClusterDoor.lift_ban``.

        :raises NoSuchBan: there is none; Banned: ``by`` is banned itself.
        """
        self.check(by)
        now = self._clock.seconds()
        own = self._own.in_force(client, now)
        if own is not None:
            own = self._own.lift(client, by, self._node_id, now)
        if own is not None and self._shared.in_force(client, now) is None:
            _log.info("{by} lifted this instance's ban of client {client}", by=by, client=client)
            return self._save().addCallback(lambda _: leaving(own, now))
        return self._decided(self._shared.lift(client, by, self._node_id, now))

    def take(self, bans: Sequence[Ban], source: Link | None = None) -> tuple[Ban, ...]:
        """Merge what a peer holds, but for entries that make no sense; what was new."""
        now = self._clock.seconds()
        news = self._shared.merge([arriving(ban, now) for ban in sound(bans, _refuse)], now)
        if news:
            self._tell(news, source)
            self._save_soon()
        return tuple(leaving(ban, now) for ban in news)

    def answer(self, bans: Sequence[Ban], source: Link | None = None) -> tuple[Ban, ...]:
        """``PeerDoor.bans_exchanged``: of the clients in ``bans`` what we know better; given none, all that we have,
        or, where that is more than one message holds, another part of it each time."""
        now = self._clock.seconds()
        if not bans:
            found = self._shared.current(now)
            start = self._page if self._page < len(found) else 0
            self._page = start + PAGE
            return tuple(leaving(ban, now) for ban in found[start : start + PAGE])
        better = self._shared.better(bans, now)
        self.take(bans, source)
        return tuple(leaving(ban, now) for ban in better[:PAGE])

    def beyond(self, bans: Sequence[Ban]) -> tuple[Ban, ...]:
        """The entries that are missing in ``bans``, or there in an older version only."""
        now = self._clock.seconds()
        theirs = {ban.client: ban.version.key() for ban in bans}
        found = (ban for ban in self._shared.current(now) if theirs.get(ban.client, (0, False, "")) < ban.version.key())
        return tuple(leaving(ban, now) for ban in found)

    def _decided(self, ban: Ban) -> Deferred[Ban]:
        self._tell((ban,), None)
        return self._save().addCallback(lambda _: leaving(ban, self._clock.seconds()))

    def _tell(self, news: Sequence[Ban], source: Link | None) -> None:
        now = self._clock.seconds()
        for ban in news:
            _log.info(
                "client {client} {verb} by {by}: {reason}",
                client=ban.client,
                verb="is no longer banned, lifted" if ban.lifted else "is banned in the cluster",
                by=ban.by,
                reason=ban.reason,
            )
            if not ban.lifted:
                self._enforce(ban)
            elif self._own.in_force(ban.client, now) is not None:
                # an administrator who lifts the cluster's ban wants the client served here as well
                self._own.lift(ban.client, ban.by, self._node_id, now)
        self.changes.tell(tuple(leaving(ban, now) for ban in news), source)

    def _enforce(self, ban: Ban) -> None:
        self.enforced.tell(leaving(ban, self._clock.seconds()))

    def _save_soon(self) -> None:
        self._save().addErrback(lambda failure: _log.failure("the list of bans could not be stored", failure))

    def _save(self) -> Deferred[None]:
        """Fires when all that the lists hold now is durable."""
        waiter: Deferred[None] = Deferred()
        self._unsaved.append(waiter)
        if not self._saving:
            self._write()
        return waiter

    def _write(self) -> None:
        self._saving = True
        waiters, self._unsaved = self._unsaved, []
        now = self._clock.seconds()
        text = bans_to_text(self._shared.remembered(), self._own.remembered(), now, self._wall())
        self._remember(KEY, text).addBoth(self._written, waiters)

    def _written(self, result: Failure | None, waiters: Sequence[Deferred[None]]) -> None:
        self._saving = False
        if self._unsaved:
            self._write()
        for waiter in waiters:
            if isinstance(result, Failure):
                waiter.errback(result)
            else:
                waiter.callback(None)


def _refuse(why: str) -> None:
    _log.warn("an entry of a peer's list of bans is not taken: {why}", why=why)
