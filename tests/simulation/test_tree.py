"""The tree of a whole cluster in virtual time: it comes together, heals, and needs no multicast for it.

The bounds are near those of the overlay simulation: well under a second where a broken connection tells, about three
and a half where only silence does.
"""

from __future__ import annotations

import pytest

from cloudmytask.model.cluster import Standing
from tests.tree_world import Instance, World

TOLD = 0.5
"""Seconds within which a tree heals when the connections of the dead break."""
SILENT = 6.0
"""The same when they only fall silent."""


def grown(count: int, seed: int = 1, *, multicast: bool = True) -> World:
    """A cluster that has come together."""
    world = World(seed)
    if multicast:
        world.boot(count)
    else:
        first = world.add(multicast=False)
        world.boot(count - 1, multicast=False, seeds=(first.me.address,))
    world.clock.advance(2.0)
    world.settle(6.0 if multicast else 15.0)
    world.clock.advance(5.0)
    assert world.problem() == ""
    return world


def told_for_half_a_minute(world: World, deaf: Instance, other: Instance) -> set[int]:
    """``deaf`` takes ``other`` for alive all the time, and has news of it; the incarnations that it knew of."""
    incarnations = set()
    for _ in range(30):
        world.clock.advance(1.0)
        member = deaf.detector.get(other.node_id)
        assert member is not None
        assert member.standing is Standing.ALIVE
        assert world.clock.seconds() - member.heard < 3.0
        incarnations.add(member.announcement.incarnation)
    assert world.problem() == ""
    return incarnations


@pytest.mark.parametrize("seed", range(5))
def test_ten_come_together_and_heal(seed: int) -> None:
    world = grown(10, seed)
    for silent, bound in ((False, TOLD), (True, SILENT)):
        for victim in (world.inner(), world.root()):
            if victim.dead:
                continue
            victim.die(silent=silent)
            assert world.settle(bound) <= bound
            world.clock.advance(8.0)
            assert world.problem() == ""


@pytest.mark.parametrize("silent", [False, True], ids=["told", "silent"])
def test_a_hundred_heal_with_few_new_links(silent: bool) -> None:
    world = grown(100)
    assert max(each.position.depth for each in world.living if each.position is not None) <= 8
    bound = SILENT if silent else TOLD
    edges = world.edges()
    world.inner().die(silent=silent)
    world.settle(bound)
    assert len(world.edges() - edges) <= 8
    world.clock.advance(5.0)
    world.root().die(silent=silent)
    world.settle(bound)
    world.clock.advance(5.0)
    for share in (0.1, 0.3):
        for victim in world.random.sample(world.living, int(len(world.living) * share)):
            victim.die(silent=silent)
        world.settle(bound)
        world.clock.advance(5.0)
        assert world.problem() == ""


def test_all_agree_on_who_is_dead() -> None:
    world = grown(30)
    victim = world.inner()
    victim.die(silent=True)
    world.clock.advance(6.0)
    for each in world.living:
        assert each.detector.is_dead(victim.node_id), each.me.name
        assert [m.node_id for m in each.detector.members() if m.standing is not Standing.ALIVE] == [victim.node_id]


@pytest.mark.parametrize("count", [10, 60])
def test_a_partition_makes_two_trees_and_heals_with_one_link(count: int) -> None:
    world = grown(count, seed=3)
    world.cut(world.random.sample(world.living, count // 2))
    for part in (0, 1):
        world.settle(SILENT, part)
    world.clock.advance(60.0)  # until nobody in either tree looks for a higher place, which takes a link as well
    edges = world.edges()
    world.mend()
    assert world.settle(3.0) <= 3.0
    assert len(world.edges() - edges) == 1


@pytest.mark.parametrize("count", [2, 10, 40])
def test_without_any_multicast_the_seeds_and_the_tree_do(count: int) -> None:
    world = grown(count, seed=2, multicast=False)
    world.clock.advance(10.0)
    for each in world.living:
        assert each.detector.present() == count - 1, "it hears of everybody"
    if count > 2:
        world.inner().die()
        world.settle(2.0)
        world.clock.advance(5.0)
        world.root().die(silent=True)
        world.settle(8.0)
        world.clock.advance(8.0)
        assert world.problem() == ""


def test_without_multicast_a_partition_heals_too() -> None:
    world = grown(12, seed=4, multicast=False)
    world.cut(world.random.sample(world.living, 6))
    for part in (0, 1):
        world.settle(10.0, part)
    world.clock.advance(20.0)
    edges = world.edges()
    world.mend()
    world.settle(60.0)
    assert len(world.edges() - edges) <= 2


def test_one_without_multicast_is_known_to_those_with_it_and_knows_them() -> None:
    world = grown(10, seed=5)
    deaf = world.add(multicast=False, seeds=(world.instances[0].me.address,))
    world.clock.advance(15.0)
    assert world.problem() == ""
    assert deaf.detector.present() == 10
    for each in world.living[:10]:
        member = each.detector.get(deaf.node_id)
        assert member is not None and member.standing is Standing.ALIVE, each.me.name


def test_whoever_does_not_hear_one_other_is_told_by_its_neighbors() -> None:
    world = grown(8)
    deaf = world.root()
    other = next(each for each in world.living if deaf.position is not None and each.node_id in deaf.position.children)
    deaf.unheard.add(other.node_id)
    world.clock.advance(15.0)
    assert told_for_half_a_minute(world, deaf, other) == {1}, "nobody suspected it"
    for each in world.living:
        assert all(member.standing is Standing.ALIVE for member in each.detector.members()), each.me.name


@pytest.mark.parametrize("seed", range(8))
def test_a_leaf_that_does_not_hear_its_parent_is_told_by_the_next_one(seed: int) -> None:
    """It has no neighbor at the moment when it declares its parent dead, and nobody knows yet who will be the next."""
    world = grown(5, seed)
    leaves = [each for each in world.living if each.position is not None and not each.position.children]
    deaf = leaves[0]
    assert deaf.position is not None
    other = next(each for each in world.living if deaf.position is not None and each.node_id == deaf.position.parent)
    world.lag = 0.2
    deaf.unheard.add(other.node_id)
    world.clock.advance(20.0)
    told_for_half_a_minute(world, deaf, other)


@pytest.mark.parametrize("seed", range(6))
def test_a_node_that_cannot_reach_the_root_asks_another_one(seed: int) -> None:
    """It hears of the root by others all the time: no suspect, and the best parent, but that it never answers."""
    world = grown(12, seed)
    other = world.root()
    deaf = next(each for each in world.living if each.position is not None and each.position.parent == other.node_id)
    deaf.unheard.add(other.node_id)
    world.clock.advance(15.0)
    assert deaf.position is not None
    parent = next(each for each in world.living if deaf.position is not None and each.node_id == deaf.position.parent)
    assert parent is not other
    parent.die()
    world.settle(4.0)


def test_where_all_hear_each_other_nothing_is_relayed() -> None:
    world = grown(20, seed=6)
    world.relayed = 0
    world.clock.advance(30.0)
    assert world.relayed == 0


def test_a_newcomer_is_known_within_two_intervals_and_costs_one_link() -> None:
    world = grown(20, seed=7)
    edges = world.edges()
    newcomer = world.add()
    world.clock.advance(2 * newcomer.announcer.interval)
    assert all(each.detector.get(newcomer.node_id) is not None for each in world.living if each is not newcomer)
    assert newcomer.detector.present() == 20
    world.settle(2.0)
    assert len(world.edges() - edges) == 1


def test_whoever_leaves_says_so_and_the_tree_closes_behind_it() -> None:
    world = grown(20, seed=8)
    leaver = world.inner()
    leaver.leave()
    world.clock.advance(1.0)
    world.settle(TOLD)
    world.clock.advance(5.0)
    for each in world.living:
        member = each.detector.get(leaver.node_id)
        assert member is not None and member.standing is Standing.LEFT


def test_whoever_returns_is_another_life_of_the_same_node() -> None:
    world = grown(10, seed=9)
    victim = world.inner()
    over = []
    watcher = world.root()
    watcher.detector.watch(victim.node_id, victim.me.boot_id, lambda: over.append(world.clock.seconds()))
    victim.die()
    returned = world.add(node_id=victim.node_id, boot=2)
    world.clock.advance(3.0)
    world.settle(3.0)
    assert len(over) == 1
    for each in world.living:
        if each is not returned:
            member = each.detector.get(victim.node_id)
            assert member is not None and member.announcement.boot_id == returned.me.boot_id
            assert member.standing is Standing.ALIVE and member.conflict_until < world.clock.seconds()


def test_a_peer_that_accepts_and_never_answers_does_not_hold_up_the_others() -> None:
    world = grown(20, seed=10)
    mute = world.inner()
    orphans = [each for each in world.living if each.position is not None and each.position.parent == mute.node_id]
    mute.mute = True
    world.clock.advance(8.0)
    for each in orphans:
        assert each.position is not None and each.position.parent not in (None, mute.node_id)


def test_clocks_that_differ_by_an_hour_do_not_matter() -> None:
    world = World(13)
    for n in range(10):
        world.add(skew=3600.0 * (n % 3))
    world.clock.advance(2.0)
    world.settle(4.0)
    world.inner().die(silent=True)
    world.settle(SILENT)
    world.clock.advance(5.0)
    assert all(each.detector.present() == 8 for each in world.living)


def test_the_same_seed_gives_the_same_tree() -> None:
    one, other = grown(15, seed=11), grown(15, seed=11)
    assert one.edges() == other.edges() and one.calls == other.calls


def test_two_instances_with_one_id_do_not_disturb_the_others() -> None:
    world = grown(10, seed=12)
    twin = world.add(node_id=world.instances[3].node_id, boot=2)
    world.clock.advance(20.0)
    seen = [each.detector.get(twin.node_id) for each in world.living if each.node_id != twin.node_id]
    assert all(member is not None and member.announcement.boot_id == twin.me.boot_id for member in seen)
    assert all(member is not None and member.conflict_until > world.clock.seconds() for member in seen)
    assert world.instances[3].detector.conflict and not twin.detector.conflict
