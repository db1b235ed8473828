"""Handing a job to a node: its script and input gathered, checked as far as that saves sending them, submitted once.

Invariant: one idempotency key for all tries, so a lost connection never makes a second job on one node. Another node is
handed it only where the first did not say that it has it and does not come back; a job that must run at most once, not
even then.
"""

from __future__ import annotations

from pathlib import Path

from attrs import frozen

from cloudmytask.cli.failures import FileUnreadable, ScriptNotFound
from cloudmytask.cli.inputs import Inputs
from cloudmytask.cli.job_options import DASH, JobOptions
from cloudmytask.client import JobStatus
from cloudmytask.client.connection import new_key
from cloudmytask.client.node_session import NodeSession
from cloudmytask.client.sources import Source
from cloudmytask.client.subscriptions import Submitted
from cloudmytask.core.admission import check_script_size, check_spec
from cloudmytask.model.job import JobSpec

SCRIPT_MAX_UNKNOWN = 2**63
"""Where an instance does not tell its limit, as a CSU does not, it has to decide."""


def check_script(path: str) -> None:
    """Find out before anything else whether there is a script.

    :raises ScriptNotFound, FileUnreadable:
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
        """The accepted job. :raises CloudMyTaskError:"""
        job, _ = await node.submit(
            lambda client: client.submit(self.spec, self.script, self.stdin, key=self.key), once=self.spec.at_most_once
        )
        return job

    async def submit_watched(self, node: NodeSession) -> Submitted:
        """Likewise; from then on the node tells of the job, and sends its first attempt's output."""
        submitted, _ = await node.submit(
            lambda client: client.submit_watched(
                self.spec, self.script, self.stdin, key=self.key, every=True, stream=True
            ),
            once=self.spec.at_most_once,
        )
        return submitted


async def gather(options: JobOptions, node: NodeSession, inputs: Inputs, *, read_stdin: bool) -> Ready:
    """Read script and input.

    :param read_stdin: whether our standard input is the job's where ``--stdin`` says nothing else.
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
    spec = options.spec(script.blob)
    check_spec(spec, script_max)
    stdin = None
    if options.stdin == DASH or (options.stdin is None and read_stdin):
        stdin = await inputs.standard_input()
    elif options.stdin is not None:
        stdin = await inputs.file(Path(options.stdin), FileUnreadable, lambda _size: None)
    if stdin is not None and not stdin.blob.size:
        stdin = None  # an empty input is what a job without one has
    return Ready(spec, script, stdin, options.key or new_key())
