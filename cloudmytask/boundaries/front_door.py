"""What clients may ask of a node.

Invariant: protocols and the values that cross them only, no logic.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from attrs import field, frozen
from twisted.internet.defer import Deferred

from cloudmytask.model.cluster import Ban, ClusterView, LoadSample, NodeId, Standing
from cloudmytask.model.fields import Count
from cloudmytask.model.job import (
    Blob,
    ClientId,
    Content,
    Explanation,
    Job,
    JobId,
    JobPage,
    JobQuery,
    JobSpec,
    JobState,
    Loss,
    NodeStatus,
    Reason,
    StreamName,
)


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

    attempt: Count
    sizes: Mapping[StreamName, Count]
    """Bytes kept."""
    discarded: Mapping[StreamName, Count]
    """Bytes thrown away beyond ``output_max``."""
    lost: Mapping[StreamName, Loss] = field(factory=dict)
    """What the disk of a node did not take."""

    def missing(self, stream: StreamName) -> int:
        """Bytes of a stream that were written and not kept."""
        lost = self.lost.get(stream)
        return self.discarded.get(stream, 0) + (0 if lost is None else lost.size)


class OutputReader(Protocol):
    """A client's position in the output of one attempt."""

    def next(self, size: int) -> Deferred[OutputPiece | OutputEnd]:
        """The next piece of at most ``size`` bytes, as soon as there is one; after the end, the end again."""

    def close(self) -> None:
        """Stop reading; an outstanding :meth:`next` never fires. Idempotent."""


class Watch(Protocol):
    """A client's interest in one job, or in all that happens."""

    def close(self) -> None:
        """Call nobody any more. Idempotent."""


class Upload(Protocol):
    """A blob on its way in."""

    def append(self, offset: int, data: bytes) -> Deferred[None]:
        """Fires when the next piece may come: at once, unless the disk is slow.

        :raises StoreFailed: the disk refuses the bytes.
        :raises UploadFailed: the offset is not where the last piece ended, or more came than announced.
        """

    def commit(self) -> Deferred[Blob]:
        """Fires when the blob is durable. :raises UploadFailed: the bytes are not those that were announced."""

    def abort(self) -> None:
        """Forget what came. Idempotent."""


@frozen
class JobEvent:
    """A job is in another state, or in another attempt."""

    sequence: Count
    """Of those that one subscriber is told of, from 1 on, without a gap. One that is told too slowly misses some."""
    job: JobId
    client: ClientId
    state: JobState
    attempt: Count
    """The number of the latest attempt; 0 if there was none."""
    reason: Reason | None = None
    """Why the latest attempt ended, if it has."""


@frozen
class MemberChanged:
    """An instance has come, gone, or come back."""

    node_id: NodeId
    standing: Standing


@frozen
class BansChanged:
    """These bans were made, lifted or changed."""

    bans: tuple[Ban, ...]


Event = Job | MemberChanged | BansChanged
"""What a client may follow: a change of one of its jobs, or of the cluster."""


class JobDoor(Protocol):
    """What a node offers to clients: jobs. Jobs of another client answer like absent ones. No call waits for another
    machine; each may raise, or fail with, a :class:`~cloudmytask.model.errors.CloudMyTaskError`."""

    def submit(self, client: ClientId, submission: Submission) -> Deferred[Receipt]:
        """Accept a job; fires when it is durable.

        :raises IdempotencyConflict: the key was used for another body. :raises BlobMissing: send a blob first.
        """

    def status(self, client: ClientId, job_id: JobId) -> Deferred[Job]:
        """The job as it stands. :raises NoSuchJob: there is none of this client."""

    def cancel(self, client: ClientId, job_id: JobId, note: str) -> Deferred[Job]:
        """End a job; fires when the wish is durable, not when the script has ended."""

    def retry(self, client: ClientId, job_id: JobId, key: str) -> Deferred[Receipt]:
        """Submit the spec of a job that has ended once more. :raises JobNotFinished: it has not."""

    def remove(self, client: ClientId, job_id: JobId) -> Deferred[Job]:
        """Delete outcome and output before their time. :raises JobNotFinished: there is no outcome yet."""

    def jobs(self, client: ClientId, query: JobQuery) -> Deferred[JobPage]:
        """Jobs of ``client``, newest first; a page may be short, or empty, while there are more."""

    def explain(self, client: ClientId, job_id: JobId) -> Deferred[Explanation]:
        """Why the job is in its state."""

    def watch(self, client: ClientId, job_id: JobId, changed: Callable[[Job], None]) -> Deferred[tuple[Job, Watch]]:
        """The job as it stands, and ``changed`` with every later state, the terminal one last. It must not block."""

    def output(
        self, client: ClientId, job_id: JobId, attempt: int, offsets: Mapping[StreamName, int], follow: bool
    ) -> Deferred[OutputReader]:
        """Read the output of one attempt, from an offset on for each stream asked for.

        :param attempt: its number; 0 is the latest, or the first to come.
        :param follow: wait for what the script has not written yet.
        """

    def upload(self, client: ClientId, blob: Blob) -> Deferred[Upload | None]:
        """Begin to send a blob; None if it is here already."""


class ClusterDoor(Protocol):
    """What every instance, node or CSU, offers to clients, over any transport. Each call may raise, or
    fail with, a :class:`~cloudmytask.model.errors.CloudMyTaskError`."""

    def jobs_of(self) -> JobDoor:
        """Where jobs are asked for. :raises NotPermitted: this instance takes none; the sentence says which does."""

    def admit(self, client: ClientId, size: int) -> float:
        """A request of ``size`` bytes came; for how many seconds its sender is to be kept from sending more.

        :raises Banned, TooManyRequests: it is not to be answered.
        """

    def malformed(self, client: ClientId) -> None:
        """Something came that no program of ours sends. :raises Banned: it was once too often."""

    def describe(self) -> NodeStatus:
        """A picture of the instance."""

    def cluster(self) -> ClusterView:
        """All instances as this one sees them."""

    def bans(self) -> tuple[Ban, ...]:
        """Every ban in force."""

    def ban(self, by: ClientId, client: ClientId, reason: str, term: float) -> Deferred[Ban]:
        """Ban ``client`` everywhere for ``term`` seconds; an administrator's wish. Durable here when it fires."""

    def lift_ban(self, by: ClientId, client: ClientId) -> Deferred[Ban]:
        """End a ban of ``client``; what it was.

        :raises NoSuchBan: there is none in force.
        """

    def history(self, seconds: float) -> Deferred[tuple[LoadSample, ...]]:
        """The load of all nodes over the last ``seconds``, oldest first.

        :raises NotSupervised: this instance keeps none; a CSU does.
        """

    def follow(self, client: ClientId | None, told: Callable[[Event], None]) -> Watch:
        """Tell ``told`` of every change of the cluster, and of every job of ``client``; None: of all jobs. It must not
        block."""
