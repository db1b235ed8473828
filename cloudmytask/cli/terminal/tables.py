"""Tables for people: as wide as the terminal, with its colors; or as plain text for a pipe.

Invariant: cells are shown as they are, also if they look like markup.
"""

from __future__ import annotations

import io
import os
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from cloudmytask.cli.terminal.console import STDOUT, Console, columns

if TYPE_CHECKING:
    from rich.table import Table

COLORS = {
    **{"alive": "green", "draining": "yellow", "suspect": "yellow", "dead": "red", "left": "bright_black"},
    **{"succeeded": "green", "failed": "red", "timed_out": "red", "lost": "red", "running": "cyan"},
}
"""Of what stands in a column ``STATE``: the state of an instance or of a job."""
PLAIN_WIDTH = 100
"""Columns of what is drawn for a pipe."""


def show(
    console: Console,
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    right: Collection[str] = (),
    shrink: Sequence[tuple[str, int]] = (),
) -> None:
    """Write a table to standard output.

    :param right: the columns of numbers.
    :param shrink: which columns give way first on a narrow terminal, and down to which width.
    """
    if os.isatty(STDOUT):
        width = columns(STDOUT)
        widths = fitted(headers, rows, width, shrink) if shrink else None
        console.data(drawn(made(headers, rows, right, widths), width, color=True))
    else:
        console.data(aligned([headers, *rows]))


def made(
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    right: Collection[str] = (),
    widths: Sequence[int] | None = None,
) -> Table:
    """A table for rich. ``widths``: of the columns; None leaves them to rich."""
    # Only here: rich takes a tenth of a second to import, and a pipe does not need it.
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for header, width in zip(headers, widths or [None] * len(headers), strict=True):
        justify = "right" if header in right else "left"
        table.add_column(header, width=width, no_wrap=True, overflow="ellipsis", justify=justify)
    for row in rows:
        # Text and not str: a name may look like rich's markup.
        table.add_row(
            *(
                Text(cell, style=COLORS.get(cell, "") if header == "STATE" else "")
                for header, cell in zip(headers, row, strict=True)
            )
        )
    return table


def drawn(renderable: Any, width: int, *, color: bool) -> str:
    """As text, without trailing blanks."""
    from rich.console import Console as Terminal

    text = io.StringIO()
    # It looks for NO_COLOR and TERM itself.
    Terminal(file=text, force_terminal=color, width=width, highlight=False).print(renderable)
    return "\n".join(line.rstrip() for line in text.getvalue().rstrip("\n").split("\n"))


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Columns, each as wide as its widest cell, two spaces apart; the last one as it is."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def fitted(
    headers: Sequence[str], rows: Sequence[Sequence[str]], room: int, shrink: Sequence[tuple[str, int]]
) -> list[int]:
    """The columns' widths, two spaces apart, made to fit into ``room`` by what ``shrink`` says."""
    widths = [max(map(len, column)) for column in zip(headers, *rows, strict=True)]
    for label, least in shrink:
        index = headers.index(label)
        excess = sum(widths) + 2 * (len(widths) - 1) - room
        if excess > 0:
            widths[index] = min(widths[index], max(least, widths[index] - excess))
    return widths
