"""The overlay as a drawing: text, Graphviz, JSON.

Invariant: pure, and it ends: every instance is drawn exactly once, also while the instances contradict each other
because the tree is changing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen

from cloudmytask.cli.terminal.cluster import ID_SHOWN, load_text, name_of, ordered, serves
from cloudmytask.client import state_of
from cloudmytask.model.cluster import ClusterView, MemberStatus, NodeId, Role, Standing


@frozen
class Strokes:
    """What lines are made of: to a child that has siblings after it, to the last one, past one, under the last."""

    middle: str
    last: str
    past: str
    under: str


BOX = Strokes("├── ", "└── ", "│   ", "    ")
ASCII = Strokes("|-- ", "`-- ", "|   ", "    ")


def strokes_for(environment: Mapping[str, str]) -> Strokes:
    """Choose box-drawing characters if the locale is a UTF-8 one (locale(7): the first that is set decides)."""
    set_to = next((environment[name] for name in ("LC_ALL", "LC_CTYPE", "LANG") if environment.get(name)), "")
    return BOX if "utf8" in set_to.lower().replace("-", "") else ASCII


@frozen
class Forest:
    """The overlay as its instances describe it: one tree if all is well.

    :ivar lines: each instance in a tree once, its depth below its root, and its children, in the order of drawing.
    :ivar outside: those in no tree: CSUs, and nodes that have left or are dead.
    """

    roots: tuple[NodeId, ...]
    lines: Mapping[NodeId, tuple[int, tuple[NodeId, ...]]]
    members: Mapping[NodeId, MemberStatus]
    outside: tuple[MemberStatus, ...]


def forest(view: ClusterView) -> Forest:
    """Find out whose child each instance is, by what the children say."""
    shown = ordered(view)
    members = {each.announcement.node_id: each for each in shown if serves(each) and each.announcement.tree is not None}
    children: dict[NodeId, list[NodeId]] = {each: [] for each in members}
    tops: list[NodeId] = []
    for each, member in members.items():
        parent = _parent(member)
        (tops if parent is None or parent not in members else children[parent]).append(each)
    lines: dict[NodeId, tuple[int, tuple[NodeId, ...]]] = {}
    roots: list[NodeId] = []
    for start in (*tops, *members):
        if start in lines:
            continue
        top = _uppermost(start, members)
        roots.append(top)
        waiting = [(top, 0)]
        while waiting:
            each, depth = waiting.pop()
            below = tuple(child for child in children[each] if child != top)
            lines[each] = (depth, below)
            waiting.extend((child, depth + 1) for child in reversed(below))
    outside = tuple(each for each in shown if each.announcement.node_id not in members)
    return Forest(tuple(roots), lines, members, outside)


def _uppermost(node_id: NodeId, members: Mapping[NodeId, MemberStatus]) -> NodeId:
    """Find the root above an instance; if there is a loop above it, the place at which to cut it open."""
    passed: set[NodeId] = set()
    while node_id not in passed:
        passed.add(node_id)
        parent = _parent(members[node_id])
        node_id = node_id if parent is None or parent not in members else parent
    return node_id


def text(view: ClusterView, strokes: Strokes, *, bare: bool = False) -> str:
    """Draw a line for each instance.

    :param bare: nothing but names.
    """
    found = forest(view)
    drawing: list[str] = []
    above: list[NodeId] = []
    margins: list[str] = []
    for each, (depth, _below) in found.lines.items():
        del above[depth:], margins[max(0, depth - 1) :]
        branch = ""
        if depth:
            last = found.lines[above[-1]][1][-1] == each
            branch = "".join(margins) + (strokes.last if last else strokes.middle)
            margins.append(strokes.under if last else strokes.past)
        above.append(each)
        drawing.append(branch + (name_of(found.members[each]) if bare else _label(found, each, depth)))
    if bare:
        return "\n".join([*drawing, *map(name_of, found.outside)])
    if found.outside:
        drawing.append("outside any tree:")
    drawing += [f"{strokes.under}{name_of(each)}  {_outside(each)}" for each in found.outside]
    return "\n".join(drawing)


def document(view: ClusterView) -> dict[str, Any]:
    """Make the stable JSON form: flat, children by id, ``depth`` as drawn."""
    found = forest(view)
    return {
        "cluster": view.cluster,
        "by": view.by,
        "roots": list(found.roots),
        "nodes": [
            {
                "name": found.members[each].announcement.name,
                "id": each,
                "state": state_of(found.members[each]),
                "depth": depth,
                "children": list(below),
            }
            for each, (depth, below) in found.lines.items()
        ],
        "outside": [each.announcement.node_id for each in found.outside],
    }


def dot(view: ClusterView) -> str:
    """Describe the tree to Graphviz."""
    found = forest(view)
    shown: Sequence[MemberStatus] = (*(found.members[each] for each in found.lines), *found.outside)
    lines = [f"  {_quoted(each.announcement.node_id)} [{_attributes(each)}];" for each in shown]
    lines += [
        f"  {_quoted(each)} -- {_quoted(child)};" for each, (_depth, below) in found.lines.items() for child in below
    ]
    return "\n".join(["graph cluster {", *lines, "}"])


def _parent(member: MemberStatus) -> NodeId | None:
    return member.announcement.tree.parent if member.announcement.tree is not None else None


def _label(found: Forest, node_id: NodeId, depth: int) -> str:
    member = found.members[node_id]
    said = member.announcement
    parts = [name_of(member), f"{said.capacity.free}/{said.capacity.slots} free"]
    if said.capacity.load is not None:
        parts.append(f"load {load_text(said.capacity.load)}")
    if said.backlog.total:
        parts.append(f"{said.backlog.total} waiting")
    if (state := state_of(member)) != Standing.ALIVE.value:
        parts.append(state)
    parent = _parent(member)
    if depth == 0 and parent is not None:
        known = parent in found.members
        parts.append("in a loop" if known else f"its parent {parent[:ID_SHOWN]} is gone")
    return "  ".join(parts)


def _outside(member: MemberStatus) -> str:
    state = state_of(member)
    return f"CSU, {state}" if member.announcement.role is Role.CSU else state


def _attributes(member: MemberStatus) -> str:
    style = "" if member.standing is Standing.ALIVE else ", style=dashed"
    shape = ", shape=box" if member.announcement.role is Role.CSU else ""
    return f"label={_quoted(name_of(member))}{shape}{style}"


def _quoted(word: str) -> str:
    """A string of the DOT language."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
