"""The node as an ``IService``.

Invariant: as for every instance (see ``instance_service``); and it goes on answering until its scripts have ended.
"""

from __future__ import annotations

from functools import partial
from typing import ClassVar

from attrs import define
from twisted.internet.interfaces import IReactorFDSet
from twisted.logger import Logger

from cloudmytask.boundaries import OpenSinks
from cloudmytask.config import NodeConfig
from cloudmytask.net.client_session import ClientSession
from cloudmytask.net.connections import NodeFactory
from cloudmytask.node.node import Node
from cloudmytask.probe import SAMPLE_INTERVAL
from cloudmytask.process import ProcessRunner
from cloudmytask.process.callers import Callers
from cloudmytask.service.claim import claim
from cloudmytask.service.instance_service import InstanceService, Life, Reactor, StartAborted, Step
from cloudmytask.service.world import DiskRoom, make_peers, make_probe, make_runner, make_world
from cloudmytask.store.making_room import make_room
from cloudmytask.store.reserve import RESERVE_SIZE
from cloudmytask.store.sqlite_store import SqliteStore
from cloudmytask.version import VERSION

__all__ = ["NodeService", "Reactor", "StartAborted"]

_log = Logger()

BANNER = (
    "INSECURE: node {name} listens on {addresses} without certificates (insecure_lan = true).",
    "INSECURE: everybody who reaches it may run scripts here, as any client. Use it only where everybody is trusted.",
)


@define(eq=False, slots=False)
class NodeService(InstanceService[NodeConfig, Node]):
    """One node in one process."""

    RESERVE: ClassVar[int] = RESERVE_SIZE
    """Bytes of the disk that are kept for when it is full."""

    def _begin_all(self, begun: list[Step]) -> Life[Node]:
        config, reactor = self._config, self._reactor
        sinks = OpenSinks()
        runner = make_runner(config, IReactorFDSet(reactor), reactor, sinks, self._own.open_files)
        held = claim(config, partial(self._clear_up, runner))
        begun.append(("release the claim", held.release))
        store = SqliteStore(config.state, call_from_thread=reactor.callFromThread, reserve=self.RESERVE)
        begun.append(("close the store", store.close))
        store.open()
        probe = make_probe(config, self._running)
        peers = make_peers(config, reactor)
        begun.append(("leave the group", peers.bus.close))
        disk = DiskRoom(config.state)
        disk.sample()
        node = Node(make_world(reactor, store, runner, sinks, probe, peers, disk), config, held.address)
        callers = Callers(runner.owner_of, self._own.mark)
        session = partial(ClientSession, node.front_door, reactor, peers.links, callers)
        factory = NodeFactory(session, self._connections_max(config.slots))
        ports = self._listen(held, factory, begun)
        self._repeat(begun, (SAMPLE_INTERVAL, probe.sample), (SAMPLE_INTERVAL, disk.sample))
        # Last, because it begins to run what an earlier life left. Nobody is served before we return.
        begun.append(("stop its work", node.stop_now))
        node.start()
        return Life(node, store, factory, ports, held)

    def _clear_up(self, runner: ProcessRunner) -> None:
        """End what an earlier life left running, and make room on a full disk, before anything needs a process, a
        thread or room."""
        swept = runner.sweep()
        if swept:
            _log.warn("killed {processes} processes that an earlier life of this node left", processes=swept)
        make_room(self._config.state)

    def _running(self) -> int:
        return self._life.role.describe().running if self._life is not None else 0

    def _work_time(self) -> float:
        return 0.0 if self._life is None else self._life.role.drain_time

    def _hurry(self, role: Node) -> None:
        role.stop_now()

    def _tell_ready(self) -> str:
        config = self._config
        _log.info(
            "node {name} {version} serves on {addresses} with {slots} slots; its state is in {state}",
            name=config.name,
            version=VERSION,
            addresses=[str(config.socket), *config.listen],
            slots=config.slots,
            state=str(config.state),
        )
        self._tell_who_reaches_it()
        return f"{config.name}: {config.slots} slots, {config.socket}"

    def _tell_who_reaches_it(self) -> None:
        """What people must know before they rely on it."""
        config = self._config
        if config.beyond_loopback:
            for line in BANNER:
                _log.warn(line, name=config.name, addresses=", ".join(config.listen))
        elif not config.listen:
            _log.info(
                "node {name} stands alone: it listens on no TCP address, so no other node finds it", name=config.name
            )
