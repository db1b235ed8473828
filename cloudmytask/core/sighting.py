"""The overlay as the table of instances shows it: what a node goes by when it looks for a parent.

Invariant: nobody is in sight who is known to be gone, or whose link was just lost; suspects are in sight, as links of a
chain, and not to be asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from cloudmytask.core.membership import Member
from cloudmytask.core.overlay import Sight
from cloudmytask.model.cluster import NodeId, Standing


def sight(members: Iterable[Member], refused: Mapping[NodeId, float], now: float) -> Sight:
    """What ``members`` announced of the overlay.

    :param refused: until when each is not to be asked again.
    """
    known = {member.node_id: member for member in members}
    avoid = {node_id for node_id, until in refused.items() if now < until}
    positions = {}
    for node_id, member in known.items():
        tree = member.announcement.tree
        if tree is None or not member.present or member.unlinked:
            continue
        positions[node_id] = tree
        if member.standing is Standing.SUSPECT or member.announcement.draining:
            avoid.add(node_id)

    def gone(node_id: NodeId) -> bool:
        member = known.get(node_id)
        return member is not None and (not member.present or member.unlinked)

    return Sight(positions, gone, avoid)
