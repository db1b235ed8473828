"""``cmt ps``, ``cmt status``, ``cmt why``: looking at jobs."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from cloudmytask.cli.choosing import choose_jobs, chosen
from cloudmytask.cli.terminal.console import STDOUT, Console, columns
from cloudmytask.cli.terminal.escape import one_line
from cloudmytask.cli.terminal.jobs import COLUMNS, aligned, details, fitted, now, rows
from cloudmytask.cli.verb import verb
from cloudmytask.model.job import JobQuery, JobState

if TYPE_CHECKING:
    from cloudmytask.cli.invocation import Invocation
    from cloudmytask.client import JobStatus
    from cloudmytask.client.node_session import NodeSession

NEWEST = 50
"""Jobs that are listed unless all are wanted."""
_COLORS = {"succeeded": "green", "failed": "red", "timed_out": "red", "lost": "red", "running": "cyan"}


@verb()
@click.option(
    "--state",
    "states",
    type=click.Choice([state.value for state in JobState]),
    multiple=True,
    help="Only these; may be repeated.",
)
@click.option("--name", help="Only jobs of this name.")
@click.option("-a", "--all", "everything", is_flag=True, help=f"All jobs. [default: the newest {NEWEST}]")
def ps(console: Console, states: tuple[str, ...], name: str | None, everything: bool) -> int:
    """List your jobs, newest first. With -q only their ids.

    \b
    Example:  cmt ps --state running --state waiting
    """
    from cloudmytask.cli.invocation import conduct
    from cloudmytask.cli.reach import with_node

    async def work(_invocation: Invocation, node: NodeSession) -> int:
        query = JobQuery(name=name, states=frozenset(map(JobState, states)))
        limit = None if everything else NEWEST + 1
        found = await node.ask(lambda client: client.jobs(query, limit))
        shown = found if everything else found[:NEWEST]
        _show(console, shown)
        if len(found) > len(shown) and os.isatty(STDOUT):
            console.note(f"the newest {NEWEST} jobs; --all shows all")
        return 0

    return conduct(with_node(console, work))


@verb()
@choose_jobs
def status(console: Console, selectors: tuple[str, ...], name: str | None, states: tuple[str, ...]) -> int:
    """Show all that is known about jobs. With -q only their states.

    \b
    Example:  cmt status last
    """

    async def each(node: NodeSession, job_id: Any) -> JobStatus:
        return await node.ask(lambda client: client.getScriptJobStatus(job_id))

    def show(jobs: Sequence[JobStatus]) -> None:
        texts = [job.state.value if console.quiet else details(job.document) for job in jobs]
        console.data(("\n" if console.quiet else "\n\n").join(texts))

    return chosen(console, selectors, name, states, each, show)


@verb(short_help="Say why a job is in its state.")
@click.argument("selector")
def why(console: Console, selector: str) -> int:
    """Say why a job is in its state: in a sentence, then in detail. With -q only the sentence.

    \b
    Example:  cmt why last
    """
    from cloudmytask.cli.invocation import conduct
    from cloudmytask.cli.reach import with_node
    from cloudmytask.cli.selectors import one

    async def work(_invocation: Invocation, node: NodeSession) -> int:
        job_id = await one(node.client, selector)
        answer = await node.ask(lambda client: client.explain(job_id))
        if console.as_json:
            console.document({"id": job_id, "sentence": answer.sentence, "details": list(answer.details)})
        else:
            lines = [] if console.quiet else [f"  {one_line(line)}" for line in answer.details]
            console.data("\n".join([one_line(answer.sentence), *lines]))
        return 0

    return conduct(with_node(console, work))


def _show(console: Console, jobs: Sequence[JobStatus]) -> None:
    documents = [job.document for job in jobs]
    if console.as_json:
        console.document({"jobs": documents})
    elif console.quiet:
        if jobs:
            console.data("\n".join(job.id for job in jobs))
    elif os.isatty(STDOUT):
        console.data(_table(rows(documents, now()), columns(STDOUT)))
    else:
        console.data(aligned([COLUMNS, *rows(documents, None)]))


def _table(lines: Sequence[tuple[str, ...]], width: int) -> str:
    from rich.console import Console as Terminal
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    widths = fitted([max(map(len, column)) for column in zip(COLUMNS, *lines, strict=True)], width)
    for label, column_width in zip(COLUMNS, widths, strict=True):
        right = label in ("EXIT", "RAN")
        table.add_column(
            label, width=column_width, no_wrap=True, overflow="ellipsis", justify="right" if right else "left"
        )
    for line in lines:
        # Text and not str: a name may look like rich's markup.
        table.add_row(*(Text(cell, style=_COLORS.get(cell, "") if i == 2 else "") for i, cell in enumerate(line)))
    text = io.StringIO()
    # It looks for NO_COLOR and TERM itself.
    Terminal(file=text, force_terminal=True, width=width, highlight=False).print(table)
    return text.getvalue().rstrip("\n")
