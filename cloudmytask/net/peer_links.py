"""Makes links: connects to peers and introduces itself, and takes in those that connect.

Invariant: a link exists only after both ends have introduced themselves, are of one cluster, and have proven its key
where there is one; a connection that comes to nothing is closed.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IAddress, IStreamClientEndpoint, ISystemHandle, ITCPTransport
from twisted.internet.protocol import Factory
from twisted.logger import Logger

from cloudmytask.boundaries import Clock, Entropy, Link, PeerDoor
from cloudmytask.codec import decode, encode
from cloudmytask.core.rates import TokenBucket
from cloudmytask.model.cluster import PeerIdentity
from cloudmytask.model.errors import (
    CloudMyTaskError,
    ForeignCluster,
    HelloRequired,
    InvalidArgument,
    NoNode,
    UnsupportedVersion,
)
from cloudmytask.net.peer_link import PeerAnswers, PeerLink
from cloudmytask.wire import peer_commands as commands
from cloudmytask.wire.guard import GuardedAMP
from cloudmytask.wire.peer_proof import NONCE_SIZE, Side, proof, proven
from cloudmytask.wire.vocabulary import Vocabulary

_log = Logger()

REQUESTS, REQUESTS_BURST = 2000.0, 4000.0
"""Requests a second of one peer, and at once: pieces of output (120 MB/s of it) are the most that peers ask."""

HELLO_TIMEOUT = 5.0
"""Seconds that each step of an introduction may take."""
UNACKNOWLEDGED = 5.0
"""Seconds after which a link ends whose other end does not even acknowledge what was sent: its host, or the way to it,
is gone without a word."""


class PeerLinks:
    """Implements ``boundaries.Links``.

    :param endpoint: how to connect to an address.
    :param key: the cluster's; None where there is none.
    """

    def __init__(
        self,
        endpoint: Callable[[str], IStreamClientEndpoint],
        clock: Clock,
        entropy: Entropy,
        key: bytes | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._clock = clock
        self._entropy = entropy
        self._key = key
        self._door: PeerDoor | None = None

    def open(self, door: PeerDoor) -> None:
        self._door = door

    def connect(self, address: str) -> Deferred[Link]:
        return Deferred.fromCoroutine(self._connect(address))

    def introduction(self, protocol: GuardedAMP, introduced: Callable[[PeerLink], None]) -> Introduction | None:
        """How a connection that somebody made to us may become a link; None while nobody answers peers here."""
        if self._door is None:
            return None
        return Introduction(protocol, self._door, self._key, self._entropy, introduced)

    async def _connect(self, address: str) -> Link:
        door = self._door
        assert door is not None
        protocol = GuardedAMP(Vocabulary({}), self._clock)
        try:
            await self._endpoint(address).connect(_LinkFactory(protocol))
        except CancelledError:
            raise
        except Exception as problem:
            raise NoNode(f"{address}: {_why(problem)}") from problem
        try:
            return await self._introduce(protocol, door, address)
        except BaseException:
            _abort(protocol)
            raise

    async def _introduce(self, protocol: GuardedAMP, door: PeerDoor, address: str) -> PeerLink:
        us, nonce = door.identity(), self._entropy.token(NONCE_SIZE)
        answer = await protocol.ask(
            commands.PeerHello,
            HELLO_TIMEOUT,
            version=commands.PEER_VERSION,
            identity=encode(us),
            nonce=nonce,
        )
        peer = decode(PeerIdentity, answer["identity"])
        nonces, identities = (nonce, answer["nonce"]), (us, peer)
        if peer.cluster != us.cluster:
            raise ForeignCluster(f"{address}: {peer.name} is of cluster {peer.cluster!r}, not of {us.cluster!r}")
        if peer.node_id == us.node_id:
            raise ForeignCluster(f"{address}: that is ourselves, or an instance with the same id {us.node_id}")
        if not proven(proof(self._key, Side.CALLED, nonces, identities), answer["proof"]):
            raise ForeignCluster(f"{address}: {peer.name} does not know the key of cluster {us.cluster!r}")
        link = _linked(protocol, peer, self._key)
        _answer(protocol, link, door, self._key)
        await protocol.ask(commands.ProvePeer, HELLO_TIMEOUT, proof=proof(self._key, Side.CALLER, nonces, identities))
        return link


class Introduction:
    """The called end of an introduction; its responders stand on a connection that may still become a client's.

    :param introduced: called once, with the link.
    """

    def __init__(
        self,
        protocol: GuardedAMP,
        door: PeerDoor,
        key: bytes | None,
        entropy: Entropy,
        introduced: Callable[[PeerLink], None],
    ) -> None:
        self._protocol = protocol
        self._door = door
        self._key = key
        self._entropy = entropy
        self._introduced = introduced
        self._peer: PeerIdentity | None = None
        self._expected = b""

    def hello(self, version: int, identity: dict[str, Any], nonce: bytes) -> dict[str, Any]:
        """The caller says who it is."""
        if version != commands.PEER_VERSION:
            raise UnsupportedVersion(
                f"this instance speaks peer version {commands.PEER_VERSION}, the other end {version}"
            )
        if len(nonce) != NONCE_SIZE:
            raise InvalidArgument(f"nonce: {len(nonce)} bytes are not {NONCE_SIZE}")
        us, peer = self._door.identity(), decode(PeerIdentity, identity)
        if peer.cluster != us.cluster:
            raise ForeignCluster(f"this instance is of cluster {us.cluster!r}, not of {peer.cluster!r}")
        if peer.node_id == us.node_id:
            raise ForeignCluster(f"this instance has the same id, {us.node_id}")
        nonces, identities = (nonce, self._entropy.token(NONCE_SIZE)), (peer, us)
        self._peer = peer
        self._expected = proof(self._key, Side.CALLER, nonces, identities)
        return {
            "identity": encode(us),
            "nonce": nonces[1],
            "proof": proof(self._key, Side.CALLED, nonces, identities),
        }

    def prove(self, proof: bytes) -> dict[str, Any]:
        """The caller proves that it is of our cluster."""
        if self._peer is None:
            raise HelloRequired("PeerHello must come before ProvePeer")
        peer, self._peer = self._peer, None
        if not proven(self._expected, proof):
            raise ForeignCluster(f"{peer.name} does not know this cluster's key")
        link = _linked(self._protocol, peer, self._key)
        self._door.welcome(link)
        _answer(self._protocol, link, self._door, self._key)
        self._introduced(link)
        return {}


class _LinkFactory(Factory):
    noisy = False

    def __init__(self, protocol: GuardedAMP) -> None:
        self._protocol = protocol

    def buildProtocol(self, addr: IAddress | None) -> GuardedAMP:  # noqa: ARG002 - Twisted's interface
        return self._protocol


def _linked(protocol: GuardedAMP, peer: PeerIdentity, key: bytes | None) -> PeerLink:
    """The link that a connection becomes."""
    link = PeerLink(protocol, peer, key)
    protocol.gone.add(link.lost)
    transport: Any = protocol.transport
    if ITCPTransport.providedBy(transport) and ISystemHandle.providedBy(transport):
        handle: Any = transport.getHandle()
        handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(UNACKNOWLEDGED * 1000))
    return link


def _answer(protocol: GuardedAMP, link: PeerLink, door: PeerDoor, key: bytes | None) -> None:
    """From now on the connection answers what peers ask, and nothing else."""
    protocol.answer_with(Vocabulary(PeerAnswers(link, protocol, door, key).responders(), _paced(protocol)))


def _paced(protocol: GuardedAMP) -> Callable[[int], None]:
    """What is called for each request of a peer: one that asks too fast is read from as fast as it may ask."""
    bucket = TokenBucket(REQUESTS, REQUESTS_BURST, REQUESTS_BURST, protocol.now)

    def admit(_size: int) -> None:
        bucket.refill(protocol.now)
        delay = bucket.debt(1)
        bucket.tokens -= 1
        if delay > 0:
            protocol.hold(delay, all_of_it=True)

    return admit


def _abort(protocol: GuardedAMP) -> None:
    transport: Any = protocol.transport
    if protocol.alive and transport is not None:
        transport.abortConnection()


def _why(problem: Exception) -> str:
    if isinstance(problem, CloudMyTaskError):
        return str(problem)
    number = getattr(problem, "osError", None)
    if isinstance(number, int):
        return os.strerror(number)
    return str(problem).rstrip(".") or type(problem).__name__


__all__ = ["Introduction", "PeerLinks"]
