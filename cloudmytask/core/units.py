"""Durations, sizes and bit rates as people write them: ``90s``, ``1.5h``, ``500M``, ``64KiB``, ``4M``.

Invariant: what ``format_duration``, ``format_size`` and ``format_bit_rate`` write, the parsers read back to the same
value.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from decimal import Decimal

_DURATION_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_SIZE_UNITS = {"T": 1024**4, "G": 1024**3, "M": 1024**2, "K": 1024, "": 1}
_RATE_UNITS = {"G": 10**9, "M": 10**6, "K": 1000, "": 1}

# A bare number without a sign or an exponent: "nan", "-1" and "1e9" are not what a person means by a duration.
_NUMBER = r"(?P<number>[0-9]+(?:\.[0-9]+)?|\.[0-9]+)"
_DURATION = re.compile(rf"{_NUMBER}\s*(?P<unit>[smhd]?)", re.ASCII)
_SIZE = re.compile(rf"{_NUMBER}\s*(?:(?P<unit>[KMGT])(?:iB)?|B)?", re.ASCII | re.IGNORECASE)
_RATE = re.compile(rf"{_NUMBER}\s*(?P<unit>[KMG])?", re.ASCII | re.IGNORECASE)

DURATION_FORMS = "a number of seconds, or a number with s, m, h or d, such as 90s, 10m, 2h, 1.5h or 1d"
SIZE_FORMS = "a number of bytes, or a number with K, M, G or T (powers of 1024), such as 500M, 2G or 64KiB"
BIT_RATE_FORMS = "a number of bits per second, or a number with K, M or G (powers of 1000), such as 150K or 4M"


def parse_duration(value: str | float) -> float:
    """Seconds, from text such as ``90s`` or from a plain number of seconds.

    :raises ValueError: with a sentence that names the value and the accepted forms; for NaN, infinite and negative
        values too.
    """
    if isinstance(value, str):
        match = _DURATION.fullmatch(value.strip())
        seconds = float(match["number"]) * _DURATION_UNITS[match["unit"] or "s"] if match else math.nan
    else:
        seconds = _number(value)
    if not math.isfinite(seconds) or seconds < 0:
        raise ValueError(f"{value!r} is not a duration: give {DURATION_FORMS}")
    return seconds


def parse_size(value: str | float) -> int:
    """Bytes, from text such as ``500M`` or from a plain number of bytes; a fraction of a byte is rounded away.

    :raises ValueError: with a sentence that names the value and the accepted forms; for NaN, infinite and negative
        values too.
    """
    size = _whole(value, _SIZE, _SIZE_UNITS)
    if size < 0:
        raise ValueError(f"{value!r} is not a size: give {SIZE_FORMS}")
    return size


def parse_bit_rate(value: str | float) -> int:
    """Bits per second, from text such as ``4M`` or from a plain number; a fraction of a bit is rounded away.

    :raises ValueError: as :func:`parse_size` does.
    """
    rate = _whole(value, _RATE, _RATE_UNITS)
    if rate < 0:
        raise ValueError(f"{value!r} is not a bit rate: give {BIT_RATE_FORMS}")
    return rate


def _whole(value: str | float, pattern: re.Pattern[str], units: Mapping[str, int]) -> int:
    """The whole number that is meant; -1 if none is."""
    if isinstance(value, str):
        match = pattern.fullmatch(value.strip())
        return round(Decimal(match["number"]) * units[(match["unit"] or "").upper()]) if match else -1
    number = _number(value)
    return int(value) if math.isfinite(number) and number == int(value) else -1


def format_duration(seconds: float) -> str:
    """The shortest exact text for a duration of finite, not negative ``seconds``: ``7d``, ``90s``, ``0.5s``."""
    for unit in ("d", "h", "m"):
        if seconds and seconds % _DURATION_UNITS[unit] == 0 and seconds < 2**53:
            return f"{int(seconds) // _DURATION_UNITS[unit]}{unit}"
    number = f"{Decimal(repr(seconds)):f}"
    return f"{number.rstrip('0').rstrip('.') if '.' in number else number}s"


def format_size(size: int) -> str:
    """The shortest exact text for ``size`` bytes: ``1G``, ``64K``, ``1000``."""
    return _shortest(size, _SIZE_UNITS)


def format_bit_rate(rate: int) -> str:
    """The shortest exact text for ``rate`` bits per second: ``4M``, ``1500``."""
    return _shortest(rate, _RATE_UNITS)


def _shortest(number: int, units: Mapping[str, int]) -> str:
    """With the largest unit that leaves no fraction."""
    unit = next(unit for unit, factor in units.items() if not number % factor) if number else ""
    return f"{number // units[unit]}{unit}"


def show_duration(seconds: float) -> str:
    """A measured duration for people, rounded to what matters: ``14 ms``, ``2.5 s``, ``3 min 20 s``, ``5 h 2 min``."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def show_size(size: int) -> str:
    """A measured size for people: ``512 B``, ``8.5 MiB``."""
    if size < 1024:
        return f"{size} B"
    shown = float(size)
    for unit in ("KiB", "MiB", "GiB"):
        shown /= 1024
        if shown < 1000:
            return f"{shown:.3g} {unit}"
    return f"{shown / 1024:.3g} TiB"


def _number(value: float) -> float:
    """``value`` as a float; NaN where it is no number at all (a bool is none) or too large for one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan
