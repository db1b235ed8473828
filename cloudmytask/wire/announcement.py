"""Messages of the multicast group and their datagrams: announcements and obituaries.

Invariant: a message has at most ``MESSAGE_MAX`` bytes; decoding raises nothing but
:class:`~cloudmytask.wire.envelope.Unreadable`, and what it returns is of the right types and within its limits.
"""

from __future__ import annotations

from attrs import evolve

from cloudmytask.codec.compact import from_compact, to_compact
from cloudmytask.model.cluster import Announcement, BusMessage
from cloudmytask.model.errors import InvalidArgument
from cloudmytask.wire.envelope import MESSAGE_MAX, Foreign, Forged, Malformed, Unreadable, envelope

__all__ = [
    "MESSAGE_MAX",
    "Foreign",
    "Forged",
    "Malformed",
    "Unreadable",
    "decode_message",
    "encode_message",
]


def encode_message(message: BusMessage, key: bytes | None) -> bytes:
    """The datagram. What does not fit is left out: first clients of ``running``, the last first, then children.

    :param key: the cluster's secret; None if it has none.
    """
    sealed = envelope(message.cluster, key)
    body = to_compact(message)
    while len(body) > sealed.room and isinstance(message, Announcement):
        message = _shortened(message)
        body = to_compact(message)
    return sealed.seal(body)


def _shortened(message: Announcement) -> Announcement:
    if message.backlog.running:
        return evolve(message, backlog=evolve(message.backlog, running=message.backlog.running[:-1]))
    assert message.tree is not None and message.tree.children, "names of at most 64 characters fit"
    return evolve(message, tree=evolve(message.tree, children=message.tree.children[:-1]))


def decode_message(data: bytes, cluster: str, key: bytes | None) -> BusMessage:
    """The message in a datagram.

    :param cluster: ours.
    :param key: the cluster's secret; None if it has none.
    :raises Malformed: it is truncated, oversized or not what we write.
    :raises Forged: it was not made with the key.
    :raises Foreign: it is of another cluster.
    """
    body = envelope(cluster, key).open(data)
    try:
        return from_compact(body, cluster)
    except InvalidArgument as problem:
        raise Malformed(str(problem)) from None
