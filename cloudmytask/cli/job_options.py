"""What ``run`` and ``submit`` say about a job before its script's name.

Invariant: what is not said is left to the node, so that its defaults apply.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import PurePath
from typing import Any

import click
from attrs import fields, frozen

from cloudmytask.cli.failures import UsageError
from cloudmytask.cli.option_types import duration, size, variable, whole_seconds
from cloudmytask.model.job import Blob, JobSpec, Limits, QoS

DASH = "-"
"""Names our standard input in place of a file."""
STDIN_SCRIPT = "stdin.py"
"""What a script from standard input is called."""

SETTINGS = {"allow_interspersed_args": False}
"""Context settings of a verb whose script's arguments are not ours, whatever they look like."""


@frozen(kw_only=True)
class JobOptions:
    """As they were given."""

    script: str
    arguments: tuple[str, ...]
    qos: str
    name: str | None
    timeout: float | None
    retries: int
    retention: float | None
    at_most_once: bool
    env: tuple[tuple[str, str], ...]
    max_cpu_time: int | None
    max_memory: int | None
    max_file_size: int | None
    max_open_files: int | None
    node: str | None
    avoid: tuple[str, ...]
    local: bool
    key: str | None
    stdin: str | None

    def __attrs_post_init__(self) -> None:
        if self.script == DASH and self.stdin == DASH:
            raise UsageError("the script and its input cannot both be read from standard input")
        if self.local and self.node is not None:
            raise UsageError("--local and --node exclude each other: --local means the node that accepts the job")
        if self.node is not None and self.node in self.avoid:
            raise UsageError(f"--node and --avoid both name {self.node}")

    @property
    def script_name(self) -> str:
        """The file name that the script will have."""
        return STDIN_SCRIPT if self.script == DASH else PurePath(self.script).name

    def spec(self, script: Blob) -> JobSpec:
        """The job that is asked for."""
        return JobSpec(
            script=script,
            script_name=self.script_name,
            arguments=self.arguments,
            qos=QoS(self.qos),
            name=self.name,
            timeout=self.timeout,
            retries=self.retries,
            retention=self.retention,
            at_most_once=self.at_most_once,
            limits=Limits(
                cpu_seconds=self.max_cpu_time,
                address_space=self.max_memory,
                file_size=self.max_file_size,
                open_files=self.max_open_files,
            ),
            variables=dict(self.env),
            node=self.node,
            avoid=tuple(dict.fromkeys(self.avoid)),
            local=self.local,
        )


_OPTIONS = (
    click.option(
        "--qos",
        type=click.Choice([qos.value for qos in QoS]),
        default=QoS.BATCH.value,
        help="How urgent it is. [default: batch]",
    ),
    click.option("--name", help="A label to select the job by. [default: the script's name]"),
    click.option(
        "--timeout", type=duration, metavar="DURATION", help="End an attempt that runs longer than this, such as 90s."
    ),
    click.option(
        "--retries",
        type=click.IntRange(min=0),
        default=0,
        help="Further attempts that a failure is worth. [default: 0]",
    ),
    click.option(
        "--retention", type=duration, metavar="DURATION", help="Keep outcome and output for so long, such as 7d."
    ),
    click.option("--at-most-once", is_flag=True, help="Never run again after an attempt whose end is not known."),
    click.option(
        "--env", type=variable, metavar="K=V", multiple=True, help="A variable for the script; may be repeated."
    ),
    click.option("--max-cpu-time", type=whole_seconds, metavar="DURATION", help="CPU time of one process."),
    click.option("--max-memory", type=size, metavar="SIZE", help="Address space of one process, such as 2G."),
    click.option("--max-file-size", type=size, metavar="SIZE", help="Size of each file that the script writes."),
    click.option("--max-open-files", type=click.IntRange(min=1), help="Open files of one process."),
    click.option("--node", metavar="NAME", help="Run it on the node of this name only."),
    click.option("--avoid", metavar="NAME", multiple=True, help="Not on the node of this name; may be repeated."),
    click.option("--local", is_flag=True, help="Run it on the node that accepts it only."),
    click.option("--key", help="Idempotency key: the same job again under the same key is not run again."),
    click.argument("script"),
    click.argument("arguments", nargs=-1, type=click.UNPROCESSED),
)


_FIELDS = tuple(attribute.name for attribute in fields(JobOptions))


def job_options(function: Callable[..., int]) -> Callable[..., int]:
    """Declare them all for a verb, which gets them as ``options``."""

    @functools.wraps(function)
    def called(*positional: Any, **values: Any) -> int:
        options = JobOptions(**{name: values.pop(name) for name in _FIELDS})
        return function(*positional, options=options, **values)

    declared: Callable[..., int] = called
    for declare in reversed(_OPTIONS):
        declared = declare(declared)
    return declared
