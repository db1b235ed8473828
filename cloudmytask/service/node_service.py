"""The node as an ``IService``: everything that may fail happens in one synchronous step, before the reactor runs.

Invariant: either the node serves or the process ends; there is no daemon that lives and does not serve. Shutting down,
it goes on answering until its scripts have ended, and gives up its claim last.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any, NoReturn, Protocol

from attrs import define, field, frozen
from twisted.application.service import IServiceCollection, Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IListeningPort, IReactorFDSet
from twisted.internet.protocol import Factory
from twisted.logger import ILogObserver, Logger
from twisted.python.components import Componentized

from cloudmytask.boundaries import Clock
from cloudmytask.config import NodeConfig
from cloudmytask.errors import StartFailed
from cloudmytask.net.server import NodeFactory
from cloudmytask.node.node import Node
from cloudmytask.periodic import Periodic, every
from cloudmytask.probe import SAMPLE_INTERVAL
from cloudmytask.service.claim import SOCKET_MODE, Claim, claim
from cloudmytask.service.signals import on_termination
from cloudmytask.service.peers import make_peers
from cloudmytask.service.world import make_probe, make_runner, make_world
from cloudmytask.store.sqlite_store import SqliteStore
from cloudmytask.systemd import Notifier
from cloudmytask.version import VERSION

_log = Logger()

Step = tuple[str, Callable[[], object]]
"""A part of an end: what it does, in words, and how; it may return a Deferred."""

BANNER = (
    "INSECURE: node {name} listens on {addresses} without certificates (insecure_lan = true).",
    "INSECURE: whoever reaches it may run scripts here, as any client. Use it only where everybody is trusted.",
)

FLUSH_TIME = 15.0
"""Seconds, beyond draining and killing, that a shutdown may take before systemd loses its patience."""


class Reactor(Clock, Protocol):
    """What the service needs of the reactor besides ``IReactorFDSet``."""

    def stop(self) -> None: ...
    def callWhenRunning(self, function: Callable[..., object], *args: Any) -> object: ...  # noqa: N802 - Twisted's names
    def callFromThread(self, function: Callable[..., object], *args: Any) -> object: ...  # noqa: N802
    def adoptStreamPort(self, descriptor: int, family: int, factory: Factory) -> IListeningPort: ...  # noqa: N802


class StartAborted(Exception, SystemExit):
    """Ends the process with code 1, once twistd has cleaned up as it does for any exception (its pid file)."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.code = 1


@frozen
class _Life:
    """What a started node consists of."""

    node: Node
    store: SqliteStore
    factory: NodeFactory
    ports: tuple[IListeningPort, ...]
    claim: Claim


def exit_with_failure() -> None:
    """Have the process end with code 1, which no runner of Twisted offers once its reactor has run."""

    def end() -> None:
        for stream in (sys.__stdout__, sys.__stderr__):
            if stream is not None:
                stream.flush()
        os._exit(1)

    atexit.register(end)


def _settle_memory() -> None:
    """What start-up made lives as long as the process: spare the garbage collector looking through it for ever, and
    have it look through the rest less often (5 % of the node's time otherwise)."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


@define(eq=False, slots=False)
class NodeService(Service):
    """One node in one process.

    :ivar observer: where the application's log goes; None leaves it to the runner.
    :ivar failed: called when the shutdown was not clean.
    """

    _config: NodeConfig
    _reactor: Reactor
    _observer: ILogObserver | None = None
    _notifier: Notifier = field(factory=Notifier.from_environment)
    _failed: Callable[[], object] = exit_with_failure
    _life: _Life | None = field(init=False, default=None)
    _stopping: bool = field(init=False, default=False)
    _stopped: Deferred[None] | None = field(init=False, default=None)
    _periodic: list[Periodic] = field(init=False, factory=list)

    def setServiceParent(self, parent: IServiceCollection) -> None:
        """Also give the application its log observer; twistd looks for it there, after it made its services."""
        if self._observer is not None and isinstance(parent, Componentized):
            Componentized.setComponent(parent, ILogObserver, self._observer)
        Service.setServiceParent(self, parent)

    def privilegedStartService(self) -> None:
        """Claim, open, recover, listen. Called by twistd after it became a daemon.

        :raises StartAborted: it could not; one line about it was written to standard error and to the log.
        """
        try:
            self._life = self._begin()
        except StartFailed as problem:
            self._abort(str(problem))

    def startService(self) -> None:
        """Begin to serve. ``python -m twisted`` calls this alone.

        :raises StartAborted: see :meth:`privilegedStartService`.
        """
        if self._life is None:
            self.privilegedStartService()
        Service.startService(self)
        self._reactor.callWhenRunning(self._ready)

    def stopService(self) -> Deferred[None]:
        """Drain, then close everything; fires when the last of it is done. Idempotent."""
        if self._stopped is None:
            Service.stopService(self)
            self._stopping = True
            self._stopped = Deferred.fromCoroutine(self._stop())
        return self._stopped

    def terminate(self) -> None:
        """End the process in order; the second time, at once: running scripts are killed, their jobs queued again."""
        if not self._stopping:
            self._stopping = True
            self._reactor.stop()
        elif self._life is not None:
            self._life.node.stop_now()

    def _begin(self) -> _Life:
        """:raises StartFailed: what was begun is being undone; :meth:`stopService` tells when that is done."""
        begun: list[Step] = []
        try:
            return self._begin_all(begun)
        except BaseException:
            # Where no reactor runs, the end of the process does the rest.
            self._stopped = Deferred.fromCoroutine(self._undo(reversed(begun))).addCallback(lambda _all_done: None)
            raise

    def _begin_all(self, begun: list[Step]) -> _Life:
        """
        :param begun: gets how each thing is undone.
        """
        config, reactor = self._config, self._reactor
        held = claim(config)
        begun.append(("release the claim", held.release))
        store = SqliteStore(config.state, call_from_thread=reactor.callFromThread)
        begun.append(("close the store", store.close))
        store.open()
        runner = make_runner(config, IReactorFDSet(reactor), reactor)
        swept = runner.sweep()
        if swept:
            _log.warn("killed {processes} processes that an earlier life of this node left", processes=swept)
        probe = make_probe(config, self._running)
        peers = make_peers(config, reactor, held.address)
        begun.append(("leave the group", peers.bus.close))
        node = Node(make_world(reactor, store, runner, probe, peers), config, held.address)
        factory = NodeFactory(node.front_door, reactor, peers.links)
        ports: list[IListeningPort] = []
        for listening in (held.unix, *held.tcp):
            ports.append(self._adopt(listening, factory))
            begun.append(("stop listening", ports[-1].stopListening))
        # Twisted opens to everybody what it adopts.
        config.socket.chmod(SOCKET_MODE)
        self._periodic.append(every(reactor, SAMPLE_INTERVAL, probe.sample))
        if self._notifier.watchdog_interval is not None:
            self._periodic.append(every(reactor, self._notifier.watchdog_interval, self._notifier.watchdog))
        begun += [("stop a timer", periodic.stop) for periodic in self._periodic]
        # Last, because it begins to run what an earlier life left. Nobody is served before we return.
        begun.append(("stop its work", node.stop_now))
        node.start()
        return _Life(node, store, factory, tuple(ports), held)

    def _adopt(self, listening: Any, factory: NodeFactory) -> IListeningPort:
        port = self._reactor.adoptStreamPort(listening.fileno(), listening.family, factory)
        # The port has a descriptor of its own; with this one open, closing the port would not end the listening.
        listening.close()
        return port

    def _running(self) -> int:
        return self._life.node.describe().running if self._life is not None else 0

    def _abort(self, sentence: str) -> NoReturn:
        _log.critical("the node cannot start: {reason}", reason=sentence)
        # Not sys.stderr: twistd has turned that into a part of the log.
        print(f"cmt-node: {sentence}", file=sys.__stderr__, flush=True)
        raise StartAborted(sentence)

    def _ready(self) -> None:
        on_termination(self._reactor.callFromThread, self.terminate)
        _settle_memory()
        config = self._config
        _log.info(
            "node {name} {version} serves on {addresses} with {slots} slots; its state is in {state}",
            name=config.name,
            version=VERSION,
            addresses=[str(config.socket), *config.listen],
            slots=config.slots,
            state=str(config.state),
        )
        self._life_banner()
        self._notifier.ready(f"{config.name}: {config.slots} slots, {config.socket}")

    def _life_banner(self) -> None:
        """What people must know before they rely on it."""
        config = self._config
        if config.beyond_loopback:
            for line in BANNER:
                _log.warn(line, name=config.name, addresses=", ".join(config.listen))
        elif not config.listen:
            _log.info("node {name} stands alone: it listens on no TCP address, so no other node finds it", name=config.name)

    async def _stop(self) -> None:
        life, config = self._life, self._config
        if life is None:
            return
        self._notifier.stopping("Draining", config.drain_timeout + config.kill_grace + FLUSH_TIME)
        steps: list[Step] = [
            ("drain", life.node.drain),
            *(("stop listening", port.stopListening) for port in life.ports),
            ("close connections", life.factory.close),
            ("close the store", life.store.close),
            *(("stop a timer", periodic.stop) for periodic in self._periodic),
            ("release the claim", life.claim.release),
        ]
        if await self._undo(steps):
            _log.info("node {name} has stopped", name=config.name)
        else:
            self._failed()

    async def _undo(self, steps: Iterable[Step]) -> bool:
        """Whether all steps succeeded. One that fails must not keep the others from being done."""
        return all([await self._done(what, step) for what, step in steps])

    async def _done(self, what: str, step: Callable[[], object]) -> bool:
        try:
            await maybeDeferred(step)
        except Exception:  # noqa: BLE001 - contained here, logged, and told by the exit code
            _log.failure("shutting down, the node could not {what}", what=what)
            return False
        return True
