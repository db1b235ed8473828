"""What a client is told by itself on one connection: the states of jobs, and output as it comes.

Invariant: a subscription ends by itself, by its owner's loss of interest, or with the connection; the node
is told of the second, and pieces that were on their way then are let go.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import count
from typing import Any

from twisted.internet.defer import Deferred

from cloudmytask.boundaries import Clock, JobEvent, OutputEnd
from cloudmytask.client.watched import Changed, Followed, Stream, Submitted, Watched, Write
from cloudmytask.codec import decode
from cloudmytask.codec.people import JobStatus
from cloudmytask.model.errors import (
    CloudMyTaskError,
    InternalError,
    InvalidArgument,
    RequestTimeout,
)
from cloudmytask.model.job import StreamName
from cloudmytask.wire import commands
from cloudmytask.wire.commands import NodeCommand
from cloudmytask.wire.guard import GuardedAMP
from cloudmytask.wire.vocabulary import Vocabulary

SUBMITTED_MAX = 500
"""Subscriptions of one connection beyond which a job is submitted without any: a node keeps a limited number."""


class Subscriptions:
    """The client's end of watches and output streams, and the connection that they come on.

    :param numbers: names for what is begun on the connection.
    """

    def __init__(self, clock: Clock, numbers: count[int]) -> None:
        self._clock = clock
        self._numbers = numbers
        self._open: dict[int, Watched | Stream | Followed] = {}
        vocabulary = Vocabulary(
            {
                commands.JobChanged: self._job_changed,
                commands.JobEvents: self._job_events,
                commands.OutputData: self._output_data,
                commands.OutputEnded: self._output_ended,
            }
        )
        self.protocol = GuardedAMP(vocabulary, clock, self._lost)

    async def submit(self, arguments: Mapping[str, Any], *, every: bool, output: bool, stream: bool) -> Submitted:
        """See ``NodeClient.submit_watched``; ``arguments`` of ``SubmitJob``."""
        if len(self._open) >= SUBMITTED_MAX:
            answer = await self.protocol.ask(commands.SubmitJob, **arguments)
            return Submitted(JobStatus.from_document(answer["job"]))
        watched, streamed = self._watched(), self._stream() if stream else None
        begun = (watched,) if streamed is None else (watched, streamed)
        numbers = {"watch": watched.number, "stream": None if streamed is None else streamed.number}
        answer = await self._begin(commands.SubmitJob, *begun, every=every, output=output, **numbers, **arguments)
        if answer["follows"]:
            return Submitted(self._began(watched, answer), watched, streamed)
        for each in begun:  # the node does not know how: it has to be asked
            self._open.pop(each.number, None)
        return Submitted(JobStatus.from_document(answer["job"]))

    async def watch(self, job_id: str, changed: Changed, every: bool) -> tuple[JobStatus, Watched]:
        """See ``NodeClient.watch``."""
        watched = self._watched(changed)
        answer = await self._begin(commands.WatchJob, watched, watch=watched.number, job=job_id, every=every)
        return self._began(watched, answer), watched

    async def wait(self, job_id: str, timeout: float | None) -> JobStatus:
        """See ``NodeClient.wait``."""
        _, watched = await self.watch(job_id, lambda _job: None, every=False)
        try:
            return await watched.until(lambda job: job.state.terminal, timeout)
        finally:
            watched.close()

    async def follow(
        self, told: Callable[[JobEvent], object], lost: Callable[[], object], everyone: bool
    ) -> Callable[[], None]:
        """See ``NodeClient.events``."""
        number = next(self._numbers)
        followed = Followed(number, lambda: self._close(number), told, lost)
        await self._begin(commands.FollowEvents, followed, watch=number, everyone=everyone)
        return followed.close

    async def output(
        self, job_id: str, write: Write, attempt: int, offsets: Mapping[StreamName, int] | None, follow: bool
    ) -> OutputEnd:
        """See ``NodeClient.output``."""
        stream = self._stream()
        places = offsets if offsets is not None else dict.fromkeys(StreamName, 0)
        await self._begin(
            commands.StreamOutput,
            stream,
            watch=stream.number,
            job=job_id,
            attempt=attempt,
            offsets={name.value: offset for name, offset in places.items()},
            follow=follow,
        )
        return await stream.read(write)

    def _close(self, number: int) -> None:
        if self._open.pop(number, None) is not None and self.protocol.alive:
            self.protocol.ask(commands.Unsubscribe, watch=number).addErrback(_gone)

    def _watched(self, changed: Changed = lambda _job: None) -> Watched:
        number = next(self._numbers)
        return Watched(self._clock, number, lambda: self._close(number), changed)

    def _stream(self) -> Stream:
        number = next(self._numbers)
        return Stream(number, lambda: self._close(number))

    def _began(self, watched: Watched, answer: Mapping[str, Any]) -> JobStatus:
        job = watched.began(answer)
        if job.state.terminal:
            self._open.pop(watched.number, None)
        return job

    async def _begin(
        self, command: type[NodeCommand], *subscriptions: Watched | Stream | Followed, **arguments: Any
    ) -> dict[str, Any]:
        """Ask for what is told under these numbers; the answer."""
        self._open.update({each.number: each for each in subscriptions})
        try:
            return await self.protocol.ask(command, **arguments)
        except BaseException as problem:
            declined = isinstance(problem, CloudMyTaskError) and not isinstance(problem, RequestTimeout)
            for each in subscriptions:
                if declined:
                    self._open.pop(each.number, None)
                else:
                    each.close()
            raise

    def _job_changed(
        self, watch: int, job: Mapping[str, Any], stdout: bytes | None = None, stderr: bytes | None = None
    ) -> dict[str, Any]:
        watched = self._open.get(watch)
        if isinstance(watched, Watched):
            status = JobStatus.from_document(job)
            if status.state.terminal:
                del self._open[watch]
            watched.tell(status, stdout, stderr)
        return {}

    def _job_events(self, watch: int, events: Mapping[str, Any]) -> dict[str, Any]:
        for event in decode(tuple[JobEvent, ...], events.get("jobs"), "jobs"):
            followed = self._open.get(watch)
            if isinstance(followed, Followed):  # otherwise the caller has lost interest
                followed.tell(event)
        return {}

    def _output_data(
        self,
        watch: int,
        stream: str,
        offset: int,  # noqa: ARG002 - pieces come in order
        data: bytes,
    ) -> dict[str, Any] | Deferred[dict[str, Any]]:
        found = self._open.get(watch)
        # Otherwise it was on its way when the caller lost interest.
        return found.take(stream, data) if isinstance(found, Stream) else {}

    def _output_ended(self, watch: int, end: Mapping[str, Any]) -> dict[str, Any]:
        stream = self._open.get(watch)
        if not isinstance(stream, Stream):
            return {}
        del self._open[watch]
        if "error" in end:
            stream.fail(InternalError(f"the output could not be read to its end: {end['error']}"))
            return {}
        try:
            stream.end(decode(OutputEnd, end))
        except InvalidArgument as problem:
            stream.fail(InternalError(f"the node's last word on the output is malformed: {problem}"))
            raise
        return {}

    def _lost(self) -> None:
        subscriptions, self._open = self._open, {}
        for each in subscriptions.values():
            each.lose()


def _gone(failure: Any) -> None:
    """Nobody waits for the answer: a connection that ends first has done what was asked, and a node that declines goes
    on telling what is not listened to."""
    failure.trap(CloudMyTaskError)
