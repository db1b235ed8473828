"""What being several costs and gains: real nodes on loopback, against one node or a local run in the same run.

Prints JSON; writes its section of docs/benchmarks.md and benchmarks/figures.json if all were measured.
Usage: python -m benchmarks.cluster [NAME ...]
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, gatherResults

from benchmarks.daemons import Daemon, Daemons, cpu_seconds
from benchmarks.meetings import connected, live, run_one, sleep
from benchmarks.reporting import Figure, record
from cloudmytask.client import NodeClient
from cloudmytask.client.sources import Source
from cloudmytask.model.cluster import ClusterView, Standing

MANY = 8
LENGTH = 2.0
"""Seconds that a script of the saturated cluster sleeps."""
EACH = 20
"""Of them, by node."""
PAIRS = 200
JOINS = 10
IDLE = 30.0
"""Seconds."""
LOOK = 0.01
"""Seconds between two questions who is there."""
PATIENCE = 30.0
"""Seconds for nodes to find each other."""


async def saturation() -> list[Figure]:
    """Eight nodes against one, with more jobs than slots all the time; all of them submitted at one node."""
    alone = await makespan(1)
    together = await makespan(MANY)
    value = MANY * alone / together
    note = (
        f"{EACH} scripts a node that sleep {LENGTH:g} s: one node {alone:.2f} s, {MANY} nodes {together:.2f} s;"
        f" without any cost {EACH * LENGTH:g} s"
    )
    return [
        Figure(f"throughput of {MANY} nodes under saturation, against one", value, "x", ">= 7.6", value >= 7.6, note)
    ]


async def makespan(nodes: int) -> float:
    """Seconds from the first submission to the last end."""
    source = Source.of_bytes(f"import time\ntime.sleep({LENGTH})\n".encode())
    with tempfile.TemporaryDirectory() as name, Daemons(Path(name)) as daemons:
        client = await connected(daemons.start(nodes)[0].socket)
        await met(client, nodes)
        began = time.monotonic()
        await gatherResults(
            [Deferred.fromCoroutine(run_one(client, source)) for _ in range(EACH * nodes)], consumeErrors=True
        )
        taken = time.monotonic() - began
        client.close()
    return taken


async def forwarding() -> list[Figure]:
    """From submission to outcome: at the node that was asked and at the other one, in turn."""
    source = Source.of_bytes(b"pass\n")
    here, there = [], []
    with tempfile.TemporaryDirectory() as name, Daemons(Path(name)) as daemons:
        client = await connected(daemons.start(2)[0].socket)
        await met(client, 2)
        for number in range(10 + PAIRS):
            local = await timed(client, source, "n0", local=True)
            remote = await timed(client, source, "n1", node="n1")
            if number >= 10:
                here.append(local)
                there.append(remote)
        client.close()
    value = (statistics.median(there) - statistics.median(here)) * 1000
    tail = (statistics.quantiles(there, n=10)[-1] - statistics.quantiles(here, n=10)[-1]) * 1000
    note = (
        f"{PAIRS} pairs in turn; p50 local {statistics.median(here) * 1000:.1f} ms, forwarded"
        f" {statistics.median(there) * 1000:.1f} ms; p90 {tail:+.1f} ms"
    )
    return [Figure("a forward adds, p50 over a local run", value, "ms", "<= 5", value <= 5, note)]


async def timed(client: NodeClient, source: Source, where: str, **pinned: Any) -> float:
    """Seconds of a job that must run there."""
    began = time.perf_counter()
    await run_one(client, source, where, **pinned)
    return time.perf_counter() - began


async def discovery() -> list[Figure]:
    """From a new node's word that it serves until each of the three others shows it."""
    taken, interval = [], 0.0
    with tempfile.TemporaryDirectory() as name, Daemons(Path(name)) as daemons:
        clients = [await connected(each.socket) for each in daemons.start(3)]
        await gatherResults([Deferred.fromCoroutine(met(client, 3)) for client in clients])
        for _ in range(JOINS):
            new = daemons.start()[0]
            seen = await gatherResults([Deferred.fromCoroutine(shown(client, new)) for client in clients])
            taken.append(max(seen) - new.ready_at)
            interval = (await clients[0].cluster()).interval
            daemons.end([new])
        for client in clients:
            client.close()
    worst = max(taken)
    value = worst / interval
    note = (
        f"worst of {JOINS} joins, {worst:.3f} s after READY at the last of 3 nodes; median"
        f" {statistics.median(taken):.3f} s; interval {interval:g} s; looked each {LOOK * 1000:g} ms"
    )
    return [Figure("a new node is known to all", value, "intervals", "<= 2", value <= 2, note)]


async def shown(client: NodeClient, new: Daemon) -> float:
    """When a node first says that the new one is alive, by ``time.monotonic``."""
    await until(client, lambda view: new.name in alive(view))
    return time.monotonic()


async def idle() -> list[Figure]:
    """What a node costs that only announces itself and listens to seven others."""
    with tempfile.TemporaryDirectory() as name, Daemons(Path(name)) as daemons:
        nodes = daemons.start(MANY)
        client = await connected(nodes[0].socket)
        await met(client, MANY)
        client.close()
        await sleep(5.0)
        before, began = [cpu_seconds(each.pid) for each in nodes], time.perf_counter()
        await sleep(IDLE)
        elapsed = time.perf_counter() - began
        shares = [(cpu_seconds(each.pid) - used) / elapsed for each, used in zip(nodes, before, strict=True)]
    value = statistics.median(shares) * 100
    note = f"median of the nodes over {IDLE:g} s; the most {max(shares) * 100:.2f} %; counted in ticks of 10 ms"
    return [Figure(f"idle CPU of a node in a cluster of {MANY}", value, "% of a core", "", True, note)]


async def met(client: NodeClient, nodes: int) -> None:
    """Until the node knows all. :raises TimeoutError: it does not."""
    await until(client, lambda view: len(alive(view)) == nodes)


async def until(client: NodeClient, true: Callable[[ClusterView], bool]) -> None:
    """Look again and again. :raises TimeoutError: it does not become true."""
    deadline = time.monotonic() + PATIENCE
    while not true(view := await client.cluster()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"still alone with {sorted(alive(view))} after {PATIENCE:g} s")
        await sleep(LOOK)


def alive(view: ClusterView) -> set[str]:
    """Names."""
    return {each.announcement.name for each in view.members if each.standing is Standing.ALIVE}


BENCHMARKS: dict[str, Callable[[], Coroutine[Deferred[Any], Any, list[Figure]]]] = {
    "forwarding": forwarding,
    "discovery": discovery,
    "saturation": saturation,
    "idle": idle,
}


async def measure(names: list[str]) -> list[Figure]:
    """Run the benchmarks of these names."""
    figures: list[Figure] = []
    for name in names:
        load = os.getloadavg()[0]
        print(f"{name}; load average before: {load:.2f}", file=sys.stderr, flush=True)
        figures.extend(await BENCHMARKS[name]())
    return figures


def main() -> None:
    """Measure, print, write."""
    figures = live(measure(sys.argv[1:] or list(BENCHMARKS)))
    print(json.dumps([{**each.document(), "note": each.note} for each in figures], indent=1))
    if not sys.argv[1:]:
        record("cluster", figures)


if __name__ == "__main__":
    main()
