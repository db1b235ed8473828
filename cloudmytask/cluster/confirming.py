"""Asks one instance, over a link, whether it lives.

Invariant: an answer comes within ``TRIES * PATIENCE`` seconds, however the other end behaves.
"""

from __future__ import annotations

import enum
from typing import cast

from attrs import frozen
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from cloudmytask.boundaries import Clock
from cloudmytask.cluster.links import LinkPool
from cloudmytask.deferreds import NO_ANSWER, patiently
from cloudmytask.model.cluster import Announcement, NodeId, PeerIdentity, Pulse
from cloudmytask.model.errors import NoNode

TRIES = 3
PATIENCE = 0.5 / TRIES
"""Seconds for each try."""


class Liveness(enum.Enum):
    """What came of the question."""

    LIVES = enum.auto()
    GONE = enum.auto()
    """Nothing listens at its address, or another boot does."""
    SILENT = enum.auto()


@frozen
class Finding:
    """What came of the question; of one that lives, who it is, and what it said."""

    liveness: Liveness
    peer: PeerIdentity | None = None
    pulse: Pulse | None = None


async def ask(clock: Clock, pool: LinkPool, node_id: NodeId, last: Announcement) -> Finding:
    """Ping over the link that there is; if that stays silent over a new one, since the old one's other end may be gone
    without a word.

    :param last: the announcement of the instance that is meant; another boot of it does not count.
    """
    link = pool.live(node_id)
    if link is not None and link.peer.boot_id != last.boot_id:
        link = None  # to the life before, or to one that is later than this word
    for _ in range(TRIES):
        started = clock.seconds()
        try:
            if link is None:
                link = await patiently(clock, PATIENCE, pool.dial(last.address))
            if (link.peer.node_id, link.peer.boot_id) != (node_id, last.boot_id):
                return Finding(Liveness.GONE)
            pulse = await link.ping(PATIENCE)
        except NoNode:
            return Finding(Liveness.GONE)
        except NO_ANSWER:
            link = None
            rest = max(0.0, started + PATIENCE - clock.seconds())
            await deferLater(cast(IReactorTime, clock), rest)  # it uses no more of it than our Clock has
        else:
            return Finding(Liveness.LIVES, link.peer, pulse)
    return Finding(Liveness.SILENT)
