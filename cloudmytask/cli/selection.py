"""Which jobs a person means (an id, its beginning, ``last``, a name, a state), and asking about each of them in turn.

Invariant: a selector means one job or none; what could mean several is refused and the candidates are named. A text
that no id can be is the name of no job, so it fails like an unknown id. One selector alone is answered in JSON with
that job; anything else with ``{"jobs": […]}``, however many there are: the form of the answer depends on the question
only.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from attrs import frozen

from cloudmytask.cli.failures import UsageError
from cloudmytask.cli.reach import at_node
from cloudmytask.cli.terminal.console import Console
from cloudmytask.cli.terminal.escape import one_line
from cloudmytask.client import JobStatus
from cloudmytask.client.node_client import NodeClient
from cloudmytask.client.node_session import NodeSession
from cloudmytask.core.job_id import LENGTH, normalize
from cloudmytask.model.errors import AmbiguousJob, InvalidArgument, NoNode, NoSuchJob
from cloudmytask.model.job import JobId, JobQuery, JobState

LAST = "last"
SHOWN = 5
"""Candidates that are named if a beginning fits several jobs."""


@frozen
class JobChoice:
    """The options of ``options.choose_jobs``, as they were given.

    :raises UsageError: nothing was chosen.
    """

    selectors: tuple[str, ...]
    name: str | None
    states: tuple[str, ...]

    def __attrs_post_init__(self) -> None:
        if not all(self.selectors):
            raise UsageError("a SELECTOR is empty")
        if not self.selectors and self.name is None and not self.states:
            raise UsageError("which job? Give an id, its beginning, or last; or choose by --name or --state")

    async def find(self, client: NodeClient) -> list[JobId]:
        """Find all jobs that are meant, each once: those of the selectors in their order, then those with that name and
        state.

        :raises NoSuchJob: a selector means no job, or no job has that name and state.
        :raises AmbiguousJob: a selector is the beginning of several ids.
        """
        found = [await one(client, text) for text in self.selectors]
        if self.name is not None or self.states:
            listed = await client.jobs(JobQuery(name=self.name, states=frozenset(map(JobState, self.states))))
            if not listed:
                wanted = [f"the name {self.name!r}"] * (self.name is not None)
                wanted += [f"state {' or '.join(self.states)}"] * bool(self.states)
                raise NoSuchJob(f"no job of yours has {' and '.join(wanted)}")
            found.extend(job.id for job in listed)
        return list(dict.fromkeys(found))

    def answer(self, jobs: Sequence[JobStatus]) -> dict[str, Any]:
        """Make the JSON answer about jobs that were chosen like this."""
        if len(self.selectors) == 1 and self.name is None and not self.states:
            return dict(jobs[0].document)
        return {"jobs": [job.document for job in jobs]}


def ask_each(
    console: Console,
    choice: JobChoice,
    each: Callable[[NodeSession, JobId], Coroutine[Any, Any, JobStatus]],
    show: Callable[[Sequence[JobStatus]], object],
    *,
    changes: bool = False,
) -> int:
    """Ask ``each`` for every chosen job in turn, then ``show`` the answers unless JSON is wanted.

    :param changes: whether ``each`` does something to the job, so that it must not be the wrong one.
    :raises CloudMyTaskError: one failed; those after it were not asked about.
    """

    async def work(_invocation: object, node: NodeSession) -> int:
        if changes and LAST in choice.selectors and node.instead_of is not None:
            raise NoNode(f"{LAST!r} may be a job at {node.instead_of.text}, which does not answer; name it by its id")
        jobs = [await each(node, job_id) for job_id in await choice.find(node.client)]
        if console.as_json:
            console.document(choice.answer(jobs))
        else:
            show(jobs)
        return 0

    return at_node(console, work)


def meant(text: str) -> JobId | JobQuery:
    """Translate a selector into the id, or into the query whose answer tells it.

    :raises NoSuchJob: no job can have that id.
    """
    if text == LAST:
        # Also if it has expired: an older one is not what was meant.
        return JobQuery(states=frozenset(JobState), limit=1)
    try:
        canonical = normalize(text)
    except InvalidArgument as problem:
        raise NoSuchJob(str(problem)) from None
    if len(canonical) == LENGTH:
        return JobId(canonical)
    return JobQuery(prefix=canonical, states=frozenset(JobState), limit=SHOWN + 1)


def only(text: str, found: Sequence[JobStatus]) -> JobId:
    """Take the one job that a query found.

    :raises NoSuchJob: it found none.
    :raises AmbiguousJob: it found several.
    """
    if not found:
        raise NoSuchJob("you have no jobs" if text == LAST else f"no job of yours has an id that begins with {text!r}")
    if len(found) > 1:
        shown = ", ".join(f"{job.id} ({one_line(job.name)}, {job.state.value})" for job in found[:SHOWN])
        more = ", …" if len(found) > SHOWN else ""
        raise AmbiguousJob(f"{text!r} is the beginning of several ids: {shown}{more}")
    return found[0].id


async def one(client: NodeClient, text: str) -> JobId:
    """Find the job that ``text`` means.

    :raises NoSuchJob: no job of this client is meant.
    :raises AmbiguousJob: it is the beginning of several ids.
    """
    sought = meant(text)
    if not isinstance(sought, JobQuery):
        return sought
    return only(text, await client.jobs(sought, sought.limit))
