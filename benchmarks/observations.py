"""What the paper's experiment observed, in memory and as CSV files.

Invariant: what was written is read again as it was, to a hundredth (looks) or thousandth (jobs) of a second.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from attrs import define, frozen

JOBS = "jobs.csv"
COLUMNS = ["pattern", "nodes", "length", "client", "submitted", "started", "ended", "node"]


@frozen
class Look:
    """What each node said about itself at one moment, in seconds after the first request."""

    at: float
    running: tuple[int, ...]
    waiting: tuple[int, ...]


@define
class JobRow:
    """A job. Its moments are seconds after the first request; None if it did not come to that."""

    pattern: str
    nodes: int
    length: float
    """Seconds that its script slept."""
    client: int
    submitted: float
    started: float | None = None
    ended: float | None = None
    node: str = ""
    """Where it ran."""


def write_looks(directory: Path, pattern: str, looks: Sequence[Look]) -> None:
    """One row for each look."""
    names = [f"n{number}" for number in range(len(looks[0].running))]
    with _looks(directory, pattern, len(names)).open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["at", *(f"running_{name}" for name in names), *(f"waiting_{name}" for name in names)])
        for look in looks:
            table.writerow([f"{look.at:.2f}", *look.running, *look.waiting])


def read_looks(directory: Path, pattern: str, nodes: int) -> list[Look]:
    """:raises OSError: there are none."""
    with _looks(directory, pattern, nodes).open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    return [Look(float(at), tuple(map(int, counts[:nodes])), tuple(map(int, counts[nodes:]))) for at, *counts in rows]


def write_jobs(directory: Path, jobs: Iterable[JobRow]) -> None:
    """One row for each job."""
    with (directory / JOBS).open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        for job in jobs:
            moments = ["" if each is None else f"{each:.3f}" for each in (job.submitted, job.started, job.ended)]
            table.writerow([job.pattern, job.nodes, job.length, job.client, *moments, job.node])


def read_jobs(directory: Path) -> list[JobRow]:
    """:raises OSError: there are none."""
    with (directory / JOBS).open(newline="") as file:
        return [
            JobRow(
                pattern=row["pattern"],
                nodes=int(row["nodes"]),
                length=float(row["length"]),
                client=int(row["client"]),
                submitted=float(row["submitted"]),
                started=float(row["started"]) if row["started"] else None,
                ended=float(row["ended"]) if row["ended"] else None,
                node=row["node"],
            )
            for row in csv.DictReader(file)
        ]


def throughput(jobs: Sequence[JobRow], nodes: int) -> float:
    """Jobs per second of a cluster with one slot a node, while there was work for all: from the end of the first wave
    to the moment at which less than two waves were left, or at which the run was cut."""
    ends = sorted(each.ended for each in jobs if each.ended is not None)
    first, last = nodes - 1, len(ends) - 1
    if len(ends) == len(jobs):
        last -= 2 * nodes
    return (last - first) / (ends[last] - ends[first])


def _looks(directory: Path, pattern: str, nodes: int) -> Path:
    return directory / f"load-{pattern}-{nodes}.csv"
