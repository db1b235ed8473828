"""The arrivals of the original prototype's test client: four clients that submit in rounds.

Invariant: equal seeds give equal lists, in the order of time.
"""

from __future__ import annotations

import random

from attrs import frozen

SLEEP = 5.0
"""Seconds that each of the original's scripts slept."""
CLIENTS = 4
AT_FIRST = 3
"""Clients of the first node; the rest is at the fourth, or at the last one there is."""
PATTERNS = {
    "normal": ((5, 5.0),),
    "full": ((9, 2.0),),
    "burst": ((3, 5.0), (7, 15.0)),
}
"""Rounds that repeat: at most so many requests by each client (evenly distributed, from none), then so many seconds of
pause."""


@frozen
class Request:
    """One submission. Times in the original's seconds."""

    at: float
    client: int
    node: int


def requests(pattern: str, span: float, nodes: int, seed: int) -> list[Request]:
    """All submissions within ``span`` seconds; the same for any number of nodes but for where they go."""
    dice = random.Random(f"{pattern} {seed}")
    far = min(3, nodes - 1)
    found: list[Request] = []
    at = 0.0
    while at < span:
        for most, pause in PATTERNS[pattern]:
            for client in range(CLIENTS):
                node = 0 if client < AT_FIRST else far
                found += [Request(at, client, node)] * dice.randint(0, most)
            at += pause
            if at >= span:
                break
    return found
