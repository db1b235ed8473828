"""How two instances prove to each other that they know the cluster's key, without showing it.

Each end sends a nonce; each proof is a keyed BLAKE2b (RFC 7693) over its sender's side, both nonces and both
identities, so that a proof is good for this one link and cannot be sent back to its maker. Without a key the proofs are
empty: a cluster that has none trusts everybody who reaches it.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
import json

from cloudmytask.codec import encode
from cloudmytask.model.cluster import PeerIdentity

NONCE_SIZE = 16
"""Bytes."""


class Side(enum.StrEnum):
    """Whose proof it is."""

    CALLER = "caller"
    CALLED = "called"


def proof(
    key: bytes | None, side: Side, nonces: tuple[bytes, bytes], identities: tuple[PeerIdentity, PeerIdentity]
) -> bytes:
    """The proof of one side.

    :param nonces: the caller's, then the other's; ``identities`` likewise.
    """
    if key is None:
        return b""
    told = json.dumps([side, [n.hex() for n in nonces], [encode(i) for i in identities]])
    return hashlib.blake2b(told.encode("ascii"), key=hashlib.sha256(key).digest(), person=b"cmt-peer").digest()


def proven(expected: bytes, given: bytes) -> bool:
    """Whether a proof is the expected one, in constant time."""
    return hmac.compare_digest(expected, given)
