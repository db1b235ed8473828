"""What ``run`` and ``submit`` say about a job before its script's name.

Invariant: what is not said is left to the node, so that its defaults apply.
"""

from __future__ import annotations

from pathlib import PurePath

from attrs import frozen

from cloudmytask.cli.failures import UsageError
from cloudmytask.model.job import Blob, JobSpec, Limits, QoS

DASH = "-"
"""Names our standard input in place of a file."""
STDIN_SCRIPT = "stdin.py"
"""What a script from standard input is called."""


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
            variables=tuple(dict(self.env).items()),
            node=self.node,
            avoid=tuple(dict.fromkeys(self.avoid)),
            local=self.local,
        )
