"""The borders between instances: the multicast bus, the links, and what an instance offers over them.

Invariant: protocols only, no logic. Messages and calls are hints and requests between equals; who calls is known by the
link's :class:`~cloudmytask.cluster.PeerIdentity`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from twisted.internet.defer import Deferred

from cloudmytask.boundaries.front_door import Upload
from cloudmytask.listeners import Listeners
from cloudmytask.model.cluster import (
    AttachAnswer,
    Ban,
    BanReport,
    BusMessage,
    BusStatistics,
    Capacity,
    NodeId,
    Offer,
    OfferAnswer,
    PeerIdentity,
    Pulse,
    RemoteEnd,
)
from cloudmytask.model.job import AttemptId, Blob, Content, Reason, StreamName, TravelingJob


class Bus(Protocol):
    """The multicast group. Neither sending nor a missing network ever raises: it is lossy by nature. No call blocks."""

    def open(self, heard: Callable[[BusMessage], None]) -> None:
        """Join, now or as soon as there is a network.

        :param heard: gets each message of the cluster but this instance's; it must not block.
        """

    def send(self, message: BusMessage) -> None:
        """Send to all that hear us. Whether anybody did is not known."""

    def close(self) -> None:
        """Leave, and call nobody any more. Idempotent."""

    def statistics(self) -> BusStatistics:
        """What was heard and sent since the start, and what was wrong with it."""


class AttemptSink(Protocol):
    """Follows an attempt that runs on another node. Calls come in order, :meth:`ended` last, unless the link is
    lost before. None may block; what a Deferred fails with is told to the executor. Each fires in bounded time, with
    ``RequestTimeout`` if the follower does not answer."""

    def started(self) -> Deferred[None]:
        """The executor is ready. It awaits the answer before it starts the script of an ``at_most_once`` job."""

    def output(self, stream: StreamName, offset: int, data: bytes) -> Deferred[None]:
        """A piece of output; fires when it is taken. One that is here already is not taken twice."""

    def ended(self, end: RemoteEnd) -> Deferred[None]:
        """Fires when the executor may forget the attempt."""


class Link(Protocol):
    """A connection between two instances that know each other; both may call. Every Deferred fires, with an answer,
    the other end's declared failure, ``ConnectionInterrupted`` or ``RequestTimeout``."""

    @property
    def peer(self) -> PeerIdentity:
        """Who is at the other end."""

    @property
    def alive(self) -> bool:
        """Whether anything can be asked; if not, calls fail with ``ConnectionInterrupted``."""

    @property
    def gone(self) -> Listeners[[]]:
        """Told once, when the link is gone; who comes later is told at once. One who follows something over the link
        closes the registration when that is over: as long as there is one the link is kept, be it idle."""

    @property
    def waiting(self) -> bool:
        """Whether a call of this end is not answered yet."""

    @property
    def idle(self) -> float:
        """Seconds since anything passed over it."""

    def retire(self) -> Deferred[bool]:
        """Say that this end does not need the link any more; whether the other end does not either. Then this end
        closes it, and neither takes that for a loss."""

    def ping(self, timeout: float) -> Deferred[Pulse]:
        """Ask whether the other end lives; how busy it is, and how far its announcements are.

        :param timeout: seconds.
        """

    def offer(self, offer: Offer, contents: Sequence[Content], sink: AttemptSink) -> Deferred[OfferAnswer]:
        """Hand a job over; if accepted, ``sink`` is told of the attempt from then on.

        :param contents: script and input, where they are small and the target may not have them.
        """

    def hand_over(self, job: TravelingJob, contents: Sequence[Content]) -> Deferred[OfferAnswer]:
        """Make a waiting job the other end's own. Once accepted it is durable there."""

    def send_blob(self, blob: Blob, read: Callable[[int, int], Deferred[bytes]]) -> Deferred[None]:
        """Make sure that the other end has a blob. ``read(offset, size)`` gives its bytes."""

    def follow(self, attempt: AttemptId, offsets: Mapping[StreamName, int], sink: AttemptSink) -> Deferred[None]:
        """Take up again an attempt that this end offered and the other accepted.

        :raises NoSuchJob: it is not there, or was offered by somebody else: both answer alike.
        """

    def stop_attempt(self, attempt: AttemptId, reason: Reason, hurry: bool) -> Deferred[None]:
        """End an attempt that this end offered; its :meth:`AttemptSink.ended` follows. One that is not there is ended
        already, and one that somebody else offered goes on: both answer alike."""

    def ask_for_work(self, capacity: Capacity) -> Deferred[int]:
        """This instance has a free slot and knows that jobs wait there; how many it is going to be offered."""

    def attach(self, root: NodeId, depth: int) -> Deferred[AttachAnswer]:
        """Ask to become a child in the overlay.

        :param root: of the asker's own subtree, which is itself; ``depth``: how deep that subtree is.
        """

    def detach(self) -> Deferred[None]:
        """We are no longer its neighbor."""

    def tell_path(self, term: int, path: Sequence[NodeId]) -> Deferred[None]:
        """Tell a child its ancestors: us first, the root last, and the root's term."""

    def relay(self, messages: Sequence[BusMessage]) -> Deferred[None]:
        """Announcements along the tree, where multicast does not reach. An empty sequence asks the other end for all
        that it has heard."""

    def exchange_bans(self, bans: Sequence[Ban]) -> Deferred[Sequence[Ban]]:
        """Give some bans, get what the other end knows better about their clients; give none, get all that it has.
        ``until`` of each is seconds that remain."""

    def report(self, report: BanReport) -> Deferred[bool]:
        """The paper's ``addToBlackListRequest``; whether it became a ban of the cluster. For a CSU."""

    def check_banned(self, client: str) -> Deferred[Ban | None]:
        """``CheckBanned``: what a CSU has on a client. For a CSU."""

    def close(self) -> None:
        """End the connection, after what was written; :attr:`gone` is told. Idempotent."""


class PeerDoor(Protocol):
    """What an instance offers to its peers: the other end of each call of :class:`Link`, whose docstrings say what it
    means to the caller. Arguments are decoded and checked, and the caller has one of the roles that the method declares
    (``model.access.allowed``), before any is called. No call blocks. Each may raise, or fail with, a
    :class:`~cloudmytask.model.errors.CloudMyTaskError`, which is the caller's answer; anything else is logged here, and
    answered as ``InternalError``."""

    def identity(self) -> PeerIdentity:
        """Who we are."""

    def welcome(self, link: Link) -> None:
        """A peer connected to us, and has proven who it is.

        :raises CloudMyTaskError: it is not wanted here, and is told so: the connection does not become a link.
        """

    def pinged(self, link: Link) -> Pulse:
        """We live; how busy we are, and how far our announcements are."""

    def retired(self, link: Link) -> bool:
        """The other end does not need the link any more; whether we do not either."""

    def offered(
        self, link: Link, offer: Offer, contents: Sequence[Content], sink: AttemptSink
    ) -> Deferred[OfferAnswer]:
        """Run a job for one attempt, or say why not: a refusal is an answer, not a failure.

        :param sink: who offers it, to be told of its course if it is accepted.
        :raises NotPermitted: this instance takes no jobs. :raises StoreFailed: the disk refuses what came along.
        """

    def handed_over(self, link: Link, job: TravelingJob, contents: Sequence[Content]) -> Deferred[OfferAnswer]:
        """Take a waiting job over, or say why not. Accepted means durable here.

        :raises NotPermitted: this instance takes no jobs. :raises StoreFailed: it is not durable.
        """

    def followed(
        self, link: Link, attempt: AttemptId, offsets: Mapping[StreamName, int], sink: AttemptSink
    ) -> Deferred[None]:
        """Tell ``sink`` of an attempt from now on, its output from ``offsets`` on; one that followed before is told no
        more.

        :raises NoSuchJob: it is not here, or was offered by somebody else: both answer alike.
        """

    def attempt_stopped(self, link: Link, attempt: AttemptId, reason: Reason, hurry: bool) -> None:
        """End an attempt that this peer offered; its follower is told when that is done. Of any other nothing happens.

        :param reason: what its outcome is to say. :param hurry: whether it is killed at once.
        """

    def asked_for_work(self, link: Link, capacity: Capacity) -> int:
        """A peer has a free slot; how many jobs it is going to be offered. 0 if there are none for it."""

    def attached(self, link: Link, root: NodeId, depth: int) -> AttachAnswer:
        """Take a peer as a child in the tree, or say why not, and who may.

        :param root: of its subtree. :param depth: of its subtree.
        """

    def detached(self, link: Link) -> None:
        """A peer is no neighbor any more. Of one that was none nothing happens."""

    def path_told(self, link: Link, term: int, path: Sequence[NodeId]) -> None:
        """Our parent tells our ancestors, itself first, and the root's term. From anybody else it counts nothing."""

    def relayed(self, link: Link, messages: Sequence[BusMessage]) -> None:
        """Announcements that came along the tree, as if they had been heard; none: this peer asks for those that we
        know, for a while."""

    def bans_exchanged(self, link: Link, bans: Sequence[Ban]) -> Sequence[Ban]:
        """Take some bans (``until``: seconds that remain), and answer what we know better; given none, all that we
        have."""

    def reported(self, link: Link, report: BanReport) -> bool:
        """A node reports a client; whether that made a ban of the cluster.

        :raises NotSupervised: this is no CSU.
        """

    def banned_checked(self, link: Link, client: str) -> Ban | None:
        """The ban of a client that is in force, if there is one.

        :raises NotSupervised: this is no CSU. :raises InvalidArgument: that is no ClientID.
        """

    def receive_blob(self, link: Link, blob: Blob) -> Deferred[Upload | None]:
        """Begin to receive a blob; None if it is here already.

        :raises NotPermitted: this instance takes no jobs. :raises InvalidArgument: the blob is too large.
        """


class Links(Protocol):
    """Makes links."""

    def open(self, door: PeerDoor) -> None:
        """From now on calls of peers are answered by ``door``. Before anything else."""

    def connect(self, address: str) -> Deferred[Link]:
        """Ready when both ends have introduced themselves.

        :param address: ``HOST:PORT``.
        :raises NoNode: nothing answers there. :raises CloudMyTaskError: what answers does not want us.
        """
