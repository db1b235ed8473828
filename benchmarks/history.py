"""What a long history costs: opening a store, freeing blobs, and listing, at two numbers of stored jobs.

    python -m benchmarks.history [JOBS ...]

The jobs are copies of a real one, made by SQL, each with an output blob of its own. Prints milliseconds; the median of
five, each on a store that was closed before.
"""

from __future__ import annotations

import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from twisted.internet.defer import Deferred

from cloudmytask.model.job import ClientId, JobQuery, JobState
from tests.disk_bench import DiskBench
from tests.store_conformance import SCRIPT, make_job

T = TypeVar("T")

ROUNDS = 5
DEFAULT = (160, 50_000)


def fill(bench: DiskBench, jobs: int) -> None:
    """Store ``jobs`` ended jobs."""
    bench.result(bench.store.save(make_job(1, JobState.SUCCEEDED), [SCRIPT]))
    numbers = [(number,) for number in range(2, jobs + 1)]
    with sqlite3.connect(bench.directory / "jobs.sqlite") as connection:
        connection.executemany(
            "INSERT INTO jobs SELECT ?1 || 'x', ?1, client, name, 'succeeded', NULL, spec,"
            " json_set(record, '$.id', ?1 || 'x', '$.sequence', ?1) FROM jobs WHERE sequence = 1",
            numbers,
        )
        connection.executemany("INSERT INTO job_blobs VALUES (?1 || 'x', ?1 || '.0')", numbers)
        connection.executemany(
            "INSERT INTO blobs (digest, size, data) VALUES (?1 || '.0', 200, zeroblob(200))", numbers
        )
    connection.close()


def milliseconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - start)


def measure(jobs: int) -> dict[str, float]:
    """Median milliseconds by what was done."""
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as directory:
        bench = DiskBench(Path(directory) / "state")
        fill(bench, jobs)

        def wait(deferred: Deferred[T]) -> float:
            return milliseconds(lambda: bench.result(deferred))

        for _ in range(ROUNDS):
            bench.result(bench.store.close())
            bench.store = store = bench.make()
            found.setdefault("open", []).append(milliseconds(store.open))
            found.setdefault("recover", []).append(milliseconds(store.recover))
            found.setdefault("search for damage (in the background)", []).append(wait(store.checked))
            found.setdefault("collect", []).append(wait(store.collect()))
            query = JobQuery(states=frozenset({JobState.FAILED}))
            found.setdefault("list by a state, none there", []).append(wait(store.newest(ClientId("ann"), query)))
            found.setdefault("save", []).append(wait(store.save(make_job(1, JobState.SUCCEEDED))))
        bench.result(bench.store.close())
    return {name: statistics.median(values) for name, values in found.items()}


def main() -> None:
    counts = [int(argument) for argument in sys.argv[1:]] or list(DEFAULT)
    rows = {count: measure(count) for count in counts}
    for name in rows[counts[0]]:
        print(f"{name:40}", *(f"{count:>8} jobs: {rows[count][name]:8.2f} ms" for count in counts))


if __name__ == "__main__":
    main()
