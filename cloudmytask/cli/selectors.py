"""Which job a person means: an id, its beginning, ``last``, a name, a state.

Invariant: a selector means one job or none; what could mean several is refused and the candidates are named. A text
that no id can be is the name of no job, so it fails like an unknown id.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cloudmytask.cli.terminal.escape import one_line
from cloudmytask.core.job_id import LENGTH, normalize
from cloudmytask.model.errors import AmbiguousJob, InvalidArgument, NoSuchJob
from cloudmytask.model.job import JobId, JobQuery, JobState

if TYPE_CHECKING:
    from cloudmytask.client import JobStatus
    from cloudmytask.client.node_client import NodeClient

LAST = "last"
SHOWN = 5
"""Candidates that are named where a beginning fits several jobs."""


def meant(text: str) -> JobId | JobQuery:
    """The id, or the query whose answer tells it.

    :raises NoSuchJob: no job can have that id.
    """
    if text == LAST:
        return JobQuery(limit=1)
    try:
        canonical = normalize(text)
    except InvalidArgument as problem:
        raise NoSuchJob(str(problem)) from None
    if len(canonical) == LENGTH:
        return JobId(canonical)
    return JobQuery(prefix=canonical, states=frozenset(JobState), limit=SHOWN + 1)


def only(text: str, found: Sequence[JobStatus]) -> JobId:
    """The one job that a query found.

    :raises NoSuchJob, AmbiguousJob:
    """
    if not found:
        raise NoSuchJob("you have no jobs" if text == LAST else f"no job of yours has an id that begins with {text!r}")
    if len(found) > 1:
        shown = ", ".join(f"{job.id} ({one_line(job.name)}, {job.state.value})" for job in found[:SHOWN])
        more = ", …" if len(found) > SHOWN else ""
        raise AmbiguousJob(f"{text!r} is the beginning of several ids: {shown}{more}")
    return found[0].id


async def one(client: NodeClient, text: str) -> JobId:
    """The job that ``text`` means.

    :raises NoSuchJob, AmbiguousJob:
    """
    sought = meant(text)
    if not isinstance(sought, JobQuery):
        return sought
    return only(text, await client.jobs(sought, sought.limit))


async def several(client: NodeClient, texts: Sequence[str], name: str | None, states: Sequence[str]) -> list[JobId]:
    """All jobs that are meant, each once: those of ``texts`` in their order, then those with that name and state.

    :raises NoSuchJob: also where no job has that name and state.
    """
    found = [await one(client, text) for text in texts]
    if name is not None or states:
        listed = await client.jobs(JobQuery(name=name, states=frozenset(map(JobState, states))))
        if not listed:
            wanted = " and ".join(
                [f"the name {name!r}"] * (name is not None) + [f"state {' or '.join(states)}"] * bool(states)
            )
            raise NoSuchJob(f"no job of yours has {wanted}")
        found.extend(job.id for job in listed)
    return list(dict.fromkeys(found))
