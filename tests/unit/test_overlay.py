"""The tree: who asks whom, who accepts, and that it is one tree in the end."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable

import pytest
from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudmytask.core.overlay import PATH_MAX, Overlay, Sight, survey
from cloudmytask.model.cluster import CHILDREN_MAX, NEIGHBORS_MAX, AttachAnswer, NodeId, RootKey, TreePosition

A, B, C, D, E, F, G = map(NodeId, "abcdefg")
DICE = random.Random(1)


def root(node: NodeId, term: int = 1, *children: NodeId) -> TreePosition:
    return TreePosition(RootKey(term, node), 0, None, children)


def below(parent: NodeId, top: NodeId, depth: int, *children: NodeId, term: int = 1) -> TreePosition:
    return TreePosition(RootKey(term, top), depth, parent, children)


def see(positions: dict[NodeId, TreePosition], gone: tuple[NodeId, ...] = (), avoid: tuple[NodeId, ...] = ()) -> Sight:
    return Sight(positions, lambda node: node in gone, avoid)


def attached(me: NodeId, path: tuple[NodeId, ...], term: int = 1) -> Overlay:
    overlay = Overlay(me)
    assert overlay.accepted(path[0], AttachAnswer(True, RootKey(term, path[-1]), path)) or term > 1
    return overlay


def test_alone_it_is_a_root() -> None:
    assert Overlay(B).position == root(B)
    assert Overlay(B).choose(see({}), DICE) is None


def test_the_older_root_wins() -> None:
    assert Overlay(B).choose(see({A: root(A), C: root(C)}), DICE) == A
    assert Overlay(A).choose(see({B: root(B), C: root(C)}), DICE) is None, "its own tree is the oldest"


def test_the_nearest_to_the_root_with_a_free_place_is_asked() -> None:
    full = root(A, 1, B, C, D, E)
    positions = {A: full, B: below(A, A, 1, F), F: below(B, A, 2), C: below(A, A, 1, *"wxyz")}
    assert Overlay(G).choose(see(positions), DICE) == B
    assert Overlay(G).choose(see(positions, avoid=(B,)), DICE) == F
    assert Overlay(G).choose(see(positions, avoid=(B, F)), DICE) is None


def test_nobody_in_the_own_subtree_is_asked_though_its_announcement_is_old() -> None:
    me = Overlay(B)
    me.asked(C, None)
    me.orphaned()
    positions = {A: root(A, 1), C: below(B, A, 2, D), D: below(C, A, 3)}
    assert me.choose(see(positions, avoid=(A,)), DICE) is None
    assert me.choose(see(positions), DICE) == A


def test_a_pointer_to_a_dead_node_ends_the_walk() -> None:
    """The siblings of an orphan belong to no tree but their own, whatever they last announced."""
    me = attached(D, (B, A))
    me.orphaned()
    positions = {C: below(B, A, 2, E), E: below(C, A, 3)}
    assert survey(D, (), see(positions, gone=(B,)))[E] == survey(D, (), see({E: below(C, C, 1, term=2)}))[E]
    assert me.root == RootKey(2, D)
    assert me.choose(see(positions, gone=(B,)), DICE) == C, "of the orphans the one with the smaller id is followed"


def test_a_circle_of_stale_pointers_is_nowhere() -> None:
    places = survey(A, (), see({B: below(C, D, 3), C: below(B, D, 3), E: below(B, D, 4)}))
    assert [places[node] for node in (B, C, E)] == [None, None, None]


def test_an_orphan_never_drags_the_main_tree_along() -> None:
    orphan = attached(A, (C,), term=1) if C < A else Overlay(A)
    orphan.root = RootKey(2, A)
    assert orphan.choose(see({C: root(C)}), DICE) == C
    assert Overlay(C).choose(see({A: root(A, 2)}), DICE) is None


def test_a_newcomer_steps_behind_a_tree_that_stands() -> None:
    newcomer = Overlay(A)
    assert newcomer.choose(see({B: root(B, 1, C), C: below(B, B, 1)}), DICE) in (B, C)
    assert newcomer.root == RootKey(2, A)


def test_a_target_takes_four_and_refers_the_fifth() -> None:
    me = Overlay(A)
    for child in (B, C, D, E):
        assert me.asked(child, None).accepted
    assert me.asked(B, None).accepted, "it asks again: it has its place"
    answer = me.asked(F, None)
    assert (answer.accepted, answer.why) == (False, "full")
    assert len(me.children) == CHILDREN_MAX


def test_a_target_refuses_its_ancestors_and_itself() -> None:
    me = attached(C, (B, A))
    for asker in (A, B, C):
        assert me.asked(asker, None).why == "loop"


def test_a_target_of_a_younger_tree_refuses() -> None:
    assert Overlay(B).asked(A, root(A)).why == "root"
    assert Overlay(A).asked(B, root(B)).accepted


def test_a_closed_node_takes_nobody() -> None:
    me = Overlay(A)
    me.closed = "draining"
    assert me.asked(B, None).why == "draining"


@pytest.mark.parametrize(
    "answer",
    [
        AttachAnswer(True, RootKey(1, C), (C,)),
        AttachAnswer(True, RootKey(1, A), (C, B, A)),
        AttachAnswer(True, RootKey(0, A), ()),
        AttachAnswer(True, RootKey(0, A), tuple(NodeId(str(n)) for n in range(PATH_MAX + 1))),
    ],
    ids=["younger", "through-us", "no-path", "endless"],
)
def test_an_acceptance_that_makes_no_tree_is_not_taken(answer: AttachAnswer) -> None:
    me = Overlay(B)
    assert not me.accepted(C, answer)
    assert me.position == root(B)


def test_a_path_through_ourselves_makes_an_orphan() -> None:
    me = attached(C, (B, A))
    assert me.told(B, 1, (B, C, A))
    assert (me.parent, me.root) == (None, RootKey(2, C))


def test_only_the_parent_tells_the_path() -> None:
    me = attached(C, (B, A))
    assert not me.told(D, 1, (D, A))
    assert me.path == (B, A)
    assert me.told(B, 3, (B, F))
    assert (me.root, me.path) == (RootKey(3, F), (B, F))


def test_a_move_must_gain_two_levels() -> None:
    deep = attached(G, (E, D, C, A))
    positions = {A: root(A, 1, *"wxyz"), B: below(A, A, 1), C: below(A, A, 1, *"wxyz"), D: below(C, A, 2)}
    assert deep.improve(see(positions), DICE) == B
    assert deep.improve(see(positions, avoid=(B,)), DICE) is None
    assert deep.accepted(B, AttachAnswer(True, RootKey(1, A), (B, A)))
    assert not deep.accepted(D, AttachAnswer(True, RootKey(1, A), (D, C, A))), "that would be lower"


def test_its_height_is_counted_along_the_announced_pointers() -> None:
    positions = {B: below(A, A, 1, C), C: below(B, A, 2), D: root(D)}
    assert Overlay(A).height(see(positions)) == 2
    assert Overlay(D).height(see({B: positions[B]})) == 0


@define(eq=False)
class Villages:
    """Overlays, and messages between them that arrive in any order, but in order between any two."""

    rng: random.Random
    nodes: dict[NodeId, Overlay]
    queues: dict[tuple[NodeId, NodeId], deque[Callable[[], None]]] = field(factory=dict)
    announced: dict[NodeId, TreePosition] = field(factory=dict)
    asking: dict[NodeId, NodeId] = field(factory=dict)
    refused: dict[NodeId, set[NodeId]] = field(factory=dict)

    def send(self, sender: NodeId, receiver: NodeId, what: Callable[[], None]) -> None:
        self.queues.setdefault((sender, receiver), deque()).append(what)

    def step(self, node: NodeId, change: Callable[[Overlay], object]) -> object:
        overlay = self.nodes[node]
        before = (overlay.lineage, overlay.root)
        result = change(overlay)
        assert len(overlay.position.neighbors) <= NEIGHBORS_MAX
        assert overlay.parent not in overlay.children
        if (overlay.lineage, overlay.root) != before:
            for child in overlay.children:
                self.tell(node, child)
        return result

    def tell(self, node: NodeId, child: NodeId) -> None:
        term, path = self.nodes[node].root.term, self.nodes[node].lineage

        def told() -> None:
            if self.asking.get(child) == node:
                return
            if not self.step(child, lambda overlay: overlay.told(node, term, path)) or not self.nodes[child].parent:
                self.part(child, node)

        self.send(node, child, told)

    def part(self, node: NodeId, other: NodeId) -> None:
        def parted() -> None:
            self.step(other, lambda overlay: overlay.lost(node))

        self.send(node, other, parted)

    def sight(self, node: NodeId) -> Sight:
        others = {other: position for other, position in self.announced.items() if other != node}
        return Sight(others, lambda _: False, self.refused.get(node, ()))

    def seek(self, node: NodeId) -> bool:
        if node in self.asking:
            return False
        target = self.step(node, lambda overlay: overlay.choose(self.sight(node), self.rng))
        if not isinstance(target, str):
            return False
        parent = NodeId(target)
        self.asking[node] = parent
        self.refused.setdefault(node, set()).add(parent)

        def asked() -> None:
            answer = self.step(parent, lambda overlay: overlay.asked(node, self.announced.get(node)))
            assert isinstance(answer, AttachAnswer)
            self.send(parent, node, lambda: answered(answer))

        def answered(answer: AttachAnswer) -> None:
            del self.asking[node]
            if answer.accepted and not self.step(node, lambda overlay: overlay.accepted(parent, answer)):
                self.part(node, parent)

        self.send(node, parent, asked)
        return True

    def cut(self, one: NodeId, other: NodeId) -> None:
        """The link between the two breaks; what is under way is lost."""
        for here, there in ((one, other), (other, one)):
            self.queues.pop((here, there), None)
            if self.asking.get(here) == there:
                del self.asking[here]
        for here, there in ((one, other), (other, one)):
            self.step(here, lambda overlay, there=there: overlay.lost(there))  # type: ignore[misc]

    def announce(self, node: NodeId) -> None:
        self.announced[node] = self.nodes[node].position
        for known in self.refused.values():
            known.discard(node)

    def deliver(self) -> bool:
        waiting = [pair for pair, queue in self.queues.items() if queue]
        if waiting:
            self.queues[self.rng.choice(waiting)].popleft()()
        return bool(waiting)

    def compare(self, node: NodeId) -> None:
        """Neighbors that announce something else are none."""
        overlay = self.nodes[node]
        for neighbor in overlay.position.neighbors:
            said = self.announced[neighbor]
            if (node not in said.children) if neighbor == overlay.parent else (said.parent != node):
                self.part(node, neighbor)
                self.step(node, lambda overlay, neighbor=neighbor: overlay.lost(neighbor))  # type: ignore[misc]
            elif neighbor != overlay.parent and said.root != overlay.root:
                self.tell(node, neighbor)

    def disturb(self) -> None:
        node = self.rng.choice(list(self.nodes))
        match self.rng.randrange(6):
            case 0 | 1:
                self.seek(node)
            case 2:
                self.announce(node)
            case 3:
                if neighbors := self.nodes[node].position.neighbors:
                    self.cut(node, self.rng.choice(neighbors))
            case _:
                self.deliver()

    def calm(self) -> int:
        """Let all be delivered, announced and compared, again and again; how many rounds until nothing changes."""
        for turn in range(200):
            while self.deliver():
                pass
            before = {node: overlay.position for node, overlay in self.nodes.items()}
            for node in self.nodes:
                self.announce(node)
            for node in self.nodes:
                self.compare(node)
            sought = [self.seek(node) for node in self.nodes]
            while self.deliver():
                pass
            if not any(sought) and before == {node: overlay.position for node, overlay in self.nodes.items()}:
                return turn
        raise AssertionError("no end of changes")

    def check(self) -> None:
        """One tree, every path true, every child one."""
        roots = [node for node, overlay in self.nodes.items() if overlay.parent is None]
        assert len(roots) == 1, f"{len(roots)} roots"
        for node, overlay in self.nodes.items():
            path, at = [], overlay
            while at.parent is not None:
                assert at.me in self.nodes[at.parent].children
                path.append(at.parent)
                assert len(path) <= len(self.nodes), "a circle"
                at = self.nodes[at.parent]
            assert tuple(path) == overlay.path and at.me == roots[0] == overlay.root.node_id
            assert all(self.nodes[child].parent == node for child in overlay.children)


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32), count=st.integers(1, 25), trouble=st.integers(0, 400))
def test_whatever_happens_in_whatever_order_it_is_one_tree_in_the_end(seed: int, count: int, trouble: int) -> None:
    rng = random.Random(seed)
    ids = [NodeId(f"{n:02d}") for n in range(count)]
    rng.shuffle(ids)
    villages = Villages(rng, {node: Overlay(node) for node in ids})
    for _ in range(trouble):
        villages.disturb()
    villages.calm()
    villages.check()
