"""The ban list of the cluster: who is banned, why, by whom, until when; the same at every instance in the end.

Of two entries about one client the one with the greater version wins. A ban that was lifted stays as an entry until its
term ends, so that an older copy, from behind a partition, cannot bring it back.

Invariant: merging is commutative, associative and idempotent, so that lists that exchanged their entries in any
order are equal. Every ban ends: a merge never moves the end of an entry to a later moment. No entry is beyond being
outdone: what counts further than :data:`STEP` beyond all that is known is not taken.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from heapq import heappop, heappush, nsmallest

from attrs import define, evolve, field

from cloudmytask.core.units import show_duration
from cloudmytask.model.cluster import Ban, BanVersion, NodeId
from cloudmytask.model.errors import NoSuchBan
from cloudmytask.model.job import ClientId

ENTRIES_MAX = 1000
"""Clients on one list. Beyond, those with the oldest versions are dropped."""
ROOM = 2**32
"""No cluster decides as often in good faith: up to here any counter may be the first that is heard of."""
STEP = 2**20
"""By how much an entry may go beyond the greatest counter that is known, or beyond :data:`ROOM`."""
DIGEST_BITS = 64
"""The digest is for comparing friends' lists; nobody can gain by a collision."""


def sentence(ban: Ban, now: float) -> str:
    """What the client is told."""
    left = show_duration(max(0.0, ban.until - now))
    return f"client {ban.client} is banned by {ban.by} for another {left}: {ban.reason}"


def leaving(ban: Ban, now: float) -> Ban:
    """The entry as it travels: ``until`` is seconds that remain."""
    return evolve(ban, until=max(0.0, ban.until - now))


def arriving(ban: Ban, now: float) -> Ban:
    """An entry that came in, on our clock. It cannot last longer than its whole term."""
    return evolve(ban, until=now + min(max(0.0, ban.until), ban.term))


@define
class _ListedBan:
    ban: Ban
    known_until: float
    """The latest end of any version that was here. Until then an older copy may turn up, and must not win."""
    listed: bool = True
    """Whether its term runs, so that it counts in the digest."""


@define(eq=False)
class BanList:
    """Entries by client. ``now`` is the moment on the holder's own clock, which never goes back."""

    _limit: int = ENTRIES_MAX
    _entries: dict[ClientId, _ListedBan] = field(init=False, factory=dict)
    _sum: int = field(init=False, default=0)
    _ends: list[tuple[float, ClientId]] = field(init=False, factory=list)

    def merge(self, bans: Iterable[Ban], now: float) -> tuple[Ban, ...]:
        """Take in entries of others; those that told us something new, as they are held from now on."""
        self._expire(now)
        bans = tuple(bans)
        # the lowest first, so that within one message each may be a step beyond the one before
        merged = {ban for ban in sorted(bans, key=lambda ban: ban.version.counter) if self._merge(ban, now)}
        news = [ban for ban in bans if ban in merged]
        self._bound()
        held = (self._entries.get(client) for client in dict.fromkeys(ban.client for ban in news))
        return tuple(entry.ban for entry in held if entry is not None)

    def _merge(self, ban: Ban, now: float) -> bool:
        if ban.version.counter > ROOM + STEP and ban.version.counter > self._newest() + STEP:
            return False
        entry = self._entries.get(ban.client)
        if entry is None:
            if ban.until > now:
                self._put(ban, ban.until, now)
            return ban.until > now
        entry.known_until = known_until = max(entry.known_until, ban.until)
        if _order(ban) <= _order(entry.ban):
            return False
        self._put(ban, known_until, now)
        return _content(ban) != _content(entry.ban)

    def ban(
        self,
        client: ClientId,
        reason: str,
        by: str,
        term: float,
        node_id: NodeId,
        now: float,
        *,
        admin: bool,
        reporters: tuple[str, ...] = (),
    ) -> Ban:
        """A new ban of ``term`` seconds; it takes the place of the one that there is.

        :param by: who decided; ``node_id``: the instance where that happened.
        """
        self._expire(now)
        entry = self._entries.get(client)
        counter = 1 + (entry.ban.version.counter if entry is not None else self._newest())
        ban = Ban(client, reason, by, term, now + term, BanVersion(counter, admin, node_id), reporters=reporters)
        self._put(ban, max(ban.until, entry.known_until if entry is not None else 0.0), now)
        self._bound()
        return ban

    def lift(self, client: ClientId, by: str, node_id: NodeId, now: float) -> Ban:
        """End a ban before its time, as only administrators do; the entry that says so.

        :raises NoSuchBan: there is none in force.
        """
        found = self.in_force(client, now)
        if found is None:
            raise NoSuchBan(f"client {client} is not banned")
        version = BanVersion(found.version.counter + 1, True, node_id)
        lifted = evolve(found, by=by, version=version, lifted=True)
        self._put(lifted, self._entries[client].known_until, now)
        return lifted

    def in_force(self, client: ClientId, now: float) -> Ban | None:
        """The ban that ``client`` is under, if any."""
        entry = self._entries.get(client)
        return None if entry is None or entry.ban.lifted or entry.ban.until <= now else entry.ban

    def current(self, now: float) -> tuple[Ban, ...]:
        """All entries whose term runs, lifted ones too, in the order of their clients."""
        self._expire(now)
        return tuple(entry.ban for _, entry in sorted(self._entries.items()) if entry.listed)

    def better(self, bans: Iterable[Ban], now: float) -> tuple[Ban, ...]:
        """What this list knows better than ``bans`` about their clients."""
        self._expire(now)
        pairs = ((ban, self._entries.get(ban.client)) for ban in bans)
        return tuple(
            entry.ban for ban, entry in pairs if entry is not None and entry.ban.version.key() > ban.version.key()
        )

    def remembered(self) -> tuple[tuple[Ban, float], ...]:
        """All that is worth keeping: entries, and until when each is needed."""
        return tuple((entry.ban, entry.known_until) for _, entry in sorted(self._entries.items()))

    def recall(self, ban: Ban, known_until: float, now: float) -> None:
        """Take up again what was kept; before any merge."""
        if known_until > now:
            self._put(ban, known_until, now)
            self._bound()

    def digest(self, now: float) -> str:
        """Equal for lists that hold the same versions by any clock; empty for an empty list."""
        self._expire(now)
        return f"{self._sum:0{DIGEST_BITS // 4}x}" if self._sum else ""

    def _put(self, ban: Ban, known_until: float, now: float) -> None:
        self._forget(ban.client)
        listed = ban.until > now
        self._entries[ban.client] = _ListedBan(ban, known_until, listed)
        if listed:
            self._count(ban, 1)
        heappush(self._ends, (ban.until if listed else known_until, ban.client))

    def _forget(self, client: ClientId) -> None:
        entry = self._entries.pop(client, None)
        if entry is not None and entry.listed:
            self._count(entry.ban, -1)

    def _count(self, ban: Ban, sign: int) -> None:
        # a sum takes entries in any order, and gives each back
        text = "\0".join((ban.client, *map(str, ban.version.key()), str(ban.lifted)))
        part = hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()[: DIGEST_BITS // 8]
        self._sum = (self._sum + sign * int.from_bytes(part)) % 2**DIGEST_BITS

    def _expire(self, now: float) -> None:
        while self._ends and self._ends[0][0] <= now:
            _, client = heappop(self._ends)
            entry = self._entries.get(client)
            if entry is None:
                continue
            if entry.listed and entry.ban.until <= now:
                entry.listed = False
                self._count(entry.ban, -1)
            if entry.known_until <= now:
                self._forget(client)
            elif not entry.listed:
                heappush(self._ends, (entry.known_until, client))

    def _bound(self) -> None:
        excess = len(self._entries) - self._limit
        if excess > 0:
            for client in nsmallest(excess, self._entries, lambda client: (_order(self._entries[client].ban), client)):
                self._forget(client)

    def _newest(self) -> int:
        # new entries rank above all others, so that a full list drops the oldest
        return max((entry.ban.version.counter for entry in self._entries.values()), default=0)


def _content(ban: Ban) -> tuple[tuple[int, bool, str], bool, str, str, float, tuple[str, ...]]:
    return (ban.version.key(), ban.lifted, ban.reason, ban.by, ban.term, ban.reporters)


def _order(ban: Ban) -> tuple[tuple[int, bool, str], bool, str, str, float, tuple[str, ...], float]:
    """A total order: two versions are alike only by somebody's mistake, but must not part two lists for ever. Of equal
    entries the one that ends earlier wins, so that no delay on the way adds up."""
    return (*_content(ban), -ban.until)
