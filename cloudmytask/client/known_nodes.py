"""Where a client looks for a node: at the addresses that were named (the caller's argument, ``$CMT_NODE``, the local
node's socket, the client's configuration file, in this order: design section 8), and, if the node there is gone, at the
other nodes of its cluster that it was told of; they are kept in a file, for later programs.

Invariant: an address that was named by the caller or ``$CMT_NODE`` ends the list: nothing else was meant. Other nodes
are places to try, nothing more: who answers there counts only if it is the node that we were told of. Their file is a
convenience: if something is wrong with it, or in it, nothing is known; it is private, replaced as a whole, never long.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from attrs import field, frozen
from twisted.logger import Logger

from cloudmytask.addresses import Address
from cloudmytask.codec import decode, encode
from cloudmytask.directories import client_file, default_state, socket_path
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


def candidates(argument: str | None, environment: Mapping[str, str], called: str = "--via") -> list[Address]:
    """The addresses that were named, in the order in which they are tried.

    :param called: what the caller calls the argument.
    :raises ConfigurationError: one makes no sense, or the configuration file does not.
    """
    if argument is not None:
        return [Address.parse(argument, called)]
    if environment.get("CMT_NODE"):
        return [Address.parse(environment["CMT_NODE"], "$CMT_NODE")]
    local = socket_path(default_state(environment))
    found = [Address.parse(f"unix:{local}", "local node")] if local.exists() else []
    return [*found, *_configured(client_file(environment))]


def _configured(path: Path) -> list[Address]:
    try:
        settings = tomllib.loads(path.read_text())
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as problem:
        raise ConfigurationError(f"{path}: {problem}") from None
    unknown = sorted(set(settings) - {"node"})
    if unknown:
        raise ConfigurationError(f"{path}: unknown key {unknown[0]!r}; the only one is 'node'")
    node = settings.get("node")
    if node is not None and not isinstance(node, str):
        raise ConfigurationError(f"{path}: node: {node!r} is not a string")
    return [] if node is None else [Address.parse(node, str(path))]


@frozen
class KnownNode:
    """A node that may stand in for another one; ``address`` is ``HOST:PORT``.

    :raises ConfigurationError: the address is none that another host could give.
    """

    name: str
    address: str
    id: str

    def __attrs_post_init__(self) -> None:
        if self.place.host is None:
            raise ConfigurationError(f"node {self.name}: {self.address!r} is not HOST:PORT")

    @property
    def place(self) -> Address:
        """Where it is."""
        return Address.parse(self.address, f"node {self.name}")


def nodes_of(view: ClusterView, identity: str, *, with_teller: bool = False) -> tuple[KnownNode, ...]:
    """The nodes that take new work, as the node sees it that told us, at most ``NODES_MAX``. Clients of different
    identity have them in different orders, and one client always in the same: so they spread over the nodes, and come
    back to the one that they were with.

    :param with_teller: begin with the one that told us; otherwise it is left out.
    """
    found: list[KnownNode] = []
    for each in view.members:
        said = each.announcement
        if _serves(each) and (with_teller or said.node_id != view.by):
            with suppress(ConfigurationError):  # then it listens to no network
                found.append(KnownNode(said.name, said.address, said.node_id))
    found.sort(key=lambda each: (each.id != view.by, _rank(identity, each.id)))
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

    at: Number
    nodes: tuple[KnownNode, ...]


@frozen
class _File:
    addresses: Mapping[str, Told]


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
            told = dict(list(decode(_File, json.loads(data)).addresses.items())[:ADDRESSES_MAX])
            return {key: Told(each.at, each.nodes[:NODES_MAX]) for key, each in told.items()}
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
                    json.dump(encode(_File(known)), written)
                fresh.replace(self.path)
            except OSError:
                with suppress(OSError):
                    fresh.unlink()
                raise
        except OSError as problem:
            _log.debug("{path} is not written: {problem}", path=str(self.path), problem=problem)
