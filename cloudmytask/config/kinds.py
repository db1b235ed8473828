"""The kinds of value that an option may have: how each is read from TOML and from the command line, and written.

Invariant: ``parse`` either returns a value of the option's Python type or raises ValueError with a sentence that
names the value and what is accepted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from attrs import frozen

from cloudmytask.addresses import split_address, split_group, split_peer
from cloudmytask.core.units import (
    BIT_RATE_FORMS,
    DURATION_FORMS,
    SIZE_FORMS,
    format_bit_rate,
    format_duration,
    format_size,
    parse_bit_rate,
    parse_duration,
    parse_size,
)

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)


def _as_is(text: str) -> object:
    return text


@frozen
class Kind:
    """One kind of value."""

    unit: str
    """What is accepted, for people."""
    metavar: str
    """The value's name in ``--help``."""
    parse: Callable[[object, Path], Any]
    """From a TOML value to the option's value; relative paths start at the second argument."""
    show: Callable[[Any], str]
    """From the option's value to TOML text."""
    read: Callable[[str], object] = _as_is
    """From command-line text to a TOML value."""


def _quote(value: object) -> str:
    # A JSON string is a TOML basic string.
    return json.dumps(str(value), ensure_ascii=False)


def _text(value: object, what: str) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError(f"{value!r} is not {what}")
    return value


def _path(value: object, base: Path) -> Path:
    text = _text(value, "a path")
    try:
        return base / Path(text).expanduser()
    except RuntimeError:
        raise ValueError(f"{text!r} begins with the home directory of an unknown user") from None


def _log(value: object, base: Path) -> Path | str:
    return "-" if value == "-" else _path(value, base)


def _name(value: object, _base: Path) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ValueError(f"{value!r} is not a name: give 1 to 64 letters, digits, dots, underscores and dashes")
    return value


def _addresses(split: Callable[[str], object]) -> Callable[[object, Path], tuple[str, ...]]:
    def parse(value: object, _base: Path) -> tuple[str, ...]:
        if not isinstance(value, list | tuple):
            raise ValueError(f"{value!r} is not a list of HOST:PORT addresses")
        found = tuple(_text(each, "a HOST:PORT address") for each in value)
        for each in found:
            split(each)
        return found

    return parse


def _group(value: object, _base: Path) -> str:
    if value == "":
        return ""
    group = _text(value, "a multicast group")
    split_group(group)
    return group


def _ipv4(value: object, _base: Path) -> str:
    text = _text(value, "an IPv4 address")
    try:
        address = IPv4Address(text)
    except ValueError:
        address = None
    if address is None or address.is_multicast or address.is_unspecified:
        raise ValueError(f"{text!r} is not the IPv4 address of an interface")
    return text


def _boolean(value: object, _base: Path) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{value!r} is neither true nor false")
    return value


def _true_or_false(text: str) -> object:
    return {"true": True, "false": False}.get(text, text)


def _split(text: str) -> list[str]:
    return [each.strip() for each in text.split(",") if each.strip()]


def _count(value: object, _base: Path) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{value!r} is not a whole number")
    return value


def _fraction(value: object, _base: Path) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{value!r} is not a number")
    return float(value)


def _number(cast: type[int] | type[float]) -> Callable[[str], object]:
    def read(text: str) -> object:
        try:
            return cast(text)
        except ValueError:
            return text

    return read


def _amount(what: str, forms: str, parse: Callable[[str | float], Any]) -> Callable[[object, Path], Any]:
    def parse_number(value: object, _base: Path) -> Any:
        if not isinstance(value, str | int | float):
            raise ValueError(f"{value!r} is not {what}: give {forms}")
        return parse(value)

    return parse_number


def choice(*accepted: str) -> Kind:
    """Make the kind that is one of a few words."""
    *others, last = (f'"{each}"' for each in accepted)
    spoken = f"{', '.join(others)} or {last}"

    def parse(value: object, _base: Path) -> str:
        if value not in accepted:
            raise ValueError(f"{value!r} is unknown: give {spoken}")
        return str(value)

    return Kind(unit=spoken, metavar="|".join(accepted), parse=parse, show=_quote)


def _list(values: Sequence[str]) -> str:
    return f"[{', '.join(map(_quote, values))}]"


PATH = Kind("path", "PATH", _path, _quote)
LOG = Kind('path, or "-" for standard error', "PATH", _log, _quote)
NAME = Kind("1 to 64 letters, digits, dots, underscores and dashes", "NAME", _name, _quote)
BOOLEAN = Kind("true or false", "true|false", _boolean, lambda value: str(value).lower(), _true_or_false)
ADDRESSES = Kind("list of HOST:PORT", "HOST:PORT", _addresses(split_address), _list, _split)
PEERS = Kind("list of HOST:PORT", "HOST:PORT", _addresses(split_peer), _list, _split)
GROUP = Kind('ADDRESS:PORT of an IPv4 multicast group, or "" for none', "ADDRESS:PORT", _group, _quote)
IPV4 = Kind("IPv4 address", "ADDRESS", _ipv4, _quote)
COUNT = Kind("whole number", "N", _count, str, _number(int))
FRACTION = Kind("share of 1", "SHARE", _fraction, str, _number(float))
DURATION = Kind(
    "seconds, or text such as 90s 10m 2h 1d",
    "DURATION",
    _amount("a duration", DURATION_FORMS, parse_duration),
    lambda seconds: _quote(format_duration(seconds)),
)
SIZE = Kind(
    "bytes, or text such as 64KiB 500M 2G",
    "SIZE",
    _amount("a size", SIZE_FORMS, parse_size),
    lambda size: _quote(format_size(size)),
)
BIT_RATE = Kind(
    "bits per second, or text such as 150K 4M 1G",
    "RATE",
    _amount("a bit rate", BIT_RATE_FORMS, parse_bit_rate),
    lambda rate: _quote(format_bit_rate(rate)),
)
