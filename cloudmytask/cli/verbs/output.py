"""``cmt result`` and ``cmt logs``: output of a job, now or live, to where it belongs, to a file, or into JSON.

Invariant: a failure of cmt's output ends the reading (``Invocation.give_up``); what is missing is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from attrs import define, field
from twisted.internet.defer import Deferred

from cloudmytask.boundaries import OutputEnd
from cloudmytask.cli.failures import FileUnwritable
from cloudmytask.cli.follow import Following, Take, attempts, sizes, tail
from cloudmytask.cli.invocation import Invocation
from cloudmytask.cli.reach import at_node
from cloudmytask.cli.selection import one
from cloudmytask.cli.terminal.console import Console
from cloudmytask.cli.terminal.jobs import with_output
from cloudmytask.cli.terminal.output import Display, OutputWriter
from cloudmytask.client import JobStatus
from cloudmytask.client.node_session import NodeSession
from cloudmytask.core.explain import describe_loss
from cloudmytask.model.errors import ExitCode, JobExpired, JobNotFinished, NoSuchJob, OutputTruncated
from cloudmytask.model.job import JobState, StreamName


def result(console: Console, selector: str, only: str | None, output: str | None, raw: bool) -> int:
    """Fetch the output of a job that has ended."""
    streams = tuple(StreamName) if only is None else (StreamName(only),)

    async def work(invocation: Invocation, node: NodeSession) -> int:
        job_id = await one(node.client, selector)
        job = await node.ask(lambda client: client.getScriptJobStatus(job_id))
        if job.state is JobState.EXPIRED:
            why = await node.ask(lambda client: client.explain(job_id))
            raise JobExpired(f"job {job.id}: {why.sentence}")
        if not job.state.terminal:
            raise JobNotFinished(f"job {job.id} is {job.state.value}; see: cmt wait {job.id}")
        reading = Reading(console, invocation, node, job, job.attempt, streams)
        if console.as_json:
            await reading.answer()
        elif output is not None:
            await reading.save(Path(output))
        else:
            await reading.show(raw=raw)
        if job.state is JobState.SUCCEEDED:
            return ExitCode.FAILED if reading.truncated else ExitCode.OK
        why = await node.ask(lambda client: client.explain(job_id))
        console.note(f"{job.id} {job.state.value}: {why.sentence}")
        return ExitCode.FAILED

    return at_node(console, work)


def logs(console: Console, selector: str, follow: bool, attempt: int | None, tail: int | None, raw: bool) -> int:
    """Show the output of a job so far."""

    async def work(invocation: Invocation, node: NodeSession) -> int:
        job_id = await one(node.client, selector)
        if console.as_json and follow:
            job = await node.ask(lambda client: client.wait(job_id), about=job_id)
        else:
            job = await node.ask(lambda client: client.getScriptJobStatus(job_id))
        if attempt is not None and attempt > job.attempt and (job.state.terminal or not follow):
            raise NoSuchJob(f"job {job.id} has no attempt {attempt}; it has had {job.attempt}")
        reading = Reading(console, invocation, node, job, attempt or job.attempt, tuple(StreamName))
        if tail is not None:
            await reading.skip_to_tail(tail)
        if console.as_json:
            await reading.answer()
        elif follow:
            await reading.follow(raw=raw, further=attempt is None)
        else:
            await reading.show(raw=raw)
        return ExitCode.FAILED if reading.truncated else ExitCode.OK

    return at_node(console, work)


@define(eq=False)
class Reading:
    """One ``cmt result`` or ``cmt logs``.

    :ivar attempt: the number of the attempt; 0 if there has not been any.
    """

    _console: Console
    _invocation: Invocation
    _node: NodeSession
    _job: JobStatus
    _attempt: int
    _streams: Sequence[StreamName]
    _offsets: dict[StreamName, int] = field(init=False)
    truncated: bool = field(init=False, default=False)
    """Whether anything is missing from what was read."""

    def __attrs_post_init__(self) -> None:
        self._offsets = dict.fromkeys(self._streams, 0)

    async def skip_to_tail(self, lines: int) -> None:
        """Begin with the last ``lines`` lines that there are now."""
        if self._attempt:
            end = await sizes(self._node.client, self._job.id, self._attempt)
            for stream in self._streams if end.attempt else ():
                self._offsets[stream] = await tail(self._node.client, self._job.id, end, stream, lines)

    async def answer(self) -> None:
        """Write the job's document with its output."""
        collected = {stream: bytearray() for stream in self._streams}

        def take(stream: StreamName, data: bytes) -> None:
            collected[stream] += data

        end = await self._read(take)
        missing = {} if end is None else {stream: end.missing(stream) for stream in self._streams}
        self._console.document(with_output(self._job.document, collected, missing))
        self._mention(end)

    async def show(self, *, raw: bool) -> None:
        """Show what is there now."""
        display = self._display(raw=raw)
        end = await self._read(display.take)
        await display.end()
        self._mention(end)

    async def follow(self, *, raw: bool, further: bool) -> None:
        """Show what is there and what comes.

        :param further: go on with later attempts until the job has ended.
        """
        display = self._display(raw=raw)
        first = self._attempt or 1
        async for end, _ in attempts(self._node, self._job.id, display.take, first=first, offsets=self._offsets):
            await display.end()
            self._mention(end)
            if not further:
                return

    async def save(self, path: Path) -> None:
        """Write the first stream to a file, the other one to where it belongs.

        :raises FileUnwritable: the file cannot be made.
        """
        try:
            file = path.open("wb", buffering=0)
        except OSError as error:
            raise FileUnwritable(f"{path} cannot be written: {error.strerror}") from None
        display = self._display(raw=False)

        def take(stream: StreamName, data: bytes) -> Deferred[None] | None:
            if stream is not self._streams[0]:
                return display.take(stream, data)
            try:
                file.write(data)
            except OSError as error:
                self._invocation.give_up(FileUnwritable(f"{path} cannot be written: {error.strerror}"))
            return None

        with file:
            end = await self._read(take)
            await display.end()
        self._mention(end)

    def _display(self, *, raw: bool) -> Display:
        return Display(OutputWriter(self._invocation.reactor.callFromThread, self._invocation.give_up), raw)

    async def _read(self, take: Take) -> OutputEnd | None:
        if not self._attempt:  # it never ran
            return None
        return await Following(self._node, self._job.id, take, self._offsets).read(self._attempt, follow=False)

    def _mention(self, end: OutputEnd | None) -> None:
        if end is not None and tell_discarded(self._console, end, self._streams):
            self.truncated = True


def tell_discarded(console: Console, end: OutputEnd, streams: Iterable[StreamName]) -> bool:
    """Say how much of an attempt's output the node did not keep; False if nothing is missing."""
    cut = [f"{stream}: {end.discarded[stream]} bytes" for stream in streams if end.discarded[stream]]
    if cut:
        console.report(OutputTruncated(f"{', '.join(cut)} beyond the node's output_max were discarded"))
    lost = [describe_loss(stream, end.lost[stream]) for stream in streams if stream in end.lost]
    for sentence in lost:
        console.report(OutputTruncated(sentence))
    return bool(cut or lost)
