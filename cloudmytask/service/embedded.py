"""A node inside another process, for one script, if no node is reachable: the same node behind a socket of its own.

Invariant: an embedded node has a private directory, holds the lock in it for as long as it lives, and takes it away
when it ends. Directories whose lock is free belong to nobody, because their node was killed: the next one removes them,
and ends what they left running.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import tempfile
from pathlib import Path
from typing import Any, NoReturn

from attrs import define, field
from twisted.internet.interfaces import IReactorFDSet
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from cloudmytask.boundaries import OpenSinks
from cloudmytask.config import NodeConfig
from cloudmytask.config.instance import SOCKET_PATH_MAX
from cloudmytask.directories import socket_path
from cloudmytask.model.errors import StartFailed
from cloudmytask.process.daemon import OwnProcess
from cloudmytask.service.claim import LOCK_NAME
from cloudmytask.service.node_service import NodeService
from cloudmytask.service.world import make_runner
from cloudmytask.store.removal import TreeRemoval, remove_tree
from cloudmytask.systemd import Notifier

_log = Logger()

PREFIX = "cmt-embedded-"
TRIES = 5
"""Directories that are made before we believe that something is wrong: another node's sweep may take a fresh one for
abandoned in the moment before it is locked."""


@define(eq=False, slots=False)
class _Service(NodeService):
    """A node whose failed start is the business of the process that it is part of. It lives for one script."""

    RESERVE = 0

    def _settle_process(self) -> OwnProcess:
        return OwnProcess()

    def _abort(self, sentence: str) -> NoReturn:
        raise StartFailed(sentence)

    def _end(self, sentence: str) -> None:
        _log.critical("the embedded node cannot go on: {reason}", reason=sentence)


@define(eq=False)
class EmbeddedNode:
    """Made by :meth:`start`; :meth:`stop` ends it."""

    _reactor: Any
    _config: NodeConfig
    _service: NodeService = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._service = _Service(self._config, self._reactor, notifier=Notifier(), failed=lambda: None)

    @classmethod
    def start(cls, reactor: Any, parent: Path | None = None) -> EmbeddedNode:
        """Serve from now on. Blocks for some milliseconds.

        :param parent: where its directory is made; the system's temporary directory if absent.
        :raises StartFailed: it cannot; the sentence says what is in the way.
        """
        place = _place() if parent is None else parent
        sweep(reactor, place)
        problem: StartFailed | None = None
        for _ in range(TRIES):
            node = cls(reactor, _configuration(place))
            try:
                node._service.privilegedStartService()
            except StartFailed as failure:
                problem = failure
                _remove(node._config.state)
            else:
                return node
        assert problem is not None
        raise problem

    @property
    def address(self) -> str:
        """Where clients reach it: ``unix:PATH``."""
        return f"unix:{self._config.socket}"

    async def stop(self) -> None:
        """End its script, if one still runs (SIGTERM, and SIGKILL after the grace), and remove its directory."""
        await self._service.stopService()
        await deferToThreadPool(self._reactor, self._reactor.getThreadPool(), _remove, self._config.state)

    def hurry(self) -> None:
        """While it is being stopped: kill its script at once."""
        self._service.terminate()


def sweep(reactor: Any, parent: Path) -> None:
    """Remove what killed embedded nodes of this user left in ``parent``."""
    for path in sorted(parent.glob(f"{PREFIX}*")):
        lock = _lock(path)
        if lock is None:
            continue
        try:
            make_runner(NodeConfig(state=path), IReactorFDSet(reactor), reactor, OpenSinks()).sweep()
            # A node that made this directory just now, and has not locked it yet, must not find it half removed.
            doomed = path.rename(parent / _fresh_name())
            _remove(doomed)
        except OSError as error:
            _log.error("{directory} cannot be removed: {problem}", directory=str(path), problem=error.strerror)
        finally:
            os.close(lock)


def _place() -> Path:
    """The system's temporary directory, unless a socket's path would be too long there."""
    place = Path(tempfile.gettempdir()).resolve()
    longest = len(os.fsencode(socket_path(place / _fresh_name())))
    return place if longest <= SOCKET_PATH_MAX else Path("/tmp")  # noqa: S108 - mkdtemp makes the name


def _fresh_name() -> str:
    """As long as the names that mkdtemp makes, so that paths which fit go on to fit."""
    return f"{PREFIX}{secrets.token_hex(4)}"


def _configuration(parent: Path) -> NodeConfig:
    try:
        directory = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent)).resolve()
    except OSError as error:
        raise StartFailed(f"No directory can be made in {parent} for an embedded node: {error.strerror}.") from None
    # Load does not matter, its one script is to run now; and nobody waits for it once its client has gone.
    return NodeConfig(state=directory, load_source="none", drain_timeout=0.0)


def _lock(path: Path) -> int | None:
    """The lock of a directory of ours that no node holds; None if it is not ours or is held."""
    try:
        if path.is_symlink() or path.stat().st_uid != os.geteuid():
            return None
        lock = os.open(path / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError:
        return None  # it went away just now, or it is none of ours
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return None
    return lock


def _remove(directory: Path) -> None:
    try:
        parent = os.open(directory.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            removal = TreeRemoval(directory.name, remove_tree(parent, directory.name, _fresh_name))
            while not removal.advance():
                pass
        finally:
            os.close(parent)
    except OSError as error:
        _log.error("{directory} cannot be removed: {problem}", directory=str(directory), problem=error.strerror)
