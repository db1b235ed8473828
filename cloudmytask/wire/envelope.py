"""What every datagram of the multicast group begins with: whose cluster it is, and the proof that its key was known.

    4  magic ``CMT`` and the format's version
    8  the cluster's tag, a hash of its name
    4  the key's id; zero where the cluster has no key
    16 MAC over all the rest: BLAKE2b (RFC 7693), keyed, or without a key a mere checksum
    1  length of the cluster's name, then the name
       the body

Invariant: nothing of a body is given out unless length, version, cluster and MAC are right, and they are looked at in
this order. Nothing is raised but an :class:`Unreadable`.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from functools import lru_cache

from attrs import frozen

MESSAGE_MAX = 1200
"""Bytes of a datagram, all counted: one that no network on the way cuts into fragments."""

_MAGIC = b"CMT\x01"
_TAG = slice(4, 12)
_KEY_ID = slice(12, 16)
_MAC = slice(16, 32)
_NAME_AT = 32
_NO_KEY = bytes(4)
_NAME = re.compile(rb"[A-Za-z0-9._-]{1,64}")


class Unreadable(Exception):
    """A datagram that is not for us."""


class Malformed(Unreadable):
    """It is truncated, oversized, or not what we write; the text says why."""


class Forged(Unreadable):
    """It is of our cluster, but was not made with our key."""


class Foreign(Unreadable):
    """It is of another cluster."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name
        """The cluster's name, as it says itself, or its tag in hexadecimal digits."""


@frozen
class Envelope:
    """Of one cluster; made by :func:`envelope`."""

    cluster: str
    _key: bytes
    _start: bytes
    """Magic, tag and key id."""
    _named: bytes

    @property
    def room(self) -> int:
        """Bytes that a body may have."""
        return MESSAGE_MAX - _NAME_AT - len(self._named)

    def seal(self, body: bytes) -> bytes:
        """The datagram. ``body`` has at most :attr:`room` bytes."""
        return self._start + self._mac(body) + self._named + body

    def open(self, datagram: bytes) -> bytes:
        """The body.

        :raises Malformed, Foreign, Forged: it is none of this cluster's messages.
        """
        if not _NAME_AT < len(datagram) <= MESSAGE_MAX:
            raise Malformed(f"it has {len(datagram)} bytes, not {_NAME_AT + 1} to {MESSAGE_MAX}")
        if datagram[:4] != _MAGIC:
            raise Malformed("it does not begin with our magic and version")
        if datagram[_TAG] != self._start[_TAG]:
            raise Foreign(_name_of(datagram))
        if not datagram.startswith(self._named, _NAME_AT):
            name = _name_of(datagram)
            raise Malformed("its tag is not that of its name") if name == self.cluster else Foreign(name)
        body = datagram[_NAME_AT + len(self._named) :]
        if datagram[_KEY_ID] != self._start[_KEY_ID]:
            raise Forged("it was made with another key, or with none where we have one")
        if not hmac.compare_digest(self._mac(body), datagram[_MAC]):
            raise Forged("its MAC is wrong") if self._key else Malformed("its checksum is wrong")
        return body

    def _mac(self, body: bytes) -> bytes:
        mac = hashlib.blake2b(self._start, digest_size=16, key=self._key, person=b"cmt-datagram")
        mac.update(self._named)
        mac.update(body)
        return mac.digest()


@lru_cache(maxsize=64)
def envelope(cluster: str, key: bytes | None) -> Envelope:
    """The envelope of a cluster.

    :param cluster: 1 to 64 letters, digits, dots, underscores and dashes.
    :param key: the secret of any length; None where the cluster has none.
    """
    name = cluster.encode("ascii")
    tag = hashlib.blake2b(name, digest_size=8, person=b"cmt-cluster").digest()
    secret, key_id = b"", _NO_KEY
    if key is not None:
        secret = hashlib.blake2b(key, digest_size=32, person=b"cmt-mac-key").digest()
        # never the one that says "no key"
        key_id = b"\x01" + hashlib.blake2b(secret, digest_size=3, person=b"cmt-key-id").digest()
    return Envelope(cluster, secret, _MAGIC + tag + key_id, bytes([len(name)]) + name)


def _name_of(datagram: bytes) -> str:
    name = datagram[_NAME_AT + 1 : _NAME_AT + 1 + datagram[_NAME_AT]]
    return name.decode("ascii") if _NAME.fullmatch(name) else datagram[_TAG].hex()
