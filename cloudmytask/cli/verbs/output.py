"""``cmt result`` and ``cmt logs``: the output of jobs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloudmytask.cli.terminal.console import Console
from cloudmytask.cli.verb import verb
from cloudmytask.model.errors import ExitCode, JobExpired, JobNotFinished, NoSuchJob
from cloudmytask.model.job import JobState, StreamName

if TYPE_CHECKING:
    from cloudmytask.cli.invocation import Invocation
    from cloudmytask.client.node_session import NodeSession

_RAW = click.option("--raw", is_flag=True, help="Show control sequences as they are, on a terminal too.")


@verb(short_help="Fetch the output of a job that has ended.")
@click.argument("selector")
@click.option("--stdout", "only", flag_value=StreamName.STDOUT.value, default=None, help="Only the standard output.")
@click.option("--stderr", "only", flag_value=StreamName.STDERR.value, help="Only the standard error.")
@click.option("-o", "--output", metavar="FILE", help="Write standard output (with --stderr, that) to FILE.")
@_RAW
def result(console: Console, selector: str, only: str | None, output: str | None, raw: bool) -> int:
    """Fetch the output of a job that has ended: its stdout to stdout, its stderr to stderr.

    Exit code 4 if it has not ended yet, 1 if it did not succeed or the node did not keep all of its output.

    \b
    Example:  cmt result --stdout -o figures.csv last
    """
    from cloudmytask.cli.invocation import conduct
    from cloudmytask.cli.reach import with_node
    from cloudmytask.cli.selectors import one
    from cloudmytask.cli.verbs.reading import Reading

    streams = tuple(StreamName) if only is None else (StreamName(only),)

    async def work(invocation: Invocation, node: NodeSession) -> int:
        job_id = await one(node.client, selector)
        job = await node.ask(lambda client: client.getScriptJobStatus(job_id))
        if job.state is JobState.EXPIRED:
            why = await node.ask(lambda client: client.explain(job_id))
            raise JobExpired(f"job {job.id}: {why.sentence}")
        if not job.state.terminal:
            raise JobNotFinished(f"job {job.id} is {job.state.value}; see: cmt wait {job.id}")
        reading = Reading(console, invocation, node, job, job.attempt, streams)
        if console.as_json:
            await reading.answer()
        elif output is not None:
            await reading.save(Path(output))
        else:
            await reading.show(raw=raw)
        if job.state is JobState.SUCCEEDED:
            return ExitCode.FAILED if reading.truncated else ExitCode.OK
        why = await node.ask(lambda client: client.explain(job_id))
        console.note(f"{job.id} {job.state.value}: {why.sentence}")
        return ExitCode.FAILED

    return conduct(with_node(console, work))


@verb(short_help="Show the output of a job so far.")
@click.argument("selector")
@click.option("-f", "--follow", is_flag=True, help="Go on until the job has ended.")
@click.option("--attempt", type=click.IntRange(min=1), help="Of this attempt. [default: the latest]")
@click.option("--tail", type=click.IntRange(min=0), metavar="N", help="Only the last N lines of each stream.")
@_RAW
def logs(console: Console, selector: str, follow: bool, attempt: int | None, tail: int | None, raw: bool) -> int:
    """Show the output of a job so far, whatever its state.

    Exit code 1 if the node did not keep all of it.

    \b
    Example:  cmt logs -f --tail 10 last
    """
    from cloudmytask.cli.invocation import conduct
    from cloudmytask.cli.reach import with_node
    from cloudmytask.cli.selectors import one
    from cloudmytask.cli.verbs.reading import Reading

    async def work(invocation: Invocation, node: NodeSession) -> int:
        job_id = await one(node.client, selector)
        if console.as_json and follow:
            job = await node.ask(lambda client: client.wait(job_id), about=job_id)
        else:
            job = await node.ask(lambda client: client.getScriptJobStatus(job_id))
        if attempt is not None and attempt > job.attempt and (job.state.terminal or not follow):
            raise NoSuchJob(f"job {job.id} has no attempt {attempt}; it has had {job.attempt}")
        reading = Reading(console, invocation, node, job, attempt or job.attempt, tuple(StreamName))
        if tail is not None:
            await reading.skip_to_tail(tail)
        if console.as_json:
            await reading.answer()
        elif follow:
            await reading.follow(raw=raw, further=attempt is None)
        else:
            await reading.show(raw=raw)
        return ExitCode.FAILED if reading.truncated else ExitCode.OK

    return conduct(with_node(console, work))
