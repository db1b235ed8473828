"""Listeners for the end of one life of one instance: for those who have work there.

Invariant: each is told at most once, and not after its registration was closed.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import Factory, define, field

from cloudmytask.core.membership import Member
from cloudmytask.listeners import Listeners, Registration
from cloudmytask.model.cluster import BootId, NodeId


@define(eq=False)
class LifeWatches:
    """The lives that somebody watches, by node id and boot."""

    _watched: dict[NodeId, dict[BootId, Listeners[[]]]] = field(init=False, default=Factory(dict))

    def __contains__(self, node_id: NodeId) -> bool:
        return node_id in self._watched

    def add(self, node_id: NodeId, boot_id: BootId, ended: Callable[[], None]) -> Registration:
        """Call ``ended`` when that boot is over."""
        lives = self._watched.setdefault(node_id, {})
        listeners = lives.get(boot_id)
        if listeners is None:
            listeners = lives[boot_id] = Listeners(emptied=lambda: self._forget(node_id, boot_id))
        return listeners.add(ended)

    def look(self, member: Member) -> None:
        """Tell those whose subject is dead, has left, or came back as another boot."""
        for boot_id, listeners in list(self._watched.get(member.node_id, {}).items()):
            if over(member, boot_id):
                self._forget(member.node_id, boot_id)
                listeners.tell_last()

    def _forget(self, node_id: NodeId, boot_id: BootId) -> None:
        lives = self._watched.get(node_id, {})
        if lives.pop(boot_id, None) is not None and not lives:
            del self._watched[node_id]


def over(member: Member, boot_id: BootId) -> bool:
    """Whether that life of it is over."""
    newest = member.announcement.boot_id
    return newest > boot_id or (newest == boot_id and not member.present)
