"""Answers what clients ask of the cluster, for a node and a CSU alike.

Invariant: whoever is not on this machine may look but changes no ban: until certificates tell administrators from
others, working here is what makes one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_address
from typing import Any, TypeVar

from attrs import define, evolve
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred

from cloudmytask.boundaries import ClusterDoor
from cloudmytask.codec import encode
from cloudmytask.core.admission import NOTE_MAX, check_client, check_duration
from cloudmytask.model.cluster import Ban, BanPage, LoadSample
from cloudmytask.model.errors import InvalidArgument, NotPermitted
from cloudmytask.model.job import ClientId
from cloudmytask.wire import commands

T = TypeVar("T")

PAGE = 150
"""Instances or bans in one answer; with the longest of everything they still fit."""
SAMPLES_MAX = 2000
"""Points of the history in one answer."""


@define(eq=False)
class ClusterResponders:
    """The responders of one connection.

    :ivar identified: the client of the connection; raises ``HelloRequired`` before there is one.
    :ivar peer: the address of the other end, as a transport's ``getPeer`` tells it.
    """

    _door: ClusterDoor
    _identified: Callable[[], ClientId]
    _peer: Callable[[], object]

    def responders(self) -> Mapping[type[commands.NodeCommand], Callable[..., object]]:
        """For a :class:`~cloudmytask.wire.guard.Vocabulary`."""
        return {
            commands.DescribeCluster: self.cluster,
            commands.ListBans: self.bans,
            commands.AddBan: self.ban,
            commands.LiftBan: self.lift_ban,
            commands.LoadHistory: self.history,
        }

    def cluster(self, after: str | None) -> dict[str, Any]:
        """A page of all instances."""
        self._identified()
        view = self._door.cluster()
        members, following = _page(view.members, lambda member: member.announcement.node_id, after)
        return {"cluster": {**encode(evolve(view, members=members)), "next": following}}

    def bans(self, after: str | None) -> dict[str, Any]:
        """A page of the bans in force."""
        self._identified()
        bans, following = _page(self._door.bans(), lambda ban: ban.client, after)
        return {"page": encode(BanPage(bans, following))}

    def ban(self, client: str, reason: str, term: float) -> Deferred[dict[str, Any]]:
        """An administrator bans a client."""
        by = self._administrator()
        if not (reason.strip() and reason.isprintable() and len(reason) <= NOTE_MAX):
            raise InvalidArgument(f"reason: {reason[:60]!r} is not 1 to {NOTE_MAX} printable characters")
        check_duration("term", term)
        return self._door.ban(by, check_client(client), reason, term).addCallback(_ban_answer)

    def lift_ban(self, client: str) -> Deferred[dict[str, Any]]:
        """An administrator ends a ban."""
        by = self._administrator()
        return self._door.lift_ban(by, check_client(client)).addCallback(_ban_answer)

    def history(self, seconds: float) -> Deferred[dict[str, Any]]:
        """The load of all nodes over time."""
        self._identified()
        check_duration("seconds", seconds)
        return self._door.history(seconds).addCallback(
            lambda samples: {"history": {"samples": [encode(each) for each in thinned(samples)]}}
        )

    def _administrator(self) -> ClientId:
        """:raises NotPermitted: the client is not on this machine."""
        client, peer = self._identified(), self._peer()
        if not is_local(peer):
            where = getattr(peer, "host", "elsewhere")
            raise NotPermitted(
                f"bans are made and lifted on the machine of a node or CSU, and {client} is connected from {where}"
            )
        return client


def is_local(peer: object) -> bool:
    """Whether the other end of a connection is on this machine: a unix socket, or a loopback address."""
    if isinstance(peer, UNIXAddress):
        return True
    if not isinstance(peer, IPv4Address | IPv6Address):
        return False
    try:
        address = ip_address(peer.host)
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def thinned(samples: Sequence[LoadSample], limit: int = SAMPLES_MAX) -> Sequence[LoadSample]:
    """At most ``limit`` samples that still cover the whole time, of each node the last one of each of as many equal
    stretches as there is room for; of too many nodes the newest samples."""
    if len(samples) <= limit:
        return samples
    stretches = max(1, limit // len({each.node for each in samples}))
    begin, end = samples[0].at, samples[-1].at
    width = (end - begin) / stretches or 1.0
    last = {(each.node, min(stretches - 1, int((each.at - begin) / width))): each for each in samples}
    return sorted(last.values(), key=lambda each: each.at)[-limit:]


def _page(items: Sequence[T], key: Callable[[T], str], after: str | None) -> tuple[tuple[T, ...], str | None]:
    """The next items by their keys, and the key to go on after; None if these are the last."""
    rest = sorted((each for each in items if after is None or key(each) > after), key=key)
    page = tuple(rest[:PAGE])
    return page, key(page[-1]) if len(rest) > PAGE else None


def _ban_answer(ban: Ban) -> dict[str, Any]:
    return {"ban": encode(ban)}
