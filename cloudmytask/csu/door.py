"""What a CSU answers to other instances: it supervises, and takes no job and no place in the tree.

Invariant: nothing that a peer asks of a node changes anything here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from attrs import define
from twisted.internet.defer import Deferred, fail

from cloudmytask.boundaries import AttemptSink, Link, Upload
from cloudmytask.cluster.member import ClusterMember
from cloudmytask.core.admission import check_client
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
    RootKey,
)
from cloudmytask.model.errors import NoSuchJob, NotPermitted
from cloudmytask.model.job import AttemptId, Blob, Content, Reason, StreamName, TravelingJob

NOTHING = Capacity(slots=0, free=0)
"""It runs no scripts."""


@define(eq=False)
class SupervisorDoor:
    """Implements ``boundaries.PeerDoor``.

    :ivar report: takes a report; whether it became a ban of the cluster.
    """

    _cluster_member: ClusterMember
    _report: Callable[[Link, BanReport], bool]

    def identity(self) -> PeerIdentity:
        return self._cluster_member.me

    def welcome(self, link: Link) -> None:
        self._cluster_member.pool.welcome(link)

    @allowed(AccessRole.NODE, AccessRole.CSU)
    def retired(self, link: Link) -> bool:
        return self._cluster_member.pool.retired(link)

    @allowed(AccessRole.NODE, AccessRole.CSU)
    def pinged(self, link: Link) -> Pulse:  # noqa: ARG002 - it is the same for all
        return self._cluster_member.announcer.pulse(NOTHING)

    @allowed(AccessRole.NODE, AccessRole.CSU)
    def offered(
        self,
        link: Link,  # noqa: ARG002 - a CSU refuses every offer
        offer: Offer,  # noqa: ARG002
        contents: Sequence[Content],  # noqa: ARG002
        sink: AttemptSink,  # noqa: ARG002
    ) -> Deferred[OfferAnswer]:
        return fail(self._refusal())

    @allowed(AccessRole.NODE, AccessRole.CSU)
    def handed_over(
        self,
        link: Link,  # noqa: ARG002 - it takes none
        job: TravelingJob,  # noqa: ARG002
        contents: Sequence[Content],  # noqa: ARG002
    ) -> Deferred[OfferAnswer]:
        return fail(self._refusal())

    @allowed(AccessRole.NODE, AccessRole.CSU)
    def followed(
        self,
        link: Link,  # noqa: ARG002 - it has no attempt
        attempt: AttemptId,
        offsets: Mapping[StreamName, int],  # noqa: ARG002
        sink: AttemptSink,  # noqa: ARG002
    ) -> Deferred[None]:
        return fail(NoSuchJob(f"attempt {attempt} is not at {self._cluster_member.me.name}, which is a CSU"))

    @allowed(AccessRole.NODE, AccessRole.CSU)
    def attempt_stopped(self, link: Link, attempt: AttemptId, reason: Reason, hurry: bool) -> None:
        """There is none, so it has ended."""

    @allowed(AccessRole.NODE, AccessRole.CSU)
    def asked_for_work(self, link: Link, capacity: Capacity) -> int:  # noqa: ARG002 - there never is any
        return 0

    @allowed(AccessRole.NODE, AccessRole.CSU)
    def attached(self, link: Link, root: NodeId, depth: int) -> AttachAnswer:  # noqa: ARG002 - nobody is taken
        why = f"{self._cluster_member.me.name} is a CSU and not part of the tree"
        return AttachAnswer(accepted=False, root=RootKey(0, self._cluster_member.me.node_id), why=why)

    @allowed(AccessRole.NODE, AccessRole.CSU)
    def detached(self, link: Link) -> None:
        """It was not attached."""

    @allowed(AccessRole.NODE, AccessRole.CSU)
    def path_told(self, link: Link, term: int, path: Sequence[NodeId]) -> None:
        """It is nobody's child."""

    @allowed(AccessRole.NODE, AccessRole.CSU)
    def relayed(self, link: Link, messages: Sequence[BusMessage]) -> None:
        self._cluster_member.relaying.relayed(link, messages)

    @allowed(AccessRole.NODE, AccessRole.CSU)
    def bans_exchanged(self, link: Link, bans: Sequence[Ban]) -> Sequence[Ban]:
        return self._cluster_member.blacklist.answer(bans, link)

    @allowed(AccessRole.NODE)
    def reported(self, link: Link, report: BanReport) -> bool:
        return self._report(link, report)

    @allowed(AccessRole.NODE, AccessRole.CSU)
    def banned_checked(self, link: Link, client: str) -> Ban | None:  # noqa: ARG002 - any instance may ask
        return self._cluster_member.blacklist.in_force(check_client(client))

    @allowed(AccessRole.NODE, AccessRole.CSU)
    def receive_blob(self, link: Link, blob: Blob) -> Deferred[Upload | None]:  # noqa: ARG002 - it takes none
        return fail(self._refusal())

    def _refusal(self) -> NotPermitted:
        return NotPermitted(f"{self._cluster_member.me.name} is a CSU and takes no jobs")
