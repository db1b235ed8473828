"""One client submits the same job under the same key at two nodes, as it does when it believes that the first is dead:
the two have one id, and nothing gets stuck or mixed up over that."""

from __future__ import annotations

import pytest

from cloudmytask.client.node_client import NodeClient
from cloudmytask.client.sources import Source
from cloudmytask.codec.people import JobStatus
from cloudmytask.model.errors import IdempotencyConflict
from cloudmytask.model.job import JobSpec, JobState, StreamName
from cloudmytask.simulation.runner import ScriptPlan
from tests.virtual import FOREVER
from tests.virtual_cluster import Company

SAYS = ScriptPlan(duration=5.0, output=((1.0, StreamName.STDOUT, b"hi"),))


@pytest.fixture
def company() -> Company:
    company = Company(3, each={"b": {"slots": 3}, "c": {"slots": 3}})
    company.acquainted()
    return company


def _submit(company: Company, client: NodeClient, spec: JobSpec, source: Source) -> JobStatus:
    return company.result(client.submit(spec, source, key="k"))


def _succeeds(company: Company, client: NodeClient, job: JobStatus) -> None:
    assert company.wait(client, job).state is JobState.SUCCEEDED
    assert company.output(client, job) == (b"hi", b"")


def test_a_node_that_has_it_as_a_guest_says_so(company: Company) -> None:
    a = company.connect("a")
    company.submit(a, FOREVER)
    spec, source = company.spec(SAYS)
    job = _submit(company, a, spec, source)
    company.until(lambda: bool(company.ran(job)))
    [there] = company.ran(job)
    other = company.connect(there)
    with pytest.raises(IdempotencyConflict, match=f"job {job.id}, which runs here for another node"):
        _submit(company, other, spec, source)
    _succeeds(company, a, job)
    company.clock.advance(1.0)
    _succeeds(company, other, _submit(company, other, spec, source))
    _succeeds(company, a, job)


@pytest.mark.parametrize("ended", [False, True])
def test_a_node_that_owns_it_takes_no_guest_of_its_id(company: Company, ended: bool) -> None:
    a, b = company.connect("a"), company.connect("b")
    company.hosts["c"].kill()
    company.until(lambda: company.alive("a") == ["a", "b"])
    spec, source = company.spec(SAYS)
    own = _submit(company, b, spec, source)
    company.reach(b, own, JobState.RUNNING)
    if ended:
        _succeeds(company, b, own)
    filler = company.submit(a, ScriptPlan(duration=20.0))
    company.reach(a, filler, JobState.RUNNING)
    same = _submit(company, a, spec, source)
    assert same.id == own.id
    _succeeds(company, a, same)
    _succeeds(company, b, own)


def test_two_origins_of_one_id(company: Company) -> None:
    """Both are full and hand it to the third node."""
    a, b = company.connect("a"), company.connect("b")
    company.submit(a, FOREVER)
    for _ in range(3):
        company.submit(b, FOREVER, local=True)
    spec, source = company.spec(SAYS)
    one = _submit(company, a, spec, source)
    two = _submit(company, b, spec, source)
    assert one.id == two.id
    _succeeds(company, a, one)
    _succeeds(company, b, two)
