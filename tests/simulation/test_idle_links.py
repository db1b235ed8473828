"""Links that nobody uses are closed by agreement, and nobody is suspected; those that something depends on stay."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import permutations

import pytest
from attrs import define, field
from twisted.internet.defer import Deferred

from cloudmytask.boundaries import Link
from cloudmytask.cluster import links
from cloudmytask.cluster.links import IDLE_CROWDED, LOOK, LinkPool
from cloudmytask.core.membership import Member
from cloudmytask.model.access import AccessRole, allowed
from cloudmytask.model.cluster import Standing
from cloudmytask.node.node import Node
from cloudmytask.simulation.runner import ScriptPlan
from tests.virtual_cluster import Company

SILENT = ScriptPlan(duration=None)
IDLE = 60.0
"""Seconds; less than in earnest, so that less virtual time has to pass."""


@define(eq=False)
class Strangers:
    """Two nodes of a cluster that are no neighbors in its tree, and a link between them."""

    among: Company = field(factory=lambda: Company(8))
    a: str = field(init=False)
    b: str = field(init=False)
    doubts: list[str] = field(init=False, factory=list)
    """Every change of what one of all thinks of another."""

    def __attrs_post_init__(self) -> None:
        self.among.acquainted()
        self.among.clock.advance(30.0)
        self.a, self.b = next(
            (one, other)
            for one, other in permutations(self.among.hosts, 2)
            if self.id(other) not in self.pool(one)._held and self.id(one) not in self.pool(other)._held
        )
        for name in self.among.hosts:
            self.node(name).cluster_member.detector.changes.add(self._noting(name))
        self.connect()

    def _noting(self, name: str) -> Callable[[Member], None]:
        return lambda member: self.doubts.append(f"{name}: {member.announcement.name} is {member.standing}")

    def node(self, name: str) -> Node:
        return self.among.hosts[name].node

    def id(self, name: str) -> str:
        return self.node(name).identity.node_id

    def pool(self, name: str) -> LinkPool:
        return self.node(name).cluster_member.pool

    def connect(self) -> Link:
        return self.among.result(self.pool(self.a).get(self.id(self.b)))

    def linked(self) -> tuple[bool, bool]:
        """Whether each has a link to the other."""
        return tuple(  # type: ignore[return-value]  # of two
            self.pool(one).live(self.node(other).identity.node_id) is not None
            for one, other in ((self.a, self.b), (self.b, self.a))
        )

    def rest(self, seconds: float = IDLE + 2 * LOOK) -> None:
        self.among.clock.advance(seconds)


@pytest.fixture(scope="module")
def grown() -> Iterator[Strangers]:
    """One cluster for all: growing it takes longest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(links, "IDLE", IDLE)
        yield Strangers()


@pytest.fixture
def two(grown: Strangers) -> Strangers:
    grown.connect()
    grown.doubts.clear()
    return grown


def test_an_idle_link_is_closed_and_nobody_is_suspected(two: Strangers) -> None:
    two.rest(IDLE - LOOK)
    assert two.linked() == (True, True)
    two.rest(3 * LOOK)
    assert two.linked() == (False, False) and two.doubts == []
    member = two.node(two.a).cluster_member.detector.get(two.node(two.b).identity.node_id)
    assert member is not None and member.standing is Standing.ALIVE and not member.unlinked


def test_it_is_made_again_when_it_is_needed(two: Strangers) -> None:
    two.rest()
    assert two.connect().alive and two.linked() == (True, True)


def test_what_depends_on_a_link_keeps_it(two: Strangers) -> None:
    ann = two.among.connect(two.a)
    job = two.among.submit(ann, SILENT, node=two.b)
    two.among.until(lambda: two.among.ran(job) == [two.b])
    link = two.connect()
    two.rest(3 * IDLE)
    assert link.alive and two.doubts == []
    two.among.result(ann.cancel(job.id))
    two.rest()
    assert two.linked() == (False, False) and two.doubts == []


@pytest.mark.parametrize("end", ["a", "b"])
def test_it_is_kept_if_only_one_end_depends_on_it(two: Strangers, end: str) -> None:
    one, other = (two.a, two.b) if end == "a" else (two.b, two.a)
    link = two.pool(one).live(two.node(other).identity.node_id)
    assert link is not None
    following = link.gone.add(lambda: None)
    two.rest(3 * IDLE)
    assert link.alive and two.linked() == (True, True)
    following.close()
    two.rest()
    assert two.linked() == (False, False) and two.doubts == []


def test_both_ends_may_ask_at_once(two: Strangers) -> None:
    two.rest(IDLE - LOOK)
    for name in (two.a, two.b):
        for entries in two.pool(name)._open.values():
            for entry in entries:
                if not two.pool(name)._needs(entry.link.peer.node_id, entry):
                    two.pool(name)._retire(entry)
    two.rest(1.0)
    assert two.linked() == (False, False) and two.doubts == []


def test_one_that_is_being_closed_is_not_handed_out(two: Strangers) -> None:
    link = two.connect()
    (entry,) = [e for e in two.pool(two.a)._open[link.peer.node_id] if e.link is link]
    two.pool(two.a)._retire(entry)
    asked = two.pool(two.a).get(two.id(two.b))
    another = two.among.result(asked)
    two.rest(1.0)
    assert another is not link and another.alive and not link.alive
    assert two.linked() == (True, True) and two.doubts == []


def test_one_that_is_put_to_use_while_it_is_being_closed_stays(two: Strangers) -> None:
    link = two.connect()
    (entry,) = [e for e in two.pool(two.a)._open[link.peer.node_id] if e.link is link]
    two.pool(two.a)._retire(entry)
    following = link.gone.add(lambda: None)  # by somebody who had the link already
    two.rest(1.0)
    assert link.alive and not entry.retiring and two.doubts == []
    following.close()
    two.rest()
    assert two.linked() == (False, False) and two.doubts == []


def test_an_end_that_does_not_answer_is_looked_after(two: Strangers, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is closed, and that counts as a loss: whoever keeps silent over a link may be gone."""
    monkeypatch.setattr("cloudmytask.node.peer_door.NodePeerDoor.retired", _never)
    link, lost = two.connect(), list[str]()
    registrations = [two.pool(name).lost.add(lost.append) for name in (two.a, two.b)]
    two.rest()
    assert not link.alive and two.id(two.b) in lost
    for registration in registrations:
        registration.close()


@allowed(AccessRole.NODE, AccessRole.CSU)
def _never(*_: object) -> Deferred[bool]:
    return Deferred()


def test_with_many_links_they_end_sooner(two: Strangers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "LINKS_MAX", 0)
    two.rest(IDLE_CROWDED + 2 * LOOK)
    assert two.linked() == (False, False) and two.doubts == []
