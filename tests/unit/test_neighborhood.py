"""A node's place in the tree, as its peers see it."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve

from cloudmytask.boundaries import Link
from cloudmytask.model.cluster import AttachAnswer, NodeId, RootKey, TreePosition
from cloudmytask.model.errors import RequestTimeout
from tests.tree_world import Instance, World


class Asker:
    """The other end of a link, who does nothing by itself."""

    alive = True

    def __init__(self, instance: Instance) -> None:
        self.peer = instance.me


class Noting:
    """A door that notes who parted from us."""

    def __init__(self) -> None:
        self.parted: list[NodeId] = []

    def detached(self, link: Link) -> None:
        self.parted.append(link.peer.node_id)


class Slow:
    """A door that accepts, but whose answer is lost, and what follows for a while."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance

    def attached(self, link: Link, root: NodeId, depth: int) -> AttachAnswer:
        self.instance.neighborhood.attached(link, root, depth)
        self.instance.mute = True
        self.instance.world.clock.callLater(1.2, setattr, self.instance, "mute", False)
        raise RequestTimeout("lost")


@pytest.fixture
def world() -> World:
    return World(loss=0.0)


def family(world: World, count: int) -> list[Instance]:
    """So many, in one tree."""
    instances = [world.add() for _ in range(count)]
    world.clock.advance(1.0)
    world.settle(5.0)
    world.clock.advance(2.0)
    return instances


def strangers(world: World, count: int) -> list[Any]:
    return [Asker(world.add(start=False)) for _ in range(count)]


def test_a_newcomer_listens_before_it_takes_part(world: World) -> None:
    node = world.add()
    [asker] = strangers(world, 1)
    assert node.position is None
    assert node.neighborhood.attached(asker, asker.peer.node_id, 0).why == "absent"
    world.clock.advance(1.0)
    assert node.position == TreePosition(RootKey(1, node.node_id))


def test_it_announces_every_change_of_its_place_at_once(world: World) -> None:
    one, other = family(world, 2)
    for each, peer in ((one, other), (other, one)):
        member = peer.detector.get(each.node_id)
        assert member is not None and member.announcement.tree == each.position


def test_the_fifth_child_is_referred_to_two_of_the_four(world: World) -> None:
    instances = family(world, 6)
    root = world.root()
    assert root.position is not None and len(root.position.children) == 4
    [asker] = strangers(world, 1)
    answer = root.neighborhood.attached(asker, asker.peer.node_id, 0)
    assert (answer.accepted, answer.why) == (False, "full")
    addresses = {each.node_id: each.me.address for each in instances}
    assert len(answer.try_next) == 2
    assert all(addresses[node] == at and node in root.position.children for node, at in answer.try_next)


def test_a_draining_node_takes_no_children_and_keeps_those_it_has(world: World) -> None:
    family(world, 3)
    root = world.root()
    before = root.position
    root.neighborhood.refuse("draining")
    [asker] = strangers(world, 1)
    assert root.neighborhood.attached(asker, asker.peer.node_id, 0).why == "draining"
    assert root.position == before


def test_a_path_from_somebody_who_is_not_the_parent_is_answered_with_a_goodbye(world: World) -> None:
    one, other = family(world, 2)
    root, child = (one, other) if one is world.root() else (other, one)
    stranger = world.add(start=False)
    world.clock.advance(0.0)
    stranger.door = Noting()
    got: list[Any] = []
    stranger.pool.get(child.me.address).addCallback(got.append)
    world.clock.advance(0.1)
    got[0].tell_path(1, (stranger.node_id,))
    world.clock.advance(0.1)
    assert stranger.door.parted == [child.node_id]
    assert child.position is not None and child.position.parent == root.node_id


def test_a_child_that_leaves_frees_its_place(world: World) -> None:
    family(world, 3)
    root = world.root()
    leaver = next(each for each in world.living if each is not root)
    leaver.neighborhood.leave()
    world.clock.advance(0.1)
    assert root.position is not None and leaver.node_id not in root.position.children
    assert leaver.position is None


def test_a_child_that_announces_another_parent_is_none(world: World) -> None:
    node = world.add()
    world.clock.advance(1.0)
    ghost = world.add(start=False)
    ghost.pool.get(node.me.address)
    world.clock.advance(0.1)
    assert node.neighborhood.attached(Asker(ghost), ghost.node_id, 0).accepted  # type: ignore[arg-type]
    for sequence in range(1, 8):
        tree = TreePosition(RootKey(9, ghost.node_id), 1, NodeId("e" * 32))
        node.detector.heard(evolve(ghost.announcer.current(), sequence=sequence, tree=tree))
        world.clock.advance(1.0)
    assert node.position is not None and node.position.children == ()


def test_a_parent_that_does_not_count_us_is_none(world: World) -> None:
    one, other = family(world, 2)
    root, child = (one, other) if one is world.root() else (other, one)
    root.neighborhood._overlay._children.clear()  # as if it had missed that it accepted
    root.announcer.changed()
    world.clock.advance(8.0)
    assert world.problem() == ""
    assert child.position is not None and child.position.parent == root.node_id, "it asked again"


def test_an_acceptance_that_comes_too_late_is_undone(world: World) -> None:
    one, other = family(world, 2)
    root, child = (one, other) if one is world.root() else (other, one)
    root.door = Slow(root)
    child.neighborhood._lost(root.node_id)
    world.clock.advance(0.1)
    root.door = root.neighborhood
    world.clock.advance(1.4)
    world.settle(10.0)
    assert world.problem() == ""


def test_the_place_is_what_the_announcement_says(world: World) -> None:
    family(world, 4)
    for each in world.living:
        assert each.announcer.current().tree == each.position
