"""One system call from here to a new process: ``posix_spawn(3)``, in a session of its own, with nothing inherited.

Invariant: the new process has exactly the descriptors it was given, every signal at its default and none
blocked, and it leads a new session and process group, so that its group id is its pid.

``fork`` would copy the page tables of a daemon of any size; ``posix_spawn`` does not, and it reports a failed
``execve`` as an exception.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

from cloudmytask.process.program import Program

_FIRST_FREE = 3
_CLOSE_RANGE_CLOEXEC = 4
_LAST_DESCRIPTOR = 0xFFFFFFFF
_ALL_SIGNALS = tuple(signal.valid_signals())


def spawn(program: Program, descriptors: Mapping[int, int]) -> int:
    """Start a program; its pid.

    :param descriptors: the program's descriptor (0, 1, 2) → ours that it becomes a copy of.
    :raises OSError: the program cannot be executed (also ``E2BIG``: its arguments are too long), or there can be no
        further process; or it has a directory to be started in, and :func:`can_return` is False.
    """
    with ExitStack() as copies:
        actions: list[tuple[int, int] | tuple[int, int, int]] = []
        for theirs, ours in descriptors.items():
            source = ours
            if ours < _FIRST_FREE:
                # in a daemon without standard streams: would be overwritten by an earlier action
                source = fcntl.fcntl(ours, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE)
                copies.callback(os.close, source)
            actions.append((os.POSIX_SPAWN_DUP2, source, theirs))
        actions.extend(_closing())
        if program.directory is not None:
            copies.enter_context(_inside(program.directory))
        return os.posix_spawn(
            program.arguments[0],
            program.arguments,
            program.environment,
            file_actions=actions,
            setsid=True,
            setsigdef=_ALL_SIGNALS,
            setsigmask=(),
        )


def can_return() -> bool:
    """Whether this process could enter its current directory, had it left it for a moment. A node that was started in
    a directory of somebody else's, as by ``su``, could not."""
    return os.access(".", os.X_OK, effective_ids=True)


@contextmanager
def _inside(directory: str) -> Iterator[None]:
    """Be in ``directory`` for a moment. ``posix_spawn`` cannot be told where to start; a program that goes there first
    costs half a millisecond. Nothing else of a node relies on the current directory: its paths are absolute.

    :raises OSError: we cannot go there, or not come back; we have not left then.
    """
    here = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.chdir(directory)
        try:
            yield
        finally:
            os.fchdir(here)
    finally:
        os.close(here)


def _closing() -> list[tuple[int, int]]:
    """What must be done in the new process so that it keeps no descriptor above 2.

    Python opens everything close-on-exec (PEP 446), but sockets that systemd passed to us and files that a C library
    opened are not. Where the new process can close them itself, it does. Otherwise they are made close-on-exec here:
    one system call, where looking at each of 1,000 connections would cost a millisecond a launch.
    """
    close_from: int | None = getattr(os, "POSIX_SPAWN_CLOSEFROM", None)  # Python 3.13 with glibc 2.34
    if close_from is not None:
        return [(close_from, _FIRST_FREE)]
    if _close_range is None or _close_range(_FIRST_FREE, _LAST_DESCRIPTOR, _CLOSE_RANGE_CLOEXEC) != 0:
        _mark_each_close_on_exec()
    return []


def _mark_each_close_on_exec() -> None:
    """The same for kernels before 5.11 and for other C libraries."""
    with os.scandir("/proc/self/fd") as entries:
        for descriptor in (int(entry.name) for entry in entries):
            if descriptor >= _FIRST_FREE and os.get_inheritable(descriptor):
                os.set_inheritable(descriptor, False)


def _find_close_range() -> Callable[[int, int, int], int] | None:
    function = getattr(ctypes.CDLL(None), "close_range", None)
    if function is not None:
        function.argtypes = (ctypes.c_uint, ctypes.c_uint, ctypes.c_int)
        function.restype = ctypes.c_int
    return function


_close_range = _find_close_range()
"""``close_range(2)``, which Python has no name for that takes flags."""
