"""Who wants to know when one life of one instance is over: whoever has work there.

Invariant: each is told at most once, and not after it closed its vigil.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import Factory, define, field

from cloudmytask.core.membership import Member
from cloudmytask.model.cluster import BootId, NodeId


@define(eq=False)
class LifeWatch:
    """Somebody's interest; made by :meth:`Vigils.keep`."""

    _life_watches: LifeWatches
    node_id: NodeId
    boot_id: BootId
    _ended: Callable[[], None]

    def close(self) -> None:
        """No longer interested. Idempotent."""
        self._life_watches.drop(self)

    def end(self) -> None:
        """That life is over."""
        self.close()
        self._ended()


@define(eq=False)
class LifeWatches:
    """All of them, by node id."""

    _kept: dict[NodeId, list[LifeWatch]] = field(init=False, default=Factory(dict))

    def __contains__(self, node_id: NodeId) -> bool:
        return node_id in self._kept

    def keep(self, node_id: NodeId, boot_id: BootId, ended: Callable[[], None]) -> LifeWatch:
        """From now on ``ended`` is called when that boot is over."""
        vigil = LifeWatch(self, node_id, boot_id, ended)
        self._kept.setdefault(node_id, []).append(vigil)
        return vigil

    def drop(self, vigil: LifeWatch) -> None:
        """See :meth:`Vigil.close`."""
        kept = self._kept.get(vigil.node_id, [])
        if vigil in kept:
            kept.remove(vigil)
            if not kept:
                del self._kept[vigil.node_id]

    def look(self, member: Member) -> None:
        """End those whose subject is dead, has left, or came back as another boot."""
        for vigil in list(self._kept.get(member.node_id, ())):
            if over(member, vigil.boot_id):
                vigil.end()


def over(member: Member, boot_id: BootId) -> bool:
    """Whether that life of it is over."""
    newest = member.announcement.boot_id
    return newest > boot_id or (newest == boot_id and not member.present)
