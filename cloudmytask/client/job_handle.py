"""One submitted job as the blocking client has it, in the words of ``concurrent.futures``.

Invariant: like every call of the client, each returns what it promises or raises a declared failure, or ``OSError`` for
a file of the caller's that cannot be written.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Coroutine
from typing import Any, BinaryIO, Protocol, TypeVar, cast

from attrs import frozen
from twisted.internet.defer import Deferred

from cloudmytask.addresses import Address
from cloudmytask.boundaries import OutputEnd
from cloudmytask.client.job_spec import Duration, meant
from cloudmytask.client.node_client import NodeClient
from cloudmytask.client.node_session import NodeSession
from cloudmytask.client.watched import Watched
from cloudmytask.codec.people import JobStatus
from cloudmytask.core.explain import describe_loss
from cloudmytask.core.units import parse_duration
from cloudmytask.model.errors import (
    ConnectionInterrupted,
    InvalidArgument,
    JobFailed,
    OutputTruncated,
    WaitTimeout,
)
from cloudmytask.model.job import Explanation, JobState, StreamName

T = TypeVar("T")
STDERR_TAIL = 20
"""Lines of standard error that a :class:`~cloudmytask.model.errors.JobFailed` carries."""


class Run(Protocol):
    """Has something done with a client's session, on the reactor, and waits for it; see ``reactor_thread.run``."""

    def __call__(self, work: Callable[[NodeSession], Coroutine[Deferred[Any], Any, T]]) -> T: ...


@frozen
class Result:
    """What a successful job left: exactly the bytes that the script wrote."""

    status: JobStatus
    stdout_bytes: bytes
    stderr_bytes: bytes

    @property
    def stdout(self) -> str:
        """Standard output as text; bytes that are not UTF-8 are replaced."""
        return self.stdout_bytes.decode("utf-8", "replace")

    @property
    def stderr(self) -> str:
        """Standard error as text."""
        return self.stderr_bytes.decode("utf-8", "replace")


class JobHandle:
    """One submitted job; the object remembers the last state it was told, and which node to ask.

    :param run: the client's. :param home: where the node is that accepted it.
    :param watched: what that node tells of it by itself.
    """

    def __init__(self, run: Run, status: JobStatus, home: Address, watched: Watched | None = None) -> None:
        self._run = run
        self._status = status
        self._home = home
        self._watched = watched

    def __repr__(self) -> str:
        return f"<JobHandle {self.id} {self._status.state.value}>"

    @property
    def id(self) -> str:
        """The job's id, good on any node and after any restart."""
        return self._status.id

    def status(self) -> JobStatus:
        """The job as it stands now: the paper's ``getScriptJobStatus``."""
        if not self._status.state.terminal:
            self._status = self._ask(lambda node: node.getScriptJobStatus(self.id))
        return self._status

    def done(self) -> bool:
        """Whether it has its outcome."""
        return self.status().state.terminal

    def running(self) -> bool:
        """Whether its script runs now."""
        return self.status().state is JobState.RUNNING

    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self.status().state is JobState.CANCELLED

    def wait(self, timeout: Duration | None = None) -> JobStatus:
        """Wait for the outcome, good or bad.

        :param timeout: how long. :raises WaitTimeout: there was none by then.
        """
        lasting = meant("timeout", parse_duration, timeout)
        if not self._status.state.terminal:
            self._status = self._run(lambda session: self._outcome(session, lasting))
        return self._status

    def result(self, timeout: Duration | None = None) -> Result:
        """Wait for success, and fetch the output into memory (see :meth:`copy_output` for a large one).

        :raises JobFailed: it ended otherwise; carries code, node, reason and the end of its standard error.
        :raises OutputTruncated: it wrote more than the node keeps; :meth:`copy_output` fetches what there is.
        :raises WaitTimeout: it did not end within ``timeout``.
        """
        status = self.wait(timeout)
        if status.state is not JobState.SUCCEEDED:
            raise self._failure(status)
        return Result(status, *self._output(*StreamName))

    def exception(self, timeout: Duration | None = None) -> JobFailed | None:
        """The failure that :meth:`result` would raise, or None."""
        status = self.wait(timeout)
        return None if status.state is JobState.SUCCEEDED else self._failure(status)

    def copy_output(
        self, stdout: BinaryIO | None = None, stderr: BinaryIO | None = None, *, follow: bool = False
    ) -> OutputEnd:
        """Write the output of the latest attempt into binary files, piece by piece.

        :param follow: go on until the script has ended.
        :returns: how much there is, and in ``discarded`` and ``lost`` how much the node did not keep.
        :raises InvalidArgument: one is no binary file. :raises OSError: one cannot be written.
        """
        named = {StreamName.STDOUT: stdout, StreamName.STDERR: stderr}
        files = {stream: file for stream, file in named.items() if file is not None}
        for stream, file in files.items():
            if isinstance(cast(object, file), io.TextIOBase) or not hasattr(file, "write"):
                raise InvalidArgument(f"{stream}: {file!r} is not a binary file, as open(…, 'wb') makes one")
        return self._fetch({stream: file.write for stream, file in files.items()}, follow)

    def cancel(self, note: str = "") -> JobStatus:
        """Ask for its end; :meth:`wait` tells when it has come."""
        self._status = self._ask(lambda node: node.cancel(self.id, note))
        return self._status

    def retry(self) -> JobHandle:
        """Submit it once more, as a new job."""
        return JobHandle(self._run, self._ask(lambda node: node.retry(self.id)), self._home)

    def remove(self) -> None:
        """Delete its outcome and output."""
        self._ask(lambda node: node.remove(self.id))

    def why(self) -> Explanation:
        """Why it is in its state."""
        return self._ask(lambda node: node.explain(self.id))

    async def _outcome(self, session: NodeSession, lasting: float | None) -> JobStatus:
        """As the node tells it by itself; if its connection was lost, as it answers when it is reached again."""
        clock, began = session.connector.clock, session.connector.clock.seconds()
        lost = False
        try:
            if self._watched is not None:
                try:
                    return await self._watched.until(lambda job: job.state.terminal, lasting)
                except ConnectionInterrupted:
                    lost = True
            left = None if lasting is None else max(0.0, began + lasting - clock.seconds())
            return (await session.ask_about(lambda node: node.wait(self.id, left), self._home, patiently=lost))[0]
        except WaitTimeout:
            status, _ = await session.ask_about(lambda node: node.getScriptJobStatus(self.id), self._home)
            if status.state.terminal:
                return status
            raise WaitTimeout(f"job {self.id} is {status.state.value} after {lasting:g} s") from None

    def _output(self, *streams: StreamName, whole: bool = True) -> list[bytes]:
        """The output in memory, as it was pushed or is fetched.

        :param whole: whether it is a failure if some was discarded.
        """
        if self._watched is not None and self._watched.output is not None:
            return [self._watched.output[stream] for stream in streams]
        pieces: dict[StreamName, list[bytes]] = {stream: [] for stream in streams}
        end = self._fetch({stream: kept.append for stream, kept in pieces.items()})
        discarded = sum(end.discarded.values())
        missing = [f"{discarded} bytes of its output were discarded (output_max)"] if discarded else []
        missing += [describe_loss(stream, lost) for stream, lost in end.lost.items()]
        if missing and whole:
            raise OutputTruncated(f"job {self.id} succeeded, but {'; '.join(missing)}")
        return [b"".join(kept) for kept in pieces.values()]

    def _fetch(self, write: dict[StreamName, Callable[[bytes], object]], follow: bool = False) -> OutputEnd:
        def written(stream: StreamName, data: bytes) -> None:
            write[stream](data)

        return self._ask(lambda node: node.output(self.id, written, offsets=dict.fromkeys(write, 0), follow=follow))

    def _failure(self, status: JobStatus) -> JobFailed:
        stderr = b"" if status.state is JobState.EXPIRED else self._output(StreamName.STDERR, whole=False)[0]
        return JobFailed(
            f"job {self.id} {status.state.value}: {self.why().sentence}",
            code=status.exit_code,
            node=status.executor,
            reason=None if status.reason is None else status.reason.value,
            stderr_tail="\n".join(stderr.decode("utf-8", "replace").splitlines()[-STDERR_TAIL:]),
        )

    def _ask(self, ask: Callable[[NodeClient], Deferred[T]]) -> T:
        return self._run(lambda session: session.ask_about(ask, self._home))[0]
