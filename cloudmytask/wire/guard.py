"""An AMP connection that a stranger cannot hurt, and that a mistake does not end.

Invariants: no peer can make a connection hold more than ``BOX_MAX`` bytes of an unfinished box, nor keep one
unfinished for longer than ``BOX_DEADLINE``; one that does not read what it is sent is read from no more, and at last
closed (see :mod:`cloudmytask.wire.sending`); a malformed argument or an unforeseen failure is answered, and neither
the connection nor another call on it suffers; every call that we make ends, by an answer or in time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.error import ConnectionAborted, ConnectionClosed, ConnectionLost
from twisted.internet.interfaces import IPushProducer, ITCPTransport
from twisted.logger import Logger
from twisted.protocols import amp
from twisted.python.failure import Failure

from cloudmytask.boundaries import Clock
from cloudmytask.deferreds import Countdown
from cloudmytask.listeners import Listeners
from cloudmytask.model.errors import (
    CloudMyTaskError,
    ConnectionInterrupted,
    InternalError,
    InvalidArgument,
    RequestTimeout,
)
from cloudmytask.wire.arguments import VALUE_MAX
from cloudmytask.wire.commands import NodeCommand
from cloudmytask.wire.sending import SendQueue
from cloudmytask.wire.vocabulary import Vocabulary

_log = Logger()

BOX_MAX = 1024 * 1024
"""Bytes in one box, keys and values."""
KEYS_MAX = 64
KEY_MAX = 255
"""Bytes in one key, by the protocol; what has a longer one is not AMP."""
BOX_DEADLINE = 30.0
"""Seconds that a box may take to arrive."""
CALL_TIMEOUT = 30.0
"""Seconds that an answer may take, unless the caller says otherwise."""
REQUESTS_MAX = 1000
"""Requests of the other end that are answered at a time; it is read from no more while there are so many."""
NAME_MAX = 255
"""Bytes in a command's name."""

_ERROR_KEYS = {amp.ERROR_CODE, amp.ERROR_DESCRIPTION}
T = TypeVar("T")


class GuardedAMP(amp.AMP):
    """One end of a connection.

    :param clock: for deadlines, never the wall clock.
    :param on_lost: the first of those who are told when the connection is gone.
    """

    def __init__(self, vocabulary: Vocabulary, clock: Clock, on_lost: Callable[[], None] = lambda: None) -> None:
        super().__init__(locator=vocabulary)
        self._clock = clock
        self.gone: Listeners[[]] = Listeners()
        """Told once, when the connection is gone."""
        self.gone.add(on_lost)
        self._unread = b""
        """Bytes that arrived and are not in the box yet: less than one string, unless reading is paused."""
        self._box, self._key = amp.AmpBox(), cast("bytes | None", None)
        self._size = self._keys = 0
        self._deadline = Countdown(clock)
        self._refused = False
        self._held, self._held_until, self._all_held = Countdown(clock), 0.0, False
        self._sending: SendQueue | None = None
        self._reading = True
        self._parsing = False
        self._under_way = 0
        self._asked = 0
        self._used = clock.seconds()
        self.alive = False

    def connectionMade(self) -> None:
        """Twisted's interface."""
        self.alive = True
        self._sending = SendQueue(self.transport, self._clock, self._read_or_not, self._refuse)
        super().connectionMade()
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]  # Twisted leaves the parameter's type open
        """Twisted's interface. Outstanding calls fail with :class:`ConnectionInterrupted`."""
        self.alive = False
        self.paused = True
        self._begin_box()
        self._held.stop()
        if self._sending is not None:
            self._sending.lost()
        super().connectionLost(reason)
        self.gone.tell_last()

    @property
    def waiting(self) -> bool:
        """Whether somebody here waits for an answer of the other end."""
        return self._asked > 0

    @property
    def now(self) -> float:
        """Seconds, by the clock of its deadlines."""
        return self._clock.seconds()

    @property
    def idle(self) -> float:
        """Seconds since a box came or went."""
        return self._clock.seconds() - self._used

    @property
    def clear(self) -> bool:
        """Whether the other end reads as fast as it is sent to."""
        return self._sending is not None and self._sending.clear

    def cleared(self) -> Deferred[None]:
        """Fires when the other end has read what it was sent; never, if the connection ends first."""
        return Deferred() if self._sending is None else self._sending.cleared()

    def close(self) -> None:
        """End the connection after what was written; if the other end does not read that, after ``STALL_TIMEOUT``.
        Idempotent."""
        if self.alive and self._sending is not None:
            self._sending.close()

    def sendBox(self, box: amp.AmpBox) -> None:  # noqa: N802 - Twisted's interface
        """Twisted's interface."""
        if self._sending is None or not self.alive:
            raise ConnectionLost()
        self._used = self._clock.seconds()
        self._sending.write(box.serialize())

    def hold(self, seconds: float, *, all_of_it: bool = False) -> None:
        """Read nothing more from the other end for a while: it waits, and what it sends stays on its side. Of holds
        that overlap the one that ends last counts.

        :param all_of_it: what has arrived already waits too; otherwise it is looked at, and may be refused.
        """
        until = self._clock.seconds() + seconds
        if until > self._held_until:
            self._held_until = until
            self._all_held = all_of_it
            self._held.start(seconds, self._read_or_not)
            self._read_or_not()

    def _read_or_not(self) -> None:
        """Read from the other end, unless it is held, asks too much at once, or does not read itself."""
        transport: Any = self.transport
        if not self.alive or self._refused or not IPushProducer.providedBy(transport):
            return
        full = self._sending is not None and self._sending.full
        held = self._clock.seconds() < self._held_until
        self.paused = (held and self._all_held) or full or self._under_way >= REQUESTS_MAX
        if not self.paused and not self._parsing:
            self.dataReceived(b"")  # boxes that arrived before reading ended
        reading = not self.paused and self._clock.seconds() >= self._held_until
        if reading is self._reading:
            return
        self._reading = reading
        if reading:
            transport.resumeProducing()
            self._await_rest()
        else:
            transport.pauseProducing()
            self._deadline.stop()  # what does not arrive now is not the other end's fault

    def dispatchCommand(self, box: amp.AmpBox) -> Deferred[amp.AmpBox]:  # noqa: N802
        """Twisted's interface."""
        self._under_way += 1
        if self._under_way == REQUESTS_MAX:
            self._read_or_not()
        return cast("Deferred[amp.AmpBox]", super().dispatchCommand(box)).addBoth(self._answered)

    def _answered(self, answer: T) -> T:
        self._under_way -= 1
        if self._under_way == REQUESTS_MAX - 1:
            self._read_or_not()
        return answer

    def answer_with(self, vocabulary: Vocabulary) -> None:
        """Answer other commands from now on."""
        self.locator = vocabulary

    def ask(
        self, command: type[NodeCommand], timeout: float | None = CALL_TIMEOUT, **arguments: object
    ) -> Deferred[dict[str, Any]]:
        """Call the other end. Every failure is the Deferred's, none is raised here.

        :param timeout: seconds; None for a call whose answer may take as long as it likes.
        :raises ConnectionInterrupted: the connection ended first.
        :raises RequestTimeout: no answer came in time. The call may still have had its effect.
        :raises InvalidArgument: an argument cannot cross the wire.
        :raises CloudMyTaskError: the failure that the other end declared.
        """
        self._asked += 1
        called = maybeDeferred(self._call, command, arguments)
        if timeout is not None:
            called.addTimeout(timeout, cast(Any, self._clock), lambda _failure, seconds: _timed_out(command, seconds))
        return called.addErrback(_translate, command).addBoth(self._told)

    def _told(self, answer: T) -> T:
        self._asked -= 1
        return answer

    def _call(self, command: type[NodeCommand], arguments: Mapping[str, object]) -> Deferred[dict[str, Any]]:
        """Send it; fires with the answer.

        :raises ConnectionInterrupted, InvalidArgument: nothing was sent.
        """
        if not self.alive:
            raise ConnectionInterrupted("the connection is closed")
        try:
            return cast("Deferred[dict[str, Any]]", self.callRemote(command, **arguments))
        except amp.TooLong as problem:
            name, size = problem.keyName.decode(), len(problem.value)
            raise InvalidArgument(f"{name}: {size} bytes are more than the limit, {VALUE_MAX} bytes") from None
        except UnicodeEncodeError as problem:
            raise InvalidArgument(f"{command.commandName.decode()}: {problem.object[:40]!a} is not Unicode") from None
        except (AttributeError, TypeError):
            for name, argument in command.arguments:
                value = arguments.get(name.decode())
                if isinstance(argument, amp.Unicode) and value is not None and not isinstance(value, str):
                    raise InvalidArgument(f"{name.decode()}: {value!r} is not text") from None
            raise

    def dataReceived(self, data: bytes) -> None:
        """Twisted's interface: the strings of AMP, of which each has two bytes of length before it, are put together
        to boxes; an empty key ends one. A box that is not complete by now has a deadline."""
        if self._refused or not self.alive:  # what still comes is not looked at
            return
        self._parsing = True
        data, at = self._unread + data, 0
        try:
            while not self.paused and len(data) >= at + 2:
                start, end = at + 2, at + 2 + int.from_bytes(data[at : at + 2], "big")
                if self._key is None and end - start > KEY_MAX:
                    self._refuse(f"a key of {end - start} bytes")
                    return
                if len(data) < end:
                    break
                at, string = end, data[start:end]
                self._size += len(string)
                if self._size > BOX_MAX:
                    self._refuse(f"a box of more than {BOX_MAX} bytes")
                    return
                if self._key is not None:
                    self._box[self._key], self._key = string, None
                elif not string:
                    box = self._box
                    self._begin_box()
                    self.ampBoxReceived(box)
                elif self._keys == KEYS_MAX:
                    self._refuse(f"a box of more than {KEYS_MAX} keys")
                    return
                else:
                    self._key = string
                    self._keys += 1
        finally:
            self._parsing = False
            self._unread = b"" if self._refused else data[at:]
        self._await_rest()

    def _await_rest(self) -> None:
        """Give a box that has begun to arrive its deadline, unless it has one."""
        if (self._keys or self._unread) and not self._deadline.running and self._reading and self.alive:
            self._deadline.start(BOX_DEADLINE, self._refuse, "a box that did not end in time")

    def _begin_box(self) -> None:
        self._box, self._key = amp.AmpBox(), None
        self._size = self._keys = 0
        self._deadline.stop()

    def ampBoxReceived(self, box: amp.AmpBox) -> None:
        """A box that fits no call ends the connection, with one line in the log instead of a traceback."""
        self._used = self._clock.seconds()
        if amp.ANSWER in box:
            fits = box[amp.ANSWER] in self._outstandingRequests
        elif amp.ERROR in box:
            fits = box[amp.ERROR] in self._outstandingRequests and box.keys() >= _ERROR_KEYS
        else:
            fits = amp.ASK in box and amp.COMMAND in box and len(box[amp.COMMAND]) <= NAME_MAX
        if fits:
            super().ampBoxReceived(box)
        else:
            self._refuse("a box that is neither a command nor an answer to one of ours")

    def _refuse(self, why: str) -> None:
        if self.alive and self.transport is not None:
            _log.warn("connection dropped: {why}", why=why)
            self._refused = self.paused = True
            self._begin_box()
            cast(Any, self.transport).abortConnection()


def _timed_out(command: type[NodeCommand], seconds: float) -> dict[str, Any]:
    raise RequestTimeout(f"{command.commandName.decode()}: no answer within {seconds:g} s")


def _translate(failure: Failure, command: type[NodeCommand]) -> Failure:
    """Twisted's failures as ours."""
    if failure.check(CloudMyTaskError, CancelledError):
        return failure
    name = command.commandName.decode()
    if failure.check(ConnectionClosed, ConnectionAborted):
        raise ConnectionInterrupted(f"{name}: the connection ended before the answer came")
    if failure.check(amp.UnhandledCommand):
        raise InternalError(f"{name}: the other end does not know this command; its version is older")
    if failure.check(amp.RemoteAmpError):
        raise InternalError(f"{name}: the other end failed: {failure.getErrorMessage()}")
    return failure
