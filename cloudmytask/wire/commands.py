"""The vocabulary between clients and nodes, and its story. The paper's two commands are at its heart.

A client connects and says ``Hello``: who it is, and which versions it speaks; the node answers with the version to
use and a picture of itself. Everything else needs that first.

``SubmitJob`` (the paper's ``submitJob(ClientID, QoS, Script)``) is answered with the job's id once the job is on
disk. A script or an input of up to ``INLINE_PART`` bytes rides along; a larger one is sent before, with
``BeginUpload``, ``UploadPiece`` (several under way at once) and ``CommitUpload``, and referred to by its digest.
``GetScriptJobStatus`` (the paper's ``getScriptJobStatus(ScriptJobID)``) answers with the job as it stands.

No call stays open for as long as a job lives. ``WatchJob`` answers at once, and from then on the *node* calls
``JobChanged`` on the client, the last time with the outcome. ``StreamOutput`` likewise: the node calls
``OutputData`` with piece after piece, a window of them unanswered at a time, and ``OutputEnded`` after the last. The
client numbers its watches, streams and uploads; ``Unsubscribe`` ends a watch or a stream. ``SubmitJob`` takes such
numbers too, so that a script is run in two exchanges: all else is pushed. A small output may ride with the outcome.

Of the cluster every instance tells what it sees: ``DescribeCluster``, ``ListBans``. ``AddBan`` and ``LiftBan`` are for
whoever works on the instance's own machine; ``LoadHistory`` is kept by a CSU only.

Versions: new arguments are optional, new behavior is a new command, and what one does not know one ignores.
"""

from __future__ import annotations

from twisted.protocols import amp

from cloudmytask.model.errors import WIRE_ERRORS
from cloudmytask.wire.arguments import Document, Flag

PROTOCOL_VERSION = 1
INLINE_PART = 60 * 1024
"""Bytes of a script or an input that may ride along with ``SubmitJob``; it has to fit into one AMP value."""
PIECE = 60 * 1024
"""Bytes in one piece of an upload or of output."""
WINDOW = 8
"""Pieces that may be unanswered at a time."""


RIDING = ((b"stdout", amp.String(optional=True)), (b"stderr", amp.String(optional=True)))
"""The whole output of a job that has ended, where it rides along."""


class NodeCommand(amp.Command):
    """A command with the failures that all of ours may be answered with."""

    errors = {error: error.__name__.encode() for error in WIRE_ERRORS}


class Hello(NodeCommand):
    """First on every connection. ``role``: ``client``."""

    arguments = [
        (b"versions", amp.ListOf(amp.Integer())),
        (b"role", amp.Unicode()),
        (b"client", amp.Unicode()),
        (b"software", amp.Unicode(optional=True)),
    ]
    response = [(b"version", amp.Integer()), (b"node", Document())]


class DescribeNode(NodeCommand):
    """What the node says about itself, now."""

    response = [(b"node", Document())]


class SubmitJob(NodeCommand):
    """The paper's ``submitJob``. ``known``: this key was submitted before.

    ``watch``, ``every`` and ``output`` mean what they mean in ``WatchJob``, ``stream`` is a number for the output of
    the first attempt, from its beginning to its end, as by ``StreamOutput``: as if both had been called in the same
    breath. ``follows``: the numbers are understood, what was asked for is told; a node that does not say so has to be
    asked.
    """

    arguments = [
        (b"key", amp.Unicode()),
        (b"qos", amp.Unicode(optional=True)),
        (b"spec", Document()),
        (b"script", amp.String(optional=True)),
        (b"stdin", amp.String(optional=True)),
        (b"watch", amp.Integer(optional=True)),
        (b"every", Flag(optional=True)),
        (b"output", Flag(optional=True)),
        (b"stream", amp.Integer(optional=True)),
    ]
    response = [(b"job", Document()), (b"known", Flag()), (b"follows", Flag(optional=True)), *RIDING]


class GetScriptJobStatus(NodeCommand):
    """The paper's ``getScriptJobStatus``."""

    arguments = [(b"job", amp.Unicode())]
    response = [(b"job", Document())]


class ListJobs(NodeCommand):
    """The client's own jobs, newest first, a page at a time (``query``: prefix, name, states, before, limit)."""

    arguments = [(b"query", Document(optional=True))]
    response = [(b"page", Document())]


class CancelJob(NodeCommand):
    """End a job; answered when the wish is on disk, not when the script has ended."""

    arguments = [(b"job", amp.Unicode()), (b"note", amp.Unicode(optional=True))]
    response = [(b"job", Document())]


class RetryJob(NodeCommand):
    """Submit the spec of a job that has ended once more, under a new key."""

    arguments = [(b"job", amp.Unicode()), (b"key", amp.Unicode())]
    response = [(b"job", Document()), (b"known", Flag())]


class RemoveJob(NodeCommand):
    """Delete outcome and output of a job that has ended, before its retention ends."""

    arguments = [(b"job", amp.Unicode())]
    response = [(b"job", Document())]


class ExplainJob(NodeCommand):
    """Why the job is in its state."""

    arguments = [(b"job", amp.Unicode())]
    response = [(b"explanation", Document())]


class WatchJob(NodeCommand):
    """The job as it stands; ``JobChanged`` follows with its outcome, and before at ``every`` change if asked for. The
    outcome ends the watch. With ``output`` the outcome brings ``stdout`` and ``stderr`` of the latest attempt along if
    both are small and the client is not behind; otherwise they are absent."""

    arguments = [
        (b"watch", amp.Integer()),
        (b"job", amp.Unicode()),
        (b"every", Flag(optional=True)),
        (b"output", Flag(optional=True)),
    ]
    response = [(b"job", Document()), *RIDING]


class JobChanged(NodeCommand):
    """Node to client: a watched job is in another state. A client that is behind is told the last one only."""

    arguments = [(b"watch", amp.Integer()), (b"job", Document()), *RIDING]


class StreamOutput(NodeCommand):
    """Send the output of one attempt (0: the latest or the first to come), from ``offsets`` (stream name: bytes) on."""

    arguments = [
        (b"watch", amp.Integer()),
        (b"job", amp.Unicode()),
        (b"attempt", amp.Integer()),
        (b"offsets", Document()),
        (b"follow", Flag()),
    ]


class OutputData(NodeCommand):
    """Node to client: a piece of output. The answer makes room in the window."""

    arguments = [
        (b"watch", amp.Integer()),
        (b"stream", amp.Unicode()),
        (b"offset", amp.Integer()),
        (b"data", amp.String()),
    ]


class OutputEnded(NodeCommand):
    """Node to client: no more output comes on this stream; ``error`` if it could not be read to its end."""

    arguments = [(b"watch", amp.Integer()), (b"end", Document())]


class Unsubscribe(NodeCommand):
    """End a watch or a stream; one that is not there is ended already."""

    arguments = [(b"watch", amp.Integer())]


class BeginUpload(NodeCommand):
    """Announce a blob. ``present``: it is here already, send nothing."""

    arguments = [(b"upload", amp.Integer()), (b"blob", Document())]
    response = [(b"present", Flag())]


class UploadPiece(NodeCommand):
    """The next bytes of an upload."""

    arguments = [(b"upload", amp.Integer()), (b"offset", amp.Integer()), (b"data", amp.String())]


class CommitUpload(NodeCommand):
    """All bytes are sent; answered once the blob is verified and on disk."""

    arguments = [(b"upload", amp.Integer())]


class AbortUpload(NodeCommand):
    """Forget an upload."""

    arguments = [(b"upload", amp.Integer())]


class DescribeCluster(NodeCommand):
    """All instances as this one sees them, by id, a page at a time: those after the id ``after``, if there is one. The
    page's ``next`` is the ``after`` of the next page, null at the end."""

    arguments = [(b"after", amp.Unicode(optional=True))]
    response = [(b"cluster", Document())]


class ListBans(NodeCommand):
    """The bans in force, by client, a page at a time like ``DescribeCluster``."""

    arguments = [(b"after", amp.Unicode(optional=True))]
    response = [(b"page", Document())]


class AddBan(NodeCommand):
    """Ban a client everywhere for ``term`` seconds; answered when that is on disk."""

    arguments = [(b"client", amp.Unicode()), (b"reason", amp.Unicode()), (b"term", amp.Float())]
    response = [(b"ban", Document())]


class LiftBan(NodeCommand):
    """End a ban before its term does; answered when that is on disk."""

    arguments = [(b"client", amp.Unicode())]
    response = [(b"ban", Document())]


class LoadHistory(NodeCommand):
    """How busy each node was in the last ``seconds``, oldest first; thinned out where that is more than one answer
    holds."""

    arguments = [(b"seconds", amp.Float())]
    response = [(b"history", Document())]
