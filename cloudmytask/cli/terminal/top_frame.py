"""What ``cmt top`` shows at one moment.

Invariant: pure; never higher than the terminal, and whatever another instance said is escaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from attrs import frozen

from cloudmytask.cli.terminal import jobs as rendering
from cloudmytask.cli.terminal import tables
from cloudmytask.cli.terminal.cluster import counted, load_text, name_of, notices, ordered, serves
from cloudmytask.cli.terminal.escape import one_line
from cloudmytask.client import JobStatus, state_of
from cloudmytask.model.cluster import ClusterView, MemberStatus, Role, Standing

JOBS = 8
"""Recent jobs that are shown at most."""
BAR = 12
"""Columns of a bar."""
HEADERS = ("NODE", "STATE", "LOAD", "", "SLOTS", "", "WAITING")
JOB_HEADERS = ("JOB", "NAME", "STATE", "RAN", "NODE")
_JOB_COLORS = {"succeeded": "green", "failed": "red", "timed_out": "red", "lost": "red", "running": "cyan"}


@frozen
class Moment:
    """All that a frame is made of. ``bars``: whether the terminal knows block characters."""

    view: ClusterView
    jobs: Sequence[JobStatus]
    now: datetime
    bars: bool


def frame(moment: Moment, height: int | None = None) -> Any:
    """A renderable for rich.

    :param height: lines that there are; None: as many as it takes.
    """
    from rich.console import Group
    from rich.text import Text

    nodes = [each for each in ordered(moment.view) if each.announcement.role is Role.NODE]
    parts: list[Any] = [Text(summary(moment.view, moment.now), style="bold")]
    parts += [Text(notice, style="yellow", no_wrap=True, overflow="ellipsis") for notice in notices(moment.view)]
    jobs = moment.jobs[:JOBS]
    below = len(jobs) + 2 if jobs else 0
    room = len(nodes) if height is None else max(1, height - len(parts) - below - 3)
    # The line that says how many are left out takes the place of one.
    shown = nodes if len(nodes) <= room else nodes[: max(1, room - 1)]
    parts += [Text(), tables.made(HEADERS, [node_row(each, moment.bars) for each in shown], {"WAITING"})]
    if len(shown) < len(nodes):
        parts.append(Text(f"... and {len(nodes) - len(shown)} more", style="bright_black"))
    if jobs:
        rows = [_job_row(each, moment.now) for each in jobs]
        parts += [Text(), tables.made(JOB_HEADERS, rows, {"RAN"}, _JOB_COLORS)]
    return Group(*parts)


def summary(view: ClusterView, now: datetime) -> str:
    """The cluster in one line."""
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
    """One node: its load and its slots as numbers and as bars."""
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
    """A share, 0..1, as a bar; empty where it is not known."""
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
