"""The registry of a CSU: every instance that was ever in the cluster.

Invariant: bounded; beyond, those are forgotten that were seen last the longest ago. What changed since it was last
written down is known.
"""

from __future__ import annotations

from collections.abc import Iterable

from attrs import define, evolve, field

from cloudmytask.boundaries.supervision import SeenInstance
from cloudmytask.model.cluster import Announcement, BootId, Capacity, MemberStatus, NodeId, Standing

INSTANCES_MAX = 10_000


@define(eq=False)
class Registry:
    """Instances by node id. ``wall`` is UTC seconds."""

    _limit: int = INSTANCES_MAX
    _seen: dict[NodeId, SeenInstance] = field(init=False, factory=dict)
    _changed: set[NodeId] = field(init=False, factory=set)

    def recall(self, instances: Iterable[SeenInstance]) -> None:
        """Take up what was written down, those seen last at the end. Nobody is thought alive before it is heard of."""
        for instance in instances:
            gone = instance.standing in (Standing.LEFT, Standing.DEAD)
            self._seen[instance.node_id] = instance if gone else evolve(instance, standing=Standing.DEAD)
        self._bound()

    def heard(self, announcement: Announcement, wall: float) -> None:
        """An instance announced itself."""
        # to the end of the order: the first one is the one not seen for the longest time
        known = self._seen.pop(announcement.node_id, None)
        self._seen[announcement.node_id] = SeenInstance(
            node_id=announcement.node_id,
            role=announcement.role,
            name=announcement.name,
            address=announcement.address,
            version=announcement.version,
            standing=Standing.LEFT if announcement.leaving else Standing.ALIVE,
            first_seen=wall if known is None else known.first_seen,
            last_seen=wall,
        )
        self._changed.add(announcement.node_id)
        self._bound()

    def stands(self, node_id: NodeId, standing: Standing) -> None:
        """What is believed of an instance."""
        known = self._seen.get(node_id)
        if known is not None and known.standing is not standing:
            self._seen[node_id] = evolve(known, standing=standing)
            self._changed.add(node_id)

    def instances(self) -> tuple[SeenInstance, ...]:
        """All, those seen last at the end."""
        return tuple(self._seen.values())

    def take_changed(self) -> tuple[SeenInstance, ...]:
        """Those that changed since this was asked last, in the order of their ids."""
        changed, self._changed = self._changed, set()
        return tuple(self._seen[node_id] for node_id in sorted(changed) if node_id in self._seen)

    def changed_again(self, instances: Iterable[SeenInstance]) -> None:
        """These could not be written down."""
        self._changed.update(instance.node_id for instance in instances)

    def _bound(self) -> None:
        while len(self._seen) > self._limit:
            del self._seen[next(iter(self._seen))]


def status_of(instance: SeenInstance, cluster: str, wall: float) -> MemberStatus:
    """An instance that nobody remembers but the registry, for people."""
    announcement = Announcement(
        cluster=cluster,
        role=instance.role,
        node_id=instance.node_id,
        boot_id=BootId(""),
        incarnation=0,
        sequence=0,
        name=instance.name,
        address=instance.address,
        interval=0.0,
        capacity=Capacity(slots=0, free=0),
        version=instance.version,
    )
    return MemberStatus(announcement, instance.standing, max(0.0, wall - instance.last_seen), linked=False)
