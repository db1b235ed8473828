"""The tree as a drawing, also while it is none."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudmytask.cli.terminal.tree import ASCII, BOX, Strokes, document, dot, forest, strokes_for, text
from cloudmytask.model.cluster import Capacity, MemberStatus, Standing
from tests.cluster_fakes import id_of, member, position, small_view, view

NAMES = "abcdefgh"


def test_a_tree_in_box_characters() -> None:
    assert text(small_view(), BOX).splitlines() == [
        "a  1/2 free  load 0.25",
        "├── b  0/2 free  load 0.50  3 waiting",
        "│   └── d  1/2 free  load 0.25",
        "└── c  1/2 free  load 0.25  draining",
        "outside any tree:",
        "    csu  CSU, alive",
        "    e  dead",
    ]


def test_a_tree_in_ascii_and_bare() -> None:
    assert text(small_view(), ASCII, bare=True).splitlines() == ["a", "|-- b", "|   `-- d", "`-- c", "csu", "e"]


def test_a_deep_tree_keeps_its_margins() -> None:
    seen = view(
        member("a", position("a", None, "b", "f")),
        member("b", position("a", "a", "c", depth=1)),
        member("c", position("a", "b", "d", depth=2)),
        member("d", position("a", "c", depth=3)),
        member("f", position("a", "a", "g", depth=1)),
        member("g", position("a", "f", depth=2)),
    )
    assert text(seen, ASCII, bare=True).splitlines() == [
        "a",
        "|-- b",
        "|   `-- c",
        "|       `-- d",
        "`-- f",
        "    `-- g",
    ]


def test_two_trees_and_a_node_whose_parent_is_gone() -> None:
    seen = view(
        member("a", position("a", None, "b")),
        member("b", position("a", "a", depth=1)),
        member("o", position("a", "e", depth=1)),
        member("e", position("a", "a", depth=1), standing=Standing.DEAD),
        member("z", position("z")),
    )
    drawn = text(seen, ASCII)
    assert f"o  1/2 free  load 0.25  its parent {id_of('e')[:8]} is gone" in drawn.splitlines()
    assert forest(seen).roots == (id_of("a"), id_of("o"), id_of("z"))


def test_a_loop_is_cut_open_and_said() -> None:
    seen = view(
        member("x", position("a", "y")),
        member("y", position("a", "x")),
        member("w", position("a", "y")),
        member("s", position("a", "s")),
    )
    lines = text(seen, ASCII).splitlines()
    assert [line.split("  ")[0] for line in lines] == ["s", "y", "|-- w", "`-- x"]
    assert [line.endswith("in a loop") for line in lines] == [True, True, False, False]


@given(
    st.lists(st.sampled_from((*NAMES, None)), min_size=len(NAMES), max_size=len(NAMES)),
    st.lists(st.sampled_from(Standing), min_size=len(NAMES), max_size=len(NAMES)),
    st.sampled_from((BOX, ASCII)),
)
def test_whatever_they_say_each_is_drawn_once(
    parents: list[str | None], standings: list[Standing], strokes: Strokes
) -> None:
    seen = view(
        *(
            member(name, position("a", parent), standing=standing)
            for name, parent, standing in zip(NAMES, parents, standings, strict=True)
        )
    )
    lines = text(seen, strokes, bare=True).splitlines()
    assert sorted(line[-1] for line in lines) == list(NAMES)
    flat = document(seen)
    assert sorted([node["id"] for node in flat["nodes"]] + flat["outside"]) == sorted(map(id_of, NAMES))
    children = [child for node in flat["nodes"] for child in node["children"]]
    assert sorted(children + flat["roots"]) == sorted(node["id"] for node in flat["nodes"])
    depths = {node["id"]: node["depth"] for node in flat["nodes"]}
    assert all(depths[child] == node["depth"] + 1 for node in flat["nodes"] for child in node["children"])


def test_a_long_chain_is_drawn() -> None:
    count = 3000
    chain: list[MemberStatus] = [member("n0", position("n0"))]
    chain += [member(f"n{i}", position("n0", f"n{i - 1}", depth=i)) for i in range(1, count)]
    assert document(view(*chain))["nodes"][-1]["depth"] == count - 1
    assert len(text(view(*chain), ASCII, bare=True).splitlines()) == count


def test_a_name_cannot_draw() -> None:
    seen = view(member("evil\n\x1b[2J", position("x")), member('quo"te\\', position("y")))
    assert r"evil\x0a\x1b[2J" in text(seen, BOX)
    graph = dot(seen)
    assert r'[label="evil\\x0a\\x1b[2J"]' in graph
    assert r'[label="quo\"te\\"]' in graph


def test_the_graph_for_graphviz() -> None:
    lines = dot(small_view()).splitlines()
    assert (lines[0], lines[-1]) == ("graph cluster {", "}")
    assert f'  "{id_of("csu")}" [label="csu", shape=box];' in lines
    assert f'  "{id_of("e")}" [label="e", style=dashed];' in lines
    edges = {tuple(re.findall(r'"(\w+)"', line)) for line in lines if "--" in line}
    assert edges == {(id_of(a), id_of(b)) for a, b in ("ab", "ac", "bd")}


def test_the_document() -> None:
    flat = document(small_view())
    assert flat["roots"] == [id_of("a")]
    assert [(node["name"], node["depth"]) for node in flat["nodes"]] == [("a", 0), ("b", 1), ("d", 2), ("c", 1)]
    assert set(flat["outside"]) == {id_of("csu"), id_of("e")}


def test_what_is_not_measured_is_not_shown() -> None:
    assert text(view(member("a", position("a"), capacity=Capacity(1, 1))), ASCII) == "a  1/1 free"


@pytest.mark.parametrize(
    ("environment", "strokes"),
    [
        ({"LANG": "de_DE.UTF-8"}, BOX),
        ({"LC_CTYPE": "C.utf8", "LANG": "C"}, BOX),
        ({"LC_ALL": "C", "LANG": "de_DE.UTF-8"}, ASCII),
        ({"LC_ALL": "", "LANG": "en_US.UTF-8"}, BOX),
        ({"LANG": "de_DE.ISO-8859-1"}, ASCII),
        ({}, ASCII),
    ],
)
def test_the_locale_decides_about_characters(environment: dict[str, str], strokes: Strokes) -> None:
    assert strokes_for(environment) is strokes
