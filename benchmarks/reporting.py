"""Figures beside their goals: printed, kept in benchmarks/figures.json, shown in docs/benchmarks.md.

Invariant: a section is replaced as a whole; what other benchmarks wrote stays as it is.
"""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attrs import frozen

HERE = Path(__file__).parent
FIGURES = HERE / "figures.json"
PAGE = HERE.parent / "docs" / "benchmarks.md"


@frozen
class Figure:
    """One measured ratio (or amount) and its goal; ``goal`` is empty where there is none."""

    name: str
    value: float
    unit: str
    goal: str
    met: bool
    note: str

    def __str__(self) -> str:
        goal = f"goal {self.goal}; " if self.goal else ""
        return f"{self.name}: {self.value:.4g} {self.unit} ({goal}{self.note})"

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {"name": self.name, "value": round(self.value, 4), "unit": self.unit, "goal": self.goal, "met": self.met}


def record(section: str, figures: Sequence[Figure]) -> None:
    """Write them to both files.

    :raises ValueError: the page has no place for the section.
    """
    rows = "\n".join(
        f"| {each.name} | {each.value:.4g} {each.unit} | {each.goal or '-'} | {_met(each)} | {each.note} |"
        for each in figures
    )
    show(section, f"| what | measured | goal | met | |\n|---|---|---|---|---|\n{rows}\n\n{machine()}")
    kept = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    kept[section] = [each.document() for each in figures]
    FIGURES.write_text(json.dumps(kept, indent=1) + "\n")


def show(section: str, text: str) -> None:
    """Replace what stands between the section's marks in the page.

    :raises ValueError: it has no such marks.
    """
    opening, closing = f"<!-- {section}: measured -->", f"<!-- {section}: end -->"
    page = PAGE.read_text()
    changed, count = re.subn(
        f"{re.escape(opening)}.*?{re.escape(closing)}",
        lambda _: f"{opening}\n{text}\n{closing}",
        page,
        flags=re.DOTALL,
    )
    if count != 1:
        raise ValueError(f"{PAGE.name}: {count} places between {opening} and {closing}, not 1")
    PAGE.write_text(changed)


def machine() -> str:
    """What it was measured on."""
    kernel = platform.release().partition("-")[0]
    return f"This run: {os.cpu_count()} cores, Python {platform.python_version()}, Linux {kernel}."


def _met(figure: Figure) -> str:
    if not figure.goal:
        return "-"
    return "yes" if figure.met else "**no**"
