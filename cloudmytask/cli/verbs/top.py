"""``cmt top``: the cluster as it works, and as it has worked.

Invariant: the terminal is given back as it was found, even if the verb fails.
"""

from __future__ import annotations

import os
import signal
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from attrs import define
from rich.console import Console as Terminal
from rich.live import Live
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from zope.interface import implementer

from cloudmytask.cli.failures import UsageError
from cloudmytask.cli.inputs import STDIN
from cloudmytask.cli.invocation import Invocation
from cloudmytask.cli.reach import at_node, history
from cloudmytask.cli.terminal import tables
from cloudmytask.cli.terminal.console import STDOUT, Console
from cloudmytask.cli.terminal.jobs import now
from cloudmytask.cli.terminal.top import HISTORY_HEADERS, HISTORY_NUMBERS, JOBS, Moment, frame, history_rows, width_for
from cloudmytask.cli.terminal.tree import BOX, strokes_for
from cloudmytask.client import sample_to_document, view_to_document
from cloudmytask.client.node_session import NodeSession
from cloudmytask.core.units import format_duration
from cloudmytask.model.cluster import Role
from cloudmytask.model.job import JobQuery

INTERVAL = 1.0
"""Seconds between two frames."""


def top(console: Console, once: bool, ago: float | None) -> int:
    """Watch the cluster at work, or show how it has worked.

    :param ago: seconds of history to show; None shows the present.
    """
    if ago is not None and not ago:
        raise UsageError("--history: 0 s of history is none")

    async def work(invocation: Invocation, node: NodeSession) -> int:
        if ago is not None:
            await _history(console, invocation, node, ago)
        elif console.as_json:
            await _document(console, node)
        elif once or not os.isatty(STDOUT):
            await _once(console, node)
        else:
            await _live(invocation, node)
        return 0

    return at_node(console, work)


async def _look(node: NodeSession) -> Moment:
    view = await node.ask(lambda client: client.cluster())
    supervises = any(
        each.announcement.role is Role.CSU for each in view.members if each.announcement.node_id == view.by
    )
    # A CSU takes no jobs, so it cannot be asked for any.
    jobs = [] if supervises else await node.ask(lambda client: client.jobs(JobQuery(limit=JOBS), JOBS))
    return Moment(view, jobs, now(), bars=strokes_for(os.environ) is BOX)


async def _document(console: Console, node: NodeSession) -> None:
    moment = await _look(node)
    console.document({**view_to_document(moment.view), "jobs": [job.document for job in moment.jobs]})


async def _once(console: Console, node: NodeSession) -> None:
    console.data(tables.drawn(frame(await _look(node)), tables.width(), color=os.isatty(STDOUT)))


async def _live(invocation: Invocation, node: NodeSession) -> None:
    """Show frame after frame on the terminal's other screen."""
    terminal = Terminal(highlight=False)
    enough = False

    async def frames(live: Live) -> None:
        while True:
            live.update(frame(await _look(node), terminal.height), refresh=True)
            await deferLater(invocation.reactor, INTERVAL)

    def end() -> None:
        nonlocal enough
        enough = True
        showing.cancel()

    def signaled(number: int) -> Any:
        return end() if number == signal.SIGINT else invocation.abort(number)

    live = Live(console=terminal, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
    with live, _pressed(invocation.reactor, lambda keys: end() if b"q" in keys.lower() else None):
        showing = Deferred.fromCoroutine(frames(live))
        invocation.on_signal = signaled
        try:
            await showing
        except CancelledError:
            if not enough:
                raise


async def _history(console: Console, invocation: Invocation, node: NodeSession, ago: float) -> None:
    samples = await history(invocation.reactor, node, ago)
    if console.as_json:
        console.document({"samples": [sample_to_document(each) for each in samples]})
        return
    if not samples:
        console.note(f"nothing is known of the last {format_duration(ago)}")
        return
    room = width_for(tables.width(), [each.node for each in samples])
    rows = history_rows(samples, ago, room, strokes_for(os.environ) is BOX)
    tables.show(console, HISTORY_HEADERS, rows, HISTORY_NUMBERS)


@implementer(IReadDescriptor)
@define(eq=False)
class _Keys:
    """Tells of each piece of what is typed."""

    _pressed: Callable[[bytes], object]

    def fileno(self) -> int:
        """Twisted's interface."""
        return STDIN

    def doRead(self) -> Failure | None:  # noqa: N802 - Twisted's name
        """Twisted's interface. A terminal that is gone sends SIGHUP, which ends the verb; here it is only not read."""
        try:
            data = os.read(STDIN, 1024)
        except OSError as error:
            return Failure(error)
        if not data:
            return Failure(EOFError())
        self._pressed(data)
        return None

    def connectionLost(self, reason: Failure) -> None:
        """Twisted's interface."""

    def logPrefix(self) -> str:  # noqa: N802 - Twisted's name
        """Twisted's interface."""
        return "keys"


@contextmanager
def _pressed(reactor: Any, told: Callable[[bytes], object]) -> Iterator[None]:
    """Meanwhile, tell of keys as they are pressed, if our standard input is a terminal that we may read."""
    if not os.isatty(STDIN) or os.tcgetpgrp(STDIN) != os.getpgrp():
        yield
        return
    before = termios.tcgetattr(STDIN)
    keys = _Keys(told)
    tty.setcbreak(STDIN)
    reactor.addReader(keys)
    try:
        yield
    finally:
        reactor.removeReader(keys)
        termios.tcsetattr(STDIN, termios.TCSADRAIN, before)
