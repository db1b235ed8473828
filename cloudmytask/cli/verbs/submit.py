"""``cmt submit``: script and input of a job gathered, checked as far as that saves sending them, submitted once.

Invariant: one idempotency key for all tries, so a lost connection never makes a second job on one node. Another node is
given the job only if the first did not say that it has it and does not come back; a job that must run at most once, not
even then. What is not said is left to the node, so that its defaults apply.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from attrs import fields, frozen

from cloudmytask.cli.failures import FileUnreadable, ScriptNotFound, UsageError
from cloudmytask.cli.inputs import Inputs
from cloudmytask.cli.invocation import Invocation
from cloudmytask.cli.reach import at_node
from cloudmytask.cli.terminal.console import Console
from cloudmytask.client import JobStatus
from cloudmytask.client.connection import new_key
from cloudmytask.client.node_session import NodeSession
from cloudmytask.client.sources import Source
from cloudmytask.client.watched import Submitted
from cloudmytask.core.admission import check_script_size, check_spec
from cloudmytask.model.errors import InvalidArgument
from cloudmytask.model.job import Blob, JobSpec, Limits, QoS

DASH = "-"
"""Names our standard input in place of a file."""
STDIN_SCRIPT = "stdin.py"
"""What a script from standard input is called."""
SCRIPT_MAX_UNKNOWN = 2**63
"""If an instance does not tell its limit, as a CSU does not, it has to decide."""


def submit(console: Console, **given: Any) -> int:
    """Hand over a script and print its id.

    :param given: what :meth:`JobOptions.of` sorts.
    """
    options = JobOptions.of(given)

    async def work(invocation: Invocation, node: NodeSession) -> int:
        inputs = Inputs(invocation.reactor.callFromThread)
        try:
            ready = await gather(options, node, inputs, read_stdin=False)
            job = await ready.submit(node)
        finally:
            inputs.close()
        if console.as_json:
            console.document(job.document)
        else:
            console.data(job.id)
        return 0

    check_script(options.script)
    return at_node(console, work)


@frozen
class JobOptions:
    """The options of ``options.describe_job``, as they were given.

    :ivar wishes: about the job, under the names of the fields of ``JobSpec`` and ``Limits``.
    :raises UsageError: some contradict each other.
    """

    script: str
    stdin: str | None
    no_stdin: bool
    key: str | None
    wishes: Mapping[str, Any]

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> JobOptions:
        """Sort the options of a verb."""
        rest = dict(given)
        return cls(rest.pop("script"), rest.pop("stdin"), rest.pop("no_stdin"), rest.pop("key"), rest)

    def __attrs_post_init__(self) -> None:
        node = self.wishes["node"]
        if self.no_stdin and self.stdin is not None:
            raise UsageError("--stdin and --no-stdin exclude each other")
        if self.script == DASH and self.stdin == DASH:
            raise UsageError("the script and its input cannot both be read from standard input")
        if self.wishes["local"] and node is not None:
            raise UsageError("--local and --node exclude each other: --local means the node that accepts the job")
        if node is not None and node in self.wishes["avoid"]:
            raise UsageError(f"--node and --avoid both name {node}")

    def checked(self, script: Blob, script_max: int) -> JobSpec:
        """Make the spec of the job that is asked for.

        :raises InvalidArgument: no node would accept it; names the option.
        """
        spec = self.spec(script)
        try:
            check_spec(spec, script_max)
        except InvalidArgument as problem:
            raise type(problem)(_FIELD.sub(_option, str(problem))) from None
        return spec

    def spec(self, script: Blob) -> JobSpec:
        """Make the spec of the job that is asked for, unchecked."""
        wishes = {
            **self.wishes,
            "qos": QoS(self.wishes["qos"]),
            "variables": dict(self.wishes["variables"]),
            "avoid": tuple(dict.fromkeys(self.wishes["avoid"])),
        }
        limits = Limits(**{each.name: wishes.pop(each.name) for each in fields(Limits)})
        name = STDIN_SCRIPT if self.script == DASH else PurePath(self.script).name
        return JobSpec(script=script, script_name=name, limits=limits, **wishes)


_OPTIONS = {
    "limits.cpu_seconds": "max-cpu-time",
    "limits.address_space": "max-memory",
    "limits.file_size": "max-file-size",
    "limits.open_files": "max-open-files",
    "variables": "env",
    **{name: name for name in ("avoid", "name", "node", "retention", "retries", "timeout")},
}
"""Fields of a spec, as a refusal names them → the options that they come from."""
_FIELD = re.compile(r"\A[a-z_.]+(?=[ :])")


def _option(field: re.Match[str]) -> str:
    known = _OPTIONS.get(field[0])
    return field[0] if known is None else f"--{known}"


def check_script(path: str) -> None:
    """Find out before anything else whether there is a script.

    :raises ScriptNotFound: there is no such file.
    :raises FileUnreadable: it is a directory, or cannot be looked at.
    """
    if path == DASH:
        return
    try:
        found = Path(path)
        if found.is_dir():
            raise FileUnreadable(f"{path} is a directory; name a script")
        there = found.exists()
    except (OSError, ValueError) as error:
        raise FileUnreadable(f"{path!r} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if not there:
        raise ScriptNotFound(f"{path} is not there")


@frozen
class Ready:
    """All that a submission needs, checked."""

    spec: JobSpec
    script: Source
    stdin: Source | None
    key: str

    async def submit(self, node: NodeSession) -> JobStatus:
        """Submit it; the accepted job.

        :raises CloudMyTaskError: the node declined, or no node can be reached any more.
        """
        job, _ = await node.submit(
            lambda client: client.submit(self.spec, self.script, self.stdin, key=self.key), once=self.spec.at_most_once
        )
        return job

    async def submit_watched(self, node: NodeSession) -> Submitted:
        """Submit it likewise; from then on the node tells of the job, and sends its first attempt's output."""
        submitted, _ = await node.submit(
            lambda client: client.submit_watched(
                self.spec, self.script, self.stdin, key=self.key, every=True, stream=True
            ),
            once=self.spec.at_most_once,
        )
        return submitted


async def gather(options: JobOptions, node: NodeSession, inputs: Inputs, *, read_stdin: bool) -> Ready:
    """Read script and input.

    :param read_stdin: whether our standard input is the job's if ``--stdin`` says nothing else.
    :raises CloudMyTaskError: one cannot be read, or the node would not accept the job.
    """
    script_max = int(node.client.node.get("script_max") or SCRIPT_MAX_UNKNOWN)
    if options.script == DASH:
        script = await inputs.standard_input()
        read_stdin = False
    else:
        script = await inputs.file(
            Path(options.script), ScriptNotFound, lambda size: check_script_size(size, script_max)
        )
    spec = options.checked(script.blob, script_max)
    stdin = None
    if options.stdin == DASH or (options.stdin is None and read_stdin):
        stdin = await inputs.standard_input()
    elif options.stdin is not None:
        stdin = await inputs.file(Path(options.stdin), FileUnreadable, lambda _size: None)
    if stdin is not None and not stdin.blob.size:
        stdin = None  # an empty input is what a job without one has
    return Ready(spec, script, stdin, new_key() if options.key is None else options.key)
