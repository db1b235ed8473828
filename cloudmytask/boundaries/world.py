"""What a node asks of the world: time, randomness, load, disk; scripts: see ``boundaries.launching``.

Invariant: protocols only, no logic.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from attrs import field, frozen
from twisted.internet.defer import Deferred

from cloudmytask.boundaries.launching import OpenSinks, Runner
from cloudmytask.boundaries.peers import Bus, Links
from cloudmytask.listeners import Listeners
from cloudmytask.model.errors import StoreFailed
from cloudmytask.model.job import (
    Assignment,
    Blob,
    ClientId,
    Content,
    Digest,
    Job,
    JobId,
    JobPage,
    JobQuery,
    NodeId,
)


class DelayedCall(Protocol):
    """A scheduled call, as ``callLater`` returns it."""

    def cancel(self) -> None:
        """Do not call it after all. Fails with Twisted's ``AlreadyCalled`` or ``AlreadyCancelled`` if that is over."""

    def active(self) -> bool:
        """Whether it is still to be called."""


class Clock(Protocol):
    """Monotonic time: the part of ``IReactorTime`` that we use. Every decision about time rests on it."""

    def seconds(self) -> float:
        """Now, in seconds since a moment of no meaning; it never goes back, and counts no step of the wall clock."""

    def callLater(self, delay: float, function: Callable[..., object], /, *args: Any, **kwargs: Any) -> DelayedCall:
        """Call ``function`` after ``delay`` seconds (not negative), never before this returns. It must not block: all
        else waits meanwhile."""


WallClock = Callable[[], float]
"""UTC seconds since the epoch, for stamps that people read; it may step in either direction."""


class Entropy(Protocol):
    """Randomness: ``token`` for names that must not be guessed, ``random`` for choices and jitter."""

    @property
    def random(self) -> random.Random:
        """Choices and jitter; somebody may guess them."""

    def token(self, size: int) -> bytes:
        """``size`` bytes that nobody can guess."""


class LoadProbe(Protocol):
    """How busy this machine is with other things than our jobs. Neither call blocks: it was measured before."""

    @property
    def sampled(self) -> Listeners[[]]:
        """Told when there is a new :meth:`load` and :meth:`cpu`; they change at no other time."""

    def load(self) -> float | None:
        """Share of the CPU, 0..1, as a moving average of seconds; None if it is not measured."""

    def cpu(self) -> float | None:
        """Share of the CPU that is in use at all, our jobs included, 0..1; None if it is not measured."""


DiskFree = Callable[[], int | None]
"""Bytes that are free where the store is, a moment ago; None if it is not measured. It does not block."""


class Spool(Protocol):
    """Bytes that are still arriving: a script's output, or an upload. No call waits for the disk: bytes are written in
    the background, and are in memory until then."""

    @property
    def size(self) -> int:
        """Bytes appended so far, but for those that the disk has refused."""

    @property
    def failure(self) -> StoreFailed | None:
        """What the disk said when it refused bytes; from then on none are written, and later ones are lost."""

    @property
    def behind(self) -> bool:
        """Whether so much waits for the disk that no more should be brought before :meth:`caught_up`. What is appended
        nevertheless is kept, and costs memory."""

    def append(self, data: bytes) -> None:
        """Add bytes at the end; :meth:`read` sees them at once. They outlive the node's death once :meth:`caught_up`
        has fired. Bytes that the disk has no room for are lost, and all that come later: :attr:`failure` and
        :meth:`caught_up` say so.

        :raises RuntimeError: the spool was sealed or discarded.
        """

    def caught_up(self) -> Deferred[None]:
        """Fires when all that was appended so far is in the file.

        :raises StoreFailed: some of it is not.
        """

    def read(self, offset: int, size: int) -> Deferred[bytes]:
        """Up to ``size`` bytes from ``offset``, at least one if there are any; empty beyond the end."""

    def seal(self) -> Deferred[Content | Blob | None]:
        """End writing. None if there are no bytes; :class:`Content` if they are small, to be saved together with
        the job; otherwise the :class:`Blob`, already durable. What the disk has refused is not in it. Reading goes on
        to work until :meth:`discard`. It may be repeated, after a failure for instance.

        :raises StoreFailed: the bytes could not be made durable.
        """

    def discard(self) -> None:
        """Forget the bytes (the blob made by :meth:`seal` stays). Idempotent."""


@frozen
class Recovery:
    """What a store held when it was opened."""

    node_id: NodeId
    own: tuple[Job, ...]
    """Every job of this node without an outcome, oldest first."""
    next_sequence: int
    """One more than the highest of its own jobs."""
    age: float
    """Retention clock at the last checkpoint, seconds (see ``core.retention``)."""
    checkpoint_at: float | None
    """Wall clock at that checkpoint."""
    boots: int
    """How often this state was opened, this time included; already on disk."""
    memory: Mapping[str, str] = field(factory=dict)
    """What :meth:`JobStore.remember` kept."""
    held: tuple[Job, ...] = ()
    """Copies of other nodes' jobs, which this one is a custodian of: never to be placed here."""
    guests: tuple[Assignment, ...] = ()
    """Attempts of other nodes' jobs that an earlier life ran here."""


class JobStore(Protocol):
    """Durable records, blobs, and the directories scripts run in. A fired Deferred means: it survives power loss. No
    call but :meth:`recover` waits for the disk, and each Deferred may fail with ``StoreFailed``: the disk refused, or
    the store is closed."""

    def recover(self) -> Recovery:
        """Read what an earlier life left. Called once, before anything else; may block.

        :raises StartFailed: the store cannot be read.
        """

    def save(self, job: Job, contents: Sequence[Content] = ()) -> Deferred[None]:
        """Make the job's present record durable, and ``contents`` with it in the same commit.

        :raises StoreFailed: nothing of it was stored.
        """

    def hold(self, job: Job, contents: Sequence[Content] = ()) -> Deferred[None]:
        """Make a copy of another node's job durable, apart from this node's own: only :attr:`Recovery.held` tells of
        it. It takes the place of an older copy.

        :raises StoreFailed: nothing of it was stored.
        """

    def get(self, job_id: JobId) -> Deferred[Job | None]:
        """A record of this node's own, in any state."""

    def newest(self, client: ClientId, query: JobQuery) -> Deferred[JobPage]:
        """Own jobs of ``client``, newest first."""

    def due(self, age: float, limit: int) -> Deferred[tuple[Job, ...]]:
        """Up to ``limit`` own records whose ``Job.expires`` is at or before ``age``, earliest first."""

    def forget(self, job_id: JobId) -> Deferred[None]:
        """Delete a record altogether."""

    def remember(self, key: str, text: str) -> Deferred[None]:
        """Keep a text of the node's own, such as its list of bans; the last one under a key counts."""

    def checkpoint(self, age: float, wall: float) -> Deferred[None]:
        """Remember the retention clock."""

    def collect(self, keep: Sequence[Digest] = ()) -> Deferred[int]:
        """Delete blobs that no record and no entry of ``keep`` refers to; how many bytes were freed."""

    def has(self, blob: Blob) -> Deferred[bool]:
        """Whether the blob is here, durable or about to be."""

    def read(self, blob: Blob, offset: int, size: int) -> Deferred[bytes]:
        """Verified bytes of a blob.

        :raises BlobMissing: it is not here. :raises BlobCorrupt: its bytes are not those that were stored.
        """

    def put(self, content: Content) -> Deferred[None]:
        """Make a small blob durable that no job refers to yet."""

    def spool(self, name: str, *, resume: bool = False) -> Spool:
        """A spool of that name. Bytes left in it by an earlier life of the node are kept and appended to if
        ``resume``, and thrown away otherwise."""

    def stage(self, name: str, files: Mapping[str, Blob], contents: Sequence[Content] = ()) -> Deferred[str]:
        """Make the fresh private directory (0700) ``name`` with verified copies of ``files`` (file name → blob).

        :param contents: blobs that are not durable yet. :returns: the directory's absolute path.
        :raises BlobMissing, BlobCorrupt: as for :meth:`read`; nothing is left of the directory.
        """

    def unstage(self, name: str) -> Deferred[None]:
        """Delete that directory and all in it, following no link. Idempotent."""

    def close(self) -> Deferred[None]:
        """Flush and close; nothing may be called afterwards."""


@frozen
class World:
    """Everything that comes into a node from outside."""

    clock: Clock
    wall: WallClock
    entropy: Entropy
    store: JobStore
    runner: Runner
    probe: LoadProbe
    bus: Bus
    links: Links
    disk_free: DiskFree = lambda: None
    sinks: OpenSinks = field(factory=OpenSinks)
    """Shared with a runner that hears its scripts itself."""
    python: str = "/usr/bin/python3"
    """Absolute path of the interpreter that runs the scripts."""
    disk_taken: Callable[[int], object] = lambda _size: None
    """So many bytes more are on their way to the disk: for ``disk_free``, until it is measured again."""
