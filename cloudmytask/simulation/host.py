"""A machine with a node on it that can be started, killed and started again.

Invariant: what a killed node scheduled, awaited or was about to be told never happens; its disk keeps what was
committed, its scripts run on as orphans until the next start sweeps them.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from attrs import define, field
from twisted.internet.defer import Deferred

from cloudmytask.boundaries import Launch, World
from cloudmytask.client.connecting import connect
from cloudmytask.client.node_client import NodeClient
from cloudmytask.config import NodeConfig
from cloudmytask.net.server import NodeFactory
from cloudmytask.node.node import Node
from cloudmytask.probe import NoProbe
from cloudmytask.simulation.clock import Lifetime, VirtualClock
from cloudmytask.simulation.disk import MemoryDisk
from cloudmytask.simulation.network import Network
from cloudmytask.simulation.runner import ScriptedRunner, ScriptPlan, SimulatedMachine
from cloudmytask.simulation.store import MemoryStore


@define
class SeededEntropy:
    """Implements ``boundaries.Entropy``, reproducibly."""

    random: random.Random

    def token(self, size: int) -> bytes:
        """Not secret at all."""
        return self.random.randbytes(size)


@define(eq=False)
class _Life:
    node: Node
    store: MemoryStore
    runner: ScriptedRunner
    clock: Lifetime


@define(eq=False)
class Host:
    """One machine. ``plan`` says what each launched script does."""

    name: str
    clock: VirtualClock
    network: Network
    config: NodeConfig
    plan: Callable[[Launch], ScriptPlan]
    entropy: SeededEntropy
    commit_delay: Callable[[], float] = field(default=lambda: 0.003)
    disk: MemoryDisk = field(init=False)
    machine: SimulatedMachine = field(init=False, factory=SimulatedMachine)
    _life: _Life | None = field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        self.disk = MemoryDisk(node_id=self.entropy.token(16).hex())

    @property
    def up(self) -> bool:
        """Whether a node runs here."""
        return self._life is not None

    @property
    def node(self) -> Node:
        """The running node."""
        assert self._life is not None, f"no node runs on {self.name}"
        return self._life.node

    def start(self) -> None:
        """Start the node, or start it again."""
        assert self._life is None
        clock = Lifetime(self.clock)
        store = MemoryStore(self.disk, clock, self.commit_delay)
        runner = ScriptedRunner(clock, self.plan, self.machine, self.name)
        runner.sweep()
        world = World(clock, self.clock.wall, self.entropy, store, runner, NoProbe())
        node = Node(world, self.config, boot_id=self.entropy.token(8).hex())
        self._life = _Life(node, store, runner, clock)
        node.start()
        self.network.listen(self.name, NodeFactory(node, clock))

    def kill(self, *, flushed: bool = False) -> None:
        """``kill -9``. ``flushed``: the commit under way had just reached the disk."""
        life, self._life = self._life, None
        assert life is not None
        life.clock.end()
        life.runner.crash()
        self.disk.crash(flushed=flushed)
        self.network.cut_off(self.name)

    def stop(self) -> Deferred[None]:
        """SIGTERM: drain, then end."""
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        life = self._life
        assert life is not None
        await life.node.drain()
        await life.store.close()
        if self._life is life:
            self.kill()

    def connect(self, here: str, client: str) -> Deferred[NodeClient]:
        """A client's connection from the machine ``here``."""
        return connect(self.network.endpoint(here, self.name), self.clock, client, lambda: self.entropy.token(16).hex())
