"""The borders of the system: what the node asks of the world, and what the world may ask of the node.

Invariant: protocols only, no logic. Each is implemented twice: by a shell for the real world, and in
``cloudmytask.simulation`` for virtual time.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from attrs import field, frozen
from twisted.internet.defer import Deferred

from cloudmytask.model import (
    Blob,
    ClientId,
    Content,
    Digest,
    Explanation,
    Job,
    JobId,
    JobPage,
    JobQuery,
    JobSpec,
    Limits,
    NodeStatus,
    Outcome,
    StreamName,
)


class DelayedCall(Protocol):
    """A scheduled call, as ``callLater`` returns it."""

    def cancel(self) -> None: ...
    def active(self) -> bool: ...


class Clock(Protocol):
    """Monotonic time: the part of ``IReactorTime`` that we use. Every decision about time rests on it."""

    def seconds(self) -> float: ...
    def callLater(self, delay: float, function: Callable[..., object], /, *args: Any, **kwargs: Any) -> DelayedCall: ...


WallClock = Callable[[], float]
"""UTC seconds since the epoch, for stamps that people read; it may step in either direction."""


class Entropy(Protocol):
    """Randomness: ``token`` for names that must not be guessed, ``random`` for choices and jitter."""

    @property
    def random(self) -> random.Random: ...
    def token(self, size: int) -> bytes: ...


class LoadProbe(Protocol):
    """How busy this machine is with other things than our jobs."""

    def load(self) -> float | None:
        """Share of the CPU, 0..1; None where it is not measured."""


class Spool(Protocol):
    """Bytes that are still arriving: a script's output, or an upload. Writing never waits for the disk."""

    @property
    def size(self) -> int:
        """Bytes appended so far."""

    def append(self, data: bytes) -> None: ...

    def read(self, offset: int, size: int) -> Deferred[bytes]:
        """Up to ``size`` bytes from ``offset``; empty where nothing has been written yet."""

    def seal(self) -> Deferred[Content | Blob | None]:
        """End writing. None if there are no bytes; :class:`Content` if they are small, to be saved together with
        the job; otherwise the :class:`Blob`, already durable. Reading goes on to work until :meth:`discard`."""

    def discard(self) -> None:
        """Forget the bytes (the blob made by :meth:`seal` stays). Idempotent."""


@frozen
class Recovery:
    """What a store held when it was opened."""

    node_id: str
    jobs: tuple[Job, ...]
    """Every job without an outcome, oldest first."""
    next_sequence: int
    age: float
    """Retention clock at the last checkpoint, seconds (see ``core.retention``)."""
    checkpoint_at: float | None
    """Wall clock at that checkpoint."""


class JobStore(Protocol):
    """Durable records, blobs, and the directories scripts run in. A fired Deferred means: it survives power loss."""

    def recover(self) -> Recovery:
        """Called once, before anything else; may block."""

    def save(self, job: Job, contents: Sequence[Content] = ()) -> Deferred[None]:
        """Make the job's present record durable, and ``contents`` with it in the same commit.

        :raises StoreFailed: nothing of it was stored.
        """

    def get(self, job_id: JobId) -> Deferred[Job | None]:
        """A record, whatever its state."""

    def newest(self, client: ClientId, query: JobQuery) -> Deferred[JobPage]:
        """Jobs of ``client``, newest first."""

    def due(self, age: float, limit: int) -> Deferred[tuple[Job, ...]]:
        """Up to ``limit`` records whose ``Job.expires`` is at or before ``age``, earliest first."""

    def forget(self, job_id: JobId) -> Deferred[None]:
        """Delete a record altogether."""

    def checkpoint(self, age: float, wall: float) -> Deferred[None]:
        """Remember the retention clock."""

    def collect(self, keep: Sequence[Digest] = ()) -> Deferred[int]:
        """Delete blobs that no record and no entry of ``keep`` refers to; how many bytes were freed."""

    def has(self, blob: Blob) -> Deferred[bool]:
        """Whether the blob is here, durable or about to be."""

    def read(self, blob: Blob, offset: int, size: int) -> Deferred[bytes]:
        """Verified bytes of a blob.

        :raises BlobMissing, BlobCorrupt:
        """

    def put(self, content: Content) -> Deferred[None]:
        """Make a small blob durable that no job refers to yet."""

    def spool(self, name: str, *, resume: bool = False) -> Spool:
        """A spool of that name. Bytes left in it by an earlier life of the node are kept and appended to if
        ``resume``, and thrown away otherwise."""

    def stage(self, name: str, files: Mapping[str, Blob], contents: Sequence[Content] = ()) -> Deferred[str]:
        """Make the fresh private directory (0700) ``name`` with verified copies of ``files`` (file name → blob).

        ``contents`` may hold blobs that are not durable yet. Returns the directory's absolute path.
        """

    def unstage(self, name: str) -> Deferred[None]:
        """Delete that directory and all in it, following no link. Idempotent."""

    def close(self) -> Deferred[None]:
        """Flush and close; nothing may be called afterwards."""


@frozen
class Launch:
    """All that a runner needs to start one attempt."""

    job_id: JobId
    attempt: int
    directory: str
    """Absolute path of the staged directory; the script's working directory."""
    script_name: str
    """File name inside ``directory``."""
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    """What the job adds to the clean environment, ``CMT_*`` included."""
    limits: Limits
    stdin: str | None = None
    """Absolute path of the file to read standard input from; None is an empty input."""
    write: Callable[[StreamName, bytes], None] = field(repr=False, default=lambda _stream, _data: None)
    """Called with each piece of output, in order."""


class Running(Protocol):
    """One script that was started."""

    @property
    def ended(self) -> Deferred[Outcome]:
        """Fires once, when the script has ended, its output has been delivered and its process group is gone.
        The outcome's reason is ``exit``, ``signal`` or ``launch``: why it was killed is the caller's knowledge."""

    def terminate(self) -> None:
        """SIGTERM to the whole process group. Late and repeated calls do nothing."""

    def kill(self) -> None:
        """SIGKILL to the whole process group. Late and repeated calls do nothing."""


class Runner(Protocol):
    """Starts scripts."""

    def start(self, launch: Launch) -> Running:
        """Start it now. A launch that fails is an outcome (reason ``launch``), not an exception."""

    def sweep(self) -> int:
        """Kill whatever an earlier life of this node left running; how many processes there were. May block:
        called once, before anything is started."""


@frozen
class World:
    """Everything that comes into a node from outside."""

    clock: Clock
    wall: WallClock
    entropy: Entropy
    store: JobStore
    runner: Runner
    probe: LoadProbe


@frozen
class Submission:
    """A request to run a script, decoded and not yet checked against the node's limits."""

    key: str
    """The client's idempotency key."""
    spec: JobSpec
    contents: tuple[Content, ...] = ()
    """Script or stdin, where they came along with the request."""


@frozen
class Receipt:
    """The answer to an accepted submission."""

    job: Job
    known: bool
    """Whether this key had been submitted before."""


@frozen
class OutputPiece:
    """A stretch of one attempt's output."""

    stream: StreamName
    offset: int
    data: bytes


@frozen
class OutputEnd:
    """No more will come of this attempt."""

    attempt: int
    sizes: Mapping[StreamName, int]
    """Bytes kept."""
    discarded: Mapping[StreamName, int]
    """Bytes thrown away beyond ``output_max``."""


class OutputReader(Protocol):
    """A client's position in the output of one attempt."""

    def next(self, size: int) -> Deferred[OutputPiece | OutputEnd]:
        """The next piece of at most ``size`` bytes, as soon as there is one; after the end, the end again."""

    def close(self) -> None:
        """Stop reading; an outstanding :meth:`next` never fires. Idempotent."""


class Watch(Protocol):
    """A client's interest in one job."""

    def close(self) -> None: ...


class Upload(Protocol):
    """A blob on its way in."""

    def append(self, offset: int, data: bytes) -> None:
        """:raises UploadFailed: the offset is not where the last piece ended, or more came than announced."""

    def commit(self) -> Deferred[Blob]:
        """:raises UploadFailed: the bytes do not match the announced digest and size."""

    def abort(self) -> None: ...


class FrontDoor(Protocol):
    """What a node offers to clients, whatever carries their requests. Each call may raise, or fail with, a
    :class:`~cloudmytask.errors.CloudMyTaskError`. Objects of another client answer like absent ones."""

    def identify(self, claim: str) -> ClientId:
        """Who the connection belongs to (design section 7): until certificates exist, whoever it claims to be."""

    def describe(self) -> NodeStatus: ...
    def submit(self, client: ClientId, submission: Submission) -> Deferred[Receipt]: ...
    def status(self, client: ClientId, job_id: JobId) -> Deferred[Job]: ...
    def cancel(self, client: ClientId, job_id: JobId, note: str) -> Deferred[Job]: ...
    def retry(self, client: ClientId, job_id: JobId, key: str) -> Deferred[Receipt]: ...
    def remove(self, client: ClientId, job_id: JobId) -> Deferred[Job]: ...
    def jobs(self, client: ClientId, query: JobQuery) -> Deferred[JobPage]: ...
    def explain(self, client: ClientId, job_id: JobId) -> Deferred[Explanation]: ...

    def watch(self, client: ClientId, job_id: JobId, changed: Callable[[Job], None]) -> Deferred[tuple[Job, Watch]]:
        """The job as it stands, and ``changed`` with every later state, the terminal one last."""

    def output(
        self, client: ClientId, job_id: JobId, attempt: int, offsets: Mapping[StreamName, int], follow: bool
    ) -> Deferred[OutputReader]:
        """Read the output of one attempt, from an offset on for each stream asked for.

        :param attempt: its number; 0 is the latest, or the first to come.
        :param follow: wait for what the script has not written yet.
        """

    def upload(self, client: ClientId, blob: Blob) -> Deferred[Upload | None]:
        """Begin to send a blob; None if it is here already."""
