"""Runs attempts: takes a slot, lays out the inputs, starts the script, ends it in time, and gathers its output.

Invariant: no more scripts run than there are slots, and a slot is free only when the script's process group is gone.
What an attempt was stopped for (timeout, cancel, shutdown) is known here and overrides how its process died.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from attrs import Factory, define, evolve, field
from twisted.logger import Logger

from cloudmytask.boundaries import DelayedCall, Launch, Running, World
from cloudmytask.config import NodeConfig
from cloudmytask.core.explain import node_failed
from cloudmytask.deferreds import Signal
from cloudmytask.model.errors import BlobCorrupt, BlobMissing, StoreFailed
from cloudmytask.model.job import Assignment, AttemptId, Blob, Content, JobId, JobSpec, Outcome, Reason
from cloudmytask.node.running.outputs import Finished, LiveOutput, Outputs

_log = Logger(namespace="cloudmytask.executor")

STDIN_NAME = ".cmt-stdin"
"""File in the work directory that standard input is read from."""


@define(eq=False)
class _Active:
    assignment: Assignment
    live: LiveOutput
    running: Running | None = None
    stopped_for: Reason | None = None
    interrupted: bool = False
    timers: list[DelayedCall] = Factory(list)

    def reason(self) -> Reason | None:
        """What it was stopped for, so far."""
        return self.stopped_for


@define(eq=False)
class Executor:
    """The slots of one node."""

    _world: World
    _config: NodeConfig
    _outputs: Outputs
    _active: dict[JobId, _Active] = Factory(dict)
    idle: Signal = field(factory=Signal)
    """Fired when the last attempt has ended."""

    @property
    def running(self) -> int:
        """Slots that are taken."""
        return len(self._active)

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
        job_id = assignment.id.job
        assert job_id not in self._active
        live = self._outputs.open(assignment.id)
        active = self._active[job_id] = _Active(assignment, live)
        try:
            outcome = await self._execute(active, before_start, contents)
        except Exception as bug:  # noqa: BLE001 - a bug of ours must end this job, not leave it without an outcome
            _log.failure("attempt {attempt} broke", attempt=assignment.id)
            outcome = Outcome(reason=Reason.LAUNCH, detail=node_failed(bug))
        for timer in active.timers:
            if timer.active():
                timer.cancel()
        del self._active[job_id]
        live.finish()
        freed()
        if not self._active:
            self.idle.fire()
        return Finished(outcome, active.interrupted, live, self._config.name)

    def stop(self, job_id: JobId, reason: Reason) -> None:
        """End the job's attempt for ``reason``: SIGTERM now, SIGKILL after ``kill_grace``. The first reason stands."""
        active = self._active.get(job_id)
        if active is None or active.stopped_for is not None:
            return
        active.stopped_for = reason
        if active.running is not None:
            self._terminate(active, active.running)

    def interrupt(self) -> None:
        """End all attempts because the node shuts down; their jobs will run again."""
        for active in list(self._active.values()):
            if active.stopped_for is None:  # what is stopped for another reason has its outcome already
                active.interrupted = True
                self.stop(active.assignment.id.job, Reason.LOST)

    def kill(self) -> None:
        """Like :meth:`interrupt`, without any grace."""
        self.interrupt()
        for active in list(self._active.values()):
            if active.running is not None:
                active.running.kill()

    def hurry(self, job_id: JobId) -> None:
        """Kill an attempt that is being stopped already, without waiting for the rest of its grace."""
        active = self._active.get(job_id)
        if active is not None and active.stopped_for is not None and active.running is not None:
            active.running.kill()

    def recover(self, attempt: AttemptId) -> Finished:
        """What is left of an attempt that an earlier life of the node did not see the end of."""
        live = self._outputs.open(attempt, resume=True)
        live.finish()
        return Finished(Outcome(reason=Reason.LOST), True, live, self._config.name)

    async def clean(self, attempt: AttemptId) -> None:
        """Give up the files of an attempt whose record is durable."""
        self._outputs.retire(attempt)
        await self._world.store.unstage(str(attempt))

    async def _execute(
        self, active: _Active, before_start: Callable[[], Awaitable[None]], contents: Sequence[Content]
    ) -> Outcome:
        assignment, spec = active.assignment, active.assignment.spec
        files: dict[str, Blob] = {spec.script_name: spec.script}
        if spec.stdin is not None:
            files[_stdin_name(spec)] = spec.stdin
        try:
            directory = await self._world.store.stage(str(assignment.id), files, contents)
            if active.reason() is None:
                await before_start()
        except (BlobMissing, BlobCorrupt, StoreFailed) as problem:
            return Outcome(reason=Reason.LAUNCH, detail=str(problem))
        stopped_for = active.reason()
        if stopped_for is not None:
            return Outcome(reason=stopped_for)
        running = active.running = self._world.runner.start(self._launch(active, directory))
        if spec.timeout is not None:
            active.timers.append(
                self._world.clock.callLater(spec.timeout, self.stop, assignment.id.job, Reason.TIMEOUT),
            )
        outcome = await running.ended
        stopped_for = active.reason()
        return outcome if stopped_for is None else evolve(outcome, reason=stopped_for)

    def _launch(self, active: _Active, directory: str) -> Launch:
        assignment, spec = active.assignment, active.assignment.spec
        return Launch(
            job_id=assignment.id.job,
            attempt=assignment.id.number,
            directory=directory,
            script_name=spec.script_name,
            arguments=spec.arguments,
            environment={
                **dict(spec.variables),
                "CMT_JOB_ID": assignment.id.job,
                "CMT_ATTEMPT": str(assignment.id.number),
                "CMT_EXECUTOR": assignment.executor,
            },
            limits=spec.limits,
            stdin=None if spec.stdin is None else f"{directory}/{_stdin_name(spec)}",
            write=active.live.write,
        )

    def _terminate(self, active: _Active, running: Running) -> None:
        running.terminate()
        active.timers.append(self._world.clock.callLater(self._config.kill_grace, running.kill))


def _stdin_name(spec: JobSpec) -> str:
    return STDIN_NAME if spec.script_name != STDIN_NAME else f"{STDIN_NAME}-too"
