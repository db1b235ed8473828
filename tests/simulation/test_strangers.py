"""What a node does for whoever names an attempt or a job that is not theirs: nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from attrs import define, evolve, field
from twisted.internet.defer import Deferred, succeed

from cloudmytask.boundaries import Link
from cloudmytask.client.node_client import NodeClient
from cloudmytask.codec.people import JobStatus
from cloudmytask.core.blobs import blob_of
from cloudmytask.core.job_id import job_id
from cloudmytask.model.cluster import Offer, OfferAnswer, RemoteEnd
from cloudmytask.model.errors import NoSuchJob
from cloudmytask.model.job import (
    AttemptId,
    ClientId,
    Content,
    JobQuery,
    JobSpec,
    JobState,
    NodeId,
    Owner,
    Reason,
    StreamName,
)
from cloudmytask.simulation.runner import ScriptPlan
from tests.virtual import FOREVER, Place
from tests.virtual_cluster import Company

OUT = StreamName.STDOUT
FROM_START: Mapping[StreamName, int] = dict.fromkeys(StreamName, 0)


@define(eq=False)
class _Follower:
    """Takes whatever it is told."""

    told: list[object] = field(factory=list)

    def started(self) -> Deferred[None]:
        self.told.append("started")
        return succeed(None)

    def output(self, stream: StreamName, offset: int, data: bytes) -> Deferred[None]:
        self.told.append(data)
        return succeed(None)

    def ended(self, end: RemoteEnd) -> Deferred[None]:
        self.told.append(end)
        return succeed(None)


@define(eq=False)
class _Scene:
    """A job of ``a`` runs on ``b``; ``c`` has nothing to do with it."""

    company: Company
    ann: NodeClient
    job: JobStatus
    attempt: AttemptId

    def link(self, name: str) -> Link:
        """Of a node to ``b``."""
        pool = self.company.hosts[name].node.cluster_member
        return self.company.result(pool.link(self.company.hosts["b"].node.identity.node_id))


@pytest.fixture
def scene() -> _Scene:
    company = Company(3)
    company.acquainted()
    ann = company.connect("a")
    company.submit(ann, FOREVER)
    job = company.submit(ann, ScriptPlan(duration=5.0, output=((2.0, OUT, b"for a"),)), node="b")
    company.reach(ann, job, JobState.RUNNING)
    return _Scene(company, ann, job, AttemptId(job.id, 1, 1))


def _goes_well(scene: _Scene) -> None:
    ended = scene.company.wait(scene.ann, scene.job, patience=10.0)
    assert (ended.state, ended.executor, ended.attempt) == (JobState.SUCCEEDED, "b", 1)
    assert scene.company.output(scene.ann, scene.job) == (b"for a", b"")


def test_row_14_a_stranger_does_not_follow_an_attempt(scene: _Scene) -> None:
    follower = _Follower()
    sentence = scene.company.refused(scene.link("c").follow(scene.attempt, FROM_START, follower), NoSuchJob)
    absent = evolve(scene.attempt, number=7)
    as_if_absent = scene.company.refused(scene.link("c").follow(absent, FROM_START, follower), NoSuchJob)
    assert sentence.replace(str(scene.attempt), str(absent)) == as_if_absent
    _goes_well(scene)
    assert not follower.told


@pytest.mark.parametrize("reason", [Reason.CANCELLED, Reason.LOST])
def test_row_15_a_stranger_does_not_stop_an_attempt(scene: _Scene, reason: Reason) -> None:
    scene.company.result(scene.link("c").stop_attempt(scene.attempt, reason, hurry=True))
    scene.company.clock.advance(1.0)
    _goes_well(scene)


def test_who_offered_an_attempt_may_end_it(scene: _Scene) -> None:
    scene.company.result(scene.link("a").stop_attempt(scene.attempt, Reason.CANCELLED, hurry=True))
    assert scene.company.wait(scene.ann, scene.job, patience=10.0).state is JobState.CANCELLED


def test_nobody_ends_an_attempt_of_another_term(scene: _Scene) -> None:
    scene.company.result(scene.link("a").stop_attempt(evolve(scene.attempt, epoch=2), Reason.CANCELLED, hurry=True))
    _goes_well(scene)


@pytest.mark.parametrize(
    ("change", "superseded"),
    [({}, True), ({"arguments": ("other",)}, False)],
    ids=["the same job", "another job of that id"],
)
def test_a_later_owner_does_not_wait_for_an_attempt_that_the_one_before_gave_up(
    change: dict[str, Any], superseded: bool
) -> None:
    company = Company(3, options={"orphan_grace": 600.0})
    company.acquainted()
    script = b"forever"
    company.plans["forever.py"] = (ScriptPlan(duration=50.0),)
    spec = JobSpec(script=blob_of(script), script_name="forever.py")
    c = company.hosts["c"].node.identity.node_id
    job = job_id(ClientId("ann"), "k")

    def offer(name: str, epoch: int, spec: JobSpec, follower: _Follower) -> OfferAnswer:
        member = company.hosts[name].node.cluster_member
        offered = Offer(AttemptId(job, epoch, 1), ClientId("ann"), spec, member.me, 1, (member.me.node_id,))
        return company.result(company.result(member.link(c)).offer(offered, [Content(spec.script, script)], follower))

    first, second = _Follower(), _Follower()
    assert offer("a", 1, spec, first).accepted
    company.clock.advance(1.0)
    assert company.hosts["c"].machine.live == 1
    refused = offer("b", 2, evolve(spec, **change), second)
    assert not refused.accepted and "is here" in refused.why
    company.clock.advance(1.0)
    assert company.hosts["c"].machine.live == (0 if superseded else 1)
    assert offer("b", 2, evolve(spec, **change), second).accepted is superseded
    assert not offer("a", 1, spec, _Follower()).accepted or not superseded, "what is of an earlier term comes late"


def test_a_drain_does_not_move_a_job_onto_another_one_of_its_key() -> None:
    company = Company(2)
    company.acquainted()
    a, b = company.connect("a"), company.connect("b")
    for client in (a, b):
        company.submit(client, ScriptPlan(duration=20.0))
    mine = company.submit(a, ScriptPlan(duration=1.0, output=((0.5, OUT, b"mine"),)), key="k")
    other = company.submit(b, ScriptPlan(duration=1.0, output=((0.5, OUT, b"other"),)), key="k")
    assert mine.id == other.id
    company.result(company.hosts["a"].stop(), patience=120.0)
    assert company.wait(b, other).state is JobState.SUCCEEDED
    assert company.output(b, other) == (b"other", b"")
    company.hosts["a"].start()
    a = company.connect("a")
    assert company.wait(a, mine).state is JobState.SUCCEEDED
    assert company.output(a, mine) == (b"mine", b"")


def test_a_copy_of_another_nodes_job_is_no_job_of_this_one() -> None:
    place = Place()
    ann = place.connect()
    done = place.wait(ann, place.submit(ann, ScriptPlan(duration=1.0)))
    mine = place.record(done)
    elsewhere = Owner(NodeId("f" * 32), "elsewhere", 3, (NodeId("f" * 32), NodeId(place.host.disk.node_id)))
    copy = evolve(
        mine, owner=elsewhere, sequence=1000, state=JobState.PENDING, attempts=(), ended_at=None, expires=None
    )
    held = [evolve(copy, id=job_id(ClientId("ann"), str(number))) for number in range(3)]
    running = evolve(held[0], state=JobState.RUNNING, attempts=mine.attempts)
    for each in (running, held[1], evolve(held[2], expires=0.0)):
        place.result(place.host._life.store.hold(each))  # type: ignore[union-attr]  # it is up
    place.restart()
    place.clock.advance(120.0)
    ann = place.connect()
    assert len(place.launches) == 1 and set(place.host.disk.held) == {each.id for each in held}
    assert [job.id for job in place.result(ann.jobs(JobQuery()))] == [done.id]
    for each in held:
        assert "no job" in place.refused(ann.getScriptJobStatus(each.id), NoSuchJob)
    following = place.submit(ann, ScriptPlan(duration=1.0))
    assert place.record(following).sequence == mine.sequence + 1
    assert place.record(following).owner == Owner.alone(NodeId(place.host.disk.node_id), place.host.name)


def test_row_18_announced_nodes_that_say_nothing_hold_up_no_job() -> None:
    """200 of them, at an address that takes connections: each job but the first is placed within a second."""
    company = Company(2)
    company.acquainted()
    company.network.name("127.0.0.99:7001", "silent")
    detector = company.hosts["a"].node.cluster_member.detector
    ann = company.connect("a")
    company.submit(ann, FOREVER)
    true = company.hosts["b"].node.cluster_member.announcer.current()
    delays = []
    for number in range(12):
        for other in range(200):
            detector.heard(
                evolve(
                    true,
                    node_id=NodeId(f"{other:032x}"),
                    name=f"n{other}",
                    address="127.0.0.99:7001",
                    sequence=number + 1,
                    interval=60.0,
                    capacity=evolve(true.capacity, slots=4, free=4),
                )
            )
        begin = company.clock.seconds()
        job = company.submit(ann, ScriptPlan(duration=0.1))
        company.wait(ann, job, patience=60.0)
        assert company.ran(job) == ["b"]
        delays.append(company.clock.seconds() - begin)
        company.clock.advance(1.0)
    assert max(delays[1:]) <= 1.1, "of that the script takes 0.1 s"


def test_row_12_a_forged_capacity_costs_nothing_but_a_useless_offer() -> None:
    """Nothing is done as often as such a number says."""
    company = Company(2)
    company.acquainted()
    detector = company.hosts["a"].node.cluster_member.detector
    ann = company.connect("a")
    company.submit(ann, FOREVER)
    b = company.hosts["b"].node.cluster_member.announcer.current()
    forged = evolve(b, sequence=b.sequence + 1, capacity=evolve(b.capacity, slots=2**16, free=2**16, stamp=2**63 - 1))
    detector.heard(forged)
    jobs = [company.submit(ann, ScriptPlan(duration=1.0)) for _ in range(3)]
    for job in jobs:
        company.wait(ann, job, patience=20.0)
        assert company.ran(job) == ["b"]
