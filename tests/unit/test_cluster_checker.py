"""The checker of simulated clusters, over recorded events: what must never happen is noticed, the rest is not."""

from __future__ import annotations

from typing import Any

import pytest

from cloudmytask.core.blobs import blob_of
from cloudmytask.model.cluster import (
    Announcement,
    BootId,
    BusStatistics,
    Capacity,
    ClusterView,
    MemberStatus,
    NodeId,
    Offer,
    OfferAnswer,
    PeerIdentity,
    Role,
    Standing,
)
from cloudmytask.model.job import AttemptId, ClientId, Digest, Job, JobId, JobSpec, JobState, Owner
from cloudmytask.simulation.cluster_checker import ClusterChecker, Violation

ANN = ClientId("ann")
J1 = JobId("j1")
SPEC = JobSpec(blob_of(b""))
ORIGIN = PeerIdentity("c", Role.NODE, NodeId("n0"), BootId("b"), "n0", "127.0.0.1:7001")
YES, NO = OfferAnswer(True, Capacity(4, 1)), OfferAnswer(False, Capacity(4, 0), "busy")


@pytest.fixture
def checker() -> ClusterChecker:
    return ClusterChecker(max_hops=2, offers_max=5, ban_grace=2.0, idle_grace=1.0)


def _offer(*visited: str, hops: int = 0, attempt: int = 1) -> Offer:
    return Offer(AttemptId(J1, 1, attempt), ANN, SPEC, ORIGIN, hops, tuple(map(NodeId, visited)))


def _job(state: JobState) -> Job:
    return Job(
        id=J1,
        client=ANN,
        spec=SPEC,
        body=Digest("0" * 64),
        sequence=1,
        owner=Owner.alone(NodeId("n0"), "n0"),
        state=state,
        submitted_at=0.0,
        retention=1.0,
    )


def _view(by: str, **standings: Standing) -> ClusterView:
    def member(node: str, standing: Standing) -> MemberStatus:
        announcement = Announcement(
            "c", Role.NODE, NodeId(node), BootId("b"), 0, 1, node, "127.0.0.1:7001", 1.0, Capacity(4, 4)
        )
        return MemberStatus(announcement, standing, 0.0, linked=False)

    members = tuple(member(node, standing) for node, standing in standings.items())
    return ClusterView(NodeId(by), "c", members, BusStatistics(), 1.0)


def test_slots(checker: ClusterChecker) -> None:
    checker.started("n1", ANN, running=4, slots=4, now=0.0)
    with pytest.raises(Violation, match="5 scripts run on the 4 slots of n1"):
        checker.started("n1", ANN, running=5, slots=4, now=0.0)


def test_a_ban_is_honored_in_time(checker: ClusterChecker) -> None:
    checker.banned(ANN, 10.0)
    checker.started("n1", ANN, running=1, slots=4, now=12.0)
    checker.started("n1", ClientId("ben"), running=1, slots=4, now=13.0)
    with pytest.raises(Violation, match=r"n1 starts a job of ann 2\.500 s after the ban"):
        checker.started("n1", ANN, running=1, slots=4, now=12.5)


def test_a_ban_is_not_known_where_nobody_can_tell(checker: ClusterChecker) -> None:
    checker.banned(ANN, 10.0)
    checker.split()
    checker.started("n1", ANN, running=1, slots=4, now=50.0)
    checker.healed(60.0)
    checker.returned("n2", 70.0)
    checker.started("n1", ANN, running=1, slots=4, now=61.9)
    checker.started("n2", ANN, running=1, slots=4, now=71.9)
    for node, now in (("n1", 62.1), ("n2", 72.1)):
        with pytest.raises(Violation, match=f"{node} starts"):
            checker.started(node, ANN, running=1, slots=4, now=now)


def test_hops_are_limited(checker: ClusterChecker) -> None:
    checker.offered(NodeId("n9"), _offer("n0", "n1", hops=1), YES)
    checker.offered(NodeId("n9"), _offer("n0", "n1", "n2", hops=3), NO)
    assert (checker.accepted_offers, checker.refused_offers) == (1, 1)
    with pytest.raises(Violation, match="handed on 3 times"):
        checker.offered(NodeId("n9"), _offer("n0", "n1", "n2", hops=3), YES)
    with pytest.raises(Violation, match="handed on 0 times"):
        checker.offered(NodeId("n9"), _offer("n0", "n1", "n2", "n3"), YES)


def test_no_node_is_visited_twice(checker: ClusterChecker) -> None:
    with pytest.raises(Violation, match="comes to n1 though"):
        checker.offered(NodeId("n1"), _offer("n0", "n1"), YES)
    with pytest.raises(Violation, match="comes to n9 though"):
        checker.offered(NodeId("n9"), _offer("n0", "n0"), YES)


def test_offers_are_bounded(checker: ClusterChecker) -> None:
    for attempt in (1, 2):
        for _ in range(5):
            checker.offered(NodeId("n9"), _offer("n0", attempt=attempt), NO)
    with pytest.raises(Violation, match=r"attempt j1\.1\.1 was offered 6 times"):
        checker.offered(NodeId("n9"), _offer("n0"), NO)


def test_a_job_has_one_outcome(checker: ClusterChecker) -> None:
    running, done = _job(JobState.RUNNING), _job(JobState.SUCCEEDED)
    for before, now in ((None, running), (running, done), (done, done), (done, _job(JobState.EXPIRED))):
        checker.recorded("n0", before, now)
    checker.recorded("n1", None, _job(JobState.FAILED))
    with pytest.raises(Violation, match="was succeeded and is failed"):
        checker.recorded("n0", done, _job(JobState.FAILED))


def test_an_outcome_stays(checker: ClusterChecker) -> None:
    with pytest.raises(Violation, match="was succeeded and is running"):
        checker.recorded("n0", _job(JobState.SUCCEEDED), _job(JobState.RUNNING))


@pytest.mark.parametrize("late", [False, True])
def test_open_jobs_are_counted(checker: ClusterChecker, late: bool) -> None:
    """Also where a job ends before its acknowledgment is told."""
    done = _job(JobState.SUCCEEDED)
    checker.recorded("n1", None, done)
    if late:
        checker.recorded("n0", None, done)
    checker.accepted("n0", J1)
    checker.accepted("n0", J1)
    assert checker.open_jobs == (0 if late else 1)
    checker.recorded("n0", None, done)
    assert checker.open_jobs == 0


def test_what_was_acknowledged_is_not_lost(checker: ClusterChecker) -> None:
    checker.accepted("n0", J1)
    checker.settled({"n0": {J1: _job(JobState.SUCCEEDED)}})
    with pytest.raises(Violation, match="is lost"):
        checker.settled({"n0": {}, "n1": {J1: _job(JobState.SUCCEEDED)}})
    with pytest.raises(Violation, match="is still waiting"):
        checker.settled({"n0": {J1: _job(JobState.WAITING)}})


def _looks(checker: ClusterChecker, until: float, **options: Any) -> None:
    now = 0.0
    while now <= until:
        checker.unused(options.get("free", {"n0": 0, "n1": 2}), options.get("waiting", {"n0": 3, "n1": 0}), now)
        now += 0.125


def test_idle_beside_waiting(checker: ClusterChecker) -> None:
    _looks(checker, 1.0)
    assert checker.longest_idle == 1.0
    with pytest.raises(Violation, match=r"free for 1\.12 s while jobs waited"):
        _looks(checker, 1.125)


@pytest.mark.parametrize(
    "options",
    [
        {"free": {"n0": 0, "n1": 0}},
        {"waiting": {"n0": 0, "n1": 0}},
        {"waiting": {"n0": 0, "n1": 3}},  # its own jobs may wait for a good reason
    ],
)
def test_what_is_no_waste(checker: ClusterChecker, options: dict[str, dict[str, int]]) -> None:
    _looks(checker, 10.0, **options)
    assert checker.longest_idle == 0.0


def test_a_slot_that_is_used_in_between_is_not_idle(checker: ClusterChecker) -> None:
    for _ in range(5):
        _looks(checker, 0.75)
        checker.started("n1", ANN, running=1, slots=2, now=0.75)
    for _ in range(5):
        _looks(checker, 0.75)
        checker.died()
    assert checker.longest_idle == 0.75


def test_views_converge(checker: ClusterChecker) -> None:
    nodes = [NodeId("n0"), NodeId("n1")]
    checker.converged([_view("n0", n1=Standing.ALIVE, n2=Standing.DEAD), _view("n1", n0=Standing.ALIVE)], nodes)
    with pytest.raises(Violation, match=r"n0 misses \['n1'\]"):
        checker.converged([_view("n0", n1=Standing.SUSPECT)], nodes)
    with pytest.raises(Violation, match=r"believes \['n2'\] alive"):
        checker.converged([_view("n0", n1=Standing.ALIVE, n2=Standing.ALIVE)], nodes)
