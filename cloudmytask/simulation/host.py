"""A machine with a node on it that can be started, killed and started again.

Invariant: what a killed node scheduled, awaited or was about to be told never happens; its disk keeps what was
committed, its scripts run on as orphans until the next start sweeps them, unless the machine died with it.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamClientEndpoint

from cloudmytask.boundaries import Launch, OpenSinks, World
from cloudmytask.client.connection import connect
from cloudmytask.client.node_client import NodeClient
from cloudmytask.config import NodeConfig
from cloudmytask.net.client_session import ClientSession
from cloudmytask.net.connections import NodeFactory
from cloudmytask.node.node import Node
from cloudmytask.probe import NoProbe
from cloudmytask.simulation.bus import SimulatedBus, SimulatedGroup
from cloudmytask.simulation.clock import Lifetime, VirtualClock
from cloudmytask.simulation.disk import MemoryDisk
from cloudmytask.simulation.network import Network
from cloudmytask.simulation.observing import ObservedLinks, Offered
from cloudmytask.simulation.runner import ScriptedRunner, ScriptPlan, SimulatedMachine
from cloudmytask.simulation.store import MemoryStore


@define
class SeededEntropy:
    """Implements ``boundaries.Entropy``, reproducibly."""

    random: random.Random

    def token(self, size: int) -> bytes:
        """Not secret at all."""
        return self.random.randbytes(size)


@define(eq=False, repr=False)
class _Life:
    node: Node
    store: MemoryStore
    runner: ScriptedRunner
    clock: Lifetime
    bus: SimulatedBus


@define(eq=False, repr=False)
class Host:
    """One machine. It is reached at the first address that its configuration says to listen on.

    :ivar plan: says what each launched script does.
    :ivar group: the multicast group that it is in; None: one of its own.
    :ivar observer: told of each offer that a node here has answered.
    """

    name: str
    clock: VirtualClock
    network: Network
    config: NodeConfig
    plan: Callable[[Launch], ScriptPlan]
    entropy: SeededEntropy
    commit_delay: Callable[[], float] = field(default=lambda: 0.003)
    group: SimulatedGroup | None = None
    observer: Offered | None = None
    key: bytes | None = None
    """The cluster's."""
    skew: float = 0.0
    """Seconds by which the wall clock of this machine is ahead."""
    disk_free: int | None = None
    """Bytes; None is not measured."""
    disk: MemoryDisk = field(init=False)
    machine: SimulatedMachine = field(init=False, factory=SimulatedMachine)
    _life: _Life | None = field(init=False, default=None)
    _dark: bool = field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        self.disk = MemoryDisk(node_id=self.entropy.token(16).hex())
        for address in self.config.listen:
            self.network.name(address, self.name)

    @property
    def up(self) -> bool:
        """Whether a node runs here."""
        return self._life is not None

    @property
    def node(self) -> Node:
        """The running node."""
        assert self._life is not None, f"no node runs on {self.name}"
        return self._life.node

    def wall(self) -> float:
        """What its wall clock shows."""
        return self.clock.wall() + self.skew

    def start(self) -> None:
        """Start the node, or start it again."""
        assert self._life is None
        if self._dark:
            self._dark = False
            self.network.paths.restore(self.name)
        clock = Lifetime(self.clock)
        store = MemoryStore(self.disk, clock, self.commit_delay)
        sinks = OpenSinks()
        runner = ScriptedRunner(clock, self.plan, sinks, self.machine, self.name)
        runner.sweep()
        bus = (self.group or SimulatedGroup(self.network, self.entropy.random)).bus(self.name)
        links = ObservedLinks(self._endpoint, clock, self.entropy, self.key)
        links.observer = self.observer
        world = World(
            clock, self.wall, self.entropy, store, runner, NoProbe(), bus, links, lambda: self.disk_free, sinks
        )
        node = Node(world, self.config, self.config.listen[0] if self.config.listen else "")
        self._life = _Life(node, store, runner, clock, bus)
        node.start()
        self.network.listen(self.name, NodeFactory(partial(ClientSession, node.front_door, clock, links)))

    def kill(self, *, flushed: bool = False) -> None:
        """``kill -9``. ``flushed``: the commit under way had just reached the disk."""
        life, self._life = self._life, None
        assert life is not None
        life.clock.end()
        life.runner.crash()
        life.bus.close()
        self.disk.crash(flushed=flushed)
        self.network.cut_off(self.name)

    def lose_power(self) -> None:
        """The machine dies, its scripts with it, and nobody is told. :meth:`start` gives it power again."""
        self._dark = True
        self.network.paths.silence(self.name)
        self.kill()
        for script in self.machine.tagged(self.name):
            script.vanish()

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

    def _endpoint(self, address: str) -> IStreamClientEndpoint:
        return self.network.endpoint(self.name, self.network.host_at(address))
