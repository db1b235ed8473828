"""Types of option values: durations, sizes, variables, shares.

Invariant: what is accepted is what the node's options accept (``core.units``); a refusal names value and forms.
"""

from __future__ import annotations

import math

import click

from cloudmytask.core.units import parse_duration, parse_size


def duration(text: str) -> float:
    """Seconds."""
    try:
        return parse_duration(text)
    except ValueError as problem:
        raise click.BadParameter(str(problem)) from None


def whole_seconds(text: str) -> int:
    """Seconds without a fraction, rounded up."""
    return math.ceil(duration(text))


def size(text: str) -> int:
    """Bytes."""
    try:
        return parse_size(text)
    except ValueError as problem:
        raise click.BadParameter(str(problem)) from None


def variable(text: str) -> tuple[str, str]:
    """``K=V``."""
    key, equals, value = text.partition("=")
    if not equals:
        raise click.BadParameter(f"{text!r} is not of the form K=V")
    return key, value


def share(text: str) -> float:
    """0..1, from ``10%`` or ``0.1``."""
    try:
        found = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a share, such as 10% or 0.1") from None
    if not 0.0 <= found <= 1.0:
        raise click.BadParameter(f"{text!r} is not between 0% and 100%")
    return found
