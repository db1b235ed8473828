"""A connection over a real socket that is not read: bounded, drained when it is read again, given up at last."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.protocols import amp

from cloudmytask.wire import sending
from cloudmytask.wire.commands import DescribeNode
from cloudmytask.wire.guard import GuardedAMP
from cloudmytask.wire.vocabulary import Vocabulary

REQUEST = amp.AmpBox({amp.COMMAND: b"DescribeNode", amp.ASK: b"1"}).serialize()


class Server:
    """Answers each question with 100 kB."""

    def __init__(self, path: Path) -> None:
        from twisted.internet import reactor as installed

        reactor: Any = installed
        self.reactor = reactor
        self.asked = 0
        self.gone: Deferred[None] = Deferred()
        self.protocol = GuardedAMP(Vocabulary({DescribeNode: self.describe}), reactor, lambda: self.gone.callback(None))
        self.port = reactor.listenUNIX(str(path), Factory.forProtocol(lambda: self.protocol))
        self.client = socket.socket(socket.AF_UNIX)
        self.client.connect(str(path))
        self.client.setblocking(False)

    def describe(self) -> dict[str, Any]:
        self.asked += 1
        return {"node": {"text": "x" * 100_000}}

    async def end(self) -> None:
        self.client.close()
        await self.gone
        await self.port.stopListening()

    async def read(self) -> int:
        """The bytes that come until none do, or the connection ends."""
        read = 0
        while True:
            try:
                data = self.client.recv(1024 * 1024)
            except BlockingIOError:
                await deferLater(self.reactor, 0.001)
                if self.protocol.clear:
                    return read
                continue
            if not data:
                return read
            read += len(data)


@pytest_twisted.ensureDeferred
async def test_it_is_not_read_from_and_served_once_it_reads(tmp_path: Path) -> None:
    server = Server(tmp_path / "s")
    server.client.sendall(REQUEST * 500)
    while server.protocol._sending is None or not server.protocol._sending.full:
        await deferLater(server.reactor, 0.001)
    await deferLater(server.reactor, 0.1)  # what the kernel still takes
    asked = server.asked
    assert asked < 60
    await deferLater(server.reactor, 0.1)
    assert server.asked == asked
    read = await server.read()
    while server.asked < 500:
        read += await server.read()
    read += await server.read()
    assert read > 500 * 100_000
    await server.end()


@pytest_twisted.ensureDeferred
async def test_it_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "STALL_TIMEOUT", 0.2)
    server = Server(tmp_path / "s")
    server.client.sendall(REQUEST * 500)
    await server.gone
    assert server.protocol._sending is not None and server.protocol._sending.size == 0
    server.client.close()
    await server.port.stopListening()


@pytest_twisted.ensureDeferred
async def test_a_closed_one_ends_after_what_was_written(tmp_path: Path) -> None:
    server = Server(tmp_path / "s")
    server.client.sendall(REQUEST * 30)
    while server.asked < 30:
        await deferLater(server.reactor, 0.001)
    server.protocol.close()
    read = 0
    while not server.gone.called or read == 0:
        try:
            read += len(server.client.recv(1024 * 1024))
        except BlockingIOError:
            await deferLater(server.reactor, 0.001)
    while data := server.client.recv(1024 * 1024):
        read += len(data)
    assert read > 30 * 100_000
    await server.end()
