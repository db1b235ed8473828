"""What a Python program says of a job, read as the spec that travels; every client of the library has it read here.

Invariant: what is given is taken as it is meant or refused with a sentence that names field and value; nothing is
ignored. What only a node knows, such as its limits and which keys there may be, is the node's to check.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar, cast

from cloudmytask.client.sources import Source
from cloudmytask.codec import decode, encode
from cloudmytask.core.units import parse_duration, parse_size
from cloudmytask.model.errors import InvalidArgument
from cloudmytask.model.job import JobSpec, QoS

T = TypeVar("T")
Duration = float | str
"""Seconds, or a text such as ``90s``, ``10m``, ``2h``."""
Size = int | str
"""Bytes, or a text such as ``500M``, ``2G``."""
Script = str | os.PathLike[str] | bytes
"""A script's path, or its source as bytes."""


def job_spec(
    script: Source,
    arguments: Iterable[object],
    *,
    script_name: str = "script.py",
    qos: QoS | str = QoS.BATCH,
    name: str | None = None,
    timeout: Duration | None = None,
    retries: int = 0,
    retention: Duration | None = None,
    at_most_once: bool = False,
    variables: Mapping[str, object] | None = None,
    max_cpu_time: Duration | None = None,
    max_memory: Size | None = None,
    max_file_size: Size | None = None,
    max_open_files: int | None = None,
    node: str | None = None,
    avoid: str | Iterable[str] = (),
    local: bool = False,
) -> JobSpec:
    """The spec of a job; see ``Client.submit`` for what the options mean.

    :raises InvalidArgument: one of them cannot be meant; names field and value.
    """
    cpu = meant("max_cpu_time", parse_duration, max_cpu_time)
    limits = {
        "cpu_seconds": None if cpu is None else math.ceil(cpu),
        "address_space": meant("max_memory", parse_size, max_memory),
        "file_size": meant("max_file_size", parse_size, max_file_size),
        "open_files": whole("max_open_files", max_open_files),
    }
    document = {
        "script": encode(script.blob),
        "script_name": script_name,
        "qos": one_of("qos", QoS, qos),
        "arguments": [as_text(f"argument {place}", each) for place, each in enumerate(arguments, 1)],
        "name": name,
        "timeout": meant("timeout", parse_duration, timeout),
        "retries": retries,
        "retention": meant("retention", parse_duration, retention),
        "at_most_once": at_most_once,
        "limits": limits,
        "variables": _variables(variables),
        "node": node,
        "avoid": several("avoid", avoid),
        "local": local,
    }
    return decode(JobSpec, document)


def script_of(given: Script) -> tuple[Source, str]:
    """A script, and the name that it has for itself.

    :raises InvalidArgument: it is neither. :raises OSError: it cannot be read.
    """
    if isinstance(given, str) and given:
        given = Path(given)
    return _source("script", given), Path(given).name if isinstance(given, os.PathLike) else "script.py"


def stdin_of(given: bytes | os.PathLike[str] | None) -> Source | None:
    """What a script is to read as its standard input.

    :raises InvalidArgument: it is neither bytes nor a path. :raises OSError: it cannot be read.
    """
    return None if given is None else _source("stdin", given)


def meant(field: str, read: Callable[[str | float], T], given: str | float | None) -> T | None:
    """What a caller wrote, read. :raises InvalidArgument: it cannot be meant; names field and value."""
    try:
        return None if given is None else read(given)
    except ValueError as problem:
        raise InvalidArgument(f"{field}: {problem}") from None


def one_of(field: str, words: type[T], given: object) -> T:
    """One of the words of an enumeration. :raises InvalidArgument: it is none of them."""
    try:
        return words(given)  # type: ignore[call-arg]  # an enumeration
    except ValueError:
        raise InvalidArgument(f"{field}: {given!r} is none of {', '.join(words)}") from None  # type: ignore[arg-type]


def text(field: str, given: object) -> str:
    """Text that names something. :raises InvalidArgument: it is something else."""
    if isinstance(given, str):
        return given
    raise InvalidArgument(f"{field}: {given!r} is not text")


def whole(field: str, given: object) -> int | None:
    """A whole number, or None. :raises InvalidArgument: it is something else."""
    if given is None or (isinstance(given, int) and not isinstance(given, bool)):
        return given
    raise InvalidArgument(f"{field}: {given!r} is not a whole number")


def several(field: str, given: str | Iterable[str]) -> list[str]:
    """Several names; one that is given alone is one. :raises InvalidArgument: it is something else."""
    if isinstance(given, str):
        return [given]
    names = cast(object, given)
    if isinstance(names, bytes) or not isinstance(names, Iterable):
        raise InvalidArgument(f"{field}: {names!r} is not a list of names")
    return [text(field, each) for each in names]


def as_text(field: str, given: object) -> str:
    """What a script is told as text: text, and that of a path or a number.

    :raises InvalidArgument: it is None, bytes or several values.
    """
    told = os.fspath(given) if isinstance(given, os.PathLike) else given
    if isinstance(told, bytes | bytearray):
        raise InvalidArgument(f"{field}: {told[:60]!r} is not text: decode it, as by os.fsdecode")
    if told is None or (isinstance(told, Iterable) and not isinstance(told, str)):
        raise InvalidArgument(f"{field}: {told!r} is not text; give each value by itself")
    return str(told)


def _variables(given: Mapping[str, object] | None) -> dict[str, str]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise InvalidArgument(f"variables: {given!r} is not a mapping of names to values, such as {{'NAME': 'value'}}")
    return {text("variables", name): as_text(f"variables {name}", value) for name, value in given.items()}


def _source(field: str, given: object) -> Source:
    if isinstance(given, bytes | bytearray | memoryview):
        return Source.of_bytes(bytes(given))
    if not isinstance(given, os.PathLike):
        raise InvalidArgument(f"{field}: {given!r} is neither bytes nor the path of a file")
    try:
        return Source.of_file(Path(given))
    except (TypeError, ValueError):  # a path of bytes, or with a NUL
        raise InvalidArgument(f"{field}: {given!r} is not the path of a file") from None
