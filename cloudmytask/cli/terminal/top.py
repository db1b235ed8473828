"""What ``cmt top`` shows: the cluster at one moment, or its load over time as one line for each node.

Invariant: pure; a frame is never higher than the terminal; what another instance said is escaped; a moment of which
nothing is known is blank, not zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from attrs import frozen
from rich.console import Group
from rich.text import Text

from cloudmytask.cli.terminal import jobs as rendering
from cloudmytask.cli.terminal import tables
from cloudmytask.cli.terminal.cluster import counted, load_text, name_of, notices, ordered, serves
from cloudmytask.cli.terminal.escape import one_line
from cloudmytask.client import JobStatus, state_of
from cloudmytask.model.cluster import ClusterView, LoadSample, MemberStatus, Role, Standing

JOBS = 8
"""Recent jobs that are shown at most."""
BAR = 12
"""Columns of a bar."""
HEADERS = ("NODE", "STATE", "LOAD", "", "SLOTS", "", "WAITING")
JOB_HEADERS = ("JOB", "NAME", "STATE", "RAN", "NODE")
HISTORY_HEADERS = ("NODE", "SLOTS TAKEN", "MEAN", "MAX", "LOAD", "MEAN", "MAX", "WAITING")
HISTORY_NUMBERS = frozenset({"MEAN", "MAX", "WAITING"})
BLOCKS = "▁▂▃▄▅▆▇█"
DIGITS = "0123456789"
WIDTH = (10, 60)
"""Columns of one line of development, at least and at most."""


@frozen
class Moment:
    """All that a frame is made of.

    :ivar bars: whether the terminal knows block characters.
    """

    view: ClusterView
    jobs: Sequence[JobStatus]
    now: datetime
    bars: bool


def frame(moment: Moment, height: int | None = None) -> Group:
    """Lay a frame out for rich.

    :param height: lines that there are; None: as many as it takes.
    """
    nodes = [each for each in ordered(moment.view) if each.announcement.role is Role.NODE]
    parts: list[Any] = [Text(summary(moment.view, moment.now), style="bold")]
    parts += [Text(notice, style="yellow", no_wrap=True, overflow="ellipsis") for notice in notices(moment.view)]
    jobs = moment.jobs[:JOBS]
    below = len(jobs) + 2 if jobs else 0
    room = len(nodes) if height is None else max(1, height - len(parts) - below - 3)
    # The line that says how many are left out takes the place of one.
    shown = nodes if len(nodes) <= room else nodes[: max(1, room - 1)]
    parts += [Text(), tables.table(HEADERS, [node_row(each, moment.bars) for each in shown], {"WAITING"})]
    if len(shown) < len(nodes):
        parts.append(Text(f"... and {len(nodes) - len(shown)} more", style="bright_black"))
    if jobs:
        rows = [_job_row(each, moment.now) for each in jobs]
        parts += [Text(), tables.table(JOB_HEADERS, rows, {"RAN"})]
    return Group(*parts)


def summary(view: ClusterView, now: datetime) -> str:
    """Describe the cluster in one line."""
    alive = [each.announcement for each in view.members if each.standing is Standing.ALIVE]
    nodes = [each for each in alive if each.role is Role.NODE]
    slots, free = sum(each.capacity.slots for each in nodes), sum(each.capacity.free for each in nodes)
    supervisors = len(alive) - len(nodes)
    return (
        f"{one_line(view.cluster) or 'cmt'}  {now:%H:%M:%S} UTC  {counted(len(nodes), 'node')},"
        f" {counted(supervisors, 'CSU')}, {free} of {slots} slots free,"
        f" {sum(each.backlog.total for each in nodes)} jobs waiting"
    )


def node_row(member: MemberStatus, bars: bool) -> tuple[str, ...]:
    """Make the row of one node: its load and its slots as numbers and as bars."""
    if not serves(member):
        return (name_of(member), state_of(member), "-", "", "-", "", "-")
    capacity = member.announcement.capacity
    taken = max(0, capacity.slots - capacity.free)
    return (
        name_of(member),
        state_of(member),
        load_text(capacity.load),
        bar(capacity.load, bars),
        f"{taken}/{capacity.slots}",
        bar(taken / capacity.slots if capacity.slots else None, bars),
        str(member.announcement.backlog.total),
    )


def bar(share: float | None, blocks: bool, width: int = BAR) -> str:
    """Draw a share, 0..1, as a bar; empty if it is not known."""
    if share is None:
        return ""
    full = min(1.0, max(0.0, share)) * width
    if not blocks:
        return ("#" * round(full)).ljust(width, ".")
    eighths = round(full * 8)
    return ("█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()).ljust(width, "·")


def _job_row(job: JobStatus, now: datetime) -> tuple[str, ...]:
    (row,) = rendering.rows([job.document], now)
    cells = dict(zip(rendering.COLUMNS, row, strict=True))
    return (cells["ID"], cells["NAME"], cells["STATE"], cells["RAN"], one_line(cells["NODE"]))


# History


def history_rows(samples: Sequence[LoadSample], seconds: float, width: int, blocks: bool) -> list[tuple[str, ...]]:
    """Make a line for each node: how its slots and its CPU were used, over the ``seconds`` before the newest sample.

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
            shares = development(own, share, end - seconds, end, width)
            cells.append(line(shares, blocks))
            cells.append(load_text(sum(values) / len(values) if values else None))
            cells.append(load_text(max(values, default=None)))
        cells.append(str(max(each.waiting for each in own)))
        found.append(tuple(cells))
    return found


def development(
    samples: Sequence[LoadSample], share: Callable[[LoadSample], float | None], begin: float, end: float, width: int
) -> list[float | None]:
    """Take the mean share in each of ``width`` equal stretches of time; None if nothing is known."""
    values: list[list[float]] = [[] for _ in range(width)]
    for each in samples:
        value = share(each)
        if value is not None and each.at >= begin and end > begin:
            values[min(width - 1, int((each.at - begin) / (end - begin) * width))].append(value)
    return [sum(each) / len(each) if each else None for each in values]


def line(shares: Sequence[float | None], blocks: bool) -> str:
    """Draw a development, one character for each stretch of time."""
    levels = BLOCKS if blocks else DIGITS
    top = len(levels) - 1
    return "".join(" " if each is None else levels[round(min(1.0, max(0.0, each)) * top)] for each in shares)


def width_for(columns: int, names: Sequence[str]) -> int:
    """How many columns each development gets on a terminal of that width."""
    others = max(map(len, names), default=4) + 4 * 4 + len("WAITING") + 2 * (len(HISTORY_HEADERS) - 1)
    least, most = WIDTH
    return min(most, max(least, (columns - others) // 2))


def _taken(sample: LoadSample) -> float | None:
    return (sample.slots - sample.free) / sample.slots if sample.slots else None


def _load(sample: LoadSample) -> float | None:
    return sample.load
