"""The vocabulary between instances, and its story. A client's connection does not know these commands.

An instance connects to another and says ``PeerHello``: who it is, and a nonce. The answer says the same of the other
end, with a proof that it knows the cluster's key; ``ProvePeer`` returns the proof. From then on both ends may call.

``OfferJob`` hands a job over for one attempt (the paper's TPSI-TPSI job request); a target that is full says so. Once
accepted, the executor calls back: ``AttemptStarted``, ``AttemptOutput`` piece after piece, ``AttemptEnded`` last. The
origin has all output by then. ``FollowAttempt`` takes that up again on another connection; ``StopAttempt`` ends it.
Blobs that the target lacks go ahead with ``BeginUpload``, ``UploadPiece`` and ``CommitUpload``, as a client's do.
``AskForWork`` is the question of a node that has become free, ``HandOverJob`` the farewell of one that shuts down.

``Attach``, ``Detach`` and ``TellPath`` keep the overlay; ``Relay`` carries announcements where multicast does not
reach. ``ExchangeBans`` makes two ban lists one. A CSU answers the paper's ``AddToBlackListRequest`` and
``CheckBanned``. A link that nobody has used for a while ends with ``RetireLink``; one that ends without was lost.
"""

from __future__ import annotations

from twisted.protocols import amp

from cloudmytask.wire.arguments import Document, Flag
from cloudmytask.wire.commands import NodeCommand

PEER_VERSION = 1


class PeerHello(NodeCommand):
    """First on a link. ``proof`` of the answer: see ``wire.peer_proof``."""

    arguments = [(b"version", amp.Integer()), (b"identity", Document()), (b"nonce", amp.String())]
    response = [(b"identity", Document()), (b"nonce", amp.String()), (b"proof", amp.String())]


class ProvePeer(NodeCommand):
    """The caller's proof; answered once it is believed."""

    arguments = [(b"proof", amp.String())]


class Ping(NodeCommand):
    """Whether anybody is there, and who: how busy it is, and how far its announcements are."""

    response = [(b"pulse", Document())]


class RetireLink(NodeCommand):
    """The caller does not need this link any more. ``agreed``: nor does the other end; then the caller closes it."""

    response = [(b"agreed", Flag())]


class OfferJob(NodeCommand):
    """A job for one attempt. ``watch``: the number that the callbacks carry."""

    arguments = [
        (b"watch", amp.Integer()),
        (b"offer", Document()),
        (b"script", amp.String(optional=True)),
        (b"stdin", amp.String(optional=True)),
    ]
    response = [(b"answer", Document())]


class HandOverJob(NodeCommand):
    """A node that shuts down makes a waiting job the other end's own; ``job``: its spec, its record, and the seconds
    that remain of its retention."""

    arguments = [
        (b"job", Document()),
        (b"script", amp.String(optional=True)),
        (b"stdin", amp.String(optional=True)),
    ]
    response = [(b"answer", Document())]


class FollowAttempt(NodeCommand):
    """Take up an attempt that was accepted before, its output from ``offsets`` on."""

    arguments = [
        (b"watch", amp.Integer()),
        (b"attempt", amp.Unicode()),
        (b"offsets", Document()),
    ]


class AttemptStarted(NodeCommand):
    """Executor to follower: everything is ready for the script."""

    arguments = [(b"watch", amp.Integer())]


class AttemptOutput(NodeCommand):
    """Executor to follower: a piece of output."""

    arguments = [
        (b"watch", amp.Integer()),
        (b"stream", amp.Unicode()),
        (b"offset", amp.Integer()),
        (b"data", amp.String()),
    ]


class AttemptEnded(NodeCommand):
    """Executor to follower: the last word on an attempt."""

    arguments = [(b"watch", amp.Integer()), (b"end", Document())]


class StopAttempt(NodeCommand):
    """End an attempt for ``reason``; ``hurry``: without the rest of its grace."""

    arguments = [
        (b"attempt", amp.Unicode()),
        (b"reason", amp.Unicode()),
        (b"hurry", Flag()),
    ]


class AskForWork(NodeCommand):
    """The caller has a free slot; ``coming``: how many jobs it is going to be offered."""

    arguments = [(b"capacity", Document())]
    response = [(b"coming", amp.Integer())]


class Attach(NodeCommand):
    """The caller, root of its own subtree, asks to become a child."""

    arguments = [(b"root", amp.Unicode()), (b"depth", amp.Integer())]
    response = [(b"answer", Document())]


class Detach(NodeCommand):
    """The caller is no neighbor any more."""


class TellPath(NodeCommand):
    """Parent to child: its ancestors, the root last."""

    arguments = [(b"term", amp.Integer()), (b"path", amp.ListOf(amp.Unicode()))]


class Relay(NodeCommand):
    """Announcements, each as on the multicast bus."""

    arguments = [(b"messages", amp.ListOf(amp.String()))]


class ExchangeBans(NodeCommand):
    """``bans``: some of the caller's; the answer has what is known better about their clients, or, to an empty list,
    all that there is."""

    arguments = [(b"bans", Document())]
    response = [(b"bans", Document())]


class AddToBlackListRequest(NodeCommand):
    """The paper's ``addToBlackListRequest``, to a CSU. ``banned``: it is a ban of the cluster now."""

    arguments = [(b"report", Document())]
    response = [(b"banned", Flag())]


class CheckBanned(NodeCommand):
    """What a CSU has on a client (the paper's step 3); no request of a client ever waits for it."""

    arguments = [(b"client", amp.Unicode())]
    response = [(b"ban", Document(optional=True))]
