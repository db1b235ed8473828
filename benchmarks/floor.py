"""The floor: what the machine can do without us. The same interpreter with the same flags, spawned and waited for."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
FLAGS = ("-s", "-u")


def command(script: Path) -> list[str]:
    """How a node starts a script."""
    return [sys.executable, *FLAGS, str(script)]


def one(script: Path) -> float:
    """Seconds for one script, from spawn to reaped."""
    began = time.perf_counter()
    pid = os.posix_spawn(sys.executable, command(script), ENVIRONMENT)
    os.waitpid(pid, 0)
    return time.perf_counter() - began


def many(script: Path, count: int, at_once: int) -> float:
    """Seconds for ``count`` scripts, ``at_once`` at a time."""
    began = time.perf_counter()
    started, running = 0, 0
    while started < count or running:
        while running < at_once and started < count:
            os.posix_spawn(sys.executable, command(script), ENVIRONMENT)
            started, running = started + 1, running + 1
        os.waitpid(-1, 0)
        running -= 1
    return time.perf_counter() - began
