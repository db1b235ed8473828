"""Tells an attempt's follower, on another node, what is written and how it ends.

Invariant: the follower gets each stream's bytes in order and the last word after all of them; a window of pieces is
unanswered at a time. Without a follower everything is kept for ``grace`` seconds, for one that comes back; a follower
that let us wait in vain counts as none until it has answered something.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping

from attrs import Factory, define, evolve, field
from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger
from twisted.python.failure import Failure

from cloudmytask.boundaries import AttemptSink, DelayedCall, Link, World
from cloudmytask.core.explain import node_failed
from cloudmytask.deferreds import Pace, Signal
from cloudmytask.listeners import Registration
from cloudmytask.model.cluster import RemoteEnd
from cloudmytask.model.errors import CloudMyTaskError, ConnectionInterrupted, RequestTimeout
from cloudmytask.model.job import AttemptId, Outcome, Reason, StreamName
from cloudmytask.node.running.outputs import LiveOutput, Outputs

_log = Logger()

PIECE = 60 * 1024
"""Bytes in one piece; it has to fit into one AMP value."""
WINDOW = 8
"""Pieces that may be unanswered at a time."""


@define(eq=False)
class Delivery:
    """Of one attempt.

    :ivar orphaned: called when nobody followed for ``grace`` seconds and the attempt has not ended.
    :ivar delivered: called once, when the last word was taken or nobody is left to take it.
    """

    _world: World
    _outputs: Outputs
    _attempt: AttemptId
    _grace: float
    _orphaned: Callable[[], None]
    _delivered: Callable[[], None]
    _listening: Registration | None = field(init=False, default=None)
    _sink: AttemptSink | None = field(init=False, default=None)
    _end: RemoteEnd | None = field(init=False, default=None)
    _news: Signal = field(init=False, factory=Signal)
    _followed: Signal = field(init=False, factory=Signal)
    _timer: DelayedCall | None = field(init=False, default=None)
    _silent: bool = field(init=False, default=False)
    """Whether the last that was heard of a follower is that it did not answer."""
    _over: bool = field(init=False, default=False)
    _pace: Pace = field(init=False, default=Factory(lambda self: Pace(self._world.clock), takes_self=True))
    _broken: str = field(init=False, default="")
    """What a bug of ours did to the delivery; then no output is told any more."""

    def follow(self, link: Link, sink: AttemptSink, offsets: Mapping[StreamName, int]) -> None:
        """Somebody follows from now on, instead of the follower before."""
        self._sink = sink
        if not self._silent:
            self._forget_timer()
        self._stop_listening()
        self._listening = link.gone.add(lambda: self._lost(sink))
        if self._sink is sink:
            self._followed.fire()
            self._begin(sink, {name: offsets.get(name, 0) for name in StreamName})

    def news(self) -> None:
        """There may be output now."""
        self._news.fire()

    async def started(self) -> None:
        """Tell the follower, this one or the next, that the script is about to start; returns when it has taken note.

        :raises NoSuchJob: it has given the attempt up.
        """
        while True:
            while (sink := self._sink) is None:
                await self._followed.wait()
            try:
                await self._told(sink.started())
            except (ConnectionInterrupted, RequestTimeout):
                if self._sink is sink:  # nobody else follows yet
                    await self._followed.wait()
            else:
                return

    def finish(self, end: RemoteEnd) -> None:
        """The attempt has ended."""
        if self._broken:
            end = evolve(end, outcome=Outcome(Reason.LAUNCH, detail=self._broken), interrupted=False)
        self._end = end
        self._news.fire()
        if (self._sink is None or self._silent) and (self._timer is None or not self._grace):
            self._wait_for_follower()

    def abandon(self) -> None:
        """Nobody will want to know how it ends."""
        self._grace = 0.0
        if self._end is not None and self._sink is None:
            self._close()

    def _lost(self, sink: AttemptSink) -> None:
        if self._sink is sink:
            self._sink = None
            self._stop_listening()
            if not self._over and self._timer is None:
                self._wait_for_follower()

    def _told(self, answer: Deferred[None]) -> Deferred[None]:
        """Take note whether the follower answers at all."""

        def answered(_: object) -> None:
            self._silent = False
            if self._sink is not None:
                self._forget_timer()

        def failed(failure: Failure) -> Failure:
            self._silent = self._silent or failure.check(RequestTimeout) is not None
            return failure

        return answer.addCallbacks(answered, failed)

    def _wait_for_follower(self) -> None:
        self._forget_timer()
        self._timer = self._world.clock.callLater(self._grace, self._nobody)

    def _nobody(self) -> None:
        self._timer = None
        if self._end is None:
            self._orphaned()
        else:
            self._close()

    def _close(self) -> None:
        if not self._over:
            self._over = True
            self._forget_timer()
            self._stop_listening()
            self._delivered()

    def _stop_listening(self) -> None:
        listening, self._listening = self._listening, None
        if listening is not None:
            listening.close()

    def _forget_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def _broke(self, failure: Failure, sink: AttemptSink) -> None:
        """A bug of ours: the follower gets no output from us any more, but the last word, which says so."""
        _log.failure("attempt {attempt}: delivery broke", failure, attempt=self._attempt)
        if self._sink is sink and not self._broken:
            self._broken = node_failed(failure.value)
            self._orphaned()
            if self._end is not None:
                self.finish(self._end)
            self._begin(sink, {})

    def _begin(self, sink: AttemptSink, offsets: dict[StreamName, int]) -> None:
        Deferred.fromCoroutine(self._push(sink, offsets)).addErrback(self._broke, sink)

    async def _push(self, sink: AttemptSink, offsets: dict[StreamName, int]) -> None:
        window: deque[Deferred[None]] = deque()
        try:
            while self._sink is sink and not await self._pushed_all(sink, offsets, window):
                pass
            if self._sink is not sink or self._end is None:
                return
            while window:
                await window.popleft()
            live = self._outputs.live(self._attempt)
            await self._told(sink.ended(self._end if live is None else evolve(self._end, lost=live.lost)))
        except CloudMyTaskError as problem:
            _log.debug("attempt {attempt}: its follower is gone: {why}", attempt=self._attempt, why=str(problem))
            self._lost(sink)
            return
        finally:
            DeferredList(list(window), consumeErrors=True)
        self._close()

    async def _pushed_all(
        self, sink: AttemptSink, offsets: dict[StreamName, int], window: deque[Deferred[None]]
    ) -> bool:
        """Push what there is, then wait for more; whether there will be none."""
        live = self._outputs.live(self._attempt)
        if live is not None and not self._broken and await self._pushed_some(live, sink, offsets, window):
            return False
        if self._end is not None:
            return True
        await (self._news.wait() if live is None or live.finished else live.grown.wait())
        return False

    async def _pushed_some(
        self, live: LiveOutput, sink: AttemptSink, offsets: dict[StreamName, int], window: deque[Deferred[None]]
    ) -> bool:
        pushed = False
        for stream, kept in live.streams.items():
            while offsets[stream] < kept.size and self._sink is sink:
                data = await live.read(stream, offsets[stream], PIECE)
                if len(window) >= WINDOW:
                    await window.popleft()
                window.append(self._told(sink.output(stream, offsets[stream], data)))
                offsets[stream] += len(data)
                pushed = True
                if len(data) < PIECE:
                    await self._pace.part()  # line after line is not to be a message each
        return pushed
