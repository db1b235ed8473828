"""The file of nodes that earlier verbs were told of: what is kept, for how long; a broken file does nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from cloudmytask.addresses import Address
from cloudmytask.client.known_nodes import (
    ADDRESSES_MAX,
    FILE_MAX,
    FORGOTTEN,
    FRESH,
    NODES_MAX,
    KnownNode,
    KnownNodes,
)
from cloudmytask.directories import known_nodes_file

A = Address.parse("127.0.0.1:7001", "$CMT_NODE")
B = KnownNode("b", "127.0.0.1:7002", "b" * 32)


class Wall:
    """A wall clock that the test sets."""

    now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def wall() -> Wall:
    return Wall()


@pytest.fixture
def known(tmp_path: Path, wall: Wall) -> KnownNodes:
    return KnownNodes(tmp_path / "cache" / "nodes.json", wall)


def _path(known: KnownNodes) -> Path:
    assert known.path is not None
    return known.path


def _nodes(known: KnownNodes, asked: Address = A) -> tuple[KnownNode, ...]:
    told = known.recall(asked)
    return () if told is None else told.nodes


def test_where_it_is() -> None:
    assert known_nodes_file({"XDG_CACHE_HOME": "/x"}) == Path("/x/cloudmytask/nodes.json")


@pytest.mark.parametrize(
    ("root", "place"), [(0, "/var/cache/cloudmytask/nodes.json"), (1000, "/home/x/.cache/cloudmytask/nodes.json")]
)
@pytest.mark.parametrize("named", [{}, {"XDG_CACHE_HOME": "relative"}, {"XDG_CACHE_HOME": ""}])
def test_where_it_is_otherwise(monkeypatch: pytest.MonkeyPatch, root: int, place: str, named: dict[str, str]) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: root)
    monkeypatch.setenv("HOME", "/home/x")
    assert known_nodes_file(named) == Path(place)


def test_what_is_kept_is_recalled_for_that_address_only(known: KnownNodes) -> None:
    known.keep(A, [B])
    assert _nodes(known) == (B,)
    assert _nodes(known, Address.parse("127.0.0.1:7003", "test")) == ()
    assert _nodes(known, Address.parse("127.0.0.1:07001", "test")) == (B,), "another way to write it"


def test_the_file_is_private_and_nothing_else_is_left(known: KnownNodes) -> None:
    known.keep(A, [B])
    assert [each.name for each in _path(known).parent.iterdir()] == ["nodes.json"]
    assert _path(known).stat().st_mode & 0o777 == 0o600
    assert _path(known).parent.stat().st_mode & 0o777 == 0o700


def test_a_node_that_is_alone_needs_no_file(known: KnownNodes) -> None:
    known.keep(A, [])
    assert not _path(known).exists()
    known.keep(A, [B])
    known.keep(A, [])
    told = known.recall(A)
    assert told is not None and told.nodes == ()


def test_it_is_fresh_for_a_minute_and_forgotten_after_a_week(known: KnownNodes, wall: Wall) -> None:
    known.keep(A, [B])
    told = known.recall(A)
    assert told is not None
    assert known.fresh(told)
    wall.now += FRESH
    assert not known.fresh(told)
    wall.now += FORGOTTEN - FRESH
    assert _nodes(known) == (B,)
    wall.now += 1
    assert _nodes(known) == ()


def test_a_wall_clock_that_was_set_back(known: KnownNodes, wall: Wall) -> None:
    known.keep(A, [B])
    wall.now -= 3600
    assert _nodes(known) == (), "nobody can say how old it is"
    known.keep(A, [B])
    assert _nodes(known) == (B,)


def test_only_so_many_addresses_are_kept_the_newest(known: KnownNodes, wall: Wall) -> None:
    asked = [Address.parse(f"127.0.0.1:{8000 + n}", "test") for n in range(ADDRESSES_MAX + 2)]
    for each in asked:
        known.keep(each, [B])
        wall.now += 1
    assert [bool(_nodes(known, each)) for each in asked] == [False] * 2 + [True] * ADDRESSES_MAX


def _document(at: object = 1_700_000_000, others: object = ()) -> Any:
    return {"addresses": {A.key: {"at": at, "nodes": others}}}


GOOD = {"name": "b", "address": "127.0.0.1:7002", "id": "b" * 32}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[" * 100_000,
        b"[]",
        b"{}",
        b'{"addresses": []}',
        b'{"addresses": {"127.0.0.1:7001": []}}',
        json.dumps(_document(at="yesterday", others=[GOOD])).encode(),
        json.dumps(_document(at=float("nan"), others=[GOOD])).encode(),
        json.dumps(_document(at=10**400, others=[GOOD])).encode(),
        json.dumps(_document(others={})).encode(),
        json.dumps(_document(others=[7])).encode(),
        json.dumps(_document(others=[{**GOOD, "address": "unix:/tmp/socket"}])).encode(),
        json.dumps(_document(others=[{**GOOD, "address": "127.0.0.1:0"}])).encode(),
        json.dumps(_document(others=[{**GOOD, "id": None}])).encode(),
        json.dumps(_document(others=[GOOD])).encode() + b" " * FILE_MAX,
    ],
)
def test_a_file_that_makes_no_sense_is_as_none_and_is_replaced(known: KnownNodes, content: bytes) -> None:
    _path(known).parent.mkdir()
    _path(known).write_bytes(content)
    assert _nodes(known) == ()
    known.keep(A, [B])
    assert _nodes(known) == (B,)


def test_more_nodes_than_are_ever_kept_are_cut(known: KnownNodes) -> None:
    _path(known).parent.mkdir()
    _path(known).write_text(json.dumps(_document(others=[GOOD] * (NODES_MAX + 5))))
    assert len(_nodes(known)) == NODES_MAX


def test_a_place_that_cannot_be_written_or_read(tmp_path: Path, wall: Wall) -> None:
    (tmp_path / "cache").write_text("a file where a directory should be")
    known = KnownNodes(tmp_path / "cache" / "nodes.json", wall)
    known.keep(A, [B])
    assert _nodes(known) == ()
    directory = KnownNodes(tmp_path / "directory", wall)
    _path(directory).mkdir()
    directory.keep(A, [B])
    assert _nodes(directory) == ()
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith(".")] == []
