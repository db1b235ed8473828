"""What the announcements of others mean for the placing of jobs.

Invariant: a node counts as one that takes jobs while it is alive, neither draining nor leaving nor short of disk, and
has announced itself in its present boot.
"""

from __future__ import annotations

from attrs import define

from cloudmytask.boundaries import Entropy
from cloudmytask.core.membership import Member
from cloudmytask.core.placement import Accounts, Peer
from cloudmytask.model.cluster import Announcement, Role, Standing
from cloudmytask.node.placing.placer import Placer
from cloudmytask.node.placing.work_stealer import WorkStealer
from cloudmytask.node.remote.delegate import Delegate


@define(eq=False)
class News:
    """See the module."""

    _entropy: Entropy
    _accounts: Accounts
    _placer: Placer
    _work_stealer: WorkStealer
    _delegate: Delegate

    def changed(self, member: Member) -> None:
        """An instance is new, was started again, or its standing is another: what it said before counts no more."""
        self._placer.lost(member.node_id)
        if member.standing is Standing.ALIVE:
            self._delegate.returned(member.node_id)
        if member.standing in (Standing.LEFT, Standing.DEAD):
            self._placer.place()  # it may have been the last other node

    def heard(self, announcement: Announcement) -> None:
        """An instance said how it is."""
        if announcement.role is not Role.NODE:
            return
        node_id = announcement.node_id
        if announcement.draining or announcement.leaving or announcement.disk_short or not announcement.address:
            self._placer.lost(node_id)
            return
        peer = self._accounts.peer(node_id)
        if peer is None or peer.address != announcement.address or peer.name != announcement.name:
            peer = Peer(node_id, announcement.name, announcement.address)
        self._placer.heard(peer, announcement.capacity, announcement.backlog)
        if announcement.backlog.waiting and not self._placer.waiting:
            self._offer_help(announcement.backlog.total)

    def _offer_help(self, waiting: int) -> None:
        """Jobs wait there. All nodes that have room hear it at once, so not all of them ask."""
        rivals = len(self._accounts.open)
        if self._entropy.random.random() * (rivals + 1) < waiting:
            self._work_stealer.seek()
