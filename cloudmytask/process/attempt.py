"""The protocol of one attempt: hands output on, and turns the end of a process into its record.

Invariant: ``ended`` fires exactly once: after the script has exited, all its output has been delivered and nothing
of its process group lives; and it fires in bounded time: the script's descendants cannot delay it.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessTerminated
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.threads import deferToThread
from twisted.logger import Logger
from twisted.python.failure import Failure

from cloudmytask.boundaries import Clock, DelayedCall, ExitRecord, Launch, StreamSink
from cloudmytask.model.job import Outcome, Reason, StreamName, Usage
from cloudmytask.process.child import STDERR, STDOUT, ScriptProcess
from cloudmytask.process.group import group_exists, group_lives
from cloudmytask.process.memory import PeakMemory
from cloudmytask.process.program import SHELL_FAILURES
from cloudmytask.stopping import Stopping

_log = Logger()

_STREAMS = {STDOUT: StreamName.STDOUT, STDERR: StreamName.STDERR}
_EARLY_SAMPLE = 0.1
"""Seconds after the start: early enough for short scripts, late enough for the interpreter to have started."""
_GROUP_PATIENCE = 10.0
"""Seconds that a killed group may take to die: only a process stuck in the kernel takes longer than an instant."""
_GROUP_POLLS = (0.01, 0.5)
"""Seconds between looks at it: the first, doubled up to the last."""


class ScriptProtocol(ProcessProtocol):
    """One attempt; implements :class:`cloudmytask.boundaries.Running`.

    :ivar client: whose job it is.
    :ivar group: its process group; 0 before it has one.
    """

    transport: ScriptProcess

    def __init__(self, clock: Clock, launch: Launch, sinks: Mapping[StreamName, StreamSink], exit_grace: float) -> None:
        self.client = launch.client
        self._clock = clock
        self._sinks = sinks
        self._stopping = Stopping(clock, launch, self._terminate, self.kill)
        self._exit_grace = exit_grace
        self._started = clock.seconds()
        self._wall_seconds = 0.0
        self._peak = PeakMemory()
        self._early_sample = clock.callLater(_EARLY_SAMPLE, self.sample)
        self._closing: DelayedCall | None = None
        self.group = 0
        self._ended: Deferred[ExitRecord] = Deferred()

    @property
    def ended(self) -> Deferred[ExitRecord]:
        """See :class:`cloudmytask.boundaries.Running`; the same Deferred each time."""
        return self._ended

    @property
    def stopped_for(self) -> Reason | None:
        """See :class:`cloudmytask.boundaries.Running`."""
        return self._stopping.reason

    def stop(self, reason: Reason) -> None:
        """See :class:`cloudmytask.boundaries.Running`."""
        self._stopping.stop(reason)

    def kill(self) -> None:
        """See :class:`cloudmytask.boundaries.Running`."""
        self.transport.signal_group(signal.SIGKILL)

    def sample(self) -> None:
        """Take note of the memory in use now; the runner calls it from time to time."""
        if self.transport.pid is not None:
            self._peak.sample(self.transport.pid)

    def never_started(self) -> None:
        """Nothing was started: no call is left pending."""
        self._early_sample.cancel()

    def connectionMade(self) -> None:
        assert self.transport.pid is not None
        self.group = self.transport.pid
        self._stopping.begin()

    def childDataReceived(self, childFD: int, data: bytes) -> None:  # noqa: N803 - Twisted's name
        full = self._sinks[_STREAMS[childFD]].write(data)
        if full is not None:
            # the script waits as it would for any slow reader of its pipe
            pipe = self.transport.pipes[childFD]
            pipe.pauseProducing()
            full.addBoth(lambda _: pipe.resumeProducing())

    def processExited(self, reason: Failure) -> None:  # noqa: ARG002 - Twisted's signature
        """The script has exited; a descendant in another process group may still hold its pipes."""
        self._wall_seconds = self._clock.seconds() - self._started
        if self._early_sample.active():
            self._early_sample.cancel()
        if self.transport.pipes:
            self._closing = self._clock.callLater(self._exit_grace, self.transport.close_pipes)

    def processEnded(self, reason: Failure) -> None:
        """The script has exited, and its pipes are closed."""
        if self._closing is not None and self._closing.active():
            self._closing.cancel()
        self._await_group(self._died(reason), self._clock.seconds() + _GROUP_PATIENCE, _GROUP_POLLS[0])

    def _terminate(self) -> None:
        self.transport.signal_group(signal.SIGTERM)

    def _died(self, reason: Failure) -> Outcome:
        used = self.transport.resources
        if used is None:
            detail = "Another part of the node's process took the script's exit status."
            return Outcome(Reason.LAUNCH, usage=Usage(wall_seconds=self._wall_seconds), detail=detail)
        usage = Usage(
            wall_seconds=self._wall_seconds,
            cpu_seconds=used.ru_utime + used.ru_stime,
            peak_memory=self._peak.conclude(used.ru_maxrss),
        )
        code, number = 0, None
        if isinstance(reason.value, ProcessTerminated):
            code, number = reason.value.exitCode, reason.value.signal
        if number is not None:
            return Outcome(Reason.SIGNAL, signal=number, usage=usage)
        if not self.transport.executed:
            return Outcome(Reason.LAUNCH, usage=usage, detail=SHELL_FAILURES[code])
        return Outcome(Reason.EXIT, exit_code=code, usage=usage)

    def _await_group(self, died: Outcome, deadline: float, delay: float) -> None:
        """The group was sent SIGKILL before its leader was reaped; as a rule it is gone by now."""
        if not group_exists(self.group):
            self._conclude(died)
        else:
            self._clock.callLater(delay, self._look_closer, died, deadline, min(2 * delay, _GROUP_POLLS[1]))

    def _look_closer(self, died: Outcome, deadline: float, delay: float) -> None:
        """Where the system's first process reaps nobody, as in some containers, the dead go on to exist."""

        def looked(lives: bool) -> None:
            if not lives:
                self._conclude(died)
            elif self._clock.seconds() < deadline:
                self._await_group(died, deadline, delay)
            else:
                _log.error("processes of group {group} have survived SIGKILL", group=self.group)
                self._conclude(died)

        def unknown(failure: Failure) -> None:
            _log.failure("cannot tell whether process group {group} lives", failure=failure, group=self.group)
            self._conclude(died)

        if not group_exists(self.group):
            self._conclude(died)
        else:
            deferToThread(group_lives, self.group).addCallbacks(looked, unknown)

    def _conclude(self, died: Outcome) -> None:
        self._stopping.end()
        discarded = {stream: sink.discarded for stream, sink in self._sinks.items() if sink.discarded}
        self._ended.callback(ExitRecord(died, self._stopping.reason, discarded))
