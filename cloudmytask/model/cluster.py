"""The values that nodes tell each other about themselves: who, where, how busy, where in the tree, who is banned.

Invariant: all of them are frozen and compare by value. What stands in them is a hint by its sender (design section 5):
nobody gains a right by it.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

from attrs import field, frozen

from cloudmytask.model.job import AttemptId, Blob, ClientId, JobSpec, Outcome, QoS, Stamp
from cloudmytask.model.job import BootId as BootId
from cloudmytask.model.job import NodeId as NodeId

NEIGHBORS_MAX = 5
"""Links of the overlay that a node has at most: a parent and four children (overlay simulation: the knee)."""
CHILDREN_MAX = NEIGHBORS_MAX - 1


class Role(enum.StrEnum):
    """What an instance is."""

    NODE = "node"
    CSU = "csu"

    @property
    def word(self) -> str:
        """What people call such an instance."""
        return "CSU" if self is Role.CSU else self.value

    @property
    def program(self) -> str:
        """The name of its program."""
        return f"cmt-{self.value}"


@frozen(order=True)
class RootKey:
    """Names a tree by its root; the smaller is the older tree, which wins."""

    term: int
    node_id: NodeId


@frozen
class TreePosition:
    """Where a node stands in the overlay."""

    root: RootKey
    depth: int = 0
    """Links to the root."""
    parent: NodeId | None = None
    children: tuple[NodeId, ...] = ()

    @property
    def neighbors(self) -> tuple[NodeId, ...]:
        """The parent first."""
        return self.children if self.parent is None else (self.parent, *self.children)

    @property
    def places(self) -> int:
        """How many children more it could take."""
        return CHILDREN_MAX - len(self.children)


@frozen
class Capacity:
    """How busy a node is, as of a moment of its own.

    ``stamp`` grows with every change within one boot: of two pictures of a node the one with the greater stamp is the
    newer, whichever way it came.
    """

    slots: int
    free: int
    """Scripts that it would start at once: 0 while its load is at its threshold or it drains."""
    load: float | None = None
    """Share of the CPU, 0..1, that others than our jobs use; None where it is not measured."""
    cpu: float | None = None
    """Share of the CPU, 0..1, that is in use at all: what the paper calls load."""
    threshold: float = 0.75
    stamp: int = 0


@frozen
class Backlog:
    """What waits at a node."""

    waiting: Mapping[QoS, int] = field(factory=dict)
    head_age: float = 0.0
    """Seconds by which the next job is ahead of one that arrives now, its class's head start counted; 0 if none."""
    running: tuple[tuple[ClientId, int], ...] = ()
    """The clients with the most jobs of this origin running anywhere, and how many; at most 8."""

    @property
    def total(self) -> int:
        """Waiting jobs of all classes."""
        return sum(self.waiting.values())


@frozen
class Announcement:
    """What an instance multicasts about itself (paper 3.2.3). At most 1,200 bytes on the wire."""

    cluster: str
    role: Role
    node_id: NodeId
    boot_id: BootId
    incarnation: int
    """Grows when the instance hears that it is thought dead."""
    sequence: int
    """Grows with every announcement of one boot."""
    name: str
    address: str
    """Where it is reached, ``HOST:PORT``."""
    interval: float
    """Seconds until its next announcement at the latest."""
    capacity: Capacity
    backlog: Backlog = Backlog()
    tree: TreePosition | None = None
    """None for an instance that is not part of the overlay, such as a CSU."""
    draining: bool = False
    disk_short: bool = False
    leaving: bool = False
    """Its last word."""
    insecure: bool = False
    """It listens to the network without certificates."""
    bans: str = ""
    """Digest of its ban list; two instances with the same digest hold the same bans."""
    version: str = ""


@frozen
class Obituary:
    """Somebody asked a silent instance and got no answer."""

    cluster: str
    reporter: NodeId
    subject: NodeId
    boot_id: BootId
    """Of the subject."""
    incarnation: int
    """Of the subject, as last heard."""


BusMessage = Announcement | Obituary


@frozen
class BusStatistics:
    """What passed the multicast bus of this instance, for people."""

    group: str = ""
    """``ADDRESS:PORT``; empty where multicast is off."""
    joined: bool = False
    error: str = ""
    """Why it is not joined, or why the last datagram could not be sent."""
    sent: int = 0
    heard: int = 0
    """Messages of our cluster by others, well-formed and authentic."""
    unsent: int = 0
    malformed: int = 0
    """Truncated, oversized, or not what we write."""
    forged: int = 0
    """Without a valid MAC."""
    foreign: Mapping[str, int] = field(factory=dict)
    """Datagrams by the name of a cluster that is not ours."""
    receive_buffer: int = 0
    """Bytes that the kernel granted."""


@frozen
class PeerIdentity:
    """Who is at the other end of a link."""

    cluster: str
    role: Role
    node_id: NodeId
    boot_id: BootId
    name: str
    address: str


class Standing(enum.StrEnum):
    """What is believed of an instance."""

    ALIVE = "alive"
    SUSPECT = "suspect"
    """Silent for too long; nothing new is sent to it."""
    LEFT = "left"
    """It said goodbye."""
    DEAD = "dead"


@frozen
class BanVersion:
    """Orders the entries about one client: the greater wins a merge."""

    counter: int
    admin: bool
    """Of concurrent entries an administrator's wins."""
    node_id: NodeId

    def key(self) -> tuple[int, bool, str]:
        """For comparisons."""
        return (self.counter, self.admin, self.node_id)


@frozen
class Ban:
    """An entry of the blacklist: who, why, by whom, until when. A lifted ban stays as an entry until its term ends."""

    client: ClientId
    reason: str
    by: str
    """Who decided: an administrator's ClientID, or the name of an instance."""
    term: float
    """Seconds, from when it was decided."""
    until: float
    """On the retention-like clock of whoever holds the entry; travels as seconds that remain."""
    version: BanVersion
    lifted: bool = False
    reporters: tuple[str, ...] = ()
    """Names of the nodes that reported it."""


@frozen
class BanReport:
    """A node's ``addToBlackListRequest``: it banned a client for a short term, and says why."""

    client: ClientId
    reason: str
    reporter: NodeId
    reporter_name: str
    count: int
    """Refused requests so far."""


@frozen
class Offer:
    """A job on its way to another node, for one attempt."""

    attempt: AttemptId
    client: ClientId
    """The original client, whoever carries the job."""
    spec: JobSpec
    origin: PeerIdentity
    hops: int = 0
    """How often it was handed on before."""
    visited: tuple[NodeId, ...] = ()
    """The nodes that had it, the origin first."""
    may_wait: bool = False
    """Policy ``paper``: a full target takes it all the same, and decides again."""


@frozen
class OfferAnswer:
    """What the target says to an offer."""

    accepted: bool
    capacity: Capacity
    """Of the target, the accepted job counted."""
    why: str = ""
    """Of a refusal: ``busy``, ``draining``, ``banned: …``, ``visited``, ``hops``."""
    lasting: bool = False
    """The refusal will be the same whenever this job is offered."""
    missing: tuple[Blob, ...] = ()
    """Blobs that have to be sent before it can be accepted."""


@frozen
class RemoteEnd:
    """The executor's last word on an attempt."""

    outcome: Outcome
    discarded: Mapping[str, int]
    """Bytes thrown away beyond ``output_max``, by stream."""
    interrupted: bool
    """The executor shuts down: the outcome says nothing about the script."""
    executor: str
    """Name of the node that ran it."""
    capacity: Capacity
    trail: tuple[Stamp, ...] = ()
    """What happened to it on the way, relays included."""


@frozen
class AttachAnswer:
    """A would-be parent's answer. ``path``: the new parent's ancestors, itself first, the root last."""

    accepted: bool
    root: RootKey
    path: tuple[NodeId, ...] = ()
    why: str = ""
    try_next: tuple[tuple[NodeId, str], ...] = ()
    """Of a refusal: up to two others, with their addresses."""


@frozen
class MemberStatus:
    """One instance as another one sees it, for people (``cmt nodes``)."""

    announcement: Announcement
    standing: Standing
    heard: float
    """Seconds since its last word."""
    linked: bool
    """Whether a link to it is open."""
    conflict: bool = False
    """Two instances claim this id."""


@frozen
class ClusterView:
    """All instances, this one included, as one instance sees them."""

    by: NodeId
    cluster: str
    members: tuple[MemberStatus, ...]
    bus: BusStatistics
    interval: float
    """Seconds between this instance's announcements now."""


@frozen
class LoadSample:
    """How busy one node was at one moment (a CSU's history)."""

    at: float
    """UTC seconds, of the CSU's clock."""
    node: str
    load: float | None
    slots: int
    free: int
    waiting: int
