"""Both ends of an attempt that is followed over a link: the numbers under which this end follows, and the follower at
the other end.

Invariant: a number names one follower until the attempt has ended, the other end has declined, or the link is gone.
What comes for a number that names nobody is let go, but for the question whether a script may start: that is refused.
"""

from __future__ import annotations

from itertools import count
from typing import Any, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

from cloudmytask.boundaries import AttemptSink
from cloudmytask.codec import encode
from cloudmytask.model.cluster import RemoteEnd
from cloudmytask.model.errors import InvalidArgument, NoSuchJob, RequestTimeout
from cloudmytask.model.job import StreamName
from cloudmytask.wire import peer_commands as commands
from cloudmytask.wire.commands import NodeCommand
from cloudmytask.wire.guard import GuardedAMP

T = TypeVar("T")

PUSH_TIMEOUT = 60.0
"""Seconds that the follower of an attempt may take to answer; it may have to wait for its disk."""
END_TIMEOUT = 600.0
"""The same for the last word, which is answered when it is on disk: as long as the follower's disk is full it is kept
here, too."""


@define(eq=False)
class AttemptSinks:
    """What this end follows over one link.

    :ivar numbers: names for what is begun on the link.
    """

    numbers: count[int]
    _sinks: dict[int, AttemptSink] = field(init=False, factory=dict)

    def __len__(self) -> int:
        return len(self._sinks)

    def add(self, sink: AttemptSink) -> int:
        """Follow something; the number under which the other end is to tell of it."""
        number = next(self.numbers)
        self._sinks[number] = sink
        return number

    def forget(self, number: int) -> None:
        """It is not followed after all."""
        self._sinks.pop(number, None)

    def forget_on_failure(self, number: int, asked: Deferred[T]) -> Deferred[T]:
        """Forget it if what was asked of the other end fails."""

        def failed(failure: Any) -> Any:
            self.forget(number)
            return failure

        return asked.addErrback(failed)

    def clear(self) -> None:
        """The link is gone."""
        self._sinks.clear()

    def started(self, watch: int) -> Deferred[None]:
        """``AttemptStarted``. :raises NoSuchJob: nobody follows that."""
        sink = self._sinks.get(watch)
        if sink is None:
            raise NoSuchJob("nobody here follows that attempt any more")
        return sink.started()

    def output(self, watch: int, stream: StreamName, offset: int, data: bytes) -> Deferred[None] | None:
        """``AttemptOutput``. :raises InvalidArgument: the offset is negative."""
        if offset < 0:
            raise InvalidArgument(f"offset: {offset} is negative")
        sink = self._sinks.get(watch)
        return None if sink is None else sink.output(stream, offset, data)

    def ended(self, watch: int, end: RemoteEnd) -> Deferred[None] | None:
        """``AttemptEnded``."""
        sink = self._sinks.pop(watch, None)
        return None if sink is None else sink.ended(end)


class RemoteSink:
    """Implements ``boundaries.AttemptSink``: the follower at the other end of a link. One that takes what it is told
    and does not answer loses the link: then both ends know that it follows no more, and it can begin afresh."""

    def __init__(self, protocol: GuardedAMP, watch: int) -> None:
        self._protocol = protocol
        self._watch = watch

    def started(self) -> Deferred[None]:
        return self._push(commands.AttemptStarted, PUSH_TIMEOUT)

    def output(self, stream: StreamName, offset: int, data: bytes) -> Deferred[None]:
        return self._push(commands.AttemptOutput, PUSH_TIMEOUT, stream=stream.value, offset=offset, data=data)

    def ended(self, end: RemoteEnd) -> Deferred[None]:
        document = maybeDeferred(encode, end)
        return document.addCallback(lambda told: self._push(commands.AttemptEnded, END_TIMEOUT, end=told))

    def _push(self, command: type[NodeCommand], timeout: float, **arguments: object) -> Deferred[None]:
        told = self._protocol.ask(command, timeout, watch=self._watch, **arguments)
        return told.addCallbacks(lambda _: None, self._not_taken)

    def _not_taken(self, failure: Failure) -> Failure:
        if failure.check(RequestTimeout):
            self._protocol.close()
        return failure
