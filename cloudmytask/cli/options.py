"""What options have in common: the kinds of their values, and the groups of options that several verbs share.

Invariant: what is accepted is what the node's options accept (``core.units``); a refusal names value and forms.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import click
from click.shell_completion import CompletionItem

from cloudmytask.core.units import parse_duration, parse_size
from cloudmytask.model.words import JobState, QoS

Declared = Callable[[], None]
"""A function that has nothing but options, as decorators, and help, as its docstring."""

# Kinds of values


def duration(text: str) -> float:
    """Read a duration such as ``90s``; in seconds."""
    try:
        return parse_duration(text)
    except ValueError as problem:
        raise click.BadParameter(str(problem)) from None


def whole_seconds(text: str) -> int:
    """Read a duration; in whole seconds, rounded up."""
    return math.ceil(duration(text))


def size(text: str) -> int:
    """Read a size such as ``2G``; in bytes."""
    try:
        return parse_size(text)
    except ValueError as problem:
        raise click.BadParameter(str(problem)) from None


def share(text: str) -> float:
    """Read a share such as ``10%`` or ``0.1``; 0..1."""
    try:
        found = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a share, such as 10% or 0.1") from None
    if not 0.0 <= found <= 1.0:
        raise click.BadParameter(f"{text!r} is not between 0% and 100%")
    return found


def whole(least: int, most: int | None = None) -> Callable[[str], int]:
    """Make the kind that is a whole number within limits."""

    def read(text: str) -> int:
        try:
            found = int(text)
        except ValueError:
            raise click.BadParameter(f"{text!r} is not a whole number") from None
        if most is not None and not least <= found <= most:
            raise click.BadParameter(f"{found} is not from {least} to {most}")
        if found < least:
            raise click.BadParameter(f"{found} is less than {least}")
        return found

    return read


def variable(text: str) -> tuple[str, str]:
    """Read ``NAME=VALUE``."""
    key, equals, value = text.partition("=")
    if not equals:
        raise click.BadParameter(f"{text!r} is not of the form NAME=VALUE")
    return key, value


def complete_file(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Have the shell complete the name of a file."""
    return [CompletionItem(incomplete, type="file")]


STATE = click.Choice([state.value for state in JobState])
STATES = f"{', '.join(STATE.choices[:-1])} or {STATE.choices[-1]}"

# Groups of options


def together(*options: Callable[[Any], Any]) -> Callable[[Declared], Declared]:
    """Declare several options with one decorator."""

    def declare(function: Declared) -> Declared:
        for option in reversed(options):
            function = option(function)
        return function

    return declare


choose_jobs = together(
    click.argument("selectors", metavar="[SELECTOR]...", nargs=-1),
    click.option("--name", metavar="NAME", help="All jobs of this name."),
    click.option(
        "--state", "states", type=STATE, metavar="STATE", multiple=True, help=f"All jobs in this state: {STATES}."
    ),
)
"""Of a verb about several jobs, which ``cli.selection`` finds."""

describe_job = together(
    click.option(
        "--qos",
        type=click.Choice([qos.value for qos in QoS]),
        default=QoS.BATCH.value,
        help="How urgent it is. [default: batch]",
    ),
    click.option("--name", metavar="NAME", help="A label to select the job by. [default: the script's name]"),
    click.option(
        "--timeout", type=duration, metavar="DURATION", help="End an attempt that runs longer than this, such as 90s."
    ),
    click.option(
        "--retries",
        type=whole(0),
        metavar="N",
        default=0,
        help="Further attempts that a failure is worth. [default: 0]",
    ),
    click.option(
        "--retention", type=duration, metavar="DURATION", help="Keep outcome and output for so long, such as 7d."
    ),
    click.option("--at-most-once", is_flag=True, help="Never run again after an attempt whose end is not known."),
    click.option(
        "--env",
        "variables",
        type=variable,
        metavar="NAME=VALUE",
        multiple=True,
        help="A variable for the script; may be repeated.",
    ),
    click.option(
        "--max-cpu-time", "cpu_seconds", type=whole_seconds, metavar="DURATION", help="CPU time of one process."
    ),
    click.option(
        "--max-memory", "address_space", type=size, metavar="SIZE", help="Address space of one process, such as 2G."
    ),
    click.option(
        "--max-file-size", "file_size", type=size, metavar="SIZE", help="Size of each file that the script writes."
    ),
    click.option("--max-open-files", "open_files", type=whole(1), metavar="N", help="Open files of one process."),
    click.option("--node", metavar="NAME", help="Run it on the node of this name only."),
    click.option("--avoid", metavar="NAME", multiple=True, help="Not on the node of this name; may be repeated."),
    click.option("--local", is_flag=True, help="Run it on the node that accepts it only."),
    click.option(
        "--key", metavar="KEY", help="Idempotency key: the same job again under the same key is not run again."
    ),
    click.argument("script", shell_complete=complete_file),
    click.argument("arguments", nargs=-1, type=click.UNPROCESSED, shell_complete=complete_file),
)
"""What ``run`` and ``submit`` say about a job, under the names of the fields of ``JobSpec`` and ``Limits``; and its
script."""
