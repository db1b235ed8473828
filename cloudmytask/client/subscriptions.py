"""What a client has asked to be told of on one connection: the states of jobs, and output as it comes.

Invariant: whatever is subscribed to ends by itself, by its owner's loss of interest, or with the connection; the node
is told of the second, and pieces that were on their way then are let go.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import count
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

from cloudmytask.boundaries import Clock, OutputEnd
from cloudmytask.errors import CloudMyTaskError, ConnectionInterrupted, InternalError, RequestTimeout, WaitTimeout
from cloudmytask.model import StreamName
from cloudmytask.wire import commands
from cloudmytask.wire.documents import JobStatus, end_from_document
from cloudmytask.wire.guard import GuardedAMP, Vocabulary

Write = Callable[[StreamName, bytes], Deferred[None] | None]
"""Takes a piece of output. A Deferred says when there is room for more: the node sends a window's worth until then."""
Changed = Callable[[JobStatus], None]


class Subscriptions:
    """The client's end of watches and output streams, and the connection that they come on.

    :param numbers: names for what is begun on the connection.
    """

    def __init__(self, clock: Clock, numbers: count[int]) -> None:
        self._clock = clock
        self._numbers = numbers
        self._watches: dict[int, Changed] = {}
        self._streams: dict[int, tuple[Write, Deferred[OutputEnd]]] = {}
        self._waiting: dict[int, Deferred[JobStatus]] = {}
        vocabulary = Vocabulary(
            {
                commands.JobChanged: self._job_changed,
                commands.OutputData: self._output_data,
                commands.OutputEnded: self._output_ended,
            }
        )
        self.protocol = GuardedAMP(vocabulary, clock, self._lost)

    async def watch(self, job_id: str, changed: Changed, every: bool) -> tuple[JobStatus, Callable[[], None]]:
        """See ``NodeClient.watch``."""
        number = next(self._numbers)
        self._watches[number] = changed

        def end() -> None:
            if self._watches.pop(number, None) is not None:
                self._unsubscribe(number)

        try:
            answer = await self.protocol.ask(commands.WatchJob, watch=number, job=job_id, every=every)
        except CloudMyTaskError:
            self._watches.pop(number, None)
            raise
        job = JobStatus.from_document(answer["job"])
        if job.state.terminal:
            self._watches.pop(number, None)
        return job, end

    async def wait(self, job_id: str, timeout: float | None) -> JobStatus:
        """See ``NodeClient.wait``."""
        done: Deferred[JobStatus] = Deferred()
        number = next(self._numbers)
        self._waiting[number] = done

        def changed(job: JobStatus) -> None:
            if job.state.terminal and not done.called:
                done.callback(job)

        try:
            job, end = await self.watch(job_id, changed, every=False)
            if job.state.terminal:
                end()
                return job
            timer = None
            if timeout is not None:
                late = WaitTimeout(f"job {job.id} is {job.state.value} after {timeout:g} s")
                timer = self._clock.callLater(timeout, done.errback, late)
            try:
                return await done
            finally:
                if timer is not None and timer.active():
                    timer.cancel()
                end()
        finally:
            del self._waiting[number]

    async def output(
        self, job_id: str, write: Write, attempt: int, offsets: Mapping[StreamName, int] | None, follow: bool
    ) -> OutputEnd:
        """See ``NodeClient.output``."""
        number = next(self._numbers)
        ended: Deferred[OutputEnd] = Deferred()
        self._streams[number] = (write, ended)
        places = offsets if offsets is not None else dict.fromkeys(StreamName, 0)
        try:
            await self.protocol.ask(
                commands.StreamOutput,
                watch=number,
                job=job_id,
                attempt=attempt,
                offsets={stream.value: offset for stream, offset in places.items()},
                follow=follow,
            )
            return await ended
        finally:
            # Still there if the caller lost interest; the node must then not go on sending.
            if self._streams.pop(number, None) is not None:
                self._unsubscribe(number)

    def _job_changed(self, watch: int, job: Mapping[str, Any]) -> dict[str, Any]:
        status = JobStatus.from_document(job)
        changed = self._watches.pop(watch, None) if status.state.terminal else self._watches.get(watch)
        if changed is not None:
            changed(status)
        return {}

    def _output_data(
        self,
        watch: int,
        stream: str,
        offset: int,  # noqa: ARG002 - pieces come in order
        data: bytes,
    ) -> dict[str, Any] | Deferred[dict[str, Any]]:
        if watch not in self._streams:  # it was on its way when the caller lost interest
            return {}
        write, ended = self._streams[watch]

        def failed(failure: Failure) -> dict[str, Any]:
            if self._streams.pop(watch, None) is not None:
                self._unsubscribe(watch)
                ended.errback(failure)
            return {}

        return maybeDeferred(write, StreamName(stream), data).addCallbacks(lambda _: {}, failed)

    def _output_ended(self, watch: int, end: Mapping[str, Any]) -> dict[str, Any]:
        if watch not in self._streams:
            return {}
        _, ended = self._streams.pop(watch)
        if "error" in end:
            ended.errback(InternalError(f"the output could not be read to its end: {end['error']}"))
        else:
            ended.callback(end_from_document(end))
        return {}

    def _unsubscribe(self, number: int) -> None:
        if self.protocol.alive:
            self.protocol.ask(commands.Unsubscribe, watch=number).addErrback(_gone)

    def _lost(self) -> None:
        self._watches.clear()
        streams, self._streams = self._streams, {}
        for _, ended in streams.values():
            ended.errback(ConnectionInterrupted("the connection ended before the output did"))
        for done in list(self._waiting.values()):
            if not done.called:
                done.errback(ConnectionInterrupted("the connection ended before the job did"))


def _gone(failure: Any) -> None:
    """A watch ends with its connection, so a connection that ends first has done what was asked."""
    failure.trap(ConnectionInterrupted, RequestTimeout)
