"""What a CSU asks of the world: the same as a node, less scripts and load, and another store.

Invariant: protocols and the values that cross them only, no logic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from attrs import field, frozen
from twisted.internet.defer import Deferred

from cloudmytask.boundaries.peers import Bus, Links
from cloudmytask.boundaries.world import Clock, Entropy, WallClock
from cloudmytask.model.cluster import LoadSample, NodeId, Role, Standing


@frozen
class SeenInstance:
    """An entry of the registry: an instance that was ever in the cluster. Times are UTC seconds of the CSU's clock."""

    node_id: NodeId
    role: Role
    name: str
    address: str
    version: str
    standing: Standing
    first_seen: float
    last_seen: float


@frozen
class Supervision:
    """What a CSU's store held when it was opened."""

    node_id: str
    boots: int
    """How often this state was opened, this time included; already on disk."""
    instances: tuple[SeenInstance, ...] = ()
    memory: Mapping[str, str] = field(factory=dict)
    """What :meth:`SupervisionStore.remember` kept."""


class SupervisionStore(Protocol):
    """Durable memory of a CSU. A fired Deferred means: it survives power loss. Each may fail with ``StoreFailed``."""

    def recover(self) -> Supervision:
        """Called once, before anything else; may block."""

    def remember(self, key: str, text: str) -> Deferred[None]:
        """Keep a text; the last one under a key counts."""

    def record(self, samples: Sequence[LoadSample], instances: Sequence[SeenInstance]) -> Deferred[None]:
        """Keep samples of the load, and the present state of some instances."""

    def samples(self, since: float, until: float, limit: int) -> Deferred[tuple[LoadSample, ...]]:
        """The samples of a stretch of time (UTC seconds), oldest first; where they are more than ``limit``, fewer that
        cover all of it: of each node the last one of each of equal parts."""

    def prune(self, before: float, instances: int) -> Deferred[None]:
        """Forget samples older than ``before``, and the instances that were seen last so long ago that more than
        ``instances`` are left without them."""

    def close(self) -> Deferred[None]:
        """Flush and close; nothing may be called afterwards."""


@frozen
class SupervisionWorld:
    """Everything that comes into a CSU from outside."""

    clock: Clock
    wall: WallClock
    entropy: Entropy
    store: SupervisionStore
    bus: Bus
    links: Links
