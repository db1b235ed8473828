"""The legal client beside the rude ones, in a process of its own: it asks for the status of a job of its own, and runs
``print(42)``, over and over, until its standard input ends; then it prints as JSON how that went.

Invariant: what it counts as failed has ended otherwise than with exit code 0, and is not its own fault. A connection
that is lost is made again, for a node may be restarted.
Usage: python -m benchmarks.rude.beside SOCKET
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.protocol import Protocol
from twisted.internet.stdio import StandardIO

from benchmarks.meetings import connected, live, sleep
from cloudmytask.client import NodeClient
from cloudmytask.client.sources import Source
from cloudmytask.model.job import JobSpec, JobState

SOURCE = Source.of_bytes(b"print(42)\n")
PAUSE = 0.02
"""Seconds between two questions."""


@define
class Seen:
    """What the legal client has seen: seconds of each answer and of each job, and why jobs failed."""

    statuses: list[float] = field(factory=list)
    jobs: list[float] = field(factory=list)
    failed: list[str] = field(factory=list)
    lost: int = 0
    """Connections."""


class _Ending(Protocol):
    def __init__(self, over: Callable[[], None]) -> None:
        self._over = over

    def connectionLost(self, reason: Any = None) -> None:  # noqa: ARG002 - Twisted's interface
        self._over()


class Beside:
    """Its two loops."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self.seen = Seen()
        self._ended = Event()

    def end(self) -> None:
        """Do not begin anything more."""
        self._ended.set()

    async def ask(self) -> None:
        """Status after status, of one job that has ended."""
        job = None
        while not self._ended.is_set():
            try:
                client = await connected(self._socket, "legal")
                while not self._ended.is_set():
                    job = job or (await self._run(client))[0]
                    began = time.monotonic()
                    try:
                        await client.getScriptJobStatus(job)
                    finally:
                        self.seen.statuses.append(time.monotonic() - began)
                    await sleep(PAUSE)
                client.close()
            except Exception:  # noqa: BLE001 - whatever it was, the next connection may fare better
                self.seen.lost += 1
                await sleep(PAUSE * 5)

    async def work(self) -> None:
        """Job after job."""
        while not self._ended.is_set():
            try:
                client = await connected(self._socket, "legal")
                while not self._ended.is_set():
                    began = time.monotonic()
                    _, failure = await self._run(client)
                    if failure is None:
                        self.seen.jobs.append(time.monotonic() - began)
                    else:
                        self.seen.failed.append(failure)
                    await sleep(PAUSE)
                client.close()
            except Exception:  # noqa: BLE001 - as above; a job that was acknowledged goes on without us
                self.seen.lost += 1
                await sleep(PAUSE * 5)

    async def _run(self, client: NodeClient) -> tuple[str, str | None]:
        job = await client.submit(JobSpec(script=SOURCE.blob), SOURCE)
        ended = await client.wait(job.id)
        failure = None if ended.state is JobState.SUCCEEDED else json.dumps(ended.document)[:400]
        return str(job.id), failure


async def main(socket: Path) -> Seen:
    """Until the standard input ends."""
    beside = Beside(socket)
    StandardIO(_Ending(beside.end))
    print("begun", flush=True)
    await gatherResults([Deferred.fromCoroutine(beside.ask()), Deferred.fromCoroutine(beside.work())])
    return beside.seen


if __name__ == "__main__":
    found = live(main(Path(sys.argv[1])))
    print(json.dumps({"statuses": found.statuses, "jobs": found.jobs, "failed": found.failed, "lost": found.lost}))
