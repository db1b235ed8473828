"""``cmt run``: a job in the foreground: reach a node or become one, hand the job over, show its output, end as it ends.

Invariant: once a job was accepted, we leave it only when it has ended, or was cancelled on our part, or after saying
under which id it goes on. An embedded node is gone, with all of its traces, when we are.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred

from cloudmytask.addresses import Address
from cloudmytask.cli import exit_codes
from cloudmytask.cli.failures import OutputFailed, ScriptNotFound
from cloudmytask.cli.follow import attempts
from cloudmytask.cli.inputs import STDIN, Inputs
from cloudmytask.cli.invocation import Invocation, conduct
from cloudmytask.cli.reach import LEARN_TIMEOUT, reach, reach_one
from cloudmytask.cli.terminal.console import STDERR, Console
from cloudmytask.cli.terminal.jobs import with_output
from cloudmytask.cli.terminal.output import Display, OutputWriter
from cloudmytask.cli.verbs.output import tell_discarded
from cloudmytask.cli.verbs.progress import Progress
from cloudmytask.cli.verbs.submit import DASH, JobOptions, Ready, check_script, gather
from cloudmytask.cli.verbs.waiting import WaitingNotes
from cloudmytask.client import JobStatus
from cloudmytask.client.node_session import NodeSession
from cloudmytask.client.watched import Submitted
from cloudmytask.model.errors import NoNode
from cloudmytask.model.job import JobState, Reason, StreamName

if TYPE_CHECKING:
    from cloudmytask.service.embedded import EmbeddedNode

STDIN_HINT_AFTER = 2.0
"""Seconds."""
HINT_TAIL = 4096
"""Bytes of standard error in which the reason of a failure is looked for."""
_MISSING = re.compile(rb"^ModuleNotFoundError: No module named '([A-Za-z_][A-Za-z0-9_]*)", re.MULTILINE)


def run(console: Console, raw: bool, **given: Any) -> int:
    """Run a script as if it ran here.

    :param given: what :meth:`~cloudmytask.cli.verbs.submit.JobOptions.of` sorts.
    """
    options = JobOptions.of(given)
    try:
        check_script(options.script)
        return conduct(lambda invocation: Foreground(console, options, invocation, raw, not options.no_stdin).run())
    except ScriptNotFound as problem:
        console.fail(problem)
        return exit_codes.SCRIPT_NOT_FOUND


@define(eq=False)
class Foreground:
    """One ``cmt run``."""

    _console: Console
    _options: JobOptions
    _invocation: Invocation
    _raw: bool
    _forward_stdin: bool
    _writer: OutputWriter = field(init=False)
    _take: Callable[[StreamName, bytes], Deferred[None] | None] = field(init=False)
    _display: Display = field(init=False)
    _collected: dict[StreamName, bytearray] = field(init=False, factory=lambda: {s: bytearray() for s in StreamName})
    _missing: Counter[StreamName] = field(init=False, factory=Counter)
    """Bytes of each stream that the node did not keep, of all attempts that were shown."""
    _stderr_tail: bytes = field(init=False, default=b"")
    _embedded: EmbeddedNode | None = field(init=False, default=None)
    _node: NodeSession | None = field(init=False, default=None)
    _job: JobStatus | None = field(init=False, default=None)
    _progress: Progress | None = field(init=False, default=None)
    _waiting: WaitingNotes | None = field(init=False, default=None)
    _submitting: bool = field(init=False, default=False)
    _signals: list[int] = field(init=False, factory=list)
    _following: Deferred[JobStatus] | None = field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        self._writer = OutputWriter(self._invocation.reactor.callFromThread, self._output_failed)
        self._display = Display(self._writer, self._raw)
        self._take = self._collect if self._console.as_json else self._display.take
        self._invocation.on_signal = self._signaled

    async def run(self) -> int:
        """The exit code."""
        inputs = Inputs(self._invocation.reactor.callFromThread)
        try:
            self._node = node = await self._reach()
            ready = await self._gather(node, inputs)
            submitted = await self._submit(node, ready)
            self._job = submitted.job
            code = await self._attend(node, submitted)
            await node.learn(LEARN_TIMEOUT)
            return code
        finally:
            inputs.close()
            self._quiet_progress()
            if self._waiting is not None:
                self._waiting.stop()
            if self._node is not None:
                self._node.close()
            if self._embedded is not None:
                self._invocation.on_signal = lambda _number: self._hurry()
                await self._embedded.stop()

    # Getting there

    async def _reach(self) -> NodeSession:
        reactor, via = self._invocation.reactor, self._console.via
        try:
            return await reach(reactor, self._console)
        except NoNode as problem:
            if via is not None:
                raise
            self._console.note(f"no node reachable ({problem}); running on an embedded node")
        # Only here: the whole node is a tenth of a second's worth of modules.
        from cloudmytask.service.embedded import EmbeddedNode

        self._embedded = EmbeddedNode.start(reactor)
        return await reach_one(reactor, [Address.parse(self._embedded.address, "embedded node")])

    async def _gather(self, node: NodeSession, inputs: Inputs) -> Ready:
        hint = self._invocation.reactor.callLater(STDIN_HINT_AFTER, self._stdin_hint)
        try:
            forward = self._forward_stdin and not _is_terminal(STDIN)
            return await gather(self._options, node, inputs, read_stdin=forward)
        finally:
            if hint.active():
                hint.cancel()

    def _stdin_hint(self) -> None:
        if os.isatty(STDERR):
            what = "the script" if self._options.script == DASH else "the script's input"
            self._console.note(f"reading {what} from standard input to its end; --no-stdin if there is none")

    async def _submit(self, node: NodeSession, ready: Ready) -> Submitted:
        self._submitting = True
        try:
            return await ready.submit_watched(node)
        finally:
            self._submitting = False

    # Being there

    async def _attend(self, node: NodeSession, submitted: Submitted) -> int:
        if os.isatty(STDERR) and not self._console.quiet:
            self._progress = Progress(self._invocation.reactor, node, self._writer)
            self._progress.start(submitted.job.id)
        if not self._console.quiet:
            self._waiting = WaitingNotes(self._invocation.reactor, node, submitted, self._note_in_order, self._drawn)
            self._waiting.start()
        self._following = Deferred.fromCoroutine(self._follow(node, submitted))
        if self._signals:
            self._cancel()
        try:
            ended = await self._following
        except CancelledError:
            if self._writer.failure is None:
                raise
            await node.client.cancel(submitted.job.id, f"cmt run: {self._writer.failure}")
            raise self._writer.failure from None
        await self._writer.flush()
        if self._writer.failure is not None:
            raise self._writer.failure
        return await self._farewell(node, ended)

    async def _follow(self, node: NodeSession, submitted: Submitted) -> JobStatus:
        job = submitted.job
        async for end, job in attempts(node, submitted.job.id, self._taken, submitted=submitted):
            self._quiet_progress()
            if end.attempt:
                await self._display.end()
                tell_discarded(self._console, end, StreamName)
                self._missing.update({stream: end.missing(stream) for stream in StreamName})
            if not job.state.terminal:
                self._note_in_order(f"attempt {end.attempt} has ended; another follows, with output of its own")
        return job

    def _taken(self, stream: StreamName, data: bytes) -> Deferred[None] | None:
        self._quiet_progress()
        if stream is StreamName.STDERR:
            self._stderr_tail = (self._stderr_tail + data)[-HINT_TAIL:]
        return self._take(stream, data)

    def _collect(self, stream: StreamName, data: bytes) -> None:
        self._collected[stream] += data

    def _quiet_progress(self) -> None:
        if self._progress is not None:
            self._progress.stop()

    def _drawn(self) -> bool:
        return self._progress is not None and self._progress.begun

    async def _farewell(self, node: NodeSession, job: JobStatus) -> int:
        if self._console.as_json:
            self._console.document(with_output(job.document, self._collected, self._missing))
        code = exit_codes.of_job(job.state, job.reason, job.exit_code, job.signal)
        if job.state is JobState.CANCELLED and self._signals:
            return exit_codes.of_interrupted(self._signals[0], job.exit_code)
        if job.reason is Reason.EXIT:
            self._hint()
        elif job.reason is not Reason.SIGNAL or os.isatty(STDERR):
            # Not the script's own doing; and of a signal a shell tells too, to a person.
            why = await node.client.explain(job.id)
            self._console.note(f"{job.state.value.replace('_', '-')}: {why.sentence}")
        # output that is not whole is no success, no matter what the script says
        return exit_codes.OURS if code == 0 and self._missing.total() else code

    def _hint(self) -> None:
        if self._options.script != DASH:
            neighbor = missing_neighbor(self._options.script, self._stderr_tail)
            if neighbor is not None:
                self._console.note(f"hint: {neighbor} lies beside the script, but only the script itself travels")

    # What comes from outside

    def _signaled(self, number: int) -> None:
        self._signals.append(number)
        if self._job is None and not (self._submitting and len(self._signals) == 1):
            self._invocation.abort(number)
        elif self._job is not None and len(self._signals) <= 2:
            self._cancel()
        elif self._job is not None:
            self._invocation.abort(self._signals[0])

    def _cancel(self) -> None:
        """Ask that the job ends; what comes of it is seen by following it."""
        assert self._job is not None and self._node is not None
        job_id, again = self._job.id, len(self._signals) > 1
        self._quiet_progress()
        if os.isatty(STDERR):
            self._note_in_order("killing the script" if again else "asked for the job's end; Ctrl-C again kills it")
        wish = self._node.ask(lambda client: client.cancel(job_id, "killed" if again else "interrupted"))
        Deferred.fromCoroutine(wish).addErrback(self._cancel_failed)

    def _note_in_order(self, text: str) -> None:
        """Say something after what is on its way to our standard error."""
        self._writer.flush().addCallback(lambda _: self._console.note(text))

    def _cancel_failed(self, failure: Any) -> None:
        self._console.note(f"the job could not be cancelled: {failure.getErrorMessage()}")

    def _output_failed(self, _problem: OutputFailed) -> None:
        if self._following is not None:
            self._following.cancel()

    def _hurry(self) -> None:
        if self._embedded is not None:
            self._embedded.hurry()


def _is_terminal(descriptor: int) -> bool:
    """True also if the descriptor is closed: there is nothing to read from it either."""
    try:
        os.fstat(descriptor)
    except OSError:
        return True
    return os.isatty(descriptor)


def missing_neighbor(script: str, stderr: bytes) -> str | None:
    """Find the file beside ``script`` that the script could not import.

    :param stderr: the end of the script's standard error.
    """
    found = _MISSING.findall(stderr)
    if not found:
        return None
    name = found[-1].decode()
    beside = Path(script).absolute().parent
    for candidate in (beside / f"{name}.py", beside / name):
        if candidate.exists():
            return candidate.name
    return None
