"""Runs attempts: lays out the inputs, takes a slot, starts the script, and tells how it ended.

Invariant: no more scripts run than there are slots (see ``node.running.slots``), and a slot is free only when the
script's process group is gone. Every attempt ends with an outcome; one that is stopped before it
has started ends at once. A shortage of this node's is no outcome: the attempt is interrupted before its script starts.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from attrs import Factory, define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from cloudmytask.boundaries import ExitRecord, Launch, Running, World
from cloudmytask.config import NodeConfig
from cloudmytask.core.explain import node_failed
from cloudmytask.deferreds import Signal
from cloudmytask.listeners import Listeners
from cloudmytask.model.errors import BlobCorrupt, BlobMissing, StoreFailed
from cloudmytask.model.job import Assignment, AttemptId, Content, Interruption, Outcome, Reason
from cloudmytask.node.running.outputs import Finished, LiveOutput, Outputs
from cloudmytask.node.running.slots import SLOW_STAGING, Claim, SlotTable
from cloudmytask.node.running.staging import WorkDirectories
from cloudmytask.node.shortage_watch import ShortageWatch

_log = Logger()

STDIN_NAME = ".cmt-stdin"
"""File in the work directory that standard input is read from."""


@define(eq=False)
class _Active:
    assignment: Assignment
    live: LiveOutput
    claim: Claim
    placed_at: float
    preparing: Deferred[str] | Deferred[None] | None = None
    """What it waits for before it can start: its directory, then a slot."""
    running: Running | None = None
    called_off: Reason | None = None
    """What it was stopped for before it started."""
    interrupted: bool = False

    @property
    def stopped_for(self) -> Reason | None:
        """What it was stopped for, so far."""
        return self.called_off if self.running is None else self.running.stopped_for


@define(eq=False)
class Executor:
    """What runs on one node."""

    _world: World
    _config: NodeConfig
    _outputs: Outputs
    _shortages: ShortageWatch
    idle: Signal = field(factory=Signal)
    """Fired when the last attempt has ended."""
    slots_changed: Listeners[[]] = Factory(Listeners)
    """Told when :attr:`running` or :attr:`claimed` has changed."""
    _active: dict[AttemptId, _Active] = Factory(dict)
    _slots: SlotTable = field(init=False)
    _directories: WorkDirectories = field(init=False)
    _clearing: set[AttemptId] = Factory(set)
    """Attempts whose directories are being deleted."""
    _cleared: Signal = Factory(Signal)
    """Fired when one of them is gone, or stays."""

    def __attrs_post_init__(self) -> None:
        self._slots = SlotTable(self._config.slots, self.slots_changed)
        self._directories = WorkDirectories(self._world.store)

    @property
    def attempts(self) -> int:
        """How many there are, those that are being laid out or have lent their slots included."""
        return len(self._active)

    @property
    def running(self) -> int:
        """Slots that are taken."""
        return self._slots.taken

    @property
    def claimed(self) -> int:
        """Slots that are not free for new work."""
        return self._slots.claimed

    async def run(
        self,
        assignment: Assignment,
        before_start: Callable[[], Awaitable[None]],
        freed: Callable[[], None],
        contents: Sequence[Content] = (),
    ) -> Finished:
        """Run one attempt.

        :param before_start: awaited when everything is ready; the script starts only after it.
        :param freed: called when the slot is free again.
        :param contents: inputs that are not durable yet.
        """
        attempt = assignment.id
        assert attempt not in self._active
        self._shortages.begin()
        try:
            live = self._outputs.open(attempt)
        except Exception:
            freed()
            raise
        active = self._active[attempt] = _Active(assignment, live, self._slots.claim(), self._world.clock.seconds())
        try:
            record = await self._execute(active, before_start, contents)
        except Exception as bug:  # noqa: BLE001 - a bug of ours must end this job, not leave it without an outcome
            _log.failure("attempt {attempt} broke", attempt=attempt)
            if active.running is not None:
                active.running.kill()
            record = ExitRecord(Outcome(reason=Reason.LAUNCH, detail=node_failed(bug)))
        del self._active[attempt]
        active.claim.release()
        Deferred.fromCoroutine(self._clear(attempt)).addErrback(
            lambda failure: _log.failure("attempt {attempt}: its directory stays", failure, attempt=attempt)
        )
        self._outputs.end(attempt)
        live.finish()
        freed()
        if not self._active:
            self.idle.fire()
        if record.short is None or active.called_off is not None:
            return Finished(record.outcome, active.interrupted, live, self._config.name)
        outcome = Outcome(Reason.LOST, detail=self._shortages.met(record.short, record.died.detail))
        return Finished(outcome, True, live, self._config.name, interruption=Interruption.UNSTARTED)

    def may_join(self, deaths: int) -> bool:
        """Whether an attempt of a job during which a node has died so often may begin now. One whose next death would
        be its last does not run beside another such: it would be blamed for what that does."""
        last = max(1, self._config.poison_max - 1)
        return deaths < last or all(active.assignment.deaths < last for active in self._active.values())

    def stop(self, attempt: AttemptId, reason: Reason) -> None:
        """End an attempt for ``reason``: SIGTERM now, SIGKILL after ``kill_grace``. The first reason stands."""
        active = self._active.get(attempt)
        if active is None or active.stopped_for is not None:
            return
        if active.running is not None:
            active.running.stop(reason)
            return
        active.called_off = reason
        if active.preparing is not None:
            active.preparing.cancel()

    def interrupt(self) -> None:
        """End all attempts because the node shuts down; their jobs will run again."""
        for active in list(self._active.values()):
            if active.stopped_for is None:  # what is stopped for another reason has its outcome already
                active.interrupted = True
                self.stop(active.assignment.id, Reason.LOST)

    def kill(self) -> None:
        """Like :meth:`interrupt`, without any grace."""
        self.interrupt()
        for active in list(self._active.values()):
            if active.running is not None:
                active.running.kill()

    def hurry(self, attempt: AttemptId) -> None:
        """Kill an attempt that is being stopped already, without waiting for the rest of its grace."""
        active = self._active.get(attempt)
        if active is not None and active.running is not None and active.running.stopped_for is not None:
            active.running.kill()

    def lend_slots(self) -> None:
        """Called by the clock: attempts whose inputs take long let others have their slots meanwhile."""
        slow = self._world.clock.seconds() - SLOW_STAGING
        for active in list(self._active.values()):  # who is lent a slot may have ended when this returns
            if active.preparing is not None and active.claim.taken and active.placed_at <= slow:
                active.claim.lend()

    def recover(self, attempt: AttemptId) -> Finished:
        """What is left of an attempt that an earlier life of the node did not see the end of."""
        live = self._outputs.open(attempt, resume=True)
        live.finish()
        outcome, died = Outcome(reason=Reason.LOST), Interruption.NODE_DIED
        return Finished(outcome, True, live, self._config.name, interruption=died)

    async def clean(self, attempt: AttemptId) -> None:
        """Give up the files of an attempt whose record is durable, or is not wanted; done when they are gone, or stay:
        that is logged."""
        self._outputs.retire(attempt)
        while attempt in self._clearing:
            await self._cleared.wait()

    async def _clear(self, attempt: AttemptId) -> None:
        """Delete the work directory of an attempt that has ended. That waits for nothing: a script that has filled the
        disk leaves no room for its outcome."""
        self._clearing.add(attempt)
        try:
            await self._directories.remove(attempt)
        except StoreFailed as problem:
            _log.error("attempt {attempt}: its directory stays: {problem}", attempt=attempt, problem=str(problem))
        finally:
            self._clearing.discard(attempt)
            self._cleared.fire()

    async def _execute(
        self, active: _Active, before_start: Callable[[], Awaitable[None]], contents: Sequence[Content]
    ) -> ExitRecord:
        launch = self._launch(active.assignment)
        try:
            directory = await self._prepare(active, launch, contents)
            if active.called_off is None:
                await before_start()
        except CancelledError:
            if active.called_off is None:
                raise
        except StoreFailed as problem:
            return ExitRecord(Outcome(reason=Reason.LAUNCH, detail=str(problem)), short=problem.resource)
        except (BlobMissing, BlobCorrupt) as problem:
            return ExitRecord(Outcome(reason=Reason.LAUNCH, detail=str(problem)))
        if active.called_off is not None:
            return ExitRecord(Outcome(reason=active.called_off))
        running = active.running = self._world.runner.start(launch, directory)
        if not running.ended.called:
            self._shortages.worked()
        return await running.ended

    async def _prepare(self, active: _Active, launch: Launch, contents: Sequence[Content]) -> str:
        """Its directory, and a slot.

        :raises CancelledError: it was called off.
        """
        try:
            staging = active.preparing = self._directories.stage(launch, contents)
            directory = await staging
            if not active.claim.taken:
                taking = active.preparing = active.claim.take()
                await taking
        finally:
            active.preparing = None
        return directory

    def _launch(self, assignment: Assignment) -> Launch:
        spec = assignment.spec
        files, stdin = {spec.script_name: spec.script}, None
        if spec.stdin is not None:
            stdin = STDIN_NAME if spec.script_name != STDIN_NAME else f"{STDIN_NAME}-too"
            files[stdin] = spec.stdin
        return Launch(
            id=assignment.id,
            client=assignment.client,
            python=self._world.python,
            files=files,
            script_name=spec.script_name,
            arguments=spec.arguments,
            variables={
                **dict(spec.variables),
                "CMT_JOB_ID": assignment.id.job,
                "CMT_ATTEMPT": str(assignment.id.number),
                "CMT_EXECUTOR": assignment.executor,
            },
            limits=spec.limits,
            stdin=stdin,
            streams=self._outputs.begin(assignment.id),
            deadline=spec.timeout,
            kill_grace=self._config.kill_grace,
        )
