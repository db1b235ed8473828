"""``cmt wait``, ``cmt cancel``, ``cmt retry``, ``cmt rm``: what becomes of jobs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from cloudmytask.cli import exit_codes
from cloudmytask.cli.choosing import answer, check_chosen, choose_jobs, chosen
from cloudmytask.cli.option_types import duration
from cloudmytask.cli.terminal.console import Console
from cloudmytask.cli.verb import verb
from cloudmytask.core.units import format_duration
from cloudmytask.model.errors import WaitTimeout
from cloudmytask.model.job import JobId, JobState, StreamName

if TYPE_CHECKING:
    from cloudmytask.cli.invocation import Invocation
    from cloudmytask.client import JobStatus
    from cloudmytask.client.node_session import NodeSession

TAIL = 20
"""Lines of a failed job's standard error that ``wait`` shows."""


@verb(ours=exit_codes.OURS)
@click.option(
    "--timeout", type=duration, metavar="DURATION", help="Give up after this long, with exit code 125; such as 10m."
)
@choose_jobs
def wait(
    console: Console, timeout: float | None, selectors: tuple[str, ...], name: str | None, states: tuple[str, ...]
) -> int:
    """Wait until jobs have ended. The exit code is the script's: of the first job that did not succeed.

    Of a job that did not succeed it says on standard error how it ended, and shows the last lines that it wrote there.

    \b
    Example:  cmt wait --timeout 2h last
    """
    from cloudmytask.cli.invocation import conduct
    from cloudmytask.cli.reach import with_node
    from cloudmytask.cli.selectors import several

    check_chosen(selectors, name, states)

    async def work(invocation: Invocation, node: NodeSession) -> int:
        deadline = None if timeout is None else invocation.reactor.seconds() + timeout
        code, ended = 0, []
        for job_id in await several(node.client, selectors, name, states):
            try:
                job = await _ended(invocation, node, job_id, deadline)
            except WaitTimeout:
                waited = format_duration(timeout or 0.0)
                raise WaitTimeout(f"job {job_id} has not ended within {waited}; it goes on") from None
            ended.append(job)
            if job.state is not JobState.SUCCEEDED:
                if not console.quiet:
                    await _report(console, invocation, node, job)
                code = code or exit_codes.of_job(job.state, job.reason, job.exit_code, job.signal)
        if console.as_json:
            console.document(answer(ended, selectors, name, states))
        return code

    return conduct(with_node(console, work))


@verb(short_help="End jobs.")
@click.option("--no-wait", is_flag=True, help="Do not wait until the job has ended.")
@click.option("--note", default="", help="Why; cmt why shows it.")
@choose_jobs
def cancel(
    console: Console,
    no_wait: bool,
    note: str,
    selectors: tuple[str, ...],
    name: str | None,
    states: tuple[str, ...],
) -> int:
    """End jobs: their scripts are asked to end (SIGTERM), and killed after a grace, with all that they started.

    \b
    Example:  cmt cancel --note "wrong input" last
    """

    async def each(node: NodeSession, job_id: JobId) -> JobStatus:
        job = await node.ask(lambda client: client.cancel(job_id, note))
        if no_wait or job.state.terminal:
            return job
        return await node.ask(lambda client: client.wait(job_id))

    def show(jobs: Sequence[JobStatus]) -> None:
        for job in jobs:
            console.note(f"{job.id} is {job.state.value if job.state.terminal else 'being cancelled'}")

    return chosen(console, selectors, name, states, each, show, changes=True)


@verb(short_help="Submit jobs once more.")
@choose_jobs
def retry(console: Console, selectors: tuple[str, ...], name: str | None, states: tuple[str, ...]) -> int:
    """Submit jobs that have ended once more, as new jobs, and print their ids.

    \b
    Example:  cmt retry --state failed
    """
    from cloudmytask.client.connection import new_key

    async def each(node: NodeSession, job_id: JobId) -> JobStatus:
        key = new_key()
        return await node.ask(lambda client: client.retry(job_id, key))

    def show(jobs: Sequence[JobStatus]) -> None:
        console.data("\n".join(job.id for job in jobs))

    return chosen(console, selectors, name, states, each, show, changes=True)


@verb(short_help="Delete outcome and output of jobs.")
@choose_jobs
def rm(console: Console, selectors: tuple[str, ...], name: str | None, states: tuple[str, ...]) -> int:
    """Delete outcome and output of jobs that have ended, before their retention does.

    \b
    Example:  cmt rm --state succeeded
    """

    async def each(node: NodeSession, job_id: JobId) -> JobStatus:
        return await node.ask(lambda client: client.remove(job_id))

    def show(jobs: Sequence[JobStatus]) -> None:
        for job in jobs:
            console.note(f"{job.id} is removed")

    return chosen(console, selectors, name, states, each, show, changes=True)


async def _ended(invocation: Invocation, node: NodeSession, job_id: JobId, deadline: float | None) -> JobStatus:
    """:raises WaitTimeout:"""

    def remaining() -> float | None:
        return None if deadline is None else max(0.0, deadline - invocation.reactor.seconds())

    return await node.ask(lambda client: client.wait(job_id, remaining()), about=job_id)


async def _report(console: Console, invocation: Invocation, node: NodeSession, job: JobStatus) -> None:
    """How a job failed: its last words, then the reason."""
    from cloudmytask.cli.follow import sizes, tail
    from cloudmytask.cli.terminal.output import Display, OutputWriter

    if job.attempt and job.state is not JobState.EXPIRED:
        display = Display(OutputWriter(invocation.reactor.callFromThread), raw=False)
        end = await sizes(node.client, job.id, job.attempt)
        start = await tail(node.client, job.id, end, StreamName.STDERR, TAIL)
        await node.client.output(job.id, display.take, attempt=end.attempt, offsets={StreamName.STDERR: start})
        await display.end()
    why = await node.client.explain(job.id)
    code = exit_codes.of_job(job.state, job.reason, job.exit_code, job.signal)
    console.note(f"{job.id} {job.state.value} (code {code}, node {job.executor or '-'}): {why.sentence}")
