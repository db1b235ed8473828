"""The values that everything else talks about: specs, jobs, attempts, outcomes.

Invariant: all of them are frozen and compare by value; nothing here knows the time, the disk or the network.
Times named ``*_at`` are UTC seconds since the epoch and only for people; nothing is decided by them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, NewType

from attrs import field, frozen
from msgspec import Meta

from cloudmytask.model.fields import (
    ALWAYS,
    BOOT_ID,
    CLIENT_ID,
    DIGEST,
    NAME_MAX,
    NODE_ID,
    Count,
    Integer,
    Moment,
    Number,
    Ordinal,
)
from cloudmytask.model.words import TERMINAL_STATES as TERMINAL_STATES
from cloudmytask.model.words import Interruption as Interruption
from cloudmytask.model.words import JobState as JobState
from cloudmytask.model.words import QoS as QoS
from cloudmytask.model.words import Reason as Reason
from cloudmytask.model.words import Resource as Resource
from cloudmytask.model.words import StreamName as StreamName

JobId = NewType("JobId", str)
ClientId = NewType("ClientId", str)
Client = Annotated[ClientId, CLIENT_ID]
"""A ClientID that comes from another instance."""
NodeId = NewType("NodeId", Annotated[str, NODE_ID])
"""32 lowercase hexadecimal digits, kept with the node's state."""
BootId = NewType("BootId", Annotated[str, BOOT_ID])
"""One life of a node: 8 hexadecimal digits that count its starts, then 8 random ones. Of one node's boots the greater
is the newer. Empty if it is not known."""
Digest = NewType("Digest", Annotated[str, DIGEST])
"""Lowercase hexadecimal sha256."""

FIRST_EPOCH = 1
"""The term of the node that accepted a job; each later owner's term is one more."""


@frozen(order=True)
class AttemptId:
    """Names one execution of a job; of two of one job the greater is the newer.

    The number goes on from owner to owner; the epoch keeps apart what two nodes number that both believe they own the
    job.
    """

    job: JobId
    epoch: Ordinal
    number: Ordinal
    """From 1; see ``core.job.next_attempt``."""

    def __str__(self) -> str:
        """Its one text: in logs, on the wire, in the names of spools and work directories."""
        return f"{self.job}.{self.epoch}.{self.number}"

    @classmethod
    def parse(cls, text: str) -> AttemptId:
        """The inverse of ``str``.

        :raises ValueError: no attempt has that text.
        """
        job, *counts = text.split(".")
        if not job or len(counts) != 2 or not all(map(_is_count, counts)):
            raise ValueError(f"{text[:80]!r} is not JOB.EPOCH.NUMBER")
        return cls(JobId(job), int(counts[0]), int(counts[1]))


def _is_count(text: str) -> bool:
    """Whether ``text`` is a whole number from 1 on, as ``str`` writes it, that fits into a column."""
    return text.isascii() and text.isdecimal() and text[0] != "0" and len(text) <= 18


@frozen
class Owner:
    """The node that decides about a job, and for which term."""

    node_id: NodeId
    name: str
    """For people."""
    epoch: Ordinal = FIRST_EPOCH
    """Number of its term: what an earlier owner ordered comes late."""
    custodians: tuple[NodeId, ...] = ()
    """The nodes that hold the job's record durably, the owner included."""

    @classmethod
    def alone(cls, node_id: NodeId, name: str, epoch: int = FIRST_EPOCH) -> Owner:
        """An owner that is the job's only custodian."""
        return cls(node_id, name, epoch, (node_id,))


Offsets = Mapping[StreamName, Count]
"""In which streams, from which byte on."""


@frozen
class Blob:
    """Bytes named by their digest; ``size`` in bytes."""

    digest: Digest
    size: Count


@frozen
class Content:
    """A blob small enough to be handed around whole (at most ``INLINE_MAX`` bytes)."""

    blob: Blob
    data: bytes = field(repr=False)


INLINE_MAX = 64 * 1024
"""Blobs up to this many bytes live inside the store's database (design section 6)."""


@frozen
class Limits:
    """What one process of a script may use; None is unlimited. See setrlimit(2)."""

    cpu_seconds: Integer | None = None
    """RLIMIT_CPU, seconds."""
    address_space: Integer | None = None
    """RLIMIT_AS, bytes."""
    file_size: Integer | None = None
    """RLIMIT_FSIZE, bytes."""
    open_files: Integer | None = None
    """RLIMIT_NOFILE, descriptors."""


@frozen
class JobSpec:
    """What a client asked for; immutable once accepted."""

    script: Blob
    script_name: str = field(default="script.py", metadata=ALWAYS)
    """The file name the script sees as ``sys.argv[0]``."""
    qos: QoS = field(default=QoS.BATCH, metadata=ALWAYS)
    arguments: tuple[str, ...] = ()
    stdin: Blob | None = None
    name: str | None = None
    """A label that people select by; the script's name if absent."""
    timeout: Number | None = None
    """Seconds that one attempt may run, from its start."""
    retries: Integer = 0
    """How many further attempts a failure is worth."""
    retention: Number | None = None
    """Seconds that outcome and output are kept after the end; None is the node's default."""
    at_most_once: bool = False
    """Never run a second attempt after one whose end is unknown."""
    limits: Limits = Limits()
    variables: Mapping[str, str] = field(factory=dict, hash=False)
    """Added to the script's clean environment."""
    node: str | None = None
    """Run it on the node of this name only."""
    avoid: tuple[str, ...] = ()
    """Names of nodes that it must not run on."""
    local: bool = False
    """Run it on the node that accepts it only."""

    @property
    def label(self) -> str:
        """The name that people see."""
        return self.name if self.name is not None else self.script_name

    def blobs(self) -> tuple[Blob, ...]:
        """What an attempt needs laid out: the script, and its input if there is any."""
        return (self.script,) if self.stdin is None else (self.script, self.stdin)


@frozen
class Usage:
    """What an attempt consumed; a value not known is None."""

    wall_seconds: Number | None = None
    cpu_seconds: Number | None = None
    """User and system time of the script and of the children that it waited for."""
    peak_memory: Count | None = None
    """Bytes; the largest resident set of any one process."""


@frozen
class Loss:
    """The end of a stream that the disk of a node did not take."""

    node: Annotated[str, Meta(max_length=NAME_MAX)]
    """Whose disk."""
    after: Count
    """Bytes before it: they are kept."""
    size: Count
    """Bytes that are missing."""
    full: bool = True
    """False: the disk had room and failed otherwise."""


@frozen
class Output:
    """One stream of one attempt as it stands in the store."""

    blob: Blob | None = None
    """None where nothing was written."""
    discarded: Count = 0
    """Bytes beyond ``output_max`` that were thrown away."""
    lost: Loss | None = None
    """What is missing because a disk did not take it."""

    @property
    def size(self) -> int:
        """Bytes kept."""
        return self.blob.size if self.blob is not None else 0


@frozen
class Outcome:
    """How one attempt ended."""

    reason: Reason
    exit_code: Integer | None = None
    signal: Integer | None = None
    usage: Usage = Usage()
    detail: str = ""
    """One sentence for a person, where the reason alone does not say enough."""

    @property
    def success(self) -> bool:
        """A script succeeds by exiting with 0 of its own accord."""
        return self.reason is Reason.EXIT and self.exit_code == 0


@frozen
class Attempt:
    """One execution of a job on one node."""

    number: Count
    executor: str
    staged_at: Moment
    started_at: Moment | None = None
    ended_at: Moment | None = None
    outcome: Outcome | None = None
    stdout: Output = Output()
    stderr: Output = Output()
    executor_id: NodeId | None = None
    """The executor's node id; None if it is the owner."""
    epoch: Ordinal = FIRST_EPOCH
    """Of the owner that ordered it."""
    interruption: Interruption | None = None
    """What is known of it if it was interrupted; None also if that is all."""

    def output(self, stream: StreamName) -> Output:
        """The stored output of one stream."""
        return self.stdout if stream is StreamName.STDOUT else self.stderr


@frozen
class Stamp:
    """One entry of the trail: a stage of the job's way, when, where, and what was decided."""

    at: Moment
    stage: str
    node: str
    note: str = ""


@frozen
class Cancellation:
    """A client's wish that a job should end."""

    at: Moment
    by: str
    note: str = ""


@frozen
class Job:
    """One request to run one script, and all that has happened to it."""

    id: JobId
    client: ClientId
    spec: JobSpec
    body: Digest
    """Digest of the spec: the same idempotency key with another body is a conflict."""
    sequence: Count
    """Order of acceptance on its owner; the newest job has the highest."""
    owner: Owner
    state: JobState
    submitted_at: Moment
    retention: Number
    """Seconds, after the node's default and maximum were applied."""
    attempts: tuple[Attempt, ...] = ()
    trail: tuple[Stamp, ...] = ()
    cancellation: Cancellation | None = None
    ended_at: Moment | None = None
    expires: Number | None = None
    """Value of the retention clock of the node that keeps this record at which it falls due; None until it has an
    outcome. No other node can read that clock: what travels is a :class:`TravelingJob`."""
    removed: bool = False
    """Whether a tombstone stems from a client's ``rm`` rather than from age."""
    moved_to: str | None = None
    """Of a tombstone: the node that owns the job now, and where it is reached."""

    @property
    def attempt(self) -> Attempt | None:
        """The latest attempt, if there was any."""
        return self.attempts[-1] if self.attempts else None

    @property
    def attempt_id(self) -> AttemptId:
        """Of the latest attempt; there must be one."""
        attempt = self.attempts[-1]
        return AttemptId(self.id, attempt.epoch, attempt.number)

    @property
    def assignment(self) -> Assignment:
        """What the executor of the latest attempt is told; there must be one."""
        return Assignment(self.attempt_id, self.client, self.spec, self.attempts[-1].executor, deaths=len(self.died_on))

    @property
    def died_on(self) -> tuple[str, ...]:
        """The nodes that died during an attempt of it, one entry for each time."""
        return tuple(each.executor for each in self.attempts if each.interruption is Interruption.NODE_DIED)

    @property
    def outcome(self) -> Outcome | None:
        """The outcome of the latest attempt, once there is one."""
        return self.attempts[-1].outcome if self.attempts else None

    def blobs(self) -> tuple[Blob, ...]:
        """Every blob that must outlive this job's retention, in a fixed order."""
        found = list(self.spec.blobs())
        for attempt in self.attempts:
            found.extend(o.blob for o in (attempt.stdout, attempt.stderr) if o.blob is not None)
        return tuple(dict.fromkeys(found))


QUERY_MAX = 1000
"""Jobs in one page at the most."""


@frozen
class Assignment:
    """What an executor is told to run: one attempt, of a job that is its node's own or another's."""

    id: AttemptId
    client: ClientId
    spec: JobSpec
    executor: str
    """Name of the node that runs it."""
    deaths: Count = 0
    """How often a node has died during an attempt of its job."""


@frozen
class TravelingJob:
    """A job on its way to another node, without what only its sender can read.

    Made by ``core.retention.depart``, read by ``core.retention.arrive``.
    """

    job: Job
    """``expires`` is None in it."""
    remaining: Number | None = None
    """Seconds until it falls due, as of its departure; None until it has an outcome."""


@frozen
class JobQuery:
    """Which jobs of a client to list, newest first."""

    prefix: str = ""
    """Leading characters of the id."""
    name: str | None = None
    states: frozenset[JobState] = frozenset()
    """Empty: every state but ``expired``."""
    before: Count | None = None
    """Only jobs with a lower sequence: the cursor of the page before."""
    limit: Annotated[int, Meta(ge=1, le=QUERY_MAX)] = 100


@frozen
class JobPage:
    """One page of a listing; ``next`` is the cursor of the page after, None at the end."""

    jobs: tuple[Job, ...]
    next: int | None = None


@frozen
class Explanation:
    """The answer of ``cmt why``: one sentence, then the details in the order of a reader's interest."""

    sentence: str
    details: tuple[str, ...] = ()


@frozen
class NodeStatus:
    """What a node says about itself."""

    name: str
    node_id: NodeId
    boot_id: BootId
    version: str
    slots: int
    running: int
    waiting: Mapping[QoS, int]
    queue_max: int
    load: float | None
    """Share of the CPU, 0..1, that is busy with other things than our jobs; None where it is not measured."""
    draining: bool
    uptime: float
    """Seconds since the node started."""
    script_max: int
    """Bytes; the largest script that the node accepts."""
    cluster: str = ""
    """Name of the cluster that it belongs to; empty if it stands alone."""
    address: str = ""
    """Where its peers reach it, ``HOST:PORT``; empty if they do not."""
    role: str = "node"
    insecure: bool = False
    """It listens to the network without certificates."""
    short: tuple[Resource, ...] = ()
    """What it is short of."""
