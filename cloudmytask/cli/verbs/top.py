"""``cmt top``: the cluster as it works, and as it has worked."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import click

from cloudmytask.cli.failures import UsageError
from cloudmytask.cli.option_types import duration
from cloudmytask.cli.terminal.console import STDOUT, Console, columns
from cloudmytask.cli.terminal.jobs import now
from cloudmytask.cli.verb import verb
from cloudmytask.core.units import format_duration
from cloudmytask.model.job import JobQuery

if TYPE_CHECKING:
    from cloudmytask.cli.invocation import Invocation
    from cloudmytask.cli.terminal.top_frame import Moment
    from cloudmytask.client.node_session import NodeSession

INTERVAL = 1.0
"""Seconds between two frames."""


@verb(short_help="Watch the cluster at work.")
@click.option("--once", is_flag=True, help="Show it once. [default, where standard output is no terminal]")
@click.option(
    "--history",
    "ago",
    type=duration,
    metavar="DURATION",
    help="Show instead how busy each node was in the last DURATION, such as 1h; a CSU knows.",
)
def top(console: Console, once: bool, ago: float | None) -> int:
    """Watch nodes, load, slots, queues and your newest jobs; q or Ctrl-C ends it.

    LOAD is the share of a machine's CPU that others than our jobs use.

    \b
    Example:  cmt top
              cmt top --history 1h
    """
    from cloudmytask.cli.invocation import conduct
    from cloudmytask.cli.reach import with_node

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

    return conduct(with_node(console, work))


async def _look(node: NodeSession) -> Moment:
    from cloudmytask.cli.terminal.top_frame import JOBS, Moment
    from cloudmytask.cli.terminal.tree import BOX, strokes_for
    from cloudmytask.model.cluster import Role

    view = await node.ask(lambda client: client.cluster())
    supervises = any(
        each.announcement.role is Role.CSU for each in view.members if each.announcement.node_id == view.by
    )
    # A CSU takes no jobs, so it cannot be asked for any.
    jobs = [] if supervises else await node.ask(lambda client: client.jobs(JobQuery(limit=JOBS), JOBS))
    return Moment(view, jobs, now(), bars=strokes_for(os.environ) is BOX)


async def _document(console: Console, node: NodeSession) -> None:
    from cloudmytask.client import view_to_document

    moment = await _look(node)
    console.document({**view_to_document(moment.view), "jobs": [job.document for job in moment.jobs]})


async def _once(console: Console, node: NodeSession) -> None:
    from cloudmytask.cli.terminal.tables import PLAIN_WIDTH, drawn
    from cloudmytask.cli.terminal.top_frame import frame

    moment, terminal = await _look(node), os.isatty(STDOUT)
    console.data(drawn(frame(moment), columns(STDOUT) if terminal else PLAIN_WIDTH, color=terminal))


async def _live(invocation: Invocation, node: NodeSession) -> None:
    """Frame after frame on the terminal's other screen."""
    from rich.console import Console as Terminal
    from rich.live import Live
    from twisted.internet.defer import CancelledError, Deferred
    from twisted.internet.task import deferLater

    from cloudmytask.cli.terminal.keys import pressed
    from cloudmytask.cli.terminal.top_frame import frame

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
    with live, pressed(invocation.reactor, lambda keys: end() if b"q" in keys.lower() else None):
        showing = Deferred.fromCoroutine(frames(live))
        invocation.on_signal = signaled
        try:
            await showing
        except CancelledError:
            if not enough:
                raise


async def _history(console: Console, invocation: Invocation, node: NodeSession, ago: float) -> None:
    from cloudmytask.cli.supervision import history
    from cloudmytask.cli.terminal import history as history_drawing
    from cloudmytask.cli.terminal import tables
    from cloudmytask.cli.terminal.tree import BOX, strokes_for
    from cloudmytask.client import sample_to_document

    samples = await history(invocation.reactor, node, ago)
    if console.as_json:
        console.document({"samples": [sample_to_document(each) for each in samples]})
        return
    if not samples:
        console.note(f"nothing is known of the last {format_duration(ago)}")
        return
    width = columns(STDOUT) if os.isatty(STDOUT) else tables.PLAIN_WIDTH
    room = history_drawing.width_for(width, [each.node for each in samples])
    rows = history_drawing.rows(samples, ago, room, strokes_for(os.environ) is BOX)
    tables.show(console, history_drawing.HEADERS, rows, {"MEAN", "MAX", "WAITING"})
