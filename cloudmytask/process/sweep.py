"""Ends what an earlier life of this node left running.

Invariant: only processes that carry this node's tag in their environment are killed, and never this one. The tag is
inherited by everything a script starts, also by what went into a session of its own. A process is held by a pidfd
while its environment is read, so that its pid cannot come to mean another one.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from twisted.logger import Logger

from cloudmytask.process.program import STATE_TAG

_log = Logger()

_ROUNDS = 200
_AT_ONCE = 200
"""Processes that one round kills: each takes a descriptor until it is dead."""
_ROUND_PATIENCE = 1.0
"""Seconds that one round waits for the processes that it killed."""


def sweep(tag: str) -> int:
    """Kill every process of this user that carries ``tag``, and wait until they are dead.

    Looks again until a look finds none, for a process may have been starting another one; gives up with a line in
    the log where that does not end. Blocks.

    :returns: how many processes there were.
    """
    marker = f"{STATE_TAG}={tag}".encode()
    killed: set[tuple[int, bytes]] = set()
    for _ in range(_ROUNDS):
        found = _kill_marked(marker)
        if not found:
            return len(killed)
        killed |= found
    _log.error("processes of an earlier life of this node go on to appear: {killed} were killed", killed=len(killed))
    return len(killed)


def _kill_marked(marker: bytes) -> set[tuple[int, bytes]]:
    """One round; the processes that were killed, each by its pid and start time."""
    found = set()
    dying = select.poll()
    descriptors: list[int] = []
    try:
        for pid in _own_pids():
            if len(descriptors) >= _AT_ONCE:
                break  # the next round takes the rest
            with suppress(ProcessLookupError, FileNotFoundError, PermissionError), _held(pid) as descriptor:
                if marker in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                    found.add((pid, _start_time(pid)))
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                    descriptors.append(os.dup(descriptor))
                    dying.register(descriptors[-1], select.POLLIN)
        remaining = len(descriptors)
        while remaining:
            dead = dying.poll(_ROUND_PATIENCE * 1000)
            if not dead:
                _log.warn("{count} processes of an earlier life of this node are slow to die", count=remaining)
                break
            for descriptor, _ in dead:
                dying.unregister(descriptor)
            remaining -= len(dead)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    return found


def _own_pids() -> Iterator[int]:
    user, ourselves = os.geteuid(), os.getpid()
    for entry in Path("/proc").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):
            if entry.name.isdigit() and int(entry.name) != ourselves and entry.stat().st_uid == user:
                yield int(entry.name)


@contextmanager
def _held(pid: int) -> Iterator[int]:
    descriptor = os.pidfd_open(pid)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _start_time(pid: int) -> bytes:
    """Ticks since boot (proc(5), /proc/pid/stat, field 22); with the pid it names a process for good."""
    return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19]
