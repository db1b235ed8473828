"""Processes and their groups: signalling a group, and finding out what is left.

Invariant: a group is only signalled while its leader has not been reaped; until then its id cannot come to mean
another group. Asking is harmless at any time.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from twisted.logger import Logger

_log = Logger()


def signal_group(group: int, number: int) -> None:
    """Send a signal to every process of a group; a group that is gone is left in peace."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        pass
    except PermissionError:
        # nobody in it belongs to us any more: the script started a program with another user's rights
        _log.warn("process group {group} belongs to another user and cannot be signalled", group=group)


def group_exists(group: int) -> bool:
    """Whether the group has members, be it dead ones that nobody has reaped yet."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def group_lives(group: int) -> bool:
    """Whether the group has a member that is not dead. Reads all of ``/proc``: for a thread, not for the reactor."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(ProcessLookupError, FileNotFoundError):
                # proc(5), /proc/pid/stat: "pid (name) state ppid pgrp …"; the name may contain anything
                state, _, member_of = (entry / "stat").read_bytes().rpartition(b")")[2].split()[:3]
                if int(member_of) == group and state not in (b"Z", b"X"):
                    return True
    return False


def command_name(pid: int) -> str:
    """Name of the file that a process last executed (proc(5), ``comm``), also after its exit until it is reaped."""
    return Path(f"/proc/{pid}/comm").read_text(errors="replace").rstrip("\n")
