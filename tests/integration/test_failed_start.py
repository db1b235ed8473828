"""A start that fails half-way, inside a process that lives on: nothing of it stays behind."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.threads import deferToThread

from cloudmytask.config import NodeConfig
from cloudmytask.model.errors import StartFailed
from cloudmytask.node.node import Node
from cloudmytask.service import node_service
from cloudmytask.service.claim import claim
from cloudmytask.service.embedded import EmbeddedNode
from cloudmytask.service.node_service import NodeService, StartAborted
from cloudmytask.store.sqlite_store import SqliteStore
from cloudmytask.systemd import Notifier
from tests.conftest import ExpectFailures


def store_threads() -> set[threading.Thread]:
    return {each for each in threading.enumerate() if each.name.startswith("store-")}


def refuse(*_arguments: object) -> None:
    raise StartFailed("something is in the way")


@ensureDeferred
@pytest.mark.parametrize(
    ("owner", "name"),
    [(SqliteStore, "recover"), (node_service, "NodeFactory"), (Node, "start")],
    ids=["recover", "listen", "start"],
)
async def test_nothing_stays_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected_failures: ExpectFailures, owner: Any, name: str
) -> None:
    from twisted.internet import reactor as running

    reactor: Any = running
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    config = NodeConfig(state=tmp_path / "state", load_source="none", listen=(address,))
    before, pending = store_threads(), set(reactor.getDelayedCalls())
    service = NodeService(config, reactor, notifier=Notifier(), failed=lambda: None)
    opened: set[threading.Thread] = set()

    def refuse_and_look(*_arguments: object) -> None:
        opened.update(store_threads() - before)
        refuse()

    monkeypatch.setattr(owner, name, refuse_and_look)
    with pytest.raises(StartAborted):
        service.privilegedStartService()
    expected_failures()
    assert opened
    await service.stopService().addTimeout(30.0, reactor)
    for each in opened:
        await deferToThread(each.join, 30.0)
    assert not store_threads() & opened
    assert not {each for each in reactor.getDelayedCalls() if each.active()} - pending
    assert not config.socket.exists()
    monkeypatch.undo()
    claim(config).release()


@ensureDeferred
async def test_an_embedded_node_that_cannot_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from twisted.internet import reactor

    before = store_threads()
    monkeypatch.setattr(SqliteStore, "recover", refuse)
    with pytest.raises(StartFailed, match="something is in the way"):
        EmbeddedNode.start(reactor, tmp_path)
    for each in store_threads() - before:
        await deferToThread(each.join, 30.0)
    assert store_threads() == before
    assert list(tmp_path.iterdir()) == []
