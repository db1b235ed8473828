"""The client library for plain scripts and threads, in the words of ``concurrent.futures``.

Invariant: a call either returns what it promises or raises a declared failure; Ctrl-C interrupts any of them. A
connection that was lost is made anew by the next call: jobs live on the node, not in the connection. Where that node
does not answer, new work goes to another one of its cluster. Threads may share a client, and then share its connection.
A process that was forked from one that used a client cannot use any.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, TypeVar

from twisted.internet.defer import Deferred

from cloudmytask.addresses import Address
from cloudmytask.boundaries import OutputEnd
from cloudmytask.client import reactor_thread
from cloudmytask.client.addresses import candidates
from cloudmytask.client.cluster_calls import ClusterCalls
from cloudmytask.client.connection import Connector, new_key
from cloudmytask.client.known_nodes import KnownNodes
from cloudmytask.client.node_client import NodeClient
from cloudmytask.client.node_session import NodeSession
from cloudmytask.client.options import Duration, Size, default_client, qos_class, seconds, size, stdin_source
from cloudmytask.client.reactor_thread import ReactorGone
from cloudmytask.client.result import Result
from cloudmytask.client.sources import Source
from cloudmytask.client.subscriptions import Watched
from cloudmytask.codec.people import JobStatus
from cloudmytask.directories import known_nodes_file
from cloudmytask.model.errors import ConnectionInterrupted, JobFailed, OutputTruncated, WaitTimeout
from cloudmytask.model.job import Explanation, JobQuery, JobSpec, JobState, Limits, QoS, StreamName

T = TypeVar("T")
STDERR_TAIL = 20
"""Lines of standard error that a :class:`~cloudmytask.model.errors.JobFailed` carries."""


class Client(ClusterCalls):
    """A connection to a node, made with the first call.

    :param address: ``unix:PATH`` or ``HOST:PORT``; if absent ``$CMT_NODE``, the local node, the configuration file.
    :param client: the ClientID to claim; if absent ``$CMT_CLIENT`` or the user's name.
    :param failover: whether, where that node does not answer, one of the others that it told us of is taken instead. A
        job is asked for where it was accepted, all the same: its handle remembers.
    :raises ConfigurationError: the address has neither form.
    """

    def __init__(self, address: str | None = None, *, client: str | None = None, failover: bool = True) -> None:
        self._addresses = candidates(address, os.environ)
        self._client = client or default_client()
        # What earlier programs were told is of no concern to one that says itself where its node is.
        file = known_nodes_file(os.environ) if address is None else None
        self._known = KnownNodes(file) if failover else None
        self._session: NodeSession | None = None

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection; jobs go on. The client can be used again. Where the reactor is gone, as when the program
        ends, the connection is too."""
        session = self._session
        if session is None:
            return

        async def end(_reactor: Any) -> None:
            session.close()

        with suppress(ReactorGone, ConnectionInterrupted):
            reactor_thread.run(end)

    def submit(
        self,
        script: str | os.PathLike[str] | bytes,
        *arguments: str,
        stdin: bytes | os.PathLike[str] | None = None,
        qos: QoS | str = QoS.BATCH,
        name: str | None = None,
        timeout: Duration | None = None,
        retries: int = 0,
        retention: Duration | None = None,
        at_most_once: bool = False,
        variables: dict[str, str] | None = None,
        max_cpu_time: Duration | None = None,
        max_memory: Size | None = None,
        node: str | None = None,
        avoid: Sequence[str] = (),
        local: bool = False,
        key: str | None = None,
    ) -> JobHandle:
        """Submit a script; returns when a node has it on disk. Where the connection is lost before it says so, the job
        is submitted again under the same key, to another node if that one does not come back within seconds: then it
        may run twice, once it is back. With ``at_most_once`` it fails instead.

        :param script: the script's path, or its source as bytes.
        :param stdin: bytes, or the path of a file, that the script reads as its standard input.
        :param node: the name of the only node that may run it; ``avoid``: names of nodes that may not; ``local``: only
            the node that accepts it may.
        :param key: idempotency key: the same again under the same key is the same job.
        :raises CloudMyTaskError: the node declined, or there is none.
        """
        if isinstance(script, bytes):
            source, script_name = Source.of_bytes(script), "script.py"
        else:
            source, script_name = Source.of_file(Path(script)), Path(script).name
        spec = JobSpec(
            script=source.blob,
            script_name=script_name,
            arguments=tuple(map(str, arguments)),
            qos=qos_class(qos),
            name=name,
            timeout=seconds("timeout", timeout),
            retries=retries,
            retention=seconds("retention", retention),
            at_most_once=at_most_once,
            limits=Limits(
                cpu_seconds=None if max_cpu_time is None else int(seconds("max_cpu_time", max_cpu_time) or 0),
                address_space=size("max_memory", max_memory),
            ),
            variables=variables or {},
            node=node,
            avoid=tuple(avoid),
            local=local,
        )
        once = key or new_key()
        fed = None if stdin is None else stdin_source(stdin)
        submitted, home = self._run(
            lambda session: session.submit(
                lambda node: node.submit_watched(spec, source, fed, key=once, output=True), once=at_most_once
            )
        )
        return JobHandle(self, submitted.job, home, submitted.watched)

    def job(self, job_id: str) -> JobHandle:
        """A job that was submitted before. :raises NoSuchJob:"""
        return JobHandle(
            self, *self._run(lambda session: session.ask_about(lambda node: node.getScriptJobStatus(job_id)))
        )

    def jobs(
        self, *, name: str | None = None, states: Sequence[JobState | str] = (), limit: int | None = 100
    ) -> list[JobHandle]:
        """This client's jobs at the node that it talks to, newest first; ``limit=None`` for all of them."""
        query = JobQuery(name=name, states=frozenset(map(JobState, states)))
        found, home = self._run(lambda session: session.ask_about(lambda node: node.jobs(query, limit)))
        return [JobHandle(self, status, home) for status in found]

    def node(self) -> Mapping[str, Any]:
        """The node's picture of itself."""
        return self._call(lambda node: node.describe())

    def _call(self, ask: Callable[[NodeClient], Deferred[T]]) -> T:
        return self._run(lambda session: session.ask(ask))

    def _call_at(self, home: Address, ask: Callable[[NodeClient], Deferred[T]]) -> T:
        return self._run(lambda session: session.ask_about(ask, home))[0]

    def _run(self, work: Callable[[NodeSession], Coroutine[Deferred[Any], Any, T]]) -> T:
        async def call(reactor: Any) -> T:
            if self._session is None:
                connector = Connector(lambda address: address.endpoint(reactor), reactor, self._client)
                self._session = NodeSession(connector, self._addresses, self._known)
            return await work(self._session)

        return reactor_thread.run(call)


class JobHandle:
    """One submitted job; the object remembers the last state it was told, and which node to ask."""

    def __init__(self, client: Client, status: JobStatus, home: Address, watched: Watched | None = None) -> None:
        self._client = client
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
        """Wait for the outcome, whatever it is.

        :param timeout: how long. :raises WaitTimeout: there was none by then.
        """
        lasting = seconds("timeout", timeout)
        if not self._status.state.terminal:
            self._status = self._client._run(lambda session: self._outcome(session, lasting))
        return self._status

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

    def result(self, timeout: Duration | None = None) -> Result:
        """Wait for success, and fetch the output into memory (see :meth:`copy_output` for a large one).

        :raises JobFailed: it ended otherwise; carries code, node, reason and the end of its standard error.
        :raises OutputTruncated: it wrote more than the node keeps; :meth:`copy_output` fetches what there is.
        :raises WaitTimeout: it did not end within ``timeout``.
        """
        status = self.wait(timeout)
        if status.state is not JobState.SUCCEEDED:
            raise self._failure(status)
        if self._watched is not None and self._watched.output is not None:
            return Result(status, *(self._watched.output[stream] for stream in StreamName))
        pieces: dict[StreamName, list[bytes]] = {stream: [] for stream in StreamName}
        end = self._fetch(lambda stream, data: pieces[stream].append(data))
        missing = sum(end.discarded.values())
        if missing:
            raise OutputTruncated(
                f"job {self.id} succeeded, but {missing} bytes of its output were discarded (output_max)"
            )
        return Result(status, b"".join(pieces[StreamName.STDOUT]), b"".join(pieces[StreamName.STDERR]))

    def exception(self, timeout: Duration | None = None) -> JobFailed | None:
        """The failure that :meth:`result` would raise, or None."""
        status = self.wait(timeout)
        return None if status.state is JobState.SUCCEEDED else self._failure(status)

    def copy_output(
        self, stdout: BinaryIO | None = None, stderr: BinaryIO | None = None, *, follow: bool = False
    ) -> OutputEnd:
        """Write the output of the latest attempt into binary files, piece by piece.

        :param follow: go on until the script has ended.
        :returns: how much there is, and in ``discarded`` how much the node did not keep.
        """
        files = {StreamName.STDOUT: stdout, StreamName.STDERR: stderr}
        wanted = {stream: 0 for stream, file in files.items() if file is not None}

        def write(stream: StreamName, data: bytes) -> None:
            file = files[stream]
            if file is not None:
                file.write(data)

        return self._ask(lambda node: node.output(self.id, write, offsets=wanted, follow=follow))

    def cancel(self, note: str = "") -> JobStatus:
        """Ask for its end; :meth:`wait` tells when it has come."""
        self._status = self._ask(lambda node: node.cancel(self.id, note))
        return self._status

    def retry(self) -> JobHandle:
        """Submit it once more, as a new job."""
        key = new_key()
        return JobHandle(self._client, self._ask(lambda node: node.retry(self.id, key)), self._home)

    def remove(self) -> None:
        """Delete its outcome and output."""
        self._ask(lambda node: node.remove(self.id))

    def why(self) -> Explanation:
        """Why it is in its state."""
        return self._ask(lambda node: node.explain(self.id))

    def _ask(self, ask: Callable[[NodeClient], Deferred[T]]) -> T:
        return self._client._call_at(self._home, ask)

    def _fetch(self, write: Callable[[StreamName, bytes], None]) -> OutputEnd:
        return self._ask(lambda node: node.output(self.id, write))

    def _failure(self, status: JobStatus) -> JobFailed:
        pieces: list[bytes] = []
        if status.state is not JobState.EXPIRED:
            self._ask(
                lambda node: node.output(self.id, lambda _, data: pieces.append(data), offsets={StreamName.STDERR: 0})
            )
        tail = b"".join(pieces).decode("utf-8", "replace").splitlines()[-STDERR_TAIL:]
        why = self.why().sentence
        return JobFailed(
            f"job {self.id} {status.state.value}: {why}",
            code=status.exit_code,
            node=status.executor,
            reason=None if status.reason is None else status.reason.value,
            stderr_tail="\n".join(tail),
        )
