"""What a daemon asks of the system for its own process, once, as it starts.

Invariant: nothing here fails a start; what the system refuses stays as it was. A node inside another program asks for
none of it, for the process is not its own.
"""

from __future__ import annotations

import ctypes
import os
import resource

from attrs import frozen
from twisted.logger import Logger

_log = Logger()

_PR_SET_DUMPABLE = 4
_MESSAGES = 819_200
"""Bytes of message queues that Linux allows unless told otherwise."""


@frozen
class OwnProcess:
    """What came of it.

    :ivar open_files: see :func:`raise_descriptor_limit`; None: nothing was raised.
    :ivar mark: see :func:`mark_descendants`; None: nothing was marked.
    """

    open_files: int | None = None
    mark: int | None = None

    @classmethod
    def settled(cls) -> OwnProcess:
        """Ask for all of it."""
        hide_memory()
        return cls(raise_descriptor_limit(), mark_descendants())


def raise_descriptor_limit() -> int:
    """Use the hard limit of open descriptors, which any process may: each connection is one.

    :returns: the soft limit as it was, which scripts are given back: programs rely on it (select(2) ends at 1,024).
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError) as error:
        _log.warn("the limit of open files stays at {soft}: {problem}", soft=soft, problem=str(error))
    return soft


def hide_memory() -> None:
    """Let no other process of this user read this one's memory, environment or descriptors, or trace it: they may hold
    secrets, and scripts run as the same user. As a side effect it leaves no core file."""
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        problem = os.strerror(ctypes.get_errno())
        _log.warn("other processes of this user can read the memory of this one: {problem}", problem=problem)


def mark_descendants() -> int:
    """Give this process, and so all that it will start, a mark that the kernel keeps: a hard limit one byte lower than
    that of who started us. No process without privileges raises a hard limit again, neither by ``setsid`` nor by
    ``execve``. It is that of POSIX message queues, of which nobody misses a byte.

    :returns: the limit; who has it, or a lower one, descends from a daemon. -1 if there is no mark to be had.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_MSGQUEUE)
    mark = (_MESSAGES if hard == resource.RLIM_INFINITY else hard) - 1
    soft = mark if soft == resource.RLIM_INFINITY else min(soft, mark)
    try:
        resource.setrlimit(resource.RLIMIT_MSGQUEUE, (soft, mark))
    except (OSError, ValueError):
        return -1
    return mark
