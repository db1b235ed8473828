"""What the roles of a node know of each other: protocols, so that no role imports another and ``node.py`` wires them.

Invariant: no logic.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from attrs import frozen
from twisted.internet.defer import Deferred

from cloudmytask.boundaries import Link
from cloudmytask.core.placement import Choice, Course
from cloudmytask.core.queue import Entry
from cloudmytask.deferreds import Signal
from cloudmytask.listeners import Registration
from cloudmytask.model.cluster import BootId, Capacity, NodeId, OfferAnswer, PeerIdentity
from cloudmytask.model.job import Assignment, AttemptId, ClientId, Content, JobId, JobSpec, Outcome, Reason, Stamp
from cloudmytask.node.running.outputs import LiveOutput


class Door(Protocol):
    """The gate, as other roles see it."""

    @property
    def draining(self) -> bool:
        """Whether the node is shutting down."""

    @property
    def disk_short(self) -> bool:
        """Whether there is too little room on the disk for new work."""

    @property
    def closing(self) -> Signal:
        """Fired when draining begins, and again when it is cut short."""

    def admit_work(self) -> None:
        """:raises NodeDraining: no new work is accepted any more. :raises DiskShort: not for now."""

    def check_forwarded(self, client: ClientId) -> None:
        """:raises Banned: the client whose job another node offers is banned here."""


@frozen
class Finished:
    """The end of one attempt; its output is complete and not sealed yet."""

    outcome: Outcome
    interrupted: bool
    """Its node is shutting down, or is gone: the outcome says nothing about the script."""
    live: LiveOutput
    executor: str
    trail: tuple[Stamp, ...] = ()
    """What other nodes noted."""
    settled: Callable[[], None] = lambda: None
    """To be called when the end is durable: whoever keeps the attempt for us may forget it."""


class Slots(Protocol):
    """The executor, as other roles see it; its docstrings say what each does."""

    @property
    def running(self) -> int: ...
    async def run(
        self,
        assignment: Assignment,
        before_start: Callable[[], Awaitable[None]],
        freed: Callable[[], None],
        contents: Sequence[Content] = (),
    ) -> Finished: ...
    def stop(self, attempt: AttemptId, reason: Reason) -> None: ...
    def hurry(self, attempt: AttemptId) -> None: ...
    def recover(self, attempt: AttemptId) -> Finished: ...
    async def clean(self, attempt: AttemptId) -> None: ...


class Work(Protocol):
    """A job that waits to be placed: this node's own, or another's."""

    @property
    def entry(self) -> Entry: ...
    @property
    def course(self) -> Course: ...

    def start_here(self) -> None:
        """Take a free slot of this node, now."""

    def offer(self, choice: Choice) -> Deferred[OfferAnswer | None]:
        """Hand it to another node; None if that could not be reached. Once accepted it is no longer waiting."""

    def shun(self, node_id: NodeId) -> None:
        """That node will not take this job, whenever it is asked: go there no more."""

    def left_waiting(self) -> None:
        """It could not be placed for now."""

    def let_go(self) -> None:
        """It was on offer and is in nobody's hands now: it was called off meanwhile."""

    def wanted(self) -> bool:
        """Whether it is still to be placed; not so if it was cancelled meanwhile."""


class Placement(Protocol):
    """The placer, as the owners of jobs see it."""

    def enqueue(self, work: Work) -> None:
        """Place a job, or let it wait."""

    def resume(self, works: Sequence[Work]) -> None:
        """Like :meth:`enqueue`, for what an earlier life of the node left: all is there before any is placed."""

    def put_back(self, work: Work) -> None:
        """Like :meth:`enqueue`, for a job that had a slot before."""

    def withdraw(self, job_id: JobId) -> None:
        """It is not to be placed any more. Idempotent."""

    def returned(self, client: ClientId) -> None:
        """A job of ``client`` that was placed gave its slot back, here or elsewhere."""

    def learned(self, node_id: NodeId, capacity: Capacity) -> None:
        """A node said how busy it is."""

    @property
    def full(self) -> bool:
        """Whether no further job may wait here."""

    def here(self) -> Capacity:
        """How busy this node is."""

    def holds(self, job_id: JobId) -> str | None:
        """``queue`` or ``offer``, if the job is in its hands."""

    def situation(self, work: Work) -> str:
        """Why a job waits, as far as other nodes are concerned; the end of a sentence, or empty."""


class Attempts(Protocol):
    """The delegate, as the owners of jobs see it: makes attempts that run on other nodes."""

    def remote(self, attempt: AttemptId, before_start: Callable[[], Awaitable[None]]) -> RemoteAttempt: ...


class RemoteAttempt(Protocol):
    """One attempt on another node."""

    def offer(
        self, choice: Choice, client: ClientId, spec: JobSpec, course: Course, origin: PeerIdentity
    ) -> Deferred[OfferAnswer | None]:
        """Hand it over; None if the node could not be reached. Once accepted, :meth:`finished` tells how it ends.

        :raises BlobMissing, BlobCorrupt: what it needs cannot be read here.
        """

    def noted(self) -> None:
        """Its acceptance is on record, so it may start."""

    def call_off(self) -> None:
        """It is not wanted any more, while it is on offer."""

    def resume(self, node_id: NodeId, name: str) -> None:
        """Take up again what an earlier life of this node had handed over."""

    def finished(self) -> Deferred[Finished]: ...

    def stop(self, reason: Reason, *, hurry: bool = False) -> None:
        """End it; :meth:`finished` follows."""


class Acquaintances(Protocol):
    """The other instances, as the delegate sees them."""

    def link(self, node_id: NodeId) -> Deferred[Link]:
        """A link to a node. :raises CloudMyTaskError: it is not known, or cannot be reached."""

    def watch(self, node_id: NodeId, boot_id: BootId, ended: Callable[[], None]) -> Registration:
        """Call ``ended`` once that life of the node is certainly over."""
