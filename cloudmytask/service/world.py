"""The real world, as a node or a CSU sees it: wall clock, the system's randomness, the network, store, children, CPU
counters.

Invariant: wiring only; nothing is started or sent here. A cluster's key that comes out of its file has at least
``KEY_MIN`` bytes and could be read by nobody but its owner.
"""

from __future__ import annotations

import os
import random
import secrets
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from attrs import define, field, frozen
from twisted.internet.interfaces import IReactorFDSet, IReactorMulticast, IStreamClientEndpoint

from cloudmytask.addresses import Address
from cloudmytask.boundaries import Bus, Clock, JobStore, LoadProbe, OpenSinks, World
from cloudmytask.config import InstanceConfig, NodeConfig
from cloudmytask.model.errors import ConfigurationError, StartFailed
from cloudmytask.net.multicast import MulticastBus, NullBus
from cloudmytask.net.peer_links import PeerLinks
from cloudmytask.probe import CpuProbe, NoProbe
from cloudmytask.process import ProcessRunner

KEY_MIN = 16
"""Bytes that a secret needs at the least."""
KEY_MAX = 4096
"""Bytes; a larger file is something else."""


@frozen
class SystemEntropy:
    """Implements :class:`cloudmytask.boundaries.Entropy`; tokens come from getrandom(2)."""

    random: random.Random = field(factory=random.SystemRandom)

    def token(self, size: int) -> bytes:
        """Make ``size`` bytes that nobody can guess."""
        return secrets.token_bytes(size)


def load_key(path: Path) -> bytes:
    """Read the secret that the instances of a cluster share: the file's bytes without the line ends that editors add.

    May block: for the start only.

    :raises ConfigurationError: it cannot be read, is too short or too long, belongs to somebody else, or others than
        its owner may read or change it.
    """
    place = f"cluster_key_file: {str(path)!r}"
    try:
        # without O_NONBLOCK a FIFO would wait for its writer
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise ConfigurationError(f"{place} is not a regular file.")
            if found.st_uid not in (os.geteuid(), 0):
                raise ConfigurationError(f"{place} belongs to another user.")
            if found.st_mode & 0o077:
                raise ConfigurationError(
                    f"{place} has mode {stat.S_IMODE(found.st_mode):04o}: others than its owner may use it;"
                    f" run chmod 600 on it, and make a new key if somebody may have read it."
                )
            secret = file.read(KEY_MAX + 1)
    except OSError as error:
        raise ConfigurationError(f"{place} cannot be read: {error.strerror}.") from None
    except ValueError:
        raise ConfigurationError(f"{place} is not a path.") from None
    if len(secret) > KEY_MAX:
        raise ConfigurationError(f"{place} is larger than {KEY_MAX} bytes: it is no key.")
    secret = secret.rstrip(b"\r\n")
    if len(secret) < KEY_MIN:
        raise ConfigurationError(f"{place} holds {len(secret)} bytes: a key has at least {KEY_MIN}.")
    return secret


@frozen
class Peers:
    """What an instance needs to meet others. Without a group the bus is none."""

    entropy: SystemEntropy
    bus: Bus
    links: PeerLinks


def make_peers(config: InstanceConfig, reactor: Any) -> Peers:
    """Make the bus and the links that the configuration asks for; nothing is sent before the instance opens them.

    :raises StartFailed: the cluster's key cannot be used.
    """
    try:
        key = None if config.cluster_key_file is None else load_key(config.cluster_key_file)
    except ConfigurationError as problem:
        raise StartFailed(str(problem)) from None

    def endpoint(address: str) -> IStreamClientEndpoint:
        return Address.parse(address, "peer").endpoint(reactor)

    entropy = SystemEntropy()
    group, interface = config.multicast_group, config.multicast_interface
    bus: Bus = NullBus()
    if group is not None and interface is not None:
        bus = MulticastBus(IReactorMulticast(reactor), reactor, group, interface, config.cluster, key)
    return Peers(entropy, bus, PeerLinks(endpoint, reactor, entropy, key))


class SampledProbe(LoadProbe, Protocol):
    """A load probe that wants to be called every ``probe.SAMPLE_INTERVAL`` seconds."""

    def sample(self) -> None: ...


def make_probe(config: NodeConfig, running: Callable[[], int]) -> SampledProbe:
    """Make the load probe that ``load_source`` asks for.

    :param running: how many scripts of ours run now; each is taken to fill one core.
    """
    if config.load_source == "none":
        return NoProbe()
    cores = os.cpu_count() or 1
    return CpuProbe(own_jobs=lambda: min(1.0, running() / cores))


def make_runner(
    config: NodeConfig, reactor: IReactorFDSet, clock: Clock, sinks: OpenSinks, open_files: int | None = None
) -> ProcessRunner:
    """Make the runner of this node's scripts, which are marked with its state directory.

    :param open_files: the soft limit of open descriptors that scripts get; None: this process's.
    """
    tag = str(config.state.resolve())
    return ProcessRunner(reactor, clock, sinks, tag, exit_grace=config.exit_grace, open_files=open_files)


@define(eq=False)
class DiskRoom:
    """How much room there is below a directory, as of the last :meth:`sample`."""

    _path: Path
    free: int | None = field(init=False, default=None)
    """Bytes that this user may still write; None if it cannot be known."""

    def take(self, size: int) -> None:
        """So many bytes more are on their way to the disk."""
        if self.free is not None:
            self.free -= size

    def sample(self) -> None:
        """Ask the file system (statvfs(3))."""
        try:
            found = os.statvfs(self._path)
        except OSError:
            self.free = None
        else:
            self.free = found.f_bavail * found.f_frsize


def make_world(
    clock: Clock,
    store: JobStore,
    runner: ProcessRunner,
    sinks: OpenSinks,
    probe: SampledProbe,
    peers: Peers,
    disk: DiskRoom,
) -> World:
    """Put the world of a node together."""
    return World(
        clock=clock,
        wall=time.time,
        entropy=peers.entropy,
        store=store,
        runner=runner,
        probe=probe,
        bus=peers.bus,
        links=peers.links,
        disk_free=lambda: disk.free,
        disk_taken=disk.take,
        sinks=sinks,
        python=sys.executable,
    )
