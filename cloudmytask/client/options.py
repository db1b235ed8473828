"""What callers of the blocking client may write: durations and sizes as text, a script's input, who they are.

Invariant: what cannot be meant is an :class:`~cloudmytask.model.errors.InvalidArgument` that names field and value.
"""

from __future__ import annotations

import getpass
import math
import os
from pathlib import Path

from cloudmytask.client.sources import Source
from cloudmytask.core.units import parse_duration, parse_size
from cloudmytask.model.errors import ConfigurationError, InvalidArgument
from cloudmytask.model.job import QoS

Duration = float | str
"""Seconds, or a text such as ``90s``, ``10m``, ``2h``."""
Size = int | str
"""Bytes, or a text such as ``500M``, ``2G``."""


def default_client() -> str:
    """The ClientID to claim: ``$CMT_CLIENT``, or the user's name (design section 7).

    :raises ConfigurationError: neither is known.
    """
    try:
        return os.environ.get("CMT_CLIENT") or getpass.getuser()
    except (KeyError, OSError):
        raise ConfigurationError(
            f"the user id {os.getuid()} has no name on this machine; say in $CMT_CLIENT who you are"
        ) from None


def stdin_source(given: bytes | os.PathLike[str]) -> Source:
    """The bytes, or the file, that a script reads as its standard input. :raises OSError: it cannot be read."""
    return Source.of_bytes(given) if isinstance(given, bytes) else Source.of_file(Path(given))


def qos_class(name: QoS | str) -> QoS:
    """The class of that name. :raises InvalidArgument:"""
    try:
        return QoS(name)
    except ValueError:
        raise InvalidArgument(f"qos: {name!r} is none of {', '.join(QoS)}") from None


def seconds(field: str, given: Duration | None) -> float | None:
    """A duration in seconds. :raises InvalidArgument:"""
    try:
        return None if given is None else parse_duration(given) if isinstance(given, str) else _finite(given)
    except ValueError as problem:
        raise InvalidArgument(f"{field}: {problem}") from None


def size(field: str, given: Size | None) -> int | None:
    """A size in bytes. :raises InvalidArgument:"""
    try:
        return parse_size(given) if isinstance(given, str) else given
    except ValueError as problem:
        raise InvalidArgument(f"{field}: {problem}") from None


def _finite(number: float) -> float:
    """:raises ValueError: no document can carry it."""
    if not math.isfinite(number):
        raise ValueError(f"{number} is not a finite number of seconds")
    return number
