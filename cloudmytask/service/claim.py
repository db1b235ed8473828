"""What an instance must have to itself before it starts: its state directory, a lock on it, and its listening sockets.

Invariant: the holder of a claim is the only instance on that state directory. The unix socket's file is replaced by the
holder of the lock only.
"""

from __future__ import annotations

import fcntl
import os
import socket
import stat
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

from attrs import field, frozen

from cloudmytask.addresses import join_address, split_address, split_listen
from cloudmytask.config import InstanceConfig
from cloudmytask.model.errors import StartFailed

LOCK_NAME = "lock"
"""The file in the state directory that the running instance holds locked (flock(2)); its text is that process's id."""
SOCKET_MODE = 0o600
"""Connecting to a unix socket takes permission to write to it; see unix(7)."""
BACKLOG = 128
"""Connections that wait to be accepted, each socket; see listen(2)."""


@frozen
class InstanceClaim:
    """The sockets, bound, listening and in non-blocking mode; :meth:`release` gives everything back."""

    unix: socket.socket
    tcp: tuple[socket.socket, ...]
    _held: ExitStack = field(repr=False)
    address: str = ""
    """Where the others reach it, ``HOST:PORT``; a port that the kernel chose is known now."""

    def release(self) -> None:
        """Close the sockets, remove the unix socket's file, unlock the state directory. Idempotent."""
        self._held.close()


def claim(config: InstanceConfig, locked: Callable[[], object] = lambda: None) -> InstanceClaim:
    """Make the state directory if need be, lock it, bind and listen.

    :param locked: called when the state directory is ours alone, before anything needs room in it.
    :raises StartFailed: it cannot be had, and nothing is held; the sentence says what is in the way.
    """
    with ExitStack() as held:
        kind = config.ROLE.word
        _own_directory(config.state, kind)
        descriptor = _lock(config.state, kind, held)
        locked()
        _sign(descriptor)
        unix = _listen_unix(config.socket, kind, held)
        tcp = tuple(_listen_tcp(address, held) for address in config.listen)
        address = config.address
        if tcp:
            address = join_address(split_address(address)[0], tcp[0].getsockname()[1])
        return InstanceClaim(unix, tcp, held.pop_all(), address)


def _own_directory(path: Path, kind: str) -> None:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.lstat()
    except (FileExistsError, NotADirectoryError):
        raise StartFailed(f"The state directory {path} cannot be made: a file is in its place.") from None
    except OSError as error:
        raise StartFailed(f"The state directory {path} cannot be made: {error.strerror}.") from None
    if stat.S_ISLNK(found.st_mode):
        raise StartFailed(f"The state directory {path} is a symbolic link; name the directory itself.")
    if found.st_uid != os.geteuid():
        raise StartFailed(
            f"The state directory {path} belongs to another user (uid {found.st_uid}, this {kind} runs as"
            f" {os.geteuid()})."
        )
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise StartFailed(f"Others may write to the state directory {path}; if it is meant to be one, chmod 700 it.")
    if stat.S_IMODE(found.st_mode) & 0o077:
        _make_private(path, kind)


def _make_private(path: Path, kind: str) -> None:
    try:
        names = {each.name for each in path.iterdir()}
        # Somebody's home directory, named by mistake, must not lose its permissions.
        if names and LOCK_NAME not in names:
            raise StartFailed(
                f"The directory {path} is open to others and holds other things than a {kind}'s state;"
                " if it is meant for that, chmod 700 it."
            )
        path.chmod(0o700)
    except OSError as error:
        raise StartFailed(f"The state directory {path} cannot be made private: {error.strerror}.") from None


def _lock(state: Path, kind: str, held: ExitStack) -> int:
    path = state / LOCK_NAME
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StartFailed(f"The state directory {state} cannot be written to: {error.strerror}.") from None
    # The file stays when the lock goes: two nodes might otherwise lock two files of that name.
    held.callback(os.close, descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
        raise StartFailed(f"The state directory {state} is in use by another {kind} (process {holder}).") from None
    except OSError as error:
        raise StartFailed(f"The state directory {state} cannot be locked: {error.strerror}.") from None
    return descriptor


def _sign(lock: int) -> None:
    """Write our process id into the lock, for people: a disk that has no room for it keeps nobody from starting."""
    text = f"{os.getpid()}\n".encode()
    with suppress(OSError):
        os.pwrite(lock, text, 0)
        os.ftruncate(lock, len(text))


def _listen_unix(path: Path, kind: str, held: ExitStack) -> socket.socket:
    if not path.is_socket() and (path.exists() or path.is_symlink()):
        raise StartFailed(f"The {kind}'s socket {path} cannot be made: something else has its name.")
    made = held.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
    try:
        # The one that made it is dead, or would hold the lock.
        path.unlink(missing_ok=True)
        made.bind(str(path))
        held.callback(path.unlink, missing_ok=True)
        path.chmod(SOCKET_MODE)
        made.listen(BACKLOG)
        made.setblocking(False)
    except OSError as error:
        raise StartFailed(f"The {kind}'s socket {path} cannot be made: {error.strerror}.") from None
    return made


def _listen_tcp(address: str, held: ExitStack) -> socket.socket:
    host, port = split_listen(address)
    made = held.enter_context(socket.socket(socket.AF_INET6 if host.version == 6 else socket.AF_INET))
    try:
        # A port whose last connections still linger in TIME_WAIT is free; see socket(7).
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((str(host), port))
        made.listen(BACKLOG)
        made.setblocking(False)
    except OSError as error:
        raise StartFailed(f"The address {address} cannot be listened on: {error.strerror}.") from None
    return made
