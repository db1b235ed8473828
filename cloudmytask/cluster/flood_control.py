"""DoS sensing at an instance: slow down, refuse, ban for a short term, report to the CSUs.

Invariant: a request that is refused has changed nothing. A client that is banned here is reported once for each ban.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field

from cloudmytask.boundaries import Clock
from cloudmytask.cluster.blacklist import Blacklist
from cloudmytask.core.rates import Rates, Verdict
from cloudmytask.core.units import show_duration
from cloudmytask.model.cluster import Ban, BanReport, NodeId
from cloudmytask.model.errors import Banned, TooManyRequests
from cloudmytask.model.job import ClientId

RETRY_MIN = 0.1
"""Seconds that a refused client is told to wait at the least."""


@define(eq=False)
class FloodControl:
    """Measures what each client asks for, and bans the one that floods.

    :ivar report: takes the report of a ban, for the CSUs.
    """

    _node_id: NodeId
    _name: str
    _clock: Clock
    _blacklist: Blacklist
    _report: Callable[[BanReport], object]
    _rates: Rates = field(factory=Rates)

    def __attrs_post_init__(self) -> None:
        # a client that was banned, or is banned no more, begins with a full allowance
        self._blacklist.enforced.add(lambda ban: self._rates.forgive(ban.client))

    def admit(self, client: ClientId, size: int) -> float:
        """See ``ClusterDoor.admit``."""
        self._blacklist.check(client)
        verdict = self._rates.request(client, size, self._clock.seconds())
        if verdict.abuse:
            raise Banned(self._ban(client, verdict))
        if verdict.retry_after is not None:
            after = show_duration(max(RETRY_MIN, verdict.retry_after))
            raise TooManyRequests(
                f"client {client} has more requests outstanding at {self._name} than are allowed;"
                f" try again in {after}, and then ask more slowly"
            )
        return verdict.delay

    def malformed(self, client: ClientId) -> None:
        """See ``ClusterDoor.malformed``."""
        verdict = self._rates.malformed(client, self._clock.seconds())
        if verdict.abuse and self._blacklist.in_force(client) is None:
            raise Banned(self._ban(client, verdict))

    def check(self, client: ClientId) -> None:
        """Nothing if the client may be served.

        :raises Banned: the client is banned here."""
        self._blacklist.check(client)

    def _ban(self, client: ClientId, verdict: Verdict) -> str:
        ban: Ban = self._blacklist.ban_here(client, verdict.abuse)
        self._report(BanReport(client, ban.reason, self._node_id, self._name, verdict.refusals))
        return self._blacklist.why(client)
