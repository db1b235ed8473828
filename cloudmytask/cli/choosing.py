"""Verbs that take several jobs: how they are named, asked about one by one, and answered.

Invariant: one selector alone is answered in JSON with that job; anything else with ``{"jobs": […]}``, however many
there are. So the form of the answer depends on the question only.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

import click

from cloudmytask.cli.failures import UsageError
from cloudmytask.cli.terminal.console import Console
from cloudmytask.model.errors import NoNode
from cloudmytask.model.job import JobId, JobState

if TYPE_CHECKING:
    from cloudmytask.cli.invocation import Invocation
    from cloudmytask.client import JobStatus
    from cloudmytask.client.node_session import NodeSession


def choose_jobs(function: Callable[..., int]) -> Callable[..., int]:
    """Declare ``SELECTOR…``, ``--name`` and ``--state``."""
    selectors = click.argument("selectors", metavar="[SELECTOR]...", nargs=-1)
    name = click.option("--name", help="All jobs of this name.")
    state = click.option(
        "--state",
        "states",
        type=click.Choice([state.value for state in JobState]),
        multiple=True,
        help="All jobs in this state.",
    )
    return selectors(name(state(function)))


def check_chosen(selectors: Sequence[str], name: str | None, states: Sequence[str]) -> None:
    """:raises UsageError: nothing was chosen."""
    if not all(selectors):
        raise UsageError("a SELECTOR is empty")
    if not selectors and name is None and not states:
        raise UsageError("which job? Give an id, its beginning, or last; or choose by --name or --state")


def chosen(
    console: Console,
    selectors: Sequence[str],
    name: str | None,
    states: Sequence[str],
    each: Callable[[NodeSession, JobId], Coroutine[Any, Any, JobStatus]],
    show: Callable[[Sequence[JobStatus]], object],
    *,
    changes: bool = False,
) -> int:
    """Ask ``each`` for every chosen job in turn, then ``show`` the answers unless JSON is wanted.

    :param changes: whether ``each`` does something to the job, so that it must not be the wrong one.
    :raises CloudMyTaskError: the first that fails ends it.
    """
    from cloudmytask.cli.invocation import conduct
    from cloudmytask.cli.reach import with_node
    from cloudmytask.cli.selectors import LAST, several

    check_chosen(selectors, name, states)

    async def work(_invocation: Invocation, node: NodeSession) -> int:
        if changes and LAST in selectors and node.instead_of is not None:
            raise NoNode(f"{LAST!r} may be a job at {node.instead_of.text}, which does not answer; name it by its id")
        found = await several(node.client, selectors, name, states)
        jobs = [await each(node, job_id) for job_id in found]
        if console.as_json:
            console.document(answer(jobs, selectors, name, states))
        else:
            show(jobs)
        return 0

    return conduct(with_node(console, work))


def answer(
    jobs: Sequence[JobStatus], selectors: Sequence[str], name: str | None, states: Sequence[str]
) -> dict[str, Any]:
    """The JSON answer about jobs that were chosen like this."""
    if len(selectors) == 1 and name is None and not states:
        return dict(jobs[0].document)
    return {"jobs": [job.document for job in jobs]}
