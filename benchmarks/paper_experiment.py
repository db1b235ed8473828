"""The paper's experiment: "the service scales well and balances the load", with real nodes on this machine.

1, 2, 4 and 8 nodes with one slot each live through the original test client's arrivals. The scripts wait instead of
computing, since a machine has fewer cores than these clusters have slots. By default all times are a fifth of the
original's. Writes CSV files and pictures to docs/figures. Usage: python -m benchmarks.paper_experiment [--full]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred, FirstError, gatherResults

from benchmarks import drawing
from benchmarks.arrivals import SLEEP, requests
from benchmarks.daemons import Daemons
from benchmarks.meetings import connected, live, sleep
from benchmarks.observations import JobRow, Look, throughput, write_jobs, write_looks
from benchmarks.reporting import machine, show
from cloudmytask.client import NodeClient
from cloudmytask.client.sources import Source
from cloudmytask.codec.people import JobStatus
from cloudmytask.model.job import JobSpec

SIZES = (1, 2, 4, 8)
SPAN = 60.0
"""The original's seconds within which requests arrive."""
CUT = 200.0
"""The original's seconds after which a cluster that only shows its throughput is stopped, with what still waits."""
LOOK = 1.25
"""The original's seconds between two looks at all nodes."""
SETTLE = 5.0
"""Seconds for the nodes to find each other."""
SEED = 2012


@define(eq=False)
class Run:
    """One cluster under one pattern.

    :ivar factor: by how much all times are shorter than the original's.
    :ivar cut: when to stop, in seconds after the first request; None: when all jobs have ended.
    """

    pattern: str
    daemons: Daemons
    factor: float
    cut: float | None = None
    looks: list[Look] = field(init=False, factory=list)
    jobs: list[JobRow] = field(init=False, factory=list)
    size: int = field(init=False)
    _began: float = field(init=False, default=0.0)
    _began_wall: float = field(init=False, default=0.0)
    _over: bool = field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        self.size = len(self.daemons.running)

    async def live(self) -> None:
        """From the first request to the last end."""
        nodes = self.daemons.running
        plan = requests(self.pattern, SPAN, self.size, SEED)
        looking = [await connected(each.socket, "watcher") for each in nodes]
        clients = {
            number: await connected(nodes[node].socket, f"client{number}")
            for number, node in {each.client: each.node for each in plan}.items()
        }
        self._began, self._began_wall = time.monotonic(), time.time()
        watching = Deferred.fromCoroutine(self._watch(looking))
        ended = gatherResults(
            [Deferred.fromCoroutine(self._one(clients[each.client], each.client, each.at)) for each in plan],
            consumeErrors=True,
        )
        if self.cut is not None:
            await sleep(self.cut)
            ended.cancel()
        try:
            await ended
        except FirstError as first:
            first.subFailure.trap(CancelledError)
        self._over = True
        await watching
        for client in (*looking, *clients.values()):
            client.close()

    async def _one(self, client: NodeClient, number: int, at: float) -> None:
        await sleep(at / self.factor - self._now())
        length = SLEEP / self.factor
        row = JobRow(self.pattern, self.size, length, number, self._now())
        self.jobs.append(row)
        source = Source.of_bytes(f"import time\ntime.sleep({length})\n".encode())
        job = await client.submit(JobSpec(script=source.blob), source)
        self._fill(row, await client.wait(job.id))

    def _fill(self, row: JobRow, status: JobStatus) -> None:
        assert status.exit_code == 0, status.document
        row.started = self._moment(status.document["started"])
        row.ended = self._moment(status.document["ended"])
        row.node = status.executor or ""

    async def _watch(self, looking: Sequence[NodeClient]) -> None:
        while not self._over:
            at = self._now()
            said: list[Any] = await gatherResults([each.describe() for each in looking])
            running = tuple(int(each["running"]) for each in said)
            self.looks.append(Look(at, running, tuple(sum(each["waiting"].values()) for each in said)))
            await sleep(at + LOOK / self.factor - self._now())

    def _now(self) -> float:
        return time.monotonic() - self._began

    def _moment(self, text: str) -> float:
        """Seconds after the first request, of a time of this machine's clock."""
        return datetime.fromisoformat(text).timestamp() - self._began_wall


async def experiment(sizes: Sequence[int], factor: float) -> list[Run]:
    """All clusters, one after the other."""
    runs: list[Run] = []
    for size in sizes:
        watched = size in drawing.WATCHED
        for pattern in drawing.PATTERNS:
            # A cluster of its own for each: what a cut leaves waiting must not delay the next one's jobs.
            with tempfile.TemporaryDirectory() as name, Daemons(Path(name)) as daemons:
                daemons.start(size)
                await sleep(SETTLE)
                cut = CUT / factor if pattern == "full" and not watched else None
                run = Run(pattern, daemons, factor, cut)
                await run.live()
                runs.append(run)
                done = [each for each in run.jobs if each.ended is not None]
                print(
                    f"{size} nodes, {pattern}: {len(done)} of {len(run.jobs)} jobs in {run.looks[-1].at:.0f} s",
                    flush=True,
                )
    return runs


HEAD = """| nodes | arrivals | jobs done | jobs/s | of the ideal | median response | jobs run by n0, n1, ... |
|---|---|---|---|---|---|---|"""


def table(runs: Sequence[Run]) -> str:
    """For the page: what each cluster did, and who ran how many jobs."""
    return "\n".join([HEAD, *map(_row, runs), "", f"Scripts slept {runs[0].jobs[0].length:g} s. {machine()}"])


def _row(run: Run) -> str:
    taken = [each.ended - each.submitted for each in run.jobs if each.ended is not None]
    median = f"{statistics.median(taken):.2f} s" if len(taken) == len(run.jobs) else "-"
    rate = share = "-"
    if run.pattern == "full":
        measured = throughput(run.jobs, run.size)
        rate, share = f"{measured:.2f}", f"{measured * run.jobs[0].length / run.size:.1%}"
    spread = " ".join(str(sum(each.node == f"n{number}" for each in run.jobs)) for number in range(run.size))
    cells = (run.size, run.pattern, f"{len(taken)} of {len(run.jobs)}", rate, share, median, spread)
    return f"| {' | '.join(map(str, cells))} |"


def main() -> None:
    """Measure, write, draw."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--full", action="store_true", help="the original's times instead of a fifth of them")
    factor = 1.0 if parser.parse_args().full else 5.0
    drawing.library()  # if it is missing, that is said before the experiment
    runs = live(experiment(SIZES, factor))
    drawing.FIGURES.mkdir(exist_ok=True)
    for run in runs:
        write_looks(drawing.FIGURES, run.pattern, run.looks)
    write_jobs(drawing.FIGURES, (job for run in runs for job in run.jobs))
    drawing.draw()
    show("paper", table(runs))


if __name__ == "__main__":
    main()
