"""An instance, node or CSU, as an ``IService``: everything that may fail happens in one synchronous step, before
the reactor runs.

Invariant: either the instance serves or the process ends; there is no daemon that lives and does not serve. Shutting
down, it gives up its claim last.
"""

from __future__ import annotations

import atexit
import gc
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any, Generic, NoReturn, Protocol, TypeVar

from attrs import define, field, frozen
from twisted.application.service import IServiceCollection, Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory
from twisted.logger import ILogObserver, Logger
from twisted.python.components import Componentized

from cloudmytask.boundaries import Clock
from cloudmytask.config import InstanceConfig
from cloudmytask.model.errors import StartFailed, StoreFailed
from cloudmytask.net.connections import NodeFactory, room_for_connections
from cloudmytask.periodic import Periodic, every
from cloudmytask.process.daemon import OwnProcess
from cloudmytask.service.claim import SOCKET_MODE, InstanceClaim
from cloudmytask.systemd import Notifier

_log = Logger()

Step = tuple[str, Callable[[], object]]
"""A part of an end: what it does, in words, and how; it may return a Deferred."""

FLUSH_TIME = 15.0
"""Seconds, beyond what its work takes, that a shutdown may take before systemd loses its patience."""


LOOK_INTERVAL = 1.0
"""Seconds between two looks whether the store is still there."""


class Reactor(Clock, Protocol):
    """What a service needs of the reactor besides ``IReactorFDSet``."""

    def stop(self) -> None: ...
    def callWhenRunning(self, function: Callable[..., object], *args: Any) -> object: ...  # noqa: N802 - Twisted's names
    def callFromThread(self, function: Callable[..., object], *args: Any) -> object: ...  # noqa: N802
    def adoptStreamPort(self, descriptor: int, family: int, factory: Factory) -> IListeningPort: ...  # noqa: N802


class StartAborted(Exception, SystemExit):
    """Ends the process with code 1, once twistd has cleaned up as it does for any exception (its pid file)."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.code = 1


class Part(Protocol):
    """What an instance is at its heart: a node, or a CSU."""

    def drain(self) -> Deferred[None]: ...


class Store(Protocol):
    """What an instance keeps its records in."""

    def look(self) -> Deferred[None]:
        """Look whether it is still there.

        :raises StoreFailed: it is not.
        """

    def close(self) -> Deferred[None]: ...


Config = TypeVar("Config", bound=InstanceConfig)
Role = TypeVar("Role", bound=Part)


@frozen
class Life(Generic[Role]):
    """What a started instance consists of."""

    role: Role
    store: Store
    factory: NodeFactory
    ports: tuple[IListeningPort, ...]
    claim: InstanceClaim


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


def _on_termination(call_from_thread: Callable[..., object], arrived: Callable[[], object]) -> None:
    """Have ``arrived`` called in the reactor for each SIGTERM and SIGINT. Twisted's own handlers stop the reactor each
    time, and the second time that is an error. A signal that this process was started to ignore (``nohup``, a
    background job of a script) stays ignored.

    To be called in the main thread once the reactor runs, because it installs its handlers as it starts.
    """

    def received(number: int, _frame: FrameType | None) -> None:
        call_from_thread(_report_signal, number, arrived)

    for number in (signal.SIGTERM, signal.SIGINT):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, received)


def _report_signal(number: int, arrived: Callable[[], object]) -> None:
    _log.info("received {signal}", signal=signal.Signals(number).name)
    arrived()


@define(eq=False, slots=False)
class InstanceService(Service, Generic[Config, Role]):
    """One instance in one process.

    :ivar observer: where the application's log goes; None leaves it to the runner.
    :ivar failed: called when the shutdown was not clean.
    """

    _config: Config
    _reactor: Reactor
    _observer: ILogObserver | None = None
    _notifier: Notifier = field(factory=Notifier.from_environment)
    _failed: Callable[[], object] = exit_with_failure
    _life: Life[Role] | None = field(init=False, default=None)
    _stopping: bool = field(init=False, default=False)
    _stopped: Deferred[None] | None = field(init=False, default=None)
    _periodic: list[Periodic] = field(init=False, factory=list)
    _own: OwnProcess = field(init=False, default=OwnProcess())

    # what each role says for itself

    def _begin_all(self, begun: list[Step]) -> Life[Role]:
        """InstanceClaim, open, recover, listen.

        :param begun: gets how each thing is undone.
        :raises StartFailed: something is in the way; ``begun`` says what is to be undone.
        """
        raise NotImplementedError

    def _settle_process(self) -> OwnProcess:
        """Make the process fit for a daemon."""
        return OwnProcess.settled()

    def _tell_ready(self) -> str:
        """Log that it serves; a line for ``systemctl status``."""
        raise NotImplementedError

    def _work_time(self) -> float:
        """Seconds that ending its work may take."""
        return 0.0

    def _hurry(self, role: Role) -> None:
        """It was asked once more to end."""

    # twisted.application.service.IService

    def setServiceParent(self, parent: IServiceCollection) -> None:
        """Also give the application its log observer; twistd looks for it there, after it made its services."""
        if self._observer is not None and isinstance(parent, Componentized):
            Componentized.setComponent(parent, ILogObserver, self._observer)
        Service.setServiceParent(self, parent)

    def privilegedStartService(self) -> None:
        """InstanceClaim, open, recover, listen. Called by twistd after it became a daemon.

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
            self._hurry(self._life.role)

    async def look_for_store(self) -> None:
        """Look whether the store is still there; end the process if it is not."""
        life = self._life
        if life is not None and not self._stopping:
            try:
                await life.store.look()
            except StoreFailed as problem:
                self._end(str(problem))

    def _end(self, sentence: str) -> None:
        """It cannot serve any more."""
        if self._stopping:
            return
        _log.critical("the {kind} ends: {reason}", kind=self._config.ROLE.word, reason=sentence)
        self._tell(sentence)
        self._failed()
        self.terminate()
        self.terminate()

    def _tell(self, sentence: str) -> None:
        # Not sys.stderr: twistd has turned that into a part of the log.
        print(f"{self._config.ROLE.program}: {sentence}", file=sys.__stderr__, flush=True)

    # pieces of a start

    def _begin(self) -> Life[Role]:
        """Start all of it.

        :raises StartFailed: what was begun is being undone; :meth:`stopService` tells when that is done.
        """
        self._own = self._settle_process()
        begun: list[Step] = []
        try:
            return self._begin_all(begun)
        except BaseException:
            # Where no reactor runs, the end of the process does the rest.
            self._stopped = Deferred.fromCoroutine(self._undo(reversed(begun))).addCallback(lambda _all_done: None)
            raise

    def _connections_max(self, slots: int = 0) -> int:
        """How many connections there may be, by the descriptors that this process may have."""
        return room_for_connections(resource.getrlimit(resource.RLIMIT_NOFILE)[0], slots)

    def _listen(self, held: InstanceClaim, factory: NodeFactory, begun: list[Step]) -> tuple[IListeningPort, ...]:
        """Accept connections on all that is claimed."""
        ports: list[IListeningPort] = []
        for listening in (held.unix, *held.tcp):
            ports.append(self._reactor.adoptStreamPort(listening.fileno(), listening.family, factory))
            # The port has a descriptor of its own; with this one open, closing the port would not end the listening.
            listening.close()
            begun.append(("stop listening", ports[-1].stopListening))
        # Twisted opens to everybody what it adopts.
        self._config.socket.chmod(SOCKET_MODE)
        return tuple(ports)

    def _repeat(self, begun: list[Step], *calls: tuple[float, Callable[[], object]]) -> None:
        """Call each again and again, look for the store, and keep the watchdog of systemd quiet, if there is one."""
        calls += ((LOOK_INTERVAL, self.look_for_store),)
        if self._notifier.watchdog_interval is not None:
            calls += ((self._notifier.watchdog_interval, self._notifier.watchdog),)
        self._periodic += [every(self._reactor, seconds, call) for seconds, call in calls]
        begun += [("stop a timer", periodic.stop) for periodic in self._periodic]

    def _abort(self, sentence: str) -> NoReturn:
        _log.critical("the {kind} cannot start: {reason}", kind=self._config.ROLE.word, reason=sentence)
        self._tell(sentence)
        raise StartAborted(sentence)

    def _ready(self) -> None:
        _on_termination(self._reactor.callFromThread, self.terminate)
        _settle_memory()
        self._notifier.ready(self._tell_ready())

    # pieces of an end

    async def _stop(self) -> None:
        life, config = self._life, self._config
        if life is None:
            return
        self._notifier.stopping("Draining", self._work_time() + FLUSH_TIME)
        steps: list[Step] = [
            ("drain", life.role.drain),
            *(("stop listening", port.stopListening) for port in life.ports),
            ("close connections", life.factory.close),
            ("close the store", life.store.close),
            *(("stop a timer", periodic.stop) for periodic in self._periodic),
            ("release the claim", life.claim.release),
        ]
        if await self._undo(steps):
            _log.info("{kind} {name} has stopped", kind=self._config.ROLE.word, name=config.name)
        else:
            self._failed()

    async def _undo(self, steps: Iterable[Step]) -> bool:
        """Whether all steps succeeded. One that fails must not keep the others from being done."""
        return all([await self._done(what, step) for what, step in steps])

    async def _done(self, what: str, step: Callable[[], object]) -> bool:
        try:
            await maybeDeferred(step)
        except Exception:  # noqa: BLE001 - contained here, logged, and told by the exit code
            _log.failure("shutting down, the {kind} could not {what}", kind=self._config.ROLE.word, what=what)
            return False
        return True
