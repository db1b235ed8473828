"""What shortages and rude clients cost the others: real nodes, and a legal client beside.

Writes its section of docs/benchmarks.md and benchmarks/figures.json when all rows were measured. A row that needs what
this machine or user does not have is left out, with the reason. Usage: python -m benchmarks.rude [ROW ...]
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.reporting import Figure, record
from benchmarks.rude import floods, shortages
from benchmarks.rude.surroundings import Unavailable

ROWS: dict[int, Callable[[Path], list[Figure]]] = {
    1: floods.lists,
    2: floods.streams,
    3: shortages.filled_work_directory,
    4: shortages.waiting_jobs,
    5: shortages.output_that_does_not_fit,
    6: shortages.no_descriptors,
    7: shortages.fork_bomb,
    8: shortages.poison,
    18: floods.black_holes,
    21: floods.floods,
}
"""The rows by their numbers in the table of faults."""


def main() -> None:
    """Measure, print, write."""
    wanted = [int(each) for each in sys.argv[1:]] or list(ROWS)
    unknown = [each for each in wanted if each not in ROWS]
    if unknown:
        raise SystemExit(f"rude: there is no row {unknown[0]}; there are {', '.join(map(str, ROWS))}")
    figures: list[Figure] = []
    for row in wanted:
        with tempfile.TemporaryDirectory(prefix="rude-") as name:
            try:
                found = ROWS[row](Path(name))
            except Unavailable as reason:
                print(f"row {row}: left out: {reason}", flush=True)
                continue
        for figure in found:
            print(f"{'      ' if figure.met else 'FAILED'} {figure}", flush=True)
        figures += found
    if not sys.argv[1:]:
        record("rude", figures)


if __name__ == "__main__":
    main()
