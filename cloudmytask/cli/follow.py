"""Fetching a job's output: what is there, or live, attempt after attempt, across lost connections; or just its end.

Invariant: each byte of an attempt is taken once and in order, however often the connection is lost.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import suppress

from attrs import define, field
from twisted.internet.defer import Deferred, DeferredLock, succeed

from cloudmytask.boundaries import OutputEnd
from cloudmytask.client import JobStatus
from cloudmytask.client.node_client import NodeClient
from cloudmytask.client.node_session import NodeSession
from cloudmytask.client.watched import Stream, Submitted
from cloudmytask.model.errors import ConnectionInterrupted
from cloudmytask.model.job import JobId, StreamName

Take = Callable[[StreamName, bytes], Deferred[None] | None]
BEYOND = 2**62
"""An offset at which no output is."""
TAIL_BLOCK = 64 * 1024
"""Bytes of a stream's end that are looked at first for its last lines."""


@define(eq=False)
class Following:
    """Reads one attempt's output from the offsets reached.

    A node that was killed may have forgotten that it had begun an attempt, and run another one under the same number.
    That one is read from its beginning.

    :ivar submitted: of which the node tells by itself: that is not asked for.
    """

    _node: NodeSession
    _job_id: JobId
    _take: Take
    _offsets: dict[StreamName, int] = field(factory=lambda: dict.fromkeys(StreamName, 0))
    _submitted: Submitted | None = None
    _began: object = field(init=False, default=None)
    """When the attempt that the offsets are about was started, as the node told it."""
    _boot: object = field(init=False, default=None)
    """The life of the node that the last piece came from."""
    _pushed: Stream | None = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._pushed = None if self._submitted is None else self._submitted.output

    async def read(self, attempt: int, *, follow: bool) -> OutputEnd:
        """Read all of it.

        :raises CloudMyTaskError: it cannot be had.
        """
        return await self._node.ask(
            lambda client: Deferred.fromCoroutine(self._read(client, attempt, follow)), about=self._job_id
        )

    async def _read(self, client: NodeClient, attempt: int, follow: bool) -> OutputEnd:
        boot = client.node.get("boot")
        if self._boot is not None and self._boot != boot:
            began = await self._started(client, attempt)
            if began != self._began:
                self._offsets = dict.fromkeys(self._offsets, 0)
                self._boot = None
        in_order = DeferredLock()
        over = False

        async def hand_on(stream: StreamName, data: bytes) -> None:
            if follow and self._boot is None:
                # Before anything is shown: if the node dies now, what was shown must be known from what is new.
                self._began = await self._started(client, attempt)
                self._boot = boot
            if not over:  # or it comes again
                self._offsets[stream] += len(data)
                await (self._take(stream, data) or succeed(None))

        def taken(stream: StreamName, data: bytes) -> Deferred[None]:
            return in_order.run(lambda: Deferred.fromCoroutine(hand_on(stream, data)))

        pushed, self._pushed = self._pushed, None
        try:
            if pushed is not None:
                return await pushed.read(taken)
            return await client.output(self._job_id, taken, attempt=attempt, offsets=dict(self._offsets), follow=follow)
        finally:
            over = True

    async def _started(self, client: NodeClient, attempt: int) -> object:
        """When an attempt was started: as the node has told, or as it answers."""
        told = None if self._submitted is None or self._submitted.watched is None else self._submitted.watched.told
        found = None if told is None else _of_attempt(told, attempt, "started")
        return found or _of_attempt(await client.getScriptJobStatus(self._job_id), attempt, "started")


def _of_attempt(job: JobStatus, attempt: int, field: str) -> object:
    known = [each[field] for each in job.document["attempts"] if each["number"] == attempt]
    return known[0] if known else None


async def attempts(
    node: NodeSession,
    job_id: JobId,
    take: Take,
    *,
    first: int = 1,
    offsets: dict[StreamName, int] | None = None,
    submitted: Submitted | None = None,
) -> AsyncIterator[tuple[OutputEnd, JobStatus]]:
    """Follow attempt after attempt until the job has ended; yields at the end of each, with the job as it is then. At
    the end of a job that has no further attempt after all the last ``OutputEnd`` is of attempt 0.

    :param offsets: where to begin in the first of them.
    :param submitted: of which the node tells by itself: that is not asked for.
    """
    following = Following(node, job_id, take, offsets or dict.fromkeys(StreamName, 0), submitted)
    number = first
    while True:
        end = await following.read(number, follow=True)
        job = await _after(node, job_id, submitted, end.attempt)
        yield end, job
        if not end.attempt or (job.state.terminal and job.attempt <= end.attempt):
            return
        number = end.attempt + 1
        following = Following(node, job_id, take)


async def _after(node: NodeSession, job_id: JobId, submitted: Submitted | None, attempt: int) -> JobStatus:
    """The job, once that attempt has its outcome; 0: once the job has."""
    if submitted is not None and submitted.watched is not None:
        with suppress(ConnectionInterrupted):
            return await submitted.watched.until(lambda job: _of_attempt(job, attempt, "reason") is not None)
    if attempt:
        return await node.ask(lambda client: client.getScriptJobStatus(job_id), about=job_id)
    return await node.ask(lambda client: client.wait(job_id), about=job_id)


async def sizes(client: NodeClient, job_id: JobId, attempt: int) -> OutputEnd:
    """How much output there is now."""
    return await client.output(
        job_id, lambda _stream, _data: None, attempt=attempt, offsets=dict.fromkeys(StreamName, BEYOND)
    )


async def tail(client: NodeClient, job_id: JobId, end: OutputEnd, stream: StreamName, lines: int) -> int:
    """The offset at which the last ``lines`` lines of a stream begin, whose output reaches to ``end``."""
    size, block = end.sizes[stream], TAIL_BLOCK
    while True:
        start = max(0, size - block)
        found = bytearray()

        def keep(_stream: StreamName, data: bytes, found: bytearray = found) -> None:
            found.extend(data)

        await client.output(job_id, keep, attempt=end.attempt, offsets={stream: start})
        place = line_start(bytes(found[: size - start]), lines)
        if place is not None or start == 0:
            return start + (place or 0)
        block *= 8


def line_start(data: bytes, lines: int) -> int | None:
    """Where the last ``lines`` lines of ``data`` begin; None if that may be before ``data``. A last line need not end
    with a newline."""
    if lines == 0:
        return len(data)
    place = len(data) - 1 if data.endswith(b"\n") else len(data)
    for _ in range(lines):
        place = data.rfind(b"\n", 0, place)
        if place < 0:
            return None
    return place + 1
