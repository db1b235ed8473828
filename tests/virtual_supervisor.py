"""A machine with a CSU on it that can be started, killed and started again.

Invariant: as for ``host``: what a killed CSU scheduled, awaited or was about to be told never happens; its disk keeps
what was committed.
"""

from __future__ import annotations

from functools import partial

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamClientEndpoint

from cloudmytask.boundaries.supervision import SupervisionWorld
from cloudmytask.client.connection import connect
from cloudmytask.client.node_client import NodeClient
from cloudmytask.config import CsuConfig
from cloudmytask.csu.unit import CentralSupervisoryUnit
from cloudmytask.net.client_session import ClientSession
from cloudmytask.net.connections import NodeFactory
from cloudmytask.net.peer_links import PeerLinks
from cloudmytask.simulation.bus import SimulatedBus, SimulatedGroup
from cloudmytask.simulation.clock import Lifetime, VirtualClock
from cloudmytask.simulation.host import SeededEntropy
from cloudmytask.simulation.network import Network
from tests.memory_supervision import MemorySupervisionStore, SupervisionDisk


@define(eq=False)
class _Life:
    unit: CentralSupervisoryUnit
    store: MemorySupervisionStore
    clock: Lifetime
    bus: SimulatedBus


@define(eq=False)
class SupervisorHost:
    """One machine. It is reached at the first address that its configuration says to listen on."""

    name: str
    clock: VirtualClock
    network: Network
    config: CsuConfig
    entropy: SeededEntropy
    group: SimulatedGroup
    disk: SupervisionDisk = field(init=False)
    _life: _Life | None = field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        self.disk = SupervisionDisk(self.entropy.token(16).hex())
        for address in self.config.listen:
            self.network.name(address, self.name)

    @property
    def up(self) -> bool:
        """Whether a CSU runs here."""
        return self._life is not None

    @property
    def unit(self) -> CentralSupervisoryUnit:
        """The running CSU."""
        assert self._life is not None, f"no CSU runs on {self.name}"
        return self._life.unit

    def start(self) -> None:
        """Start the CSU, or start it again."""
        assert self._life is None
        clock = Lifetime(self.clock)
        store = MemorySupervisionStore(self.disk, clock)
        bus = self.group.bus(self.name)
        links = PeerLinks(self._endpoint, clock, self.entropy)
        world = SupervisionWorld(clock, self.clock.wall, self.entropy, store, bus, links)
        unit = CentralSupervisoryUnit(world, self.config, self.config.listen[0] if self.config.listen else "")
        self._life = _Life(unit, store, clock, bus)
        unit.start()
        self.network.listen(self.name, NodeFactory(partial(ClientSession, unit, clock, links)))

    def kill(self) -> None:
        """``kill -9``."""
        life, self._life = self._life, None
        assert life is not None
        life.clock.end()
        life.bus.close()
        self.network.cut_off(self.name)

    def stop(self) -> Deferred[None]:
        """SIGTERM: say goodbye, then end."""
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        life = self._life
        assert life is not None
        await life.unit.drain()
        await life.store.close()
        if self._life is life:
            self.kill()

    def connect(self, here: str, client: str) -> Deferred[NodeClient]:
        """A client's connection from the machine ``here``."""
        return connect(self.network.endpoint(here, self.name), self.clock, client, lambda: self.entropy.token(16).hex())

    def _endpoint(self, address: str) -> IStreamClientEndpoint:
        return self.network.endpoint(self.name, self.network.host_at(address))
