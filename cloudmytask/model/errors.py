"""Every failure that Cloud My Task declares: what a client may be told, and with which exit code.

Invariant: a declared failure carries one sentence for a person and nothing else, so that it crosses the
wire unchanged. Anything that is not a :class:`CloudMyTaskError` is a bug and travels as
:class:`InternalError`.
"""

from __future__ import annotations

import enum
from typing import ClassVar

from cloudmytask.model.words import Resource


class ExitCode(enum.IntEnum):
    """Exit codes of every verb but ``run`` and ``wait`` (design section 8)."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NO_SUCH_JOB = 3
    NOT_FINISHED = 4
    NO_NODE = 5
    DENIED = 6
    QUOTA = 7


class CloudMyTaskError(Exception):
    """A declared failure; ``str()`` of it is one sentence for a person."""

    exit_code: ClassVar[ExitCode] = ExitCode.FAILED

    @property
    def name(self) -> str:
        """The failure's name as the command line prints it, such as ``queue-full``."""
        words = "".join(" " + c.lower() if c.isupper() else c for c in type(self).__name__)
        return "-".join(words.split())


class InternalError(CloudMyTaskError):
    """The node failed in a way that it did not foresee; its log has the traceback."""


class InvalidArgument(CloudMyTaskError):
    """An argument is malformed; the sentence names the field, the value and the limit."""

    exit_code = ExitCode.USAGE


class ScriptTooLarge(InvalidArgument):
    """The script is larger than the node accepts (``script_max``, bytes)."""


class EmptyScript(InvalidArgument):
    """The script has no bytes."""


class UnsupportedVersion(CloudMyTaskError):
    """The two ends speak no common protocol version."""


class HelloRequired(CloudMyTaskError):
    """A command came before ``Hello``."""


class NoSuchJob(CloudMyTaskError):
    """No job of this client has that id. A job of somebody else answers alike."""

    exit_code = ExitCode.NO_SUCH_JOB


class JobExpired(NoSuchJob):
    """The job is known, but its retention ended and its output is gone."""


class JobMoved(NoSuchJob):
    """The node handed the job over to another one, which the sentence names."""


class AmbiguousJob(CloudMyTaskError):
    """A prefix that several jobs share."""

    exit_code = ExitCode.USAGE


class JobNotFinished(CloudMyTaskError):
    """The operation needs a job that has ended."""

    exit_code = ExitCode.NOT_FINISHED


class OutputTruncated(CloudMyTaskError):
    """The node did not keep all of a script's output: a stream has more than ``output_max`` bytes."""


class IdempotencyConflict(CloudMyTaskError):
    """The idempotency key belongs to a job with another body."""


class QueueFull(CloudMyTaskError):
    """The node's waiting queue is at ``queue_max``; submit again later."""

    exit_code = ExitCode.QUOTA


class DiskShort(CloudMyTaskError):
    """The node has too little room left on its disk to accept new work (``disk_min``)."""

    exit_code = ExitCode.QUOTA


class NodeDraining(CloudMyTaskError):
    """The node is shutting down and accepts no new work."""

    exit_code = ExitCode.QUOTA


class Banned(CloudMyTaskError):
    """The client is banned; the sentence says why, by whom and for how long still."""

    exit_code = ExitCode.DENIED


class TooManyRequests(CloudMyTaskError):
    """The client asks more than its rate allows; the sentence says when to try again."""

    exit_code = ExitCode.QUOTA


class NotPermitted(CloudMyTaskError):
    """The command is not for the principal at the other end of this connection."""

    exit_code = ExitCode.DENIED


class ForeignCluster(CloudMyTaskError):
    """The instance at the other end belongs to another cluster, or does not know this one's key."""

    exit_code = ExitCode.DENIED


class NoSuchNode(CloudMyTaskError):
    """No node of that name is known."""

    exit_code = ExitCode.NO_NODE


class NoSuchBan(CloudMyTaskError):
    """The client is not banned."""


class NotSupervised(CloudMyTaskError):
    """What was asked for is kept by a CSU, and this instance is none."""


class StoreFailed(CloudMyTaskError):
    """The node could not make a change durable, so it did not accept it.

    ``resource``: what the node is short of, if that is why; it does not travel.
    """

    def __init__(self, *sentence: str, resource: Resource | None = None) -> None:
        super().__init__(*sentence)
        self.resource = resource


class BlobMissing(CloudMyTaskError):
    """A blob that was referred to is not on this node."""


class BlobCorrupt(CloudMyTaskError):
    """A blob's bytes do not match its digest."""


class UploadFailed(CloudMyTaskError):
    """An upload's bytes do not match what was announced for it."""


class NoNode(CloudMyTaskError):
    """No node could be reached."""

    exit_code = ExitCode.NO_NODE


class ConnectionInterrupted(CloudMyTaskError):
    """The connection to the node ended while an answer was awaited."""

    exit_code = ExitCode.NO_NODE


class RequestTimeout(CloudMyTaskError):
    """The node did not answer in time."""

    exit_code = ExitCode.NO_NODE


class WaitTimeout(CloudMyTaskError):
    """The job had not ended when the caller's patience did."""

    exit_code = ExitCode.NOT_FINISHED


class JobFailed(CloudMyTaskError):
    """The job ended otherwise than with success. Raised by the client library only."""

    def __init__(
        self,
        sentence: str,
        *,
        code: int | None = None,
        node: str | None = None,
        reason: str | None = None,
        stderr_tail: str = "",
    ) -> None:
        super().__init__(sentence)
        self.code = code
        """The script's exit code; None if it did not exit by itself."""
        self.node = node
        """Where it ran."""
        self.reason = reason
        """``exit``, ``signal``, ``timeout``, ``cancelled`` …"""
        self.stderr_tail = stderr_tail
        """The last lines of its standard error."""


class StartFailed(CloudMyTaskError):
    """The node cannot start; the sentence says what is in the way."""


class ConfigurationError(CloudMyTaskError):
    """The configuration is malformed; the sentence names file, key and value."""

    exit_code = ExitCode.USAGE


WIRE_ERRORS: tuple[type[CloudMyTaskError], ...] = (
    InternalError,
    InvalidArgument,
    ScriptTooLarge,
    EmptyScript,
    UnsupportedVersion,
    HelloRequired,
    NoSuchJob,
    JobExpired,
    JobMoved,
    AmbiguousJob,
    JobNotFinished,
    IdempotencyConflict,
    QueueFull,
    DiskShort,
    NodeDraining,
    Banned,
    TooManyRequests,
    NotPermitted,
    ForeignCluster,
    NoSuchNode,
    NoSuchBan,
    NotSupervised,
    StoreFailed,
    BlobMissing,
    BlobCorrupt,
    UploadFailed,
)
"""The failures that a node may answer with; the wire names them by class name."""
