"""Kinds of option values: durations, sizes, variables.

Invariant: what is accepted is what the node's options accept (``core.units``); a refusal names value and forms.
"""

from __future__ import annotations

import math
from typing import Any

import click

from cloudmytask.core.units import parse_duration, parse_size


class Duration(click.ParamType):
    """Seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return parse_duration(value)
        except ValueError as problem:
            self.fail(str(problem), param, ctx)


class WholeSeconds(Duration):
    """Seconds without a fraction, rounded up."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        return math.ceil(super().convert(value, param, ctx))


class Size(click.ParamType):
    """Bytes."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return parse_size(value)
        except ValueError as problem:
            self.fail(str(problem), param, ctx)


class Variable(click.ParamType):
    """``K=V``."""

    name = "K=V"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        key, equals, text = str(value).partition("=")
        if not equals:
            self.fail(f"{value!r} is not of the form K=V", param, ctx)
        return key, text


DURATION = Duration()
WHOLE_SECONDS = WholeSeconds()
SIZE = Size()
VARIABLE = Variable()
