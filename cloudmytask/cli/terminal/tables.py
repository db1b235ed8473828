"""Tables for people: as wide as the terminal, with its colors; or as plain text for a pipe.

Invariant: cells are shown as they are, even if they look like markup.
"""

from __future__ import annotations

import io
import os
from collections.abc import Collection, Sequence
from typing import Any

from cloudmytask.cli.terminal.console import STDOUT, Console, columns

COLORS = {
    "alive": "green",
    "draining": "yellow",
    "suspect": "yellow",
    "dead": "red",
    "left": "bright_black",
    "succeeded": "green",
    "failed": "red",
    "timed_out": "red",
    "lost": "red",
    "running": "cyan",
    "ok": "green",
    "note": "yellow",
    "problem": "red",
}
"""Of what stands in the column ``STATE``: of an instance, of a job, of a check."""
STATE = "STATE"
PLAIN_WIDTH = 100
"""Columns of what is drawn for a pipe."""


def show(
    console: Console,
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    right: Collection[str] = (),
    shrink: Sequence[tuple[str, int]] = (),
    *,
    prose: bool = False,
) -> None:
    """Write a table to standard output.

    :param right: the columns of numbers.
    :param shrink: which columns give way first on a narrow terminal, and down to which width.
    :param prose: the headers are not shown, and the last column goes on below itself instead of being cut.
    """
    if os.isatty(STDOUT):
        widths = fitted(headers, _widths([headers, *rows]), width(), shrink) if shrink else None
        console.data(drawn(table(headers, rows, right, widths, prose=prose), width(), color=True))
    else:
        console.data(aligned(rows if prose else [headers, *rows]))


def width() -> int:
    """How many columns standard output has: the terminal's, or :data:`PLAIN_WIDTH`."""
    return columns(STDOUT) if os.isatty(STDOUT) else PLAIN_WIDTH


def table(
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    right: Collection[str] = (),
    widths: Sequence[int] | None = None,
    *,
    prose: bool = False,
) -> Any:
    """Make a table that rich can draw; see :func:`show`.

    :param widths: of the columns; None leaves them to rich.
    """
    # Only here and in `drawn`: rich takes as long to import as a verb that writes to a pipe and does without it.
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, pad_edge=False, header_style="bold", show_header=not prose)
    for header, wide in zip(headers, widths or (None,) * len(headers), strict=True):
        justify: Any = "right" if header in right else "left"
        cut = not prose or header != headers[-1]
        made.add_column(header, width=wide, no_wrap=cut, overflow="ellipsis" if cut else "fold", justify=justify)
    for row in rows:
        cells = zip(headers, row, strict=True)
        # Text and not str: a name may look like rich's markup.
        made.add_row(*(Text(cell, style=COLORS.get(cell, "") if header == STATE else "") for header, cell in cells))
    return made


def drawn(renderable: Any, room: int, *, color: bool) -> str:
    """Draw what rich can draw as text of at most ``room`` columns, without trailing blanks."""
    from rich.console import Console as Terminal

    text = io.StringIO()
    # It looks for NO_COLOR and TERM itself.
    Terminal(file=text, force_terminal=color, width=room, highlight=False).print(renderable)
    return "\n".join(line.rstrip() for line in text.getvalue().rstrip("\n").split("\n"))


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Columns as plain text, each as wide as its widest cell, two spaces apart; the last one as it is."""
    widths = _widths(rows)
    return "\n".join(
        "  ".join(cell.ljust(wide) for cell, wide in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def fitted(headers: Sequence[str], widths: Sequence[int], room: int, shrink: Sequence[tuple[str, int]]) -> list[int]:
    """Make columns of these widths, two spaces apart, fit into ``room`` by letting those in ``shrink`` give way."""
    made = list(widths)
    for label, least in shrink:
        index = headers.index(label)
        excess = sum(made) + 2 * (len(made) - 1) - room
        if excess > 0:
            made[index] = min(made[index], max(least, made[index] - excess))
    return made


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*rows, strict=True)]
