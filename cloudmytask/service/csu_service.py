"""The CSU as an ``IService``.

Invariant: as for every instance (see ``instance_service``).
"""

from __future__ import annotations

import time
from functools import partial

from attrs import define
from twisted.logger import Logger

from cloudmytask.boundaries.supervision import SupervisionWorld
from cloudmytask.config import CsuConfig
from cloudmytask.csu.unit import CentralSupervisoryUnit
from cloudmytask.net.client_session import ClientSession
from cloudmytask.net.connections import NodeFactory
from cloudmytask.process.callers import Callers
from cloudmytask.service.claim import claim
from cloudmytask.service.instance_service import InstanceService, Life, Step
from cloudmytask.service.world import make_peers
from cloudmytask.store.history import HistoryStore
from cloudmytask.version import VERSION

_log = Logger()

BANNER = (
    "INSECURE: CSU {name} listens on {addresses} without certificates (insecure_lan = true). Use it only where"
    " everybody is trusted."
)


@define(eq=False, slots=False)
class CsuService(InstanceService[CsuConfig, CentralSupervisoryUnit]):
    """One CSU in one process."""

    def _begin_all(self, begun: list[Step]) -> Life[CentralSupervisoryUnit]:
        config, reactor = self._config, self._reactor
        held = claim(config)
        begun.append(("release the claim", held.release))
        store = HistoryStore(config.state, call_from_thread=reactor.callFromThread)
        begun.append(("close the store", store.close))
        store.open()
        peers = make_peers(config, reactor)
        begun.append(("leave the group", peers.bus.close))
        world = SupervisionWorld(reactor, time.time, peers.entropy, store, peers.bus, peers.links)
        unit = CentralSupervisoryUnit(world, config, held.address)
        callers = Callers(lambda _group: None, self._own.mark)
        session = partial(ClientSession, unit, reactor, peers.links, callers)
        factory = NodeFactory(session, self._connections_max())
        ports = self._listen(held, factory, begun)
        self._repeat(begun)
        begun.append(("stop its work", unit.stop_now))
        unit.start()
        return Life(unit, store, factory, ports, held)

    def _tell_ready(self) -> str:
        config = self._config
        _log.info(
            "CSU {name} {version} serves on {addresses}; its state is in {state}",
            name=config.name,
            version=VERSION,
            addresses=[str(config.socket), *config.listen],
            state=str(config.state),
        )
        if config.beyond_loopback:
            _log.warn(BANNER, name=config.name, addresses=", ".join(config.listen))
        elif not config.listen:
            _log.warn("CSU {name} supervises nobody: it listens on no TCP address", name=config.name)
        return f"{config.name}: {config.socket}"
