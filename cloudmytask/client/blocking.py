"""The client library for plain scripts and threads, in the words of ``concurrent.futures``.

Invariant: a call either returns what it promises or raises a declared failure, or ``OSError`` for a file of the
caller's that cannot be read or written; Ctrl-C interrupts any of them. A connection that was lost is made again by the
next call: jobs live on the node, not in the connection. If that node does not answer, new work goes to another one of
its cluster. Threads may share a client, and then share its connection. A process that was forked from one that used a
client cannot use any.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, TypeVar

from twisted.internet.defer import Deferred

from cloudmytask.client import reactor_thread
from cloudmytask.client.connection import Connector, default_client, new_key
from cloudmytask.client.job_handle import JobHandle
from cloudmytask.client.job_spec import (
    Duration,
    Script,
    Size,
    job_spec,
    meant,
    one_of,
    script_of,
    several,
    stdin_of,
    text,
    whole,
)
from cloudmytask.client.known_nodes import KnownNodes, candidates
from cloudmytask.client.node_client import NodeClient
from cloudmytask.client.node_session import NodeSession
from cloudmytask.client.reactor_thread import ReactorGone
from cloudmytask.codec.people import view_to_document
from cloudmytask.core.units import parse_duration
from cloudmytask.directories import known_nodes_file
from cloudmytask.model.cluster import Ban
from cloudmytask.model.errors import ConnectionInterrupted
from cloudmytask.model.job import JobQuery, JobState, QoS

T = TypeVar("T")


class Client:
    """A connection to a node, made with the first call.

    :param address: ``unix:PATH`` or ``HOST:PORT``; if absent ``$CMT_NODE``, the local node, the configuration file.
    :param client: the ClientID to claim; if absent ``$CMT_CLIENT`` or the user's name.
    :param failover: whether one of the others that it told us of is taken instead of a node that does not answer. A job
        is asked for at the node that accepted it, all the same: its handle remembers.
    :raises ConfigurationError: the address has neither form. :raises InvalidArgument: one of them is not text.
    """

    def __init__(self, address: str | None = None, *, client: str | None = None, failover: bool = True) -> None:
        self._addresses = candidates(None if address is None else text("address", address), os.environ, "address")
        self._client = default_client() if client is None else text("client", client)
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
        """End the connection; jobs go on. The client can be used again. If the reactor is gone, as when the program
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
        script: Script,
        *arguments: object,
        stdin: bytes | os.PathLike[str] | None = None,
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
        key: str | None = None,
    ) -> JobHandle:
        """Submit a script; returns when a node has it on disk. If the connection is lost before it says so, the job
        is submitted again under the same key, to another node if that one does not come back within seconds: then it
        may run twice, once it is back. With ``at_most_once`` it fails instead.

        :param script: the script's path, or its source as bytes.
        :param arguments: text, paths and numbers, as ``sys.argv[1:]`` of the script has them.
        :param stdin: bytes, or the path of a file as a ``Path``, that the script reads as its standard input.
        :param name: a label; the script's name if absent. :param timeout: how long one attempt may run.
        :param retries: further attempts that a failure is worth. :param retention: how long the outcome is kept.
        :param variables: environment variables for the script, by name.
        :param max_cpu_time: of each process, like the other limits, see setrlimit(2); in whole seconds, rounded up.
            ``max_memory`` and ``max_file_size``: bytes; ``max_open_files``: how many.
        :param node: the name of the only node that may run it; ``avoid``: names of nodes that may not, or one name;
            ``local``: only the node that accepts it may.
        :param key: idempotency key: the same again under the same key is the same job.
        :raises InvalidArgument: a value cannot be meant. :raises OSError: script or input cannot be read:
            ``FileNotFoundError`` if it is not there. :raises CloudMyTaskError: the node declined, or there is none.
        """
        (source, script_name), fed = script_of(script), stdin_of(stdin)
        spec = job_spec(
            source,
            arguments,
            script_name=script_name,
            qos=qos,
            name=name,
            timeout=timeout,
            retries=retries,
            retention=retention,
            at_most_once=at_most_once,
            variables=variables,
            max_cpu_time=max_cpu_time,
            max_memory=max_memory,
            max_file_size=max_file_size,
            max_open_files=max_open_files,
            node=node,
            avoid=avoid,
            local=local,
        )
        once = new_key() if key is None else key
        submitted, home = self._run(
            lambda session: session.submit(
                lambda node: node.submit_watched(spec, source, fed, key=once, output=True), once=at_most_once
            )
        )
        return JobHandle(self._run, submitted.job, home, submitted.watched)

    def job(self, job_id: str) -> JobHandle:
        """A job that was submitted before.

        :raises NoSuchJob: there is none of that id.
        """
        found = self._run(lambda session: session.ask_about(lambda node: node.getScriptJobStatus(job_id)))
        return JobHandle(self._run, *found)

    def jobs(
        self, *, name: str | None = None, states: str | Iterable[JobState | str] = (), limit: int | None = 100
    ) -> list[JobHandle]:
        """This client's jobs at the node that it talks to, newest first; ``limit=None`` for all of them.

        :param states: only jobs in one of these states, or in this one.
        :raises InvalidArgument: there is no such state, or a value is of another kind.
        """
        query = JobQuery(
            name=None if name is None else text("name", name),
            states=frozenset(one_of("states", JobState, each) for each in several("states", states)),
        )
        limit = whole("limit", limit)
        found, home = self._run(lambda session: session.ask_about(lambda node: node.jobs(query, limit)))
        return [JobHandle(self._run, status, home) for status in found]

    def node(self) -> Mapping[str, Any]:
        """The node's picture of itself."""
        return self._call(lambda node: node.describe())

    def nodes(self) -> list[Mapping[str, Any]]:
        """Every instance that the node knows, itself included: what ``cmt nodes --json`` lists."""
        return list(view_to_document(self._call(lambda node: node.cluster()))["nodes"])

    def bans(self) -> list[Ban]:
        """Every ban in force; ``until`` of each is the seconds that remain."""
        found = self._call(lambda node: node.bans())
        return list(found)

    def ban(self, client: str, reason: str, term: Duration = "1h") -> Ban:
        """Ban a client on all nodes.

        :param reason: the banned client is told.
        :raises NotPermitted: the node is on another machine.
        """
        lasting = meant("term", parse_duration, term) or 0.0
        return self._call(lambda node: node.ban(client, reason, lasting))

    def lift_ban(self, client: str) -> Ban:
        """End a ban now.

        :raises NoSuchBan: there is none. :raises NotPermitted: the node is on another machine.
        """
        return self._call(lambda node: node.lift_ban(client))

    def _run(self, work: Callable[[NodeSession], Coroutine[Deferred[Any], Any, T]]) -> T:
        async def call(reactor: Any) -> T:
            if self._session is None:
                connector = Connector(lambda address: address.endpoint(reactor), reactor, self._client)
                self._session = NodeSession(connector, self._addresses, self._known)
            return await work(self._session)

        return reactor_thread.run(call)

    def _call(self, ask: Callable[[NodeClient], Deferred[T]]) -> T:
        return self._run(lambda session: session.ask(ask))
