"""Bits per second as people write them: ``150K``, ``4M``; powers of 1000, as with every network.

Invariant: what :func:`format_bit_rate` writes, :func:`parse_bit_rate` reads back to the same value.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal

FORMS = "a number of bits per second, or a number with K, M or G (powers of 1000), such as 150K or 4M"

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}
_RATE = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]+)?|\.[0-9]+)\s*(?P<unit>[KMG]?)", re.ASCII | re.IGNORECASE)


def parse_bit_rate(value: object) -> int:
    """Bits per second, from text such as ``4M`` or from a plain number; a fraction of a bit is rounded away.

    :raises ValueError: with a sentence that names the value and the accepted forms.
    """
    rate = -1
    if isinstance(value, str):
        match = _RATE.fullmatch(value.strip())
        if match:
            rate = round(Decimal(match["number"]) * _UNITS[match["unit"].upper()])
    elif isinstance(value, int) and not isinstance(value, bool):
        rate = value
    elif isinstance(value, float) and math.isfinite(value):
        rate = round(value)
    if rate < 0:
        raise ValueError(f"{value!r} is not a bit rate: give {FORMS}")
    return rate


def format_bit_rate(rate: int) -> str:
    """The shortest exact text: ``4M``, ``1500``."""
    for unit in ("G", "M", "K"):
        if rate and rate % _UNITS[unit] == 0:
            return f"{rate // _UNITS[unit]}{unit}"
    return str(rate)
