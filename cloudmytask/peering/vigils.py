"""Who wants to know when one life of one instance is over: whoever has work there.

Invariant: each is told at most once, and not after it closed its vigil.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import Factory, define, field

from cloudmytask.cluster import BootId, NodeId
from cloudmytask.core.membership import Member


@define(eq=False)
class Vigil:
    """Somebody's interest; made by :meth:`Vigils.keep`."""

    _vigils: Vigils
    node_id: NodeId
    boot_id: BootId
    _ended: Callable[[], None]

    def close(self) -> None:
        """No longer interested. Idempotent."""
        self._vigils.drop(self)

    def end(self) -> None:
        """That life is over."""
        self.close()
        self._ended()


@define(eq=False)
class Vigils:
    """All of them, by node id."""

    _kept: dict[NodeId, list[Vigil]] = field(init=False, default=Factory(dict))

    def __contains__(self, node_id: NodeId) -> bool:
        return node_id in self._kept

    def keep(self, node_id: NodeId, boot_id: BootId, ended: Callable[[], None]) -> Vigil:
        """From now on ``ended`` is called when that boot is over."""
        vigil = Vigil(self, node_id, boot_id, ended)
        self._kept.setdefault(node_id, []).append(vigil)
        return vigil

    def drop(self, vigil: Vigil) -> None:
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
