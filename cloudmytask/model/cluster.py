"""The values that nodes tell each other about themselves: who, where, how busy, where in the tree, who is banned.

Invariant: all of them are frozen and compare by value. What stands in them is a hint by its sender (design section 5):
nobody gains a right by it.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Annotated

from attrs import field, frozen
from msgspec import Meta

from cloudmytask.model.fields import (
    Count,
    Label,
    Moment,
    Name,
    Note,
    Number,
    Seconds,
    Share,
    Where,
)
from cloudmytask.model.job import AttemptId, Blob, Client, Interruption, JobSpec, Loss, Outcome, QoS, Stamp, StreamName
from cloudmytask.model.job import BootId as BootId
from cloudmytask.model.job import NodeId as NodeId
from cloudmytask.model.words import Resource as Resource

NEIGHBORS_MAX = 5
"""Links of the overlay that a node has at most: a parent and four children (overlay simulation: the knee)."""
CHILDREN_MAX = NEIGHBORS_MAX - 1
CHILDREN_TOLD = 16
"""Children that an announcement may name; more than our overlay allows, for versions that allow more."""
RUNNING_TOLD = 8
SHORT_TOLD = 16
"""Resources that an announcement may name; more than there are, for versions that know more."""
BANS_MAX = 2000
"""Bans in one message."""
REPORTERS_MAX = 8
COUNTER_MAX = 2**62
"""Of any counter that others tell us: far from the end of its type, and never reached by steps (``core.bans``)."""
VISITED_MAX = 65
"""Nodes that a job may have been to: the origin and as many hops as may be configured."""
STAMPS_MAX = 100
"""Entries of a trail that one answer may bring."""


SLOTS_MAX = 2**16
"""Of a node."""

Counter = Annotated[int, Meta(ge=0, le=COUNTER_MAX)]
Slots = Annotated[int, Meta(ge=0, le=SLOTS_MAX)]


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


Path = Annotated[tuple[NodeId, ...], Meta(max_length=1000)]
"""A node and its ancestors in the tree, the root last."""


@frozen(order=True)
class RootKey:
    """Names a tree by its root; the smaller is the older tree, which wins."""

    term: Counter
    node_id: NodeId

    @classmethod
    def younger(cls, term: int, node_id: NodeId) -> RootKey:
        """A key that is younger than all of that term; at the end of the terms it is one of theirs."""
        return cls(min(term + 1, COUNTER_MAX), node_id)


@frozen
class TreePosition:
    """Where a node stands in the overlay."""

    root: RootKey
    depth: Count = 0
    """Links to the root."""
    parent: NodeId | None = None
    children: Annotated[tuple[NodeId, ...], Meta(max_length=CHILDREN_TOLD)] = ()

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

    slots: Slots
    free: Slots
    """Scripts that it would start at once: 0 while its load is at its threshold or it drains."""
    load: Share | None = None
    """Share of the CPU, 0..1, that others than our jobs use; None where it is not measured."""
    cpu: Share | None = None
    """Share of the CPU, 0..1, that is in use at all: what the paper calls load."""
    threshold: Share = 0.75
    stamp: Count = 0


@frozen
class Pulse:
    """What an instance answers if it is asked over a link whether it lives. No announcement proves as much."""

    capacity: Capacity
    incarnation: Counter = 0
    sequence: Counter = 0
    """Of its last announcement."""


@frozen
class Backlog:
    """What waits at a node."""

    waiting: Mapping[QoS, Count] = field(factory=dict)
    head_age: Seconds = 0.0
    """Seconds by which the next job is ahead of one that arrives now, its class's head start counted; 0 if none."""
    running: Annotated[tuple[tuple[Client, Count], ...], Meta(max_length=RUNNING_TOLD)] = ()
    """The clients with the most jobs of this origin running anywhere, and how many; at most 8."""

    @property
    def total(self) -> int:
        """Waiting jobs of all classes."""
        return sum(self.waiting.values())


@frozen
class Announcement:
    """What an instance multicasts about itself (paper 3.2.3). At most 1,200 bytes on the wire."""

    cluster: Label
    role: Role
    node_id: NodeId
    boot_id: BootId
    incarnation: Counter
    """Grows when the instance hears that it is thought dead."""
    sequence: Counter
    """Grows with every announcement of one boot."""
    name: Label
    address: Where
    """Where it is reached, ``HOST:PORT``."""
    interval: Seconds
    """Seconds until its next announcement at the latest."""
    capacity: Capacity
    backlog: Backlog = Backlog()
    tree: TreePosition | None = None
    """None for an instance that is not part of the overlay, such as a CSU."""
    draining: bool = False
    short: Annotated[tuple[Resource, ...], Meta(max_length=SHORT_TOLD)] = ()
    """What it is short of: it takes nothing new, but for one job now and then to see whether that is over."""
    leaving: bool = False
    """Its last word."""
    insecure: bool = False
    """It listens to the network without certificates."""
    bans: Label = ""
    """Digest of its ban list; two instances with the same digest hold the same bans."""
    version: Label = ""


@frozen
class Obituary:
    """Somebody asked a silent instance and got no answer."""

    cluster: Label
    reporter: NodeId
    subject: NodeId
    boot_id: BootId
    """Of the subject."""
    incarnation: Counter
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
    sent: Count = 0
    heard: Count = 0
    """Messages of our cluster by others, well-formed and authentic."""
    unsent: Count = 0
    malformed: Count = 0
    """Truncated, oversized, or not what we write."""
    forged: Count = 0
    """Without a valid MAC."""
    foreign: Mapping[str, Count] = field(factory=dict)
    """Datagrams by the name of a cluster that is not ours."""
    receive_buffer: Count = 0
    """Bytes that the kernel granted."""


@frozen
class PeerIdentity:
    """Who is at the other end of a link."""

    cluster: Name
    role: Role
    node_id: NodeId
    boot_id: Annotated[BootId, Meta(min_length=16)]
    name: Name
    address: Where


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

    counter: Annotated[int, Meta(ge=1, le=COUNTER_MAX)]
    admin: bool
    """Of concurrent entries an administrator's wins."""
    node_id: NodeId

    def key(self) -> tuple[int, bool, str]:
        """For comparisons."""
        return (self.counter, self.admin, self.node_id)


@frozen
class Ban:
    """An entry of the blacklist: who, why, by whom, until when. A lifted ban stays as an entry until its term ends."""

    client: Client
    reason: Annotated[str, Meta(min_length=1, max_length=500)]
    by: Name
    """Who decided: an administrator's ClientID, or the name of an instance."""
    term: Number
    """Seconds, from when it was decided."""
    until: Number
    """On the retention-like clock of the instance that holds the entry; travels as seconds that remain."""
    version: BanVersion
    lifted: bool = False
    reporters: Annotated[tuple[Name, ...], Meta(max_length=REPORTERS_MAX)] = ()
    """Names of the nodes that reported it."""


@frozen
class BanPage:
    """As many bans as one message carries."""

    bans: Annotated[tuple[Ban, ...], Meta(max_length=BANS_MAX)] = ()
    next: str | None = None
    """The client to go on after; None at the end."""


@frozen
class BanReport:
    """A node's ``addToBlackListRequest``: it banned a client for a short term, and says why."""

    client: Client
    reason: Annotated[str, Meta(min_length=1, max_length=500)]
    reporter: NodeId
    reporter_name: Name
    count: Count
    """Refused requests so far."""


@frozen
class Offer:
    """A job on its way to another node, for one attempt."""

    attempt: AttemptId
    client: Client
    """The original client, also if another node carries the job."""
    spec: JobSpec
    origin: PeerIdentity
    hops: Count = 0
    """How often it was handed on before."""
    visited: Annotated[tuple[NodeId, ...], Meta(max_length=VISITED_MAX)] = ()
    """The nodes that had it, the origin first."""
    may_wait: bool = False
    """Policy ``paper``: a full target takes it all the same, and decides again."""
    deaths: Count = 0
    """How often a node has died during an attempt of the job."""


@frozen
class OfferAnswer:
    """What the target says to an offer."""

    accepted: bool
    capacity: Capacity
    """Of the target, the accepted job counted."""
    why: Note = ""
    """Of a refusal: ``busy``, ``draining``, ``banned: …``, ``visited``, ``hops``."""
    lasting: bool = False
    """The refusal will be the same whenever this job is offered."""
    missing: Annotated[tuple[Blob, ...], Meta(max_length=2)] = ()
    """Blobs that have to be sent before it can be accepted."""


@frozen
class RemoteEnd:
    """The executor's last word on an attempt."""

    outcome: Outcome
    discarded: Mapping[StreamName, Count]
    """Bytes thrown away beyond ``output_max``, by stream."""
    interrupted: bool
    """The executor shuts down: the outcome says nothing about the script."""
    executor: Name
    """Name of the node that ran it."""
    capacity: Capacity
    trail: Annotated[tuple[Stamp, ...], Meta(max_length=STAMPS_MAX)] = ()
    """What happened to it on the way, relays included."""
    interruption: Interruption | None = None
    lost: Mapping[StreamName, Loss] = field(factory=dict)
    """What a disk on the way did not take, by stream."""


@frozen
class AttachAnswer:
    """A would-be parent's answer. ``path``: the new parent's ancestors, itself first, the root last."""

    accepted: bool
    root: RootKey
    path: Path = ()
    why: Note = ""
    try_next: Annotated[tuple[tuple[NodeId, Where], ...], Meta(max_length=2)] = ()
    """Of a refusal: up to two others, with their addresses."""


@frozen
class MemberStatus:
    """One instance as another one sees it, for people (``cmt nodes``)."""

    announcement: Announcement
    standing: Standing
    heard: Number
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
    interval: Seconds
    """Seconds between this instance's announcements now."""


@frozen
class LoadSample:
    """How busy one node was at one moment (a CSU's history)."""

    at: Moment
    """UTC seconds, of the CSU's clock."""
    node: str
    load: Share | None
    slots: Count
    free: Count
    waiting: Count
