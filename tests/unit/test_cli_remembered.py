"""The file of nodes that earlier verbs were told of: what is kept, for how long; a broken file does nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from cloudmytask.cli.remembered import (
    ADDRESSES_MAX,
    FILE_MAX,
    FORGOTTEN,
    FRESH,
    Remembered,
    cache_file,
)
from cloudmytask.client.addresses import Address
from cloudmytask.client.peers import PEERS_MAX, Peer, peer

A = Address.parse("127.0.0.1:7001", "$CMT_NODE")
B = peer("b", "127.0.0.1:7002", "b" * 32)


class Wall:
    """A wall clock that the test sets."""

    now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def wall() -> Wall:
    return Wall()


@pytest.fixture
def remembered(tmp_path: Path, wall: Wall) -> Remembered:
    return Remembered(tmp_path / "cache" / "nodes.json", wall)


def _peers(remembered: Remembered, asked: Address = A) -> tuple[Peer, ...]:
    memory = remembered.recall(asked)
    return () if memory is None else memory.peers


def test_where_it_is() -> None:
    assert cache_file({"XDG_CACHE_HOME": "/x"}) == Path("/x/cloudmytask/nodes.json")


@pytest.mark.parametrize(
    ("root", "place"), [(0, "/var/cache/cloudmytask/nodes.json"), (1000, "/home/x/.cache/cloudmytask/nodes.json")]
)
@pytest.mark.parametrize("named", [{}, {"XDG_CACHE_HOME": "relative"}, {"XDG_CACHE_HOME": ""}])
def test_where_it_is_otherwise(monkeypatch: pytest.MonkeyPatch, root: int, place: str, named: dict[str, str]) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: root)
    monkeypatch.setenv("HOME", "/home/x")
    assert cache_file(named) == Path(place)


def test_what_is_kept_is_recalled_for_that_address_only(remembered: Remembered) -> None:
    remembered.keep(A, [B])
    assert _peers(remembered) == (B,)
    assert _peers(remembered, Address.parse("127.0.0.1:7003", "test")) == ()
    assert _peers(remembered, Address.parse("127.0.0.1:07001", "test")) == (B,), "another way to write it"


def test_the_file_is_private_and_nothing_else_is_left(remembered: Remembered) -> None:
    remembered.keep(A, [B])
    assert [each.name for each in remembered.path.parent.iterdir()] == ["nodes.json"]
    assert remembered.path.stat().st_mode & 0o777 == 0o600
    assert remembered.path.parent.stat().st_mode & 0o777 == 0o700


def test_a_node_that_is_alone_needs_no_file(remembered: Remembered) -> None:
    remembered.keep(A, [])
    assert not remembered.path.exists()
    remembered.keep(A, [B])
    remembered.keep(A, [])
    memory = remembered.recall(A)
    assert memory is not None and memory.peers == ()


def test_it_is_fresh_for_a_minute_and_forgotten_after_a_week(remembered: Remembered, wall: Wall) -> None:
    remembered.keep(A, [B])
    memory = remembered.recall(A)
    assert memory is not None
    assert remembered.fresh(memory)
    wall.now += FRESH
    assert not remembered.fresh(memory)
    wall.now += FORGOTTEN - FRESH
    assert _peers(remembered) == (B,)
    wall.now += 1
    assert _peers(remembered) == ()


def test_a_wall_clock_that_was_set_back(remembered: Remembered, wall: Wall) -> None:
    remembered.keep(A, [B])
    wall.now -= 3600
    assert _peers(remembered) == (), "nobody can say how old it is"
    remembered.keep(A, [B])
    assert _peers(remembered) == (B,)


def test_only_so_many_addresses_are_kept_the_newest(remembered: Remembered, wall: Wall) -> None:
    asked = [Address.parse(f"127.0.0.1:{8000 + n}", "test") for n in range(ADDRESSES_MAX + 2)]
    for each in asked:
        remembered.keep(each, [B])
        wall.now += 1
    assert [bool(_peers(remembered, each)) for each in asked] == [False] * 2 + [True] * ADDRESSES_MAX


def _document(at: object = 1_700_000_000, others: object = ()) -> Any:
    return {"nodes": {A.key: {"at": at, "others": others}}}


GOOD = {"name": "b", "address": "127.0.0.1:7002", "id": "b" * 32}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[" * 100_000,
        b"[]",
        b"{}",
        b'{"nodes": []}',
        b'{"nodes": {"127.0.0.1:7001": []}}',
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
def test_a_file_that_makes_no_sense_is_as_none_and_is_replaced(remembered: Remembered, content: bytes) -> None:
    remembered.path.parent.mkdir()
    remembered.path.write_bytes(content)
    assert _peers(remembered) == ()
    remembered.keep(A, [B])
    assert _peers(remembered) == (B,)


def test_more_nodes_than_are_ever_kept_are_cut(remembered: Remembered) -> None:
    remembered.path.parent.mkdir()
    remembered.path.write_text(json.dumps(_document(others=[GOOD] * (PEERS_MAX + 5))))
    assert len(_peers(remembered)) == PEERS_MAX


def test_a_place_that_cannot_be_written_or_read(tmp_path: Path, wall: Wall) -> None:
    (tmp_path / "cache").write_text("a file where a directory should be")
    remembered = Remembered(tmp_path / "cache" / "nodes.json", wall)
    remembered.keep(A, [B])
    assert _peers(remembered) == ()
    directory = Remembered(tmp_path / "directory", wall)
    directory.path.mkdir()
    directory.keep(A, [B])
    assert _peers(directory) == ()
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith(".")] == []
