"""The output of scripts while it grows and after: where the bytes of an attempt are, and readers that follow them.

Invariant: a reader sees each stream's bytes once and in order, wherever they are kept at that moment; a spool is
given up only when its bytes are safe elsewhere and nobody is reading from it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

from attrs import Factory, define, evolve, field, frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from cloudmytask.boundaries import JobStore, OpenSinks, OutputEnd, OutputPiece, Spool, StreamTarget
from cloudmytask.deferreds import Signal
from cloudmytask.model.errors import StoreFailed
from cloudmytask.model.job import (
    Attempt,
    AttemptId,
    Blob,
    Content,
    Interruption,
    Job,
    Loss,
    Outcome,
    Output,
    Stamp,
    StreamName,
)
from cloudmytask.model.words import Resource

_log = Logger()


@define(eq=False)
class CappedSpool:
    """A spool that keeps at most ``limit`` bytes and counts the rest, and what the disk does not take.

    :ivar node: this node's name.
    """

    spool: Spool
    limit: int
    node: str
    discarded: int = 0
    _lost_there: Loss | None = field(init=False, default=None)
    """What the disk of the node that the bytes come from did not take, of those that did not come."""
    _taken: int = field(init=False, default=Factory(lambda self: self.spool.size, takes_self=True))
    """Bytes within the limit, kept or not."""

    @property
    def size(self) -> int:
        """Bytes kept."""
        return self.spool.size

    @property
    def known(self) -> int:
        """Bytes that have come, kept or not."""
        return self._taken + self.discarded

    @property
    def lost(self) -> Loss | None:
        """What is missing because a disk, here or on the way, did not take it."""
        there = self._lost_there
        if missing := self._taken - self.size:
            return self._loss(self.size, missing + (0 if there is None else there.size), self.spool.failure)
        return there

    def end_there(self, discarded: int, lost: Loss | None) -> None:
        """The node that the bytes come from has said how many beyond its limit it threw away, and what it lost."""
        if lost is not None and (missing := lost.after + lost.size - self.known) > 0:
            self._lost_there = evolve(lost, after=self.size, size=missing)
        self.discarded += discarded

    def append(self, data: bytes) -> Deferred[None] | None:
        """Keep what fits. A Deferred: bring no more before it fires."""
        room = self.limit - self._taken
        if len(data) > room:
            self.discarded += len(data) - max(0, room)
            data = data[: max(0, room)]
        if data:
            self._taken += len(data)
            self.spool.append(data)
        return self.spool.caught_up() if self.spool.behind else None

    async def seal(self, *, last: bool) -> tuple[Output, Content | None]:
        """What goes into the job's record, and the bytes that have to be saved along with it. What the disk did not
        take is counted: it must not keep the outcome from being told.

        :param last: nobody will try again.
        :raises StoreFailed: the disk has no room even for a note of what is in the file.
        """
        try:
            sealed = await self.spool.seal()
        except StoreFailed as problem:
            if problem.resource is Resource.DISK and not last:
                raise
            _log.error("output of {size} bytes is lost: {problem}", size=self.size, problem=str(problem))
            return Output(discarded=self.discarded, lost=self._loss(0, self._taken, problem)), None
        content = sealed if isinstance(sealed, Content) else None
        blob = content.blob if content is not None else cast("Blob | None", sealed)
        return Output(blob=blob, discarded=self.discarded, lost=self.lost), content

    def _loss(self, after: int, size: int, problem: StoreFailed | None) -> Loss:
        return Loss(self.node, after, size, problem is not None and problem.resource is Resource.DISK)


@define(eq=False)
class LiveOutput:
    """Both streams of one attempt whose output is not in the store yet."""

    streams: Mapping[StreamName, CappedSpool]
    grown: Signal = Factory(Signal)
    finished: bool = False
    _reads: int = 0
    _retired: bool = False

    def write(self, stream: StreamName, data: bytes) -> Deferred[None] | None:
        """Take in what the script wrote. A Deferred: bring no more before it fires."""
        full = self.streams[stream].append(data)
        self.grown.fire()
        return full

    async def read(self, stream: StreamName, offset: int, size: int) -> bytes:
        """Bytes from ``offset``, as many as are there up to ``size``."""
        self._reads += 1
        try:
            return await self.streams[stream].spool.read(offset, size)
        finally:
            self._reads -= 1
            self._give_up()

    def finish(self) -> None:
        """The script has ended: nothing more will be written."""
        self.finished = True
        self.grown.fire()

    def retire(self) -> None:
        """The bytes are safe in the store."""
        self._retired = True
        self.grown.fire()
        self._give_up()

    @property
    def lost(self) -> dict[StreamName, Loss]:
        """What is missing because a disk did not take it."""
        return {stream: kept.lost for stream, kept in self.streams.items() if kept.lost is not None}

    async def seal(self, *, last: bool) -> tuple[Output, Output, tuple[Content, ...]]:
        """Both streams as they go into the job's record, and the bytes that have to be saved along with it; may be
        repeated. See :meth:`CappedSpool.seal`."""
        stdout, first = await self.streams[StreamName.STDOUT].seal(last=last)
        stderr, second = await self.streams[StreamName.STDERR].seal(last=last)
        return stdout, stderr, tuple(content for content in (first, second) if content is not None)

    def _give_up(self) -> None:
        if self._retired and not self._reads:
            for stream in self.streams.values():
                stream.spool.discard()


@frozen
class LiveSink:
    """Implements ``boundaries.StreamSink`` for a script that runs here."""

    _live: LiveOutput
    _stream: StreamName

    @property
    def discarded(self) -> int:
        return self._live.streams[self._stream].discarded

    def write(self, data: bytes) -> Deferred[None] | None:
        return self._live.write(self._stream, data)


@define(eq=False)
class Outputs:
    """Where the output of each attempt is."""

    _store: JobStore
    _sinks: OpenSinks
    _limit: int
    """Bytes kept of each stream."""
    _node: str
    """This node's name."""
    _live: dict[AttemptId, LiveOutput] = Factory(dict)

    def open(self, attempt: AttemptId, *, resume: bool = False) -> LiveOutput:
        """Begin to keep an attempt's output; ``resume`` takes over what an earlier life of the node left of it."""
        streams = {
            stream: CappedSpool(self._store.spool(target.spool, resume=resume), target.limit, self._node)
            for stream, target in self._targets(attempt).items()
        }
        live = self._live[attempt] = LiveOutput(streams)
        return live

    def begin(self, attempt: AttemptId) -> Mapping[StreamName, StreamTarget]:
        """A script of this node is about to write an attempt's output; where to."""
        targets, live = self._targets(attempt), self._live[attempt]
        for stream, target in targets.items():
            self._sinks.open(target, LiveSink(live, stream))
        return targets

    def end(self, attempt: AttemptId) -> None:
        """No script of this node writes an attempt's output any more."""
        for target in self._targets(attempt).values():
            self._sinks.close(target)

    def live(self, attempt: AttemptId) -> LiveOutput | None:
        """The output of an attempt while it is not in the store."""
        return self._live.get(attempt)

    def retire(self, attempt: AttemptId) -> None:
        """The attempt's output is durable with its job's record."""
        live = self._live.pop(attempt, None)
        if live is not None:
            live.retire()

    def _targets(self, attempt: AttemptId) -> dict[StreamName, StreamTarget]:
        name = str(attempt)
        return {stream: StreamTarget(f"{name}.{stream}", self._limit) for stream in StreamName}


@frozen
class Finished:
    """The end of one attempt; its output is complete and not sealed yet."""

    outcome: Outcome
    interrupted: bool
    """Its node is shutting down, or is gone: the outcome says nothing about the script."""
    live: LiveOutput
    executor: str
    trail: tuple[Stamp, ...] = ()
    """What other nodes noted."""
    settled: Callable[[], None] = lambda: None
    """To be called when the end is durable: a node that keeps the attempt for us may forget it."""
    interruption: Interruption | None = None


Look = Callable[[], Deferred[Job]]
"""Fetches the job as it is now."""
Wait = Callable[[], Deferred[None]]
"""Fires when the job has changed."""


@define(eq=False)
class Reader:
    """Follows the output of one attempt (``boundaries.OutputReader``)."""

    _outputs: Outputs
    _store: JobStore
    _look: Look
    _changed: Wait
    _attempt: int
    _offsets: dict[StreamName, int]
    _follow: bool
    _closed: bool = False
    _waiting: Deferred[None] | None = field(default=None)
    _settled: Job | None = None
    """The job, once its attempt's output can change no more: then there is no need to look again."""

    def next(self, size: int) -> Deferred[OutputPiece | OutputEnd]:
        """The next piece; see the boundary."""
        return Deferred.fromCoroutine(self._next(size))

    def close(self) -> None:
        """Stop reading."""
        self._closed = True
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            waiting.cancel()

    async def _next(self, size: int) -> OutputPiece | OutputEnd:
        while True:
            job = self._settled or await self._look()
            attempt = self._pick(job)
            if attempt is not None:
                self._attempt = attempt.number
                identity = AttemptId(job.id, attempt.epoch, attempt.number)
                live = self._outputs.live(identity)
                piece = (
                    await self._read_live(live, size) if live is not None else await self._read_stored(attempt, size)
                )
                if live is None and attempt.outcome is not None:
                    self._settled = job
                if piece is not None:
                    return piece
                if live is not None and self._outputs.live(identity) is not live:
                    continue  # it was retired while we looked: read on in the store
                if not self._follow or attempt.outcome is not None:
                    return self._end(attempt, live)
                if live is not None and not live.finished:
                    await self._wait(live.grown.wait())
                    continue
            elif not self._follow or job.state.terminal:
                nothing = dict.fromkeys(StreamName, 0)
                return OutputEnd(attempt=0, sizes=nothing, discarded=nothing)
            await self._wait(self._changed())

    def _pick(self, job: Job) -> Attempt | None:
        if self._attempt == 0:
            return job.attempt
        return next((a for a in job.attempts if a.number == self._attempt), None)

    async def _read_live(self, live: LiveOutput, size: int) -> OutputPiece | None:
        for stream, offset in self._offsets.items():
            if offset < live.streams[stream].size:
                return self._advance(stream, await live.read(stream, offset, size))
        return None

    async def _read_stored(self, attempt: Attempt, size: int) -> OutputPiece | None:
        for stream, offset in self._offsets.items():
            blob = attempt.output(stream).blob
            if blob is not None and offset < blob.size:
                return self._advance(stream, await self._store.read(blob, offset, size))
        return None

    def _advance(self, stream: StreamName, data: bytes) -> OutputPiece:
        offset = self._offsets[stream]
        self._offsets[stream] = offset + len(data)
        return OutputPiece(stream=stream, offset=offset, data=data)

    def _end(self, attempt: Attempt, live: LiveOutput | None) -> OutputEnd:
        if live is not None:
            sizes = {stream: kept.size for stream, kept in live.streams.items()}
            discarded = {stream: kept.discarded for stream, kept in live.streams.items()}
            lost = live.lost
        else:
            outputs = {stream: attempt.output(stream) for stream in StreamName}
            sizes = {stream: output.size for stream, output in outputs.items()}
            discarded = {stream: output.discarded for stream, output in outputs.items()}
            lost = {stream: output.lost for stream, output in outputs.items() if output.lost is not None}
        return OutputEnd(attempt.number, sizes, discarded, lost)

    async def _wait(self, event: Deferred[None]) -> None:
        if self._closed:
            await Deferred()  # a closed reader has nobody left to answer
        self._waiting = event
        try:
            await event
        except CancelledError:
            if self._closed:
                await Deferred()
            raise
        self._waiting = None
