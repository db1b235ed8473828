"""The runner for the real world: implements :class:`cloudmytask.boundaries.Runner` with child processes.

Invariant: :meth:`ProcessRunner.start` never raises for what a launch asks; a launch that fails is an outcome. Memory
is sampled while scripts run, and nothing is scheduled while none does.
"""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Mapping
from contextlib import ExitStack

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorFDSet

from cloudmytask.boundaries import Clock, ExitRecord, Launch, Running, Sinks
from cloudmytask.core.shortages import resource_of
from cloudmytask.model.job import ClientId, Outcome, Reason, Resource
from cloudmytask.periodic import Periodic, every
from cloudmytask.process.attempt import ScriptProtocol
from cloudmytask.process.child import ScriptProcess
from cloudmytask.process.endowment import Endowment
from cloudmytask.process.program import ProgramMaker, Unlaunchable
from cloudmytask.process.spawn import can_return
from cloudmytask.process.sweep import sweep

EXIT_GRACE = 0.5
"""Seconds that a script's pipes may stay open after its exit."""
_SAMPLE_INTERVAL = 1.0
ENDOW_AGAIN = 0.002
"""Seconds after which a script gets what it could not be given at its start."""


@frozen
class NeverStarted:
    """An attempt that did not get as far as a process."""

    ended: Deferred[ExitRecord]
    stopped_for: None = None

    @classmethod
    def because(cls, sentence: str, short: Resource | None = None) -> NeverStarted:
        """A program that could not be started: ``sentence`` says what was in the way, ``short`` what the node lacks."""
        return cls(succeed(ExitRecord(Outcome(Reason.LAUNCH, detail=sentence), short=short)))

    def stop(self, reason: Reason) -> None:
        """There is nothing to end."""

    def kill(self) -> None:
        """There is nothing to end."""


@define(eq=False)
class ProcessRunner:
    """Runs scripts as children of this process.

    :ivar reactor: watches pipes and exits.
    :ivar clock: as a rule the reactor too.
    :ivar sinks: where the output of scripts is brought.
    :ivar tag: names the state directory of this node; no other node on the machine has the same.
    :ivar exit_grace: seconds; see :data:`EXIT_GRACE`.
    :ivar open_files: the soft limit of open descriptors that scripts get; None: the daemon's own.
    :ivar inherited: the daemon's environment, of which scripts see locale and time zone only.
    """

    _reactor: IReactorFDSet
    _clock: Clock
    _sinks: Sinks
    _tag: str
    _exit_grace: float = field(default=EXIT_GRACE, kw_only=True)
    _open_files: int | None = field(default=None, kw_only=True)
    _inherited: Mapping[str, str] = field(factory=lambda: dict(os.environ), kw_only=True)
    _program: ProgramMaker = field(init=False)
    _endowment: Endowment = field(init=False)
    _running: set[ScriptProtocol] = field(init=False, factory=set)
    _sampling: Periodic | None = field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        self._program = ProgramMaker(self._tag, self._inherited)
        self._endowment = Endowment.of(self._open_files)
        # inherited by every script: none leaves a core file in a directory that is about to be deleted
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def start(self, launch: Launch, directory: str) -> Running:
        """See :class:`cloudmytask.boundaries.Runner`."""
        try:
            self._check(launch, directory)
            protocol = self._spawn(launch, directory)
        except Unlaunchable as problem:
            return NeverStarted.because(str(problem), problem.short)
        except OSError as error:
            if error.errno == errno.E2BIG:
                return NeverStarted.because("The arguments and the environment are longer than the system allows.")
            short = resource_of(error, launching=True)
            return NeverStarted.because(f"The system could not start the script: {error}.", short)
        self._running.add(protocol)
        if self._sampling is None:
            self._sampling = every(self._clock, _SAMPLE_INTERVAL, self._sample)
        protocol.ended.addCallback(self._forget, protocol)
        return protocol

    def sweep(self) -> int:
        """See :class:`cloudmytask.boundaries.Runner`."""
        return sweep(self._tag)

    def owner_of(self, group: int) -> ClientId | None:
        """Whose running script leads that process group; None if none does."""
        return next((each.client for each in self._running if each.group == group), None)

    def _check(self, launch: Launch, directory: str) -> None:
        """Find the usual mistakes while there is a sentence for each; others end in the shell, and as well.

        :raises Unlaunchable: there is one.
        """
        if not os.access(launch.python, os.X_OK):
            raise Unlaunchable(f"The interpreter {launch.python} is not there or not executable.", Resource.INTERPRETER)
        if not os.path.isdir(directory):  # noqa: PTH112 - on the way of every job, and twice as fast
            raise Unlaunchable(f"The work directory {directory} is not there.")

    def _spawn(self, launch: Launch, directory: str) -> ScriptProtocol:
        """Start the program.

        :raises Unlaunchable, OSError: nothing was started.
        """
        program = self._program(launch, directory, elsewhere=can_return())
        with ExitStack() as cleanup, ExitStack() as undo:
            source = os.devnull if launch.stdin is None else f"{directory}/{launch.stdin}"
            stdin = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
            cleanup.callback(os.close, stdin)
            sinks = {stream: self._sinks(target) for stream, target in launch.streams.items()}
            protocol = ScriptProtocol(self._clock, launch, sinks, self._exit_grace)
            undo.callback(protocol.never_started)
            script = ScriptProcess(self._reactor, program, stdin, protocol)
            undo.pop_all()
        if script.pid is not None and not self._endowment.give(
            script.pid, own_limits=launch.limits.open_files is not None
        ):
            self._clock.callLater(ENDOW_AGAIN, self._endow_again, script)
        return protocol

    def _endow_again(self, script: ScriptProcess) -> None:
        if script.pid is not None:
            self._endowment.give(script.pid, own_limits=True)

    def _sample(self) -> None:
        for protocol in self._running:
            protocol.sample()

    def _forget(self, record: ExitRecord, protocol: ScriptProtocol) -> ExitRecord:
        self._running.discard(protocol)
        if not self._running and self._sampling is not None:
            self._sampling.stop()
            self._sampling = None
        return record
