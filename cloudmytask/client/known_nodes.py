"""The other nodes of a cluster, as a client was told of them, for the time when the one that it talks to is gone; in a
file, for later programs.

Invariant: they are places to try, nothing more: who answers there counts only if it is the node that we were told of.
The file is a convenience. Whatever is wrong with it, or in it, is as if nothing were known; it is private, replaced as
a whole, and never long.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from attrs import field, frozen
from twisted.logger import Logger

from cloudmytask.addresses import Address
from cloudmytask.codec import Document, decode, encode
from cloudmytask.model.cluster import ClusterView, MemberStatus, Role, Standing
from cloudmytask.model.errors import CloudMyTaskError, ConfigurationError, InvalidArgument
from cloudmytask.model.fields import Number

_log = Logger()

NODES_MAX = 16
"""Nodes that are remembered for one address."""
ADDRESSES_MAX = 16
"""Addresses that something is remembered for; the newest are kept."""
FILE_MAX = 256 * 1024
"""Bytes; a longer file is none of ours."""
FRESH = 60.0
"""Seconds for which what was told need not be asked again."""
FORGOTTEN = 7 * 86_400.0
"""Seconds after which it is no longer used: by then an address may be anybody's."""


@frozen
class KnownNode:
    """A node that may stand in for another one."""

    name: str
    address: Address
    node_id: str


def known_node(name: str, address: str, node_id: str) -> KnownNode:
    """:raises ConfigurationError: the address is none that another host could give."""
    parsed = Address.parse(address, f"node {name}")
    if parsed.host is None:
        raise ConfigurationError(f"node {name}: {address!r} is not HOST:PORT")
    return KnownNode(name, parsed, node_id)


def nodes_of(view: ClusterView, identity: str, *, with_teller: bool = False) -> tuple[KnownNode, ...]:
    """The nodes that take new work, as the node sees it that told us, at most ``NODES_MAX``. Clients of different
    identity have them in different orders, and one client always in the same: so they spread over the nodes, and come
    back to the one that they were with.

    :param with_teller: begin with the one that told us; otherwise it is left out.
    """
    found: list[KnownNode] = []
    for each in view.members:
        if _serves(each) and (with_teller or each.announcement.node_id != view.by):
            said = each.announcement
            try:
                found.append(known_node(said.name, said.address, said.node_id))
            except ConfigurationError:
                continue  # it listens to no network
    found.sort(key=lambda each: (each.node_id != view.by, _rank(identity, each.node_id)))
    return tuple(found[:NODES_MAX])


def _serves(member: MemberStatus) -> bool:
    said = member.announcement
    return said.role is Role.NODE and member.standing is Standing.ALIVE and not (said.draining or member.conflict)


def _rank(identity: str, node_id: str) -> bytes:
    return hashlib.sha256(f"{identity}\0{node_id}".encode()).digest()


@frozen
class Told:
    """What is remembered for one address.

    :ivar at: when it was told, UTC seconds.
    """

    at: float
    nodes: tuple[KnownNode, ...]


@frozen
class KnownNodes:
    """The file.

    :ivar path: None if there is none: nothing is remembered beyond this program.
    :ivar now: UTC seconds; the file outlives every monotonic clock.
    """

    path: Path | None
    now: Callable[[], float] = field(default=time.time)

    def recall(self, asked: Address) -> Told | None:
        """What is remembered for an address."""
        told = self._read().get(asked.key)
        return None if told is None or self._age(told) > FORGOTTEN else told

    def fresh(self, told: Told) -> bool:
        """Whether it needs not be asked again."""
        return self._age(told) < FRESH

    def keep(self, asked: Address, nodes: Sequence[KnownNode]) -> Told:
        """Remember the nodes that may stand in for the one at an address. Nothing is written if there are none, and
        were none."""
        told = Told(self.now(), tuple(nodes))
        known = self._read()
        if nodes or asked.key in known:
            known.pop(asked.key, None)
            newest = sorted(known.items(), key=lambda item: self._age(item[1]))[: ADDRESSES_MAX - 1]
            self._write({asked.key: told, **dict(newest)})
        return told

    def _age(self, told: Told) -> float:
        """One that is told from the future is as old as can be: the clock was wrong, then or now."""
        age = self.now() - told.at
        return age if age >= 0 else float("inf")

    def _read(self) -> dict[str, Told]:
        if self.path is None:
            return {}
        try:
            with self.path.open("rb") as file:
                data = file.read(FILE_MAX + 1)
            if len(data) > FILE_MAX:
                raise InvalidArgument(f"more than {FILE_MAX} bytes")
            return _decoded(json.loads(data))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError, CloudMyTaskError) as problem:
            _log.debug("{path} is not used: {problem}", path=str(self.path), problem=problem)
            return {}

    def _write(self, known: Mapping[str, Told]) -> None:
        if self.path is None:
            return
        fresh = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            file = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                with os.fdopen(file, "w") as written:
                    json.dump(_encoded(known), written)
                fresh.replace(self.path)
            except OSError:
                with suppress(OSError):
                    fresh.unlink()
                raise
        except OSError as problem:
            _log.debug("{path} is not written: {problem}", path=str(self.path), problem=problem)


@frozen
class _Other:
    name: str
    address: str
    id: str


@frozen
class _Told:
    at: Number
    others: tuple[_Other, ...]


@frozen
class _File:
    nodes: Mapping[str, _Told]


def _encoded(known: Mapping[str, Told]) -> Document:
    return encode(
        _File(
            {
                key: _Told(told.at, tuple(_Other(n.name, n.address.text, n.node_id) for n in told.nodes))
                for key, told in known.items()
            }
        )
    )


def _decoded(document: object) -> dict[str, Told]:
    """:raises InvalidArgument, ConfigurationError:"""
    return {
        key: Told(told.at, tuple(known_node(each.name, each.address, each.id) for each in told.others[:NODES_MAX]))
        for key, told in list(decode(_File, document).nodes.items())[:ADDRESSES_MAX]
    }
