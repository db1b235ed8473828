"""The overlay: one tree over all nodes, a parent and four children each, with no coordinator (overlay simulation,
section 3.2).

A node without a parent is the root of its own subtree; it asks a node of an older tree with a free place, as near to
that tree's root as there is one, and that node decides. Of two trees the older root wins, so an orphan never drags the
main tree along and a healed partition costs one link.

Invariant: never more than ``CHILDREN_MAX`` children, and never a parent whose path leads through this node, as far as
this node was told.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

from attrs import Factory, define, field, frozen

from cloudmytask.model.cluster import CHILDREN_MAX, AttachAnswer, NodeId, RootKey, TreePosition

PATH_MAX = 255
"""Ancestors that a path may name; a longer one is a loop."""
GAIN = 2
"""Levels that a move to another parent must gain."""


class Chance(Protocol):
    """The part of ``random.Random`` that is used."""

    def random(self) -> float: ...


@frozen
class Sight:
    """The overlay as announced to us."""

    positions: Mapping[NodeId, TreePosition]
    """Of all other nodes that are not known to be gone."""
    gone: Callable[[NodeId], bool]
    """Whether a node is known to be gone."""
    avoid: Collection[NodeId] = ()
    """Not to be asked: suspects, and those who refused a moment ago."""


@frozen
class _Place:
    """Where a node really stands, as far as the pointers tell."""

    root: RootKey
    depth: int


def survey(me: NodeId, children: Collection[NodeId], sight: Sight) -> dict[NodeId, _Place | None]:
    """Follow everybody's announced parents up to the root that they lead to. A pointer to a node that is gone makes
    the pointing node a root; one to a node never heard of leaves what was announced.

    :returns: None for a node in ``me``'s own subtree, or in a circle of stale pointers.
    """
    places: dict[NodeId, _Place | None] = {me: None, **dict.fromkeys(children)}
    for start in sight.positions:
        walk: list[NodeId] = []
        walked: set[NodeId] = set()
        node: NodeId | None = start
        top: _Place | None = None
        while node is not None and node not in places:
            if node in walked:
                break  # a circle: top stays None for all of it
            walk.append(node)
            walked.add(node)
            position = sight.positions[node]
            parent = position.parent
            if parent is None:
                top = _Place(RootKey(position.root.term, node), 0)
            elif parent != me and sight.gone(parent):
                top = _Place(RootKey.younger(position.root.term, node), 0)
            elif parent not in places and parent not in sight.positions:
                top = _Place(position.root, position.depth)
            else:
                node = parent
                continue
            places[walk.pop()] = top
            node = None
        if node is not None and node in places:
            top = places[node]
        for below in reversed(walk):
            top = None if top is None else _Place(top.root, top.depth + 1)
            places[below] = top
    return places


@define(eq=False)
class Overlay:
    """One node's part in the tree. Its caller compares :attr:`lineage` before and after, and tells the children
    of a change."""

    me: NodeId
    parent: NodeId | None = field(init=False, default=None)
    path: tuple[NodeId, ...] = field(init=False, default=())
    """The ancestors, the parent first, the root last; empty at a root."""
    root: RootKey = field(init=False)
    closed: str = field(init=False, default="")
    """Why no child is taken any more; empty while they are."""
    _children: dict[NodeId, None] = field(init=False, default=Factory(dict))
    _fresh: bool = field(init=False, default=True)
    """It never had a neighbor."""

    def __attrs_post_init__(self) -> None:
        self.root = RootKey(1, self.me)

    @property
    def children(self) -> tuple[NodeId, ...]:
        return tuple(self._children)

    @property
    def position(self) -> TreePosition:
        """What is announced of it."""
        return TreePosition(self.root, len(self.path), self.parent, self.children)

    @property
    def lineage(self) -> tuple[NodeId, ...]:
        """What a child is told: this node first, the root last."""
        return (self.me, *self.path)

    # looking for a parent

    def choose(self, sight: Sight, dice: Chance) -> NodeId | None:
        """Whom a root should ask to become its parent; None if its own tree is the oldest, or nobody has a place."""
        if self.parent is not None:
            return None
        places = survey(self.me, self._children, sight)
        if self._fresh:
            self._step_behind(sight)
        return self._nearest(places, sight, dice, lambda place: place.root < self.root)

    def improve(self, sight: Sight, dice: Chance) -> NodeId | None:
        """Whom to ask in order to stand at least ``GAIN`` levels higher in the same tree; None if nobody."""
        if self.parent is None:
            return None
        places = survey(self.me, self._children, sight)
        highest = len(self.path) - GAIN
        return self._nearest(places, sight, dice, lambda p: p.root == self.root and p.depth + 1 <= highest)

    def height(self, sight: Sight) -> int:
        """How many levels there are below this node, as announced."""
        deepest = 0
        for node in sight.positions:
            steps = 0
            above: NodeId | None = node
            while above is not None and above != self.me and steps <= PATH_MAX:
                position = sight.positions.get(above)
                above = position.parent if position is not None else None
                steps += 1
            if above == self.me:
                deepest = max(deepest, steps)
        return deepest

    def accepted(self, parent: NodeId, answer: AttachAnswer) -> bool:
        """``parent`` took us. Whether we take it: otherwise it must be told that we are no child of it."""
        if self.me in answer.path or not 0 < len(answer.path) <= PATH_MAX or parent in self._children:
            return False
        if self.parent is None:
            if not answer.root < self.root:
                return False
        elif answer.root > self.root or (answer.root == self.root and len(answer.path) >= len(self.path)):
            return False
        self._follow(parent, answer.root, answer.path)
        return True

    # being asked

    def asked(self, asker: NodeId, announced: TreePosition | None) -> AttachAnswer:
        """Somebody wants to become a child; the answer is carried out already. ``try_next`` is left to the caller, who
        knows addresses.

        :param announced: the asker's position as last heard, None if never.
        """
        why = ""
        if self.closed:
            why = self.closed
        elif asker == self.me or asker in self.path:
            why = "loop"
        elif announced is not None and announced.parent is None and not self.root < announced.root:
            why = "root"
        elif asker not in self._children and len(self._children) >= CHILDREN_MAX:
            why = "full"
        if why:
            return AttachAnswer(False, self.root, self.lineage, why)
        self._children[asker] = None
        self._fresh = False
        return AttachAnswer(True, self.root, self.lineage)

    # being told

    def told(self, parent: NodeId, term: int, path: Sequence[NodeId]) -> bool:
        """The parent's ancestors, itself first. Whether ``parent`` is ours; if not, it should be told so. A path that
        leads through ourselves makes us an orphan."""
        if parent != self.parent or not path:
            return False
        if self.me in path or len(path) > PATH_MAX:
            self.orphaned()
        else:
            self._follow(parent, RootKey(term, path[-1]), tuple(path))
        return True

    def lost(self, neighbor: NodeId) -> bool:
        """A neighbor is gone, or no longer wants to be one. Whether it was one."""
        if neighbor == self.parent:
            self.orphaned()
            return True
        if neighbor in self._children:
            del self._children[neighbor]
            return True
        return False

    def orphaned(self) -> None:
        """Without a parent: the root of this node's subtree, with a younger key than the tree that we left."""
        self.parent, self.path = None, ()
        self.root = RootKey.younger(self.root.term, self.me)

    def _follow(self, parent: NodeId, root: RootKey, path: tuple[NodeId, ...]) -> None:
        self.parent, self.root, self.path, self._fresh = parent, root, path, False

    def _step_behind(self, sight: Sight) -> None:
        """A newcomer must not drag a tree along because of its id: it is younger than every tree that it hears of."""
        terms = [position.root.term for position in sight.positions.values() if position.parent is not None]
        if terms and self.root.term <= max(terms):
            self.root = RootKey.younger(max(terms), self.me)

    def _nearest(
        self,
        places: Mapping[NodeId, _Place | None],
        sight: Sight,
        dice: Chance,
        suits: Callable[[_Place], bool],
    ) -> NodeId | None:
        best: tuple[RootKey, int, float] | None = None
        chosen = None
        for node, position in sight.positions.items():
            place = places[node]
            if place is None or position.places <= 0 or node in sight.avoid or not suits(place):
                continue
            rank = (place.root, place.depth, dice.random())
            if best is None or rank < best:
                best, chosen = rank, node
        return chosen
