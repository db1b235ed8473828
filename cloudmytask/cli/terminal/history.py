"""The load of nodes over time as one line each.

Invariant: pure. A moment of which nothing is known is blank, not zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cloudmytask.cli.terminal.cluster import load_text
from cloudmytask.cli.terminal.escape import one_line
from cloudmytask.model.cluster import LoadSample

BLOCKS = "▁▂▃▄▅▆▇█"
DIGITS = "0123456789"
HEADERS = ("NODE", "SLOTS TAKEN", "MEAN", "MAX", "LOAD", "MEAN", "MAX", "WAITING")
WIDTH = (10, 60)
"""Columns of one line of development, at least and at most."""


def rows(samples: Sequence[LoadSample], seconds: float, width: int, blocks: bool) -> list[tuple[str, ...]]:
    """A line per node: how its slots and its CPU were used, over the ``seconds`` before the newest sample.

    WAITING is the most jobs that ever waited there.

    :param width: columns for each of the two developments.
    """
    end = max((each.at for each in samples), default=0.0)
    found: list[tuple[str, ...]] = []
    for node in sorted({each.node for each in samples}):
        own = [each for each in samples if each.node == node]
        cells: list[str] = [one_line(node)]
        for share in (_taken, _load):
            values = [value for each in own if (value := share(each)) is not None]
            line = development(own, share, end - seconds, end, width)
            cells.append(drawn(line, blocks))
            cells.append(load_text(sum(values) / len(values) if values else None))
            cells.append(load_text(max(values, default=None)))
        cells.append(str(max(each.waiting for each in own)))
        found.append(tuple(cells))
    return found


def development(
    samples: Sequence[LoadSample], share: Callable[[LoadSample], float | None], begin: float, end: float, width: int
) -> list[float | None]:
    """The mean share in each of ``width`` equal stretches of time; None where nothing is known."""
    values: list[list[float]] = [[] for _ in range(width)]
    for each in samples:
        value = share(each)
        if value is not None and each.at >= begin and end > begin:
            values[min(width - 1, int((each.at - begin) / (end - begin) * width))].append(value)
    return [sum(each) / len(each) if each else None for each in values]


def drawn(line: Sequence[float | None], blocks: bool) -> str:
    """One character per stretch."""
    levels = BLOCKS if blocks else DIGITS
    top = len(levels) - 1
    return "".join(" " if each is None else levels[round(min(1.0, max(0.0, each)) * top)] for each in line)


def width_for(columns: int, names: Sequence[str]) -> int:
    """Columns for each development on a terminal of that width."""
    others = max(map(len, names), default=4) + 4 * 4 + len("WAITING") + 2 * (len(HEADERS) - 1)
    least, most = WIDTH
    return min(most, max(least, (columns - others) // 2))


def _taken(sample: LoadSample) -> float | None:
    return (sample.slots - sample.free) / sample.slots if sample.slots else None


def _load(sample: LoadSample) -> float | None:
    return sample.load
