"""What a node offers to its peers (``boundaries.PeerDoor``): each call goes to the role whose business it is.

Invariant: no policy but this: jobs come from nodes only, and a CSU's business is not a node's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import frozen
from twisted.internet.defer import Deferred

from cloudmytask.boundaries import AttemptSink, Link, Upload, World
from cloudmytask.cluster.member import ClusterMember
from cloudmytask.model.cluster import (
    AttachAnswer,
    Ban,
    BanReport,
    BusMessage,
    Capacity,
    NodeId,
    Offer,
    OfferAnswer,
    PeerIdentity,
    Role,
)
from cloudmytask.model.errors import NotPermitted, NotSupervised
from cloudmytask.model.job import AttemptId, Blob, Content, Reason, StreamName, TravelingJob
from cloudmytask.node.jobs import uploads
from cloudmytask.node.jobs.acceptance import Acceptance
from cloudmytask.node.neighborhood import Neighborhood
from cloudmytask.node.placing.placer import Placer
from cloudmytask.node.remote.guests import Guests


@frozen(eq=False)
class NodePeerDoor:
    """See the module."""

    _world: World
    _cluster_member: ClusterMember
    _acceptance: Acceptance
    _guests: Guests
    _placer: Placer
    _neighborhood: Neighborhood

    def identity(self) -> PeerIdentity:
        return self._cluster_member.me

    def welcome(self, link: Link) -> None:
        self._cluster_member.pool.welcome(link)

    def pinged(self, link: Link) -> Capacity:  # noqa: ARG002 - whoever asks
        return self._placer.here()

    def offered(
        self, link: Link, offer: Offer, contents: Sequence[Content], sink: AttemptSink
    ) -> Deferred[OfferAnswer]:
        _from_node(link)
        return self._guests.offered(link, offer, contents, sink)

    def handed_over(self, link: Link, job: TravelingJob, contents: Sequence[Content]) -> Deferred[OfferAnswer]:
        _from_node(link)
        return Deferred.fromCoroutine(self._acceptance.take_over(job, contents))

    def followed(
        self, link: Link, attempt: AttemptId, offsets: Mapping[StreamName, int], sink: AttemptSink
    ) -> Deferred[None]:
        _from_node(link)
        return Deferred.fromCoroutine(self._guests.followed(link, attempt, offsets, sink))

    def attempt_stopped(self, link: Link, attempt: AttemptId, reason: Reason, hurry: bool) -> None:
        _from_node(link)
        self._guests.stopped(link, attempt, reason, hurry=hurry)

    def asked_for_work(self, link: Link, capacity: Capacity) -> int:
        _from_node(link)
        return self._placer.asked_for_work(link.peer.node_id, capacity)

    def attached(self, link: Link, root: NodeId, depth: int) -> AttachAnswer:
        return self._neighborhood.attached(link, root, depth)

    def detached(self, link: Link) -> None:
        self._neighborhood.detached(link)

    def path_told(self, link: Link, term: int, path: Sequence[NodeId]) -> None:
        self._neighborhood.path_told(link, term, path)

    def relayed(self, link: Link, messages: Sequence[BusMessage]) -> None:
        self._cluster_member.relaying.relayed(link, messages)

    def bans_exchanged(self, link: Link, bans: Sequence[Ban]) -> Sequence[Ban]:
        return self._cluster_member.blacklist.answer(bans, link)

    def reported(self, link: Link, report: BanReport) -> bool:  # noqa: ARG002 - not to us
        raise NotSupervised("this instance is a node; reports go to a CSU")

    def banned_checked(self, link: Link, client: str) -> Ban | None:  # noqa: ARG002 - not to us
        raise NotSupervised("this instance is a node; a CSU answers for the blacklist")

    def receive_blob(self, link: Link, blob: Blob) -> Deferred[Upload | None]:
        _from_node(link)
        return Deferred.fromCoroutine(uploads.begin(self._world, blob))


def _from_node(link: Link) -> None:
    """:raises NotPermitted: the other end is no node."""
    if link.peer.role is not Role.NODE:
        raise NotPermitted(f"{link.peer.name} is a {link.peer.role.value}; only nodes hand jobs over")
