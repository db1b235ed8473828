"""The real world, as a node sees it: reactor, wall clock, the system's randomness, store, children, CPU counters.

Invariant: wiring only; nothing is started here.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from attrs import define, field
from twisted.internet.interfaces import IReactorFDSet

from cloudmytask.boundaries import Clock, JobStore, LoadProbe, OpenSinks, World
from cloudmytask.config import NodeConfig
from cloudmytask.probe import CpuProbe, NoProbe
from cloudmytask.process import ProcessRunner
from cloudmytask.service.peers import Peers


class SampledProbe(LoadProbe, Protocol):
    """A load probe that wants to be called every ``probe.SAMPLE_INTERVAL`` seconds."""

    def sample(self) -> None: ...


def make_probe(config: NodeConfig, running: Callable[[], int]) -> SampledProbe:
    """The load probe that ``load_source`` asks for.

    :param running: how many scripts of ours run now; each is taken to fill one core.
    """
    if config.load_source == "none":
        return NoProbe()
    cores = os.cpu_count() or 1
    return CpuProbe(own_jobs=lambda: min(1.0, running() / cores))


def make_runner(config: NodeConfig, reactor: IReactorFDSet, clock: Clock, sinks: OpenSinks) -> ProcessRunner:
    """The runner of this node's scripts, which are marked with its state directory."""
    return ProcessRunner(reactor, clock, sinks, str(config.state.resolve()), exit_grace=config.exit_grace)


@define(eq=False)
class DiskRoom:
    """How much room there is below a directory, as of the last :meth:`sample`."""

    _path: Path
    free: int | None = field(init=False, default=None)
    """Bytes that this user may still write; None where it cannot be known."""

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
    """All of it together."""
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
        sinks=sinks,
        python=sys.executable,
    )
