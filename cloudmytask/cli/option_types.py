"""Kinds of option values: durations, sizes, variables.

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
