"""Verbs about jobs: ``cmt ps``, ``status``, ``why``, ``wait``, ``cancel``, ``retry``, ``rm``.

Invariant: only the last three do something to a job; a job that they are to change is never guessed at.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from cloudmytask.cli import exit_codes
from cloudmytask.cli.commands import NEWEST
from cloudmytask.cli.follow import sizes, tail
from cloudmytask.cli.invocation import Invocation
from cloudmytask.cli.reach import at_node
from cloudmytask.cli.selection import Choice, ask_each, one
from cloudmytask.cli.terminal import jobs as shown_jobs
from cloudmytask.cli.terminal import tables
from cloudmytask.cli.terminal.console import STDOUT, Console
from cloudmytask.cli.terminal.escape import one_line
from cloudmytask.cli.terminal.output import Display, OutputWriter
from cloudmytask.client import JobStatus
from cloudmytask.client.connection import new_key
from cloudmytask.client.node_session import NodeSession
from cloudmytask.core.units import format_duration
from cloudmytask.model.errors import WaitTimeout
from cloudmytask.model.job import JobId, JobQuery, JobState, StreamName

TAIL = 20
"""Lines of a failed job's standard error that ``wait`` shows."""


def ps(console: Console, states: tuple[str, ...], name: str | None, everything: bool) -> int:
    """List the jobs of this client."""

    async def work(_invocation: object, node: NodeSession) -> int:
        query = JobQuery(name=name, states=frozenset(map(JobState, states)))
        limit = None if everything else NEWEST + 1
        found = await node.ask(lambda client: client.jobs(query, limit))
        shown = found if everything else found[:NEWEST]
        _show(console, shown)
        if len(found) > len(shown) and os.isatty(STDOUT):
            console.note(f"the newest {NEWEST} jobs; --all shows all")
        return 0

    return at_node(console, work)


def _show(console: Console, jobs: Sequence[JobStatus]) -> None:
    documents = [job.document for job in jobs]
    if console.as_json:
        console.document({"jobs": documents})
    elif console.quiet:
        if jobs:
            console.data("\n".join(job.id for job in jobs))
    else:
        now = shown_jobs.now() if os.isatty(STDOUT) else None
        rows = shown_jobs.rows(documents, now)
        tables.show(console, shown_jobs.COLUMNS, rows, shown_jobs.NUMBERS, shown_jobs.SHRINK)


def status(console: Console, **chosen: Any) -> int:
    """Show all that is known about jobs."""

    async def each(node: NodeSession, job_id: JobId) -> JobStatus:
        return await node.ask(lambda client: client.getScriptJobStatus(job_id))

    def show(jobs: Sequence[JobStatus]) -> None:
        texts = [job.state.value if console.quiet else shown_jobs.details(job.document) for job in jobs]
        console.data(("\n" if console.quiet else "\n\n").join(texts))

    return ask_each(console, Choice(**chosen), each, show)


def why(console: Console, selector: str) -> int:
    """Say why a job is in its state."""

    async def work(_invocation: object, node: NodeSession) -> int:
        job_id = await one(node.client, selector)
        answer = await node.ask(lambda client: client.explain(job_id))
        if console.as_json:
            console.document({"id": job_id, "sentence": answer.sentence, "details": list(answer.details)})
        else:
            lines = [] if console.quiet else [f"  {one_line(line)}" for line in answer.details]
            console.data("\n".join([one_line(answer.sentence), *lines]))
        return 0

    return at_node(console, work)


def wait(console: Console, timeout: float | None, **chosen: Any) -> int:
    """Wait until jobs have ended."""
    choice = Choice(**chosen)

    async def work(invocation: Invocation, node: NodeSession) -> int:
        deadline = None if timeout is None else invocation.reactor.seconds() + timeout
        code, ended = 0, []
        for job_id in await choice.find(node.client):
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
            console.document(choice.answer(ended))
        return code

    return at_node(console, work)


async def _ended(invocation: Invocation, node: NodeSession, job_id: JobId, deadline: float | None) -> JobStatus:
    """Wait for one job.

    :param deadline: reactor seconds; None waits for as long as it takes.
    :raises WaitTimeout: it has not ended by then.
    """

    def remaining() -> float | None:
        return None if deadline is None else max(0.0, deadline - invocation.reactor.seconds())

    return await node.ask(lambda client: client.wait(job_id, remaining()), about=job_id)


async def _report(console: Console, invocation: Invocation, node: NodeSession, job: JobStatus) -> None:
    """Tell how a job failed: its last words, then the reason."""
    if job.attempt and job.state is not JobState.EXPIRED:
        display = Display(OutputWriter(invocation.reactor.callFromThread), raw=False)
        end = await sizes(node.client, job.id, job.attempt)
        start = await tail(node.client, job.id, end, StreamName.STDERR, TAIL)
        await node.client.output(job.id, display.take, attempt=end.attempt, offsets={StreamName.STDERR: start})
        await display.end()
    why = await node.client.explain(job.id)
    code = exit_codes.of_job(job.state, job.reason, job.exit_code, job.signal)
    console.note(f"{job.id} {job.state.value} (code {code}, node {job.executor or '-'}): {why.sentence}")


def cancel(console: Console, no_wait: bool, note: str, **chosen: Any) -> int:
    """End jobs."""

    async def each(node: NodeSession, job_id: JobId) -> JobStatus:
        job = await node.ask(lambda client: client.cancel(job_id, note))
        if no_wait or job.state.terminal:
            return job
        return await node.ask(lambda client: client.wait(job_id))

    def show(jobs: Sequence[JobStatus]) -> None:
        for job in jobs:
            if job.state is JobState.CANCELLED:
                console.note(f"{job.id} is cancelled")
            else:
                console.note(f"{job.id} {f'has ended: {job.state}' if job.state.terminal else 'is being cancelled'}")

    return ask_each(console, Choice(**chosen), each, show, changes=True)


def retry(console: Console, **chosen: Any) -> int:
    """Submit jobs once more, as new jobs."""

    async def each(node: NodeSession, job_id: JobId) -> JobStatus:
        key = new_key()
        return await node.ask(lambda client: client.retry(job_id, key))

    def show(jobs: Sequence[JobStatus]) -> None:
        console.data("\n".join(job.id for job in jobs))

    return ask_each(console, Choice(**chosen), each, show, changes=True)


def rm(console: Console, **chosen: Any) -> int:
    """Delete outcome and output of jobs."""

    async def each(node: NodeSession, job_id: JobId) -> JobStatus:
        return await node.ask(lambda client: client.remove(job_id))

    def show(jobs: Sequence[JobStatus]) -> None:
        for job in jobs:
            console.note(f"{job.id} is removed")

    return ask_each(console, Choice(**chosen), each, show, changes=True)
