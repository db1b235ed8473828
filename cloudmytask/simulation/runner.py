"""Scripts without processes: a runner in virtual time whose scripts do what a plan says.

Invariant: nothing happens but by the clock, and in an order that depends on the plans alone. Like real scripts,
these belong to the machine and not to the node: when a node crashes they run on, unheard, until a later life of the
node sweeps the machine or they end by themselves.
"""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable, Mapping

from attrs import define, evolve, field, frozen
from twisted.internet.defer import Deferred

from cloudmytask.boundaries import Clock, DelayedCall, ExitRecord, Launch, Running, Sinks, StreamSink
from cloudmytask.model.job import Outcome, Reason, Resource, StreamName, Usage
from cloudmytask.stopping import Stopping


@frozen
class ScriptPlan:
    """What one attempt will do. Times are seconds from its start."""

    duration: float | None = 1.0
    """How long it runs if it is left alone; None is for ever."""
    exit_code: int = 0
    signal: int | None = None
    """It dies by this signal instead of exiting."""
    output: tuple[tuple[float, StreamName, bytes], ...] = ()
    """When it writes what; later than its end is never."""
    term_delay: float | None = 0.0
    """Seconds from SIGTERM to its end; None ignores the signal."""
    term_exit_code: int | None = None
    """It catches SIGTERM and exits with this code; None dies by the signal."""
    launch_failure: str | None = None
    """It cannot even be started, for this reason."""
    cpu_seconds: float | None = None
    peak_memory: int | None = None


@define(eq=False)
class SimulatedMachine:
    """The processes of one host, which outlive the nodes on it."""

    peak: int = field(init=False, default=0)
    """The most scripts that ever ran at once."""
    started: int = field(init=False, default=0)
    """How many scripts were started altogether."""
    short: Resource | None = None
    """What the machine lacks: while it does, no script can be started."""
    _scripts: dict[ScriptedAttempt, None] = field(init=False, factory=dict)

    @property
    def live(self) -> int:
        """How many scripts run now, orphans included."""
        return len(self._scripts)

    def running(self) -> tuple[Launch, ...]:
        """What runs now, in the order it was started."""
        return tuple(script.launch for script in self._scripts)

    def tagged(self, tag: str) -> tuple[ScriptedAttempt, ...]:
        """The scripts that the node of that tag started, in whichever of its lives."""
        return tuple(script for script in self._scripts if script.tag == tag)

    def enter(self, script: ScriptedAttempt) -> None:
        """A script has started."""
        self._scripts[script] = None
        self.started += 1
        self.peak = max(self.peak, self.live)

    def leave(self, script: ScriptedAttempt) -> None:
        """A script has ended."""
        del self._scripts[script]


@define(eq=False)
class ScriptedAttempt:
    """One script; implements :class:`cloudmytask.boundaries.Running`."""

    launch: Launch
    plan: ScriptPlan
    tag: str
    _clock: Clock
    _machine: SimulatedMachine
    _sinks: Mapping[StreamName, StreamSink]
    _stopping: Stopping = field(init=False)
    _began: float = field(init=False)
    _unwritten: deque[tuple[float, StreamName, bytes]] = field(init=False)
    _alive: bool = field(init=False, default=False)
    _heard: bool = field(init=False, default=True)
    _step: DelayedCall | None = field(init=False, default=None)
    _dying: DelayedCall | None = field(init=False, default=None)
    _ended: Deferred[ExitRecord] = field(init=False, factory=Deferred)

    def __attrs_post_init__(self) -> None:
        self._began = self._clock.seconds()
        self._stopping = Stopping(self._clock, self.launch, self._terminate, self.kill)
        self._unwritten = deque(sorted(self.plan.output, key=lambda piece: piece[0]))

    @property
    def ended(self) -> Deferred[ExitRecord]:
        """See :class:`cloudmytask.boundaries.Running`; the same Deferred each time."""
        return self._ended

    @property
    def stopped_for(self) -> Reason | None:
        """See :class:`cloudmytask.boundaries.Running`."""
        return self._stopping.reason

    def begin(self) -> None:
        """Start it, or fail to."""
        short, failure = self._machine.short, self.plan.launch_failure
        if short is not None:
            failure = f"The system could not start the script: there are no more {short.words}."
        if failure is not None:
            self._ended.callback(ExitRecord(Outcome(Reason.LAUNCH, detail=failure), short=short))
            return
        self._alive = True
        self._machine.enter(self)
        self._schedule()
        self._stopping.begin()

    def stop(self, reason: Reason) -> None:
        """See :class:`cloudmytask.boundaries.Running`."""
        self._stopping.stop(reason)

    def _terminate(self) -> None:
        if self._dying is None and self.plan.term_delay is not None:
            if self.plan.term_exit_code is None:
                outcome = self._outcome(Reason.SIGNAL, signal=signal.SIGTERM)
            else:
                outcome = self._outcome(Reason.EXIT, exit_code=self.plan.term_exit_code)
            self._dying = self._clock.callLater(self.plan.term_delay, self._end, outcome)

    def kill(self) -> None:
        """See :class:`cloudmytask.boundaries.Running`. Like a real one, it has not ended when this returns."""
        if self._alive and self._heard:
            if self._dying is not None:
                self._dying.cancel()
            self._dying = self._clock.callLater(0, self._end, self._outcome(Reason.SIGNAL, signal=signal.SIGKILL))

    def orphan(self) -> None:
        """The node that started it is dead: it runs on, but nobody hears of it."""
        self._heard = False
        self._stopping.end()

    def vanish(self) -> None:
        """It is killed at once, by somebody who does not wait for it."""
        self._stop()

    def _schedule(self) -> None:
        """Arrange for the next thing it does: one call at a time, so that their order is the plan's."""
        times = [self._unwritten[0][0]] if self._unwritten else []
        if self.plan.duration is not None:
            times.append(self.plan.duration)
        if times:
            elapsed = self._clock.seconds() - self._began
            self._step = self._clock.callLater(max(0.0, min(times) - elapsed), self._act, min(times))

    def _act(self, moment: float) -> None:
        while self._alive and self._unwritten and self._unwritten[0][0] <= moment:
            _, stream, data = self._unwritten.popleft()
            if self._heard:
                self._sinks[stream].write(data)
        if not self._alive:
            return
        if self.plan.duration is None or moment < self.plan.duration:
            self._schedule()
        elif self.plan.signal is not None:
            self._end(self._outcome(Reason.SIGNAL, signal=self.plan.signal))
        else:
            self._end(self._outcome(Reason.EXIT, exit_code=self.plan.exit_code))

    def _outcome(self, reason: Reason, *, exit_code: int | None = None, signal: int | None = None) -> Outcome:
        usage = Usage(cpu_seconds=self.plan.cpu_seconds, peak_memory=self.plan.peak_memory)
        return Outcome(reason, exit_code=exit_code, signal=signal, usage=usage)

    def _end(self, outcome: Outcome) -> None:
        self._stop()
        if self._heard:
            usage = evolve(outcome.usage, wall_seconds=self._clock.seconds() - self._began)
            discarded = {stream: sink.discarded for stream, sink in self._sinks.items() if sink.discarded}
            self._ended.callback(ExitRecord(evolve(outcome, usage=usage), self._stopping.reason, discarded))

    def _stop(self) -> None:
        self._alive = False
        self._stopping.end()
        self._machine.leave(self)
        for call in (self._step, self._dying):
            if call is not None and call.active():
                call.cancel()


@define(eq=False)
class ScriptedRunner:
    """Implements :class:`cloudmytask.boundaries.Runner` for one life of a node.

    :ivar plan: says of each launch what its script will do.
    :ivar machine: shared by the lives of a node, and by the nodes of one host.
    :ivar tag: the same in all lives of one node, different for each node.
    """

    _clock: Clock
    _plan: Callable[[Launch], ScriptPlan]
    _sinks: Sinks
    machine: SimulatedMachine = field(factory=SimulatedMachine)
    _tag: str = "node"
    _crashed: bool = field(init=False, default=False)

    @property
    def live(self) -> int:
        """How many scripts run on the machine now, orphans included."""
        return self.machine.live

    @property
    def peak(self) -> int:
        """The most scripts that ever ran on the machine at once."""
        return self.machine.peak

    def start(self, launch: Launch, directory: str) -> Running:  # noqa: ARG002 - no script reads it
        """See :class:`cloudmytask.boundaries.Runner`. After a crash nothing is started, and nothing ever ends."""
        sinks = {stream: self._sinks(target) for stream, target in launch.streams.items()}
        script = ScriptedAttempt(launch, self._plan(launch), self._tag, self._clock, self.machine, sinks)
        if not self._crashed:
            script.begin()
        return script

    def sweep(self) -> int:
        """See :class:`cloudmytask.boundaries.Runner`."""
        orphans = self.machine.tagged(self._tag)
        for script in orphans:
            script.vanish()
        return len(orphans)

    def crash(self) -> None:
        """The node is killed with SIGKILL: its scripts run on as orphans, and it learns nothing any more."""
        self._crashed = True
        for script in self.machine.tagged(self._tag):
            script.orphan()
