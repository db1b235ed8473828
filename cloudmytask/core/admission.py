"""Which specs and names of clients a node accepts at all; for the documents of peers see ``core.peer_records``.

Invariant: every refusal names the field, the value and the limit; a spec that passes can be stored, launched and shown.
Whether there is room for a job right now is the queue's question, not this module's.
"""

from __future__ import annotations

import math
import re

from cloudmytask.core.job_id import KEY_MAX
from cloudmytask.core.units import format_duration
from cloudmytask.model.errors import EmptyScript, InvalidArgument, ScriptTooLarge
from cloudmytask.model.fields import CLIENT, CLIENT_MAX
from cloudmytask.model.job import ClientId, JobSpec, Limits

ARGUMENT_MAX = 131_071
"""Bytes in one argument or variable: MAX_ARG_STRLEN without its NUL, see execve(2)."""
ARGUMENTS_MAX = 512 * 1024
"""Bytes in all arguments and variables together, each counted with its NUL."""
RETRIES_MAX = 100
DURATION_MAX = 10 * 365 * 86400.0
"""Seconds in the longest timeout or retention that is taken for meant."""
NAME_MAX = 128
NOTE_MAX = 500
FILE_NAME_MAX = 255
"""Bytes; NAME_MAX of Linux file systems."""
LIMIT_MAX = 2**60
AVOID_MAX = 100
"""Nodes that a job may avoid."""

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_NODE = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")
_KEY = re.compile(rf"[!-~]{{1,{KEY_MAX}}}\Z")
_CLIENT = re.compile(CLIENT)


def check_client(claim: str) -> ClientId:
    """A ClientID that can be stored and shown.

    :raises InvalidArgument: it has other characters than letters, digits and ``._@+-``, or too many.
    """
    if not _CLIENT.match(claim):
        raise InvalidArgument(
            f"client: {_shown(claim)} is not a ClientID: 1 to {CLIENT_MAX} letters, digits or . _ @ + - are"
        )
    return ClientId(claim)


def check_key(key: str) -> None:
    """Check an idempotency key.

    :raises InvalidArgument: the idempotency key is empty, too long, or not printable ASCII without spaces.
    """
    if not _KEY.match(key):
        raise InvalidArgument(f"key: {_shown(key)} is not 1 to {KEY_MAX} printable ASCII characters without spaces")


def check_note(note: str) -> None:
    """Check the reason of a cancel.

    :raises InvalidArgument: the reason of a cancel is too long, or cannot be shown on one line.
    """
    if len(note) > NOTE_MAX or not note.isprintable():
        raise InvalidArgument(f"note: {_shown(note)} is not up to {NOTE_MAX} printable characters")


def check_spec(spec: JobSpec, script_max: int) -> None:
    """Whether a spec can be accepted by a node whose scripts may have ``script_max`` bytes.

    :raises EmptyScript, ScriptTooLarge, InvalidArgument: it must not be accepted; the sentence says why.
    """
    if spec.script.size == 0:
        raise EmptyScript("script: it is empty, there is nothing to run")
    check_script_size(spec.script.size, script_max)
    check_file_name(spec.script_name)
    _check_arguments(spec)
    if spec.name is not None and (not spec.name or len(spec.name) > NAME_MAX or not spec.name.isprintable()):
        raise InvalidArgument(f"name: {_shown(spec.name)} is not 1 to {NAME_MAX} printable characters")
    check_duration("timeout", spec.timeout)
    check_duration("retention", spec.retention)
    if not 0 <= spec.retries <= RETRIES_MAX:
        raise InvalidArgument(f"retries: {spec.retries} is not within 0 and {RETRIES_MAX}")
    _check_limits(spec.limits)
    _check_whereabouts(spec)


def check_script_size(size: int, script_max: int) -> None:
    """Check that a script of ``size`` bytes is not too large.

    :raises ScriptTooLarge: naming the limit.
    """
    if size > script_max:
        raise ScriptTooLarge(f"script: {size} bytes are more than script_max, {script_max} bytes, allows")


def check_file_name(name: str) -> None:
    """Check that a file can have that name.

    :raises InvalidArgument: ``name`` cannot name a file inside a directory.
    """
    if (
        not 0 < _encoded_size("script_name", name) <= FILE_NAME_MAX
        or "/" in name
        or "\0" in name
        or name in (".", "..")
    ):
        raise InvalidArgument(
            f"script_name: {_shown(name)} is not a file name of 1 to {FILE_NAME_MAX} bytes without / and NUL"
        )


def _check_arguments(spec: JobSpec) -> None:
    total = 0
    for index, argument in enumerate(spec.arguments, 1):
        total += _text_size(f"argument {index}", argument)
    for variable, value in spec.variables.items():
        if not _VARIABLE.match(variable):
            raise InvalidArgument(f"variables: {_shown(variable)} is not a variable name of letters, digits and _")
        if variable.startswith("CMT_"):
            raise InvalidArgument(f"variables: {variable} cannot be set, names with CMT_ belong to the node")
        total += _text_size(f"variables {variable}", value) + len(variable) + 1
    if total > ARGUMENTS_MAX:
        raise InvalidArgument(
            f"arguments: {total} bytes in arguments and variables are more than the limit, {ARGUMENTS_MAX} bytes"
        )


def _text_size(field: str, text: str) -> int:
    if "\0" in text:
        raise InvalidArgument(f"{field}: {_shown(text)} contains a NUL character, which no argument can")
    size = _encoded_size(field, text)
    if size > ARGUMENT_MAX:
        raise InvalidArgument(f"{field}: {size} bytes are more than the limit, {ARGUMENT_MAX} bytes")
    return size + 1


def _encoded_size(field: str, text: str) -> int:
    """Bytes of ``text`` in a file name or an argument. Surrogates that stand for bytes (PEP 383) are at home there."""
    try:
        return len(text.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:
        raise InvalidArgument(f"{field}: {_shown(text)} contains a surrogate that stands for no byte") from None


def check_duration(field: str, seconds: float | None) -> None:
    """Check the duration of ``field``.

    :raises InvalidArgument: no duration that can be meant.
    """
    if seconds is not None and not (math.isfinite(seconds) and 0 < seconds <= DURATION_MAX):
        most = f"{DURATION_MAX:.0f} s ({format_duration(DURATION_MAX)})"
        raise InvalidArgument(f"{field}: {seconds:g} s is not more than 0 and at most {most}")


def _check_whereabouts(spec: JobSpec) -> None:
    for field, names in (("node", () if spec.node is None else (spec.node,)), ("avoid", spec.avoid)):
        if len(names) > AVOID_MAX:
            raise InvalidArgument(f"{field}: {len(names)} names are more than the limit, {AVOID_MAX}")
        for name in names:
            if not _NODE.match(name):
                raise InvalidArgument(f"{field}: {_shown(name)} is not a node's name")
    if spec.node is not None and spec.node in spec.avoid:
        raise InvalidArgument(f"avoid: {spec.node} is also the node that it is to run on")


def _check_limits(limits: Limits) -> None:
    for field in ("cpu_seconds", "address_space", "file_size", "open_files"):
        value = getattr(limits, field)
        if value is not None and not 0 < value <= LIMIT_MAX:
            raise InvalidArgument(f"limits.{field}: {value} is not within 1 and {LIMIT_MAX}")


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:60] + "…")
