"""The floor: what the machine can do without us. The same interpreter with the same flags, spawned and waited for.

Invariant: what is compared with it was measured between two floors that are both near the best one seen, since a busy
machine slows the floor's two processes more than the node's and the client's.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from attrs import frozen

ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
FLAGS = ("-s",)
CHUNK = 40
"""Scripts in one chunk of a sandwich."""
COUNTED = 10
"""Chunks that are enough."""
CHUNKS_MAX = 60
"""Chunks after which a busy machine is given up."""
QUIET = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
"""What a script says is thrown away."""
NEAR = 1.2
"""How many times the best floor's time one may take whose neighbor counts."""


def command(script: Path) -> list[str]:
    """How a node starts a script."""
    return [sys.executable, *FLAGS, str(script)]


def one(script: Path) -> float:
    """Seconds for one script, from spawn to reaped."""
    began = time.perf_counter()
    pid = os.posix_spawn(sys.executable, command(script), ENVIRONMENT, file_actions=QUIET)
    os.waitpid(pid, 0)
    return time.perf_counter() - began


def many(script: Path, count: int, at_once: int) -> float:
    """Seconds for ``count`` scripts, ``at_once`` at a time."""
    began = time.perf_counter()
    started, running = 0, 0
    while started < count or running:
        while running < at_once and started < count:
            os.posix_spawn(sys.executable, command(script), ENVIRONMENT, file_actions=QUIET)
            started, running = started + 1, running + 1
        os.waitpid(-1, 0)
        running -= 1
    return time.perf_counter() - began


@frozen
class Sandwich:
    """Chunks of ours, each between two floors.

    :ivar ratios: what the floor took by what we took, of each chunk that counts.
    :ivar rates: scripts per second of each of these.
    :ivar chunks: how many were measured, those between slow floors included.
    """

    ratios: tuple[float, ...]
    rates: tuple[float, ...]
    chunks: int

    @property
    def value(self) -> float:
        """The median ratio."""
        return statistics.median(self.ratios)

    def __str__(self) -> str:
        return (
            f"median of {len(self.ratios)} quiet chunks of {self.chunks}, {min(self.ratios):.2f} to "
            f"{max(self.ratios):.2f}: {statistics.median(self.rates):.0f} scripts/s"
        )


async def sandwich(script: Path, at_once: int, ours: Callable[[int], Awaitable[float]]) -> Sandwich:
    """Floor, ours, floor, ours, ..., floor, until enough chunks of ours had two good floors.

    :param ours: takes a number of scripts; the seconds that they took.
    :raises RuntimeError: the machine was too busy for any chunk to count.
    """
    floors, taken = [many(script, CHUNK, at_once)], []
    while True:
        taken.append(await ours(CHUNK))
        floors.append(many(script, CHUNK, at_once))
        slowest = min(floors) * NEAR
        counted = [n for n in range(len(taken)) if max(floors[n], floors[n + 1]) <= slowest]
        if len(counted) >= COUNTED or len(taken) == CHUNKS_MAX:
            break
    if not counted:
        raise RuntimeError(f"of {len(taken)} chunks none had a quiet floor on both sides")
    ratios = tuple((floors[n] + floors[n + 1]) / 2 / taken[n] for n in counted)
    return Sandwich(ratios, tuple(CHUNK / taken[n] for n in counted), len(taken))
