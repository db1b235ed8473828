"""Tables for people: as wide as the terminal, with its colors; or as plain text for a pipe.

Invariant: cells are shown as they are, also where they look like markup.
"""

from __future__ import annotations

import io
import os
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cloudmytask.cli.terminal.console import STDOUT, Console, columns
from cloudmytask.cli.terminal.jobs import aligned

if TYPE_CHECKING:
    from rich.table import Table

COLORS = {"alive": "green", "draining": "yellow", "suspect": "yellow", "dead": "red", "left": "bright_black"}
"""Of the states of an instance."""
PLAIN_WIDTH = 100
"""Columns of what is drawn for a pipe."""


def show(console: Console, headers: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[str] = ()) -> None:
    """Write a table to standard output; ``right``: the columns of numbers."""
    if os.isatty(STDOUT):
        console.data(drawn(made(headers, rows, right), columns(STDOUT), color=True))
    else:
        console.data(aligned([headers, *rows]))


def made(
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    right: Collection[str] = (),
    colors: Mapping[str, str] = COLORS,
) -> Table:
    """A table for rich. A cell that is a key of ``colors`` has that color."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for header in headers:
        table.add_column(header, no_wrap=True, overflow="ellipsis", justify="right" if header in right else "left")
    for row in rows:
        # Text and not str: a name may look like rich's markup.
        table.add_row(*(Text(cell, style=colors.get(cell, "")) for cell in row))
    return table


def drawn(renderable: Any, width: int, *, color: bool) -> str:
    """As text, without trailing blanks."""
    from rich.console import Console as Terminal

    text = io.StringIO()
    # It looks for NO_COLOR and TERM itself.
    Terminal(file=text, force_terminal=color, width=width, highlight=False).print(renderable)
    return "\n".join(line.rstrip() for line in text.getvalue().rstrip("\n").split("\n"))
