"""Which job a selector means."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import define, field
from twisted.internet.defer import Deferred, succeed

from cloudmytask.cli.selection import SHOWN, JobChoice, meant, one
from cloudmytask.codec.people import JobStatus
from cloudmytask.core.job_id import job_id
from cloudmytask.model.errors import AmbiguousJob, ExitCode, NoSuchJob
from cloudmytask.model.job import ClientId, JobId, JobQuery, JobState, QoS

IDS = [job_id(ClientId("ann"), str(number)) for number in range(400)]


def job(identity: JobId, name: str = "a.py", state: JobState = JobState.RUNNING) -> JobStatus:
    return JobStatus(identity, name, state, QoS.BATCH, None, None, None, 1, "n", {"id": identity})


@define
class Jobs:
    """A node's listing, newest first."""

    known: list[JobStatus]
    asked: list[JobQuery] = field(factory=list)

    def page(self, query: JobQuery) -> Deferred[tuple[list[JobStatus], int | None]]:
        self.asked.append(query)
        return succeed((self._matching(query)[: query.limit], None))

    def jobs(self, query: JobQuery, limit: int | None = None) -> Deferred[list[JobStatus]]:
        return succeed(self._matching(query)[:limit])

    def _matching(self, query: JobQuery) -> list[JobStatus]:
        states = query.states or frozenset(JobState) - {JobState.EXPIRED}
        return [
            each
            for each in self.known
            if each.id.startswith(query.prefix) and each.state in states and query.name in (None, each.name)
        ]


def answer(asked: Any) -> Any:
    """What a coroutine gives that never has to wait."""
    got: list[Any] = []
    Deferred.fromCoroutine(asked).addBoth(got.append)
    (result,) = got
    if hasattr(result, "raiseException"):
        result.raiseException()
    return result


def test_a_full_id_needs_no_question_and_may_be_typed_carelessly() -> None:
    jobs: Any = Jobs([])
    identity = IDS[0]
    assert answer(one(jobs, identity.upper()[:8] + "-" + identity.upper()[8:])) == identity
    assert jobs.asked == []


def test_last_is_the_newest() -> None:
    jobs: Any = Jobs([job(IDS[3]), job(IDS[1])])
    assert answer(one(jobs, "last")) == IDS[3]


@pytest.mark.parametrize("state", list(JobState))
def test_last_never_means_an_older_job(state: JobState) -> None:
    jobs: Any = Jobs([job(IDS[3], state=state), job(IDS[1])])
    assert answer(one(jobs, "last")) == IDS[3]


def test_last_of_nothing() -> None:
    with pytest.raises(NoSuchJob, match="you have no jobs"):
        answer(one(Jobs([]), "last"))  # type: ignore[arg-type]  # as much of a client as is needed


def test_a_unique_beginning() -> None:
    jobs: Any = Jobs([job(each) for each in IDS[:2]])
    assert answer(one(jobs, IDS[1][:8])) == IDS[1]


def test_the_beginning_of_an_expired_job_is_found_too() -> None:
    jobs: Any = Jobs([job(IDS[1], state=JobState.EXPIRED)])
    assert answer(one(jobs, IDS[1][:8])) == IDS[1]


def test_an_ambiguous_beginning_names_some_candidates() -> None:
    symbol = max(IDS, key=lambda each: sum(other[0] == each[0] for other in IDS))[0]
    jobs: Any = Jobs([job(each) for each in IDS])
    with pytest.raises(AmbiguousJob) as raised:
        answer(one(jobs, symbol))
    sentence = str(raised.value)
    assert sum(each in sentence for each in IDS) == SHOWN
    assert sentence.endswith("…")
    assert raised.value.exit_code is ExitCode.USAGE


@pytest.mark.parametrize("text", ["zzzzzzzz", "nosuchjob", "../etc", "é", "0" * 40, "0" * 16 + "1"])
def test_what_no_job_has_is_no_such_job_whatever_it_looks_like(text: str) -> None:
    jobs: Any = Jobs([])
    with pytest.raises(NoSuchJob) as raised:
        answer(one(jobs, text))
    assert raised.value.exit_code is ExitCode.NO_SUCH_JOB


def test_meant_asks_for_one_more_than_is_shown() -> None:
    query = meant("ab")
    assert isinstance(query, JobQuery)
    assert query.limit == SHOWN + 1


@pytest.fixture
def three() -> Any:
    return Jobs([job(IDS[0], "a.py"), job(IDS[1], "b.py"), job(IDS[2], "a.py", JobState.SUCCEEDED)])


@pytest.mark.parametrize(
    ("texts", "name", "states", "found"),
    [
        ([], "a.py", [], [0, 2]),
        ([], "a.py", ["succeeded"], [2]),
        ([], None, ["running", "succeeded"], [0, 1, 2]),
        ([1], "a.py", [], [1, 0, 2]),
        ([0, 0], "a.py", [], [0, 2]),
    ],
)
def test_several_are_found_once_each(
    three: Any, texts: list[int], name: str | None, states: list[str], found: list[int]
) -> None:
    assert answer(JobChoice(tuple([IDS[i] for i in texts]), name, tuple(states)).find(three)) == [IDS[i] for i in found]


def test_a_name_that_no_job_has(three: Any) -> None:
    with pytest.raises(NoSuchJob, match=r"the name 'c\.py' and state running or lost"):
        answer(JobChoice((), "c.py", ("running", "lost")).find(three))
