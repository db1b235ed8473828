"""The multicast group over a real network.

Invariants: nothing that arrives is answered; our own messages never come back to us; neither sending nor a missing
network raises. While the group is not joined it is tried again, with backoff, for as long as the bus is open.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IReactorMulticast
from twisted.logger import Logger

from cloudmytask.boundaries import Clock, DelayedCall
from cloudmytask.core.backoff import Backoff
from cloudmytask.model.cluster import Announcement, BootId, BusMessage, BusStatistics, NodeId
from cloudmytask.net.datagrams import DatagramCounts, PacedDatagrams
from cloudmytask.wire.announcement import MESSAGE_MAX, Unreadable, decode_message, encode_message

_log = Logger()

RECEIVE_BUFFER = 1024 * 1024
"""Bytes asked of the kernel: more than a second of announcements while the reactor is busy."""
READ_AT_ONCE = 32 * 1024
"""Bytes read before the reactor has its turn again; the rest waits in the buffer."""
TTL = 1
"""Hops between networks, plus one: no router forwards it."""
RETRY = Backoff(first=0.5, factor=2.0, ceiling=15.0)
"""Between two attempts to join, seconds."""

_GONE = frozenset({errno.ENODEV, errno.EADDRNOTAVAIL, errno.ENETUNREACH, errno.ENETDOWN})
"""Errors of a send after which the interface may have to be joined anew."""
# Linux's ip(7); Python has no name for it
_IP_MULTICAST_ALL = 49

Heard = Callable[[BusMessage], None]


@define(eq=False)
class MulticastBus:
    """Implements :class:`cloudmytask.boundaries.Bus` by IPv4 multicast.

    :ivar group: address and port.
    :ivar interface: the IPv4 address whose interface joins the group and sends; it need not exist yet.
    :ivar cluster: its name; ``key``: its secret, None if it has none.
    """

    _reactor: IReactorMulticast
    _clock: Clock
    _group: tuple[str, int]
    _interface: str
    _cluster: str
    _key: bytes | None = field(repr=False)
    _heard: Heard | None = field(init=False, default=None)
    _port: Any = field(init=False, default=None)
    _retry: DelayedCall | None = field(init=False, default=None)
    _failures: int = field(init=False, default=0)
    _error: str = field(init=False, default="")
    _own_id: NodeId | None = field(init=False, default=None)
    _own_boot: BootId | None = field(init=False, default=None)
    _counts: DatagramCounts = field(init=False)
    _receive_buffer: int = field(init=False, default=0)

    def __attrs_post_init__(self) -> None:
        self._counts = DatagramCounts(self._clock)

    def open(self, heard: Heard) -> None:
        """Join, now or as soon as the interface is there."""
        self._heard = heard
        self._join()

    def close(self) -> None:
        """Leave. What was sent before has left this host or its buffer. Idempotent."""
        self._heard = None
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        self._leave()

    def send(self, message: BusMessage) -> None:
        """To the group, once; what cannot be sent is counted and gone."""
        if isinstance(message, Announcement):
            self._own_id, self._own_boot = message.node_id, message.boot_id
        else:
            self._own_id = message.reporter
        if self._port is None:
            self._counts.unsent += 1
            return
        try:
            self._port.write(encode_message(message, self._key), self._group)
        except OSError as problem:
            self._unsent(problem)
        else:
            self._counts.sent += 1
            self._error = ""

    def statistics(self) -> BusStatistics:
        """What passed so far."""
        return self._counts.statistics(
            f"{self._group[0]}:{self._group[1]}", self._port is not None, self._error, self._receive_buffer
        )

    def _unsent(self, problem: OSError) -> None:
        self._counts.unsent += 1
        said = f"cannot send: {problem.strerror}"
        if said != self._error:
            _log.warn("announcements to {group} {said}", group=self._group[0], said=said)
        self._error = said
        if problem.errno in _GONE:
            self._leave()
            self._try_again()

    def _received(self, datagram: bytes) -> None:
        try:
            message = decode_message(datagram, self._cluster, self._key)
        except Unreadable as problem:
            self._counts.unreadable(problem)
            return
        if self._heard is None or self._is_own(message):
            return
        self._counts.heard += 1
        try:
            self._heard(message)
        except Exception:  # noqa: BLE001 - the next message is to be heard all the same
            _log.failure("a message of the group could not be taken in")

    def _is_own(self, message: BusMessage) -> bool:
        """Another boot with our id is not: it is an earlier life of ours, or somebody who should not have our id."""
        if isinstance(message, Announcement):
            return message.node_id == self._own_id and message.boot_id == self._own_boot
        return message.reporter == self._own_id

    def _join(self) -> None:
        self._retry = None
        address, number = self._group
        port: Any = None
        try:
            # Bound to any other address it would receive other groups' datagrams, or none. One byte more than the limit
            # tells an oversized datagram from one that has just that size.
            port = self._reactor.listenMulticast(
                number,
                PacedDatagrams(self._clock, self._received),
                interface=address,
                maxPacketSize=MESSAGE_MAX + 1,
                listenMultiple=True,
            )
            port.maxThroughput = READ_AT_ONCE
            self._receive_buffer = _prepare(port.getHandle(), address, self._interface)
        except (CannotListenError, OSError) as problem:
            if port is not None:
                port.stopListening()
            self._not_joined(problem)
        else:
            self._port = port
            self._joined()

    def _joined(self) -> None:
        _log.info(
            "joined the group {group}:{port} on {interface}",
            group=self._group[0],
            port=self._group[1],
            interface=self._interface,
        )
        if self._receive_buffer < RECEIVE_BUFFER:
            _log.warn(
                "the kernel grants {granted} of {asked} bytes of receive buffer: announcements may be lost while this"
                " instance is busy; raise net.core.rmem_max",
                granted=self._receive_buffer,
                asked=RECEIVE_BUFFER,
            )
        self._error = ""
        self._failures = 0

    def _not_joined(self, problem: CannotListenError | OSError) -> None:
        cause = problem.socketError if isinstance(problem, CannotListenError) else problem
        said = f"cannot join on {self._interface}: {getattr(cause, 'strerror', None) or cause}"
        if said != self._error:
            _log.warn("the group {group} {said}; it is tried again", group=self._group[0], said=said)
        self._error = said
        self._try_again()

    def _try_again(self) -> None:
        self._failures += 1
        if self._heard is not None:
            self._retry = self._clock.callLater(RETRY.delay(self._failures, 0.0), self._join)

    def _leave(self) -> None:
        if self._port is not None:
            self._port.stopListening()
            self._port = None


def _prepare(handle: socket.socket, group: str, interface: str) -> int:
    """Join and choose where to send; the bytes of receive buffer that were granted. :raises OSError:"""
    handle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    ours = socket.inet_aton(interface)
    handle.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, TTL)
    handle.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
    # or we hear what arrives on interfaces where somebody else on this host joined
    handle.setsockopt(socket.IPPROTO_IP, _IP_MULTICAST_ALL, 0)
    handle.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, ours)
    handle.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(group) + ours)
    # socket(7): the kernel reports twice of what is used for data
    return handle.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2


class NullBus:
    """Implements :class:`cloudmytask.boundaries.Bus` where there is no group."""

    def open(self, heard: Heard) -> None:
        """Nothing is ever heard."""

    def send(self, message: BusMessage) -> None:
        """To nobody."""

    def close(self) -> None:
        """Nothing to leave."""

    def statistics(self) -> BusStatistics:
        """Nothing passed."""
        return BusStatistics()
