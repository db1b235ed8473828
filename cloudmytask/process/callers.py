"""Which callers on a unix socket belong to scripts: these run as the daemon's own user and may open its socket.

Invariant: in doubt a process is a script's. A script's process is recognized by what it descends from (its session, its
group, its ancestors), by the mark that the kernel keeps (:func:`~cloudmytask.process.daemon.mark_descendants`), and by
the tag in its environment. The first and the last can be shed; the mark cannot, but by a process with privileges (all
scripts of a node that runs as root), or with the help of a program outside that starts another one (``cron``, ``ssh``,
``systemd-run --user``).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from attrs import frozen

from cloudmytask.model.access import ScriptCaller
from cloudmytask.model.job import ClientId
from cloudmytask.process.program import STATE_TAG

_GENERATIONS = 64
"""Ancestors that are looked at; nobody but a script that hides has more."""


@frozen
class Callers:
    """Tells scripts from people.

    :ivar owner_of: whose running script leads the process group of that number; None if none does.
    :ivar mark: what :func:`~cloudmytask.process.daemon.mark_descendants` returned; None if this process is no daemon's,
        but that of a program which may well start others that ask it.
    """

    owner_of: Callable[[int], ClientId | None]
    mark: int | None = None

    def __call__(self, pid: int) -> ScriptCaller | None:
        """What a process that connected is; None if it is no script's.

        :param pid: as the kernel told it; 0 if it is of another pid namespace, outside ours.
        """
        ours = os.getpid()
        if pid in (0, ours):
            return None
        try:
            for each, group, session in _lineage(pid):
                if each == ours:
                    if self.mark is None:
                        break
                    return ScriptCaller()
                owner = self.owner_of(session) or self.owner_of(group)
                if owner is not None:
                    return ScriptCaller(owner)
            if self.mark is not None and _message_limit(pid) <= self.mark:
                return ScriptCaller()
            if os.stat(f"/proc/{pid}").st_uid not in (os.geteuid(), 0):  # noqa: PTH116 - not a path of ours
                return None  # it is another user's: scripts are ours
            return ScriptCaller() if _tagged(pid) else None
        except (FileNotFoundError, ProcessLookupError):
            return ScriptCaller()  # it has ended, and left its connection to another one


def _lineage(pid: int) -> Iterator[tuple[int, int, int]]:
    """A process and its ancestors, the first process of all not included: pid, group, session."""
    for _ in range(_GENERATIONS):
        if pid <= 1:
            return
        # proc_pid_stat(5): "pid (name) state ppid pgrp session …"; the name may contain anything
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        yield pid, int(fields[2]), int(fields[3])
        pid = int(fields[1])
    raise ProcessLookupError


def _message_limit(pid: int) -> float:
    """The hard limit of POSIX message queues of a process, in bytes."""
    for line in Path(f"/proc/{pid}/limits").read_bytes().splitlines():
        if line.startswith(b"Max msgqueue size"):
            hard = line.split()[4]
            return float("inf") if hard == b"unlimited" else int(hard)
    return float("inf")


def _tagged(pid: int) -> bool:
    """Whether a process carries the tag of a node, of this one or another."""
    try:
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except PermissionError:
        # root's, or of a process of this user that hides its memory
        return _user(pid) == os.geteuid()
    return any(each.startswith(f"{STATE_TAG}=".encode()) for each in variables)


def _user(pid: int) -> int:
    """The effective user of a process, also of one whose files in /proc belong to root because it hides."""
    status = Path(f"/proc/{pid}/status").read_bytes()
    return int(status.partition(b"\nUid:")[2].split(maxsplit=2)[1])
