"""What a node offers to its peers (``boundaries.PeerDoor``): each call goes to the part whose business it is.

Invariant: no policy but who may call what: jobs come from nodes only, and a CSU's business is not a node's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import frozen
from twisted.internet.defer import Deferred

from cloudmytask.boundaries import AttemptSink, Link, Upload, World
from cloudmytask.cluster.member import ClusterMember
from cloudmytask.model.access import AccessRole, allowed
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
    Pulse,
)
from cloudmytask.model.errors import NotSupervised
from cloudmytask.model.job import AttemptId, Blob, Content, Reason, StreamName, TravelingJob
from cloudmytask.node.gate import Gate
from cloudmytask.node.jobs.acceptance import Acceptance
from cloudmytask.node.neighborhood import Neighborhood
from cloudmytask.node.placing.placer import Placer
from cloudmytask.node.remote.guests import Guests
from cloudmytask.node.remote.inputs import receive


@frozen(eq=False)
class NodePeerDoor:
    """Implements ``boundaries.PeerDoor`` for a node."""

    _world: World
    _cluster_member: ClusterMember
    _acceptance: Acceptance
    _guests: Guests
    _placer: Placer
    _neighborhood: Neighborhood
    _gate: Gate

    def identity(self) -> PeerIdentity:
        return self._cluster_member.me

    def welcome(self, link: Link) -> None:
        self._cluster_member.pool.welcome(link)

    @allowed(AccessRole.NODE, AccessRole.CSU)
    def retired(self, link: Link) -> bool:
        return self._cluster_member.pool.retired(link)

    @allowed(AccessRole.NODE, AccessRole.CSU)
    def pinged(self, link: Link) -> Pulse:  # noqa: ARG002 - any peer may ask
        return self._cluster_member.announcer.pulse(self._placer.here())

    @allowed(AccessRole.NODE)
    def offered(
        self, link: Link, offer: Offer, contents: Sequence[Content], sink: AttemptSink
    ) -> Deferred[OfferAnswer]:
        return self._guests.offered(link, offer, contents, sink)

    @allowed(AccessRole.NODE)
    def handed_over(
        self,
        link: Link,  # noqa: ARG002 - from any node
        job: TravelingJob,
        contents: Sequence[Content],
    ) -> Deferred[OfferAnswer]:
        return Deferred.fromCoroutine(self._acceptance.take_over(job, contents))

    @allowed(AccessRole.NODE)
    def followed(
        self, link: Link, attempt: AttemptId, offsets: Mapping[StreamName, int], sink: AttemptSink
    ) -> Deferred[None]:
        return Deferred.fromCoroutine(self._guests.followed(link, attempt, offsets, sink))

    @allowed(AccessRole.NODE)
    def attempt_stopped(self, link: Link, attempt: AttemptId, reason: Reason, hurry: bool) -> None:
        self._guests.stopped(link, attempt, reason, hurry=hurry)

    @allowed(AccessRole.NODE)
    def asked_for_work(self, link: Link, capacity: Capacity) -> int:
        return self._placer.asked_for_work(link.peer.node_id, capacity)

    @allowed(AccessRole.NODE, AccessRole.CSU)
    def attached(self, link: Link, root: NodeId, depth: int) -> AttachAnswer:
        return self._neighborhood.attached(link, root, depth)

    @allowed(AccessRole.NODE, AccessRole.CSU)
    def detached(self, link: Link) -> None:
        self._neighborhood.detached(link)

    @allowed(AccessRole.NODE, AccessRole.CSU)
    def path_told(self, link: Link, term: int, path: Sequence[NodeId]) -> None:
        self._neighborhood.path_told(link, term, path)

    @allowed(AccessRole.NODE, AccessRole.CSU)
    def relayed(self, link: Link, messages: Sequence[BusMessage]) -> None:
        self._cluster_member.relaying.relayed(link, messages)

    @allowed(AccessRole.NODE, AccessRole.CSU)
    def bans_exchanged(self, link: Link, bans: Sequence[Ban]) -> Sequence[Ban]:
        return self._cluster_member.blacklist.answer(bans, link)

    @allowed(AccessRole.NODE, AccessRole.CSU)
    def reported(self, link: Link, report: BanReport) -> bool:  # noqa: ARG002 - not to us
        raise NotSupervised("this instance is a node; reports go to a CSU")

    @allowed(AccessRole.NODE, AccessRole.CSU)
    def banned_checked(self, link: Link, client: str) -> Ban | None:  # noqa: ARG002 - not to us
        raise NotSupervised("this instance is a node; a CSU answers for the blacklist")

    @allowed(AccessRole.NODE)
    def receive_blob(self, link: Link, blob: Blob) -> Deferred[Upload | None]:  # noqa: ARG002 - from any node
        return Deferred.fromCoroutine(receive(self._world, self._gate, blob))
