"""The nodes that earlier verbs were told of, in a file: for the day when the one that is named does not answer.

Invariant: the file is a convenience. Whatever is wrong with it, or in it, is as if nothing were remembered; it is
private, replaced as a whole, and never long.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from attrs import field, frozen
from twisted.logger import Logger

from cloudmytask.client.addresses import Address
from cloudmytask.client.peers import PEERS_MAX, Peer, peer
from cloudmytask.codec import Document, decode, encode
from cloudmytask.model.errors import CloudMyTaskError, InvalidArgument
from cloudmytask.model.fields import Number

_log = Logger(namespace="cloudmytask.cli")

NAME = "nodes.json"
ADDRESSES_MAX = 16
"""Addresses that something is remembered for; the newest are kept."""
FILE_MAX = 256 * 1024
"""Bytes; a longer file is none of ours."""
FRESH = 60.0
"""Seconds for which what was told need not be asked again."""
FORGOTTEN = 7 * 86_400.0
"""Seconds after which it is no longer used: by then an address may be anybody's."""


@frozen
class Memory:
    """What is remembered for one address.

    :ivar at: when it was told, UTC seconds.
    """

    at: float
    peers: tuple[Peer, ...]


def cache_file(environment: Mapping[str, str]) -> Path:
    """``cloudmytask/nodes.json`` in the cache directory (XDG base directory specification)."""
    named = Path(environment.get("XDG_CACHE_HOME", ""))
    if named.is_absolute():
        return named / "cloudmytask" / NAME
    if os.geteuid() == 0:
        return Path("/var/cache/cloudmytask") / NAME
    return Path.home() / ".cache" / "cloudmytask" / NAME


@frozen
class Remembered:
    """The file.

    :ivar now: UTC seconds; the file outlives every monotonic clock.
    """

    path: Path
    now: Callable[[], float] = field(default=time.time)

    def recall(self, asked: Address) -> Memory | None:
        """What is remembered for an address."""
        memory = self._read().get(asked.key)
        return None if memory is None or self._age(memory) > FORGOTTEN else memory

    def fresh(self, memory: Memory) -> bool:
        """Whether it needs not be asked again."""
        return self._age(memory) < FRESH

    def keep(self, asked: Address, peers: Sequence[Peer]) -> None:
        """Remember the nodes that may stand in for the one at an address. Nothing is written if there are none, and
        were none."""
        known = self._read()
        if not peers and asked.key not in known:
            return
        known.pop(asked.key, None)
        newest = sorted(known.items(), key=lambda item: self._age(item[1]))[: ADDRESSES_MAX - 1]
        self._write({asked.key: Memory(self.now(), tuple(peers)), **dict(newest)})

    def _age(self, memory: Memory) -> float:
        """One that is told from the future is as old as can be: the clock was wrong, then or now."""
        age = self.now() - memory.at
        return age if age >= 0 else float("inf")

    def _read(self) -> dict[str, Memory]:
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

    def _write(self, known: Mapping[str, Memory]) -> None:
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


def _encoded(known: Mapping[str, Memory]) -> Document:
    return encode(
        _File(
            {
                key: _Told(memory.at, tuple(_Other(p.name, p.address.text, p.node_id) for p in memory.peers))
                for key, memory in known.items()
            }
        )
    )


def _decoded(document: object) -> dict[str, Memory]:
    """:raises InvalidArgument, ConfigurationError:"""
    return {
        key: Memory(told.at, tuple(peer(each.name, each.address, each.id) for each in told.others[:PEERS_MAX]))
        for key, told in list(decode(_File, document).nodes.items())[:ADDRESSES_MAX]
    }
