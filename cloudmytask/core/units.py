"""Durations and sizes as people write them: ``90s``, ``1.5h``, ``500M``, ``64KiB``.

Invariant: what ``format_duration`` and ``format_size`` write, the parsers read back to the same value.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal

_DURATION_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_SIZE_UNITS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}

# A bare number without a sign or an exponent: "nan", "-1" and "1e9" are not what a person means by a duration.
_NUMBER = r"(?P<number>[0-9]+(?:\.[0-9]+)?|\.[0-9]+)"
_DURATION = re.compile(rf"{_NUMBER}\s*(?P<unit>[smhd]?)", re.ASCII)
_SIZE = re.compile(rf"{_NUMBER}\s*(?:(?P<unit>[KMGT])(?:iB)?|B)?", re.ASCII | re.IGNORECASE)

DURATION_FORMS = "a number of seconds, or a number with s, m, h or d, such as 90s, 10m, 2h, 1.5h or 1d"
SIZE_FORMS = "a number of bytes, or a number with K, M, G or T (powers of 1024), such as 500M, 2G or 64KiB"


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
    if isinstance(value, str):
        match = _SIZE.fullmatch(value.strip())
        size = round(Decimal(match["number"]) * _SIZE_UNITS[(match["unit"] or "").upper()]) if match else -1
    else:
        number = _number(value)
        size = int(value) if math.isfinite(number) and number == int(value) else -1
    if size < 0:
        raise ValueError(f"{value!r} is not a size: give {SIZE_FORMS}")
    return size


def format_duration(seconds: float) -> str:
    """The shortest exact text for a duration of finite, not negative ``seconds``: ``7d``, ``90s``, ``0.5s``."""
    for unit in ("d", "h", "m"):
        if seconds and seconds % _DURATION_UNITS[unit] == 0 and seconds < 2**53:
            return f"{int(seconds) // _DURATION_UNITS[unit]}{unit}"
    number = f"{Decimal(repr(seconds)):f}"
    return f"{number.rstrip('0').rstrip('.') if '.' in number else number}s"


def format_size(size: int) -> str:
    """The shortest exact text for ``size`` bytes: ``1G``, ``64K``, ``1000``."""
    for unit in ("T", "G", "M", "K"):
        if size and size % _SIZE_UNITS[unit] == 0:
            return f"{size // _SIZE_UNITS[unit]}{unit}"
    return str(size)


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
