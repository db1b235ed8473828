"""An instance's end of a client's connection: each command is decoded, given to a verb of the API, and its answer
encoded, as one table says (``client_calls``).

Invariant: what a client began on a connection (watches, output streams, uploads) ends with it; jobs do not. Nothing
reaches a verb that the connection's principal may not call.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, DeferredSemaphore, maybeDeferred
from twisted.logger import Logger

from cloudmytask.api.client_api import ClientApi, inline
from cloudmytask.api.following import Riding
from cloudmytask.api.principals import check_allowed, client_principal
from cloudmytask.boundaries import Clock, ClusterDoor, DelayedCall, JobEvent
from cloudmytask.codec import decode, encode
from cloudmytask.codec.people import job_to_document, node_to_document
from cloudmytask.deferreds import Pace
from cloudmytask.model.access import ScriptCaller
from cloudmytask.model.errors import (
    HelloRequired,
    InvalidArgument,
    NotPermitted,
    UnsupportedVersion,
)
from cloudmytask.model.job import Job, JobId, JobSpec, QoS, StreamName
from cloudmytask.net.channels import Channel, Channels
from cloudmytask.net.client_calls import CALLS, Answer, Call, receipt_answer
from cloudmytask.net.credentials import peer_pid, peer_uid
from cloudmytask.net.event_push import FOLLOWED_MAX, EventPush
from cloudmytask.net.incoming import IncomingUploads
from cloudmytask.net.peer_links import Introduction, PeerLinks
from cloudmytask.net.push import JobChanges, OutputBudget, OutputPush, riding
from cloudmytask.wire import commands, peer_commands
from cloudmytask.wire.guard import GuardedAMP
from cloudmytask.wire.vocabulary import Vocabulary

_log = Logger()

HELLO_TIMEOUT = 10.0
"""Seconds that a connection may stay anonymous."""
ANONYMOUS_MAX = 100
"""Requests on a connection that has not said who is there; one more ends it."""
HEAVY_MAX = 4
"""Requests of one connection that cost much and are worked on at a time; the others wait, and are dropped when the
connection ends."""


ScriptOf = Callable[[int], ScriptCaller | None]
"""Tells of the process that connected to a unix socket whether it belongs to a script."""


class ClientSession:
    """What one connection has begun, and the responders to its commands.

    :param links: where connections of peers become links; None if only clients are welcome.
    :param script_of: tells scripts from people.
    """

    def __init__(
        self,
        door: ClusterDoor,
        clock: Clock,
        links: PeerLinks | None = None,
        script_of: ScriptOf = lambda _pid: None,
    ) -> None:
        self._door = door
        self._links = links
        self._script_of = script_of
        self._introduction: Introduction | None = None
        self._api: ClientApi | None = None
        self._turns = DeferredSemaphore(HEAVY_MAX)
        self.channels = Channels()
        self.uploads = IncomingUploads(lambda blob: self._identified().upload(blob))
        vocabulary = Vocabulary(
            {
                **{command: partial(self._respond, call) for command, call in CALLS.items()},
                commands.Hello: self.hello,
                peer_commands.PeerHello: self.peer_hello,
                peer_commands.ProvePeer: self.prove_peer,
            },
            self._admit,
            self._malformed,
        )
        self._clock = clock
        self.protocol = GuardedAMP(vocabulary, clock, self._lost)
        self._changes = JobChanges(self.protocol)
        self._budget = OutputBudget()
        self._followed = 0
        self._refused = 0
        self._anonymous: DelayedCall | None = clock.callLater(HELLO_TIMEOUT, self._too_late)

    def hello(self, versions: list[int], role: str, client: str, software: str | None) -> Answer:
        """Learn who is there."""
        if commands.PROTOCOL_VERSION not in versions:
            raise UnsupportedVersion(
                f"this node speaks protocol version {commands.PROTOCOL_VERSION}, the client offers {versions}"
            )
        if role != "client":
            raise InvalidArgument(f"role: {role!r} is not client")
        transport: Any = self.protocol.transport
        pid = peer_pid(transport)
        script = None if pid is None else self._script_of(pid)
        principal = client_principal(client, transport.getPeer(), peer_uid(transport), script)
        if self._api is not None and self._api.principal != principal:
            raise InvalidArgument(
                f"client: this connection is {self._api.principal.name}'s and cannot become {principal.name}'s"
            )
        self._api = self._api or ClientApi(self._door, principal)
        self._introduction = None
        self._known()
        _log.debug("client {client}, user {uid}, with {software}", client=client, uid=principal.uid, software=software)
        return {"version": commands.PROTOCOL_VERSION, "node": node_to_document(self._door.describe())}

    def peer_hello(self, version: int, identity: Answer, nonce: bytes) -> Answer:
        """Another instance is there: the connection is to become a link."""
        if self._api is not None:
            raise NotPermitted(f"this connection is client {self._api.principal.name}'s and cannot become a link")
        self._introduction = None
        if self._links is not None:
            self._introduction = self._links.introduction(self.protocol, lambda _link: self._known())
        if self._introduction is None:
            raise NotPermitted("this node has no peers")
        return self._introduction.hello(version, identity, nonce)

    def prove_peer(self, proof: bytes) -> Answer:
        """It proves that it is of our cluster."""
        if self._introduction is None:
            raise HelloRequired("PeerHello must come before ProvePeer")
        return self._introduction.prove(proof)

    # how a command becomes a verb, and its answer an answer

    def _respond(self, call: Call, **arguments: Any) -> Deferred[Answer]:
        api = self._identified()
        verb: Callable[..., Any] = getattr(api, call.verb)
        check_allowed(api.principal, verb)
        for name, decoded in call.decode.items():
            arguments[name] = decoded(arguments[name])
        if call.begin is not None:
            verb = partial(call.begin(self), api)
        answered = self._in_turn(partial(verb, **arguments)) if call.heavy else _run(verb, arguments)
        return answered.addCallback(call.encode)

    def _in_turn(self, verb: Callable[[], Any]) -> Deferred[Any]:
        def now() -> Deferred[Any]:
            if not self.protocol.alive:
                raise NotPermitted("nobody is there to hear the answer")
            return _run(verb, {})

        return self._turns.run(now)

    async def submit(
        self,
        api: ClientApi,
        key: str,
        qos: QoS | None,
        spec: Answer,
        script: bytes | None,
        stdin: bytes | None,
        watch: int | None,
        every: bool | None,
        output: bool | None,
        stream: int | None,
    ) -> Answer:
        """Submit a job, and watch it and stream its output in the same breath."""
        contents = inline(script, stdin)
        decoded = decode(JobSpec, {**spec, **{name: encode(content.blob) for name, content in contents.items()}})
        with ExitStack() as failing:
            watching = None if watch is None else failing.enter_context(self.channels.opening(watch))
            streaming = None if stream is None else failing.enter_context(self.channels.opening(stream))
            receipt = await api.submit(key, decoded, qos, tuple(contents.values()))
            answer = {**receipt_answer(receipt), "follows": watching is not None or streaming is not None}
            if watching is not None:
                answer.update(await self._watch(api, watching, receipt.job.id, bool(every), bool(output)))
            if streaming is not None:
                await self._stream(api, streaming, receipt.job.id, 1, dict.fromkeys(StreamName, 0), follow=True)
        return answer

    async def watch(self, api: ClientApi, watch: int, job: JobId, every: bool | None, output: bool | None) -> Answer:
        """Tell the client of the outcome, or of every change from now on."""
        with self.channels.opening(watch) as channel:
            return await self._watch(api, channel, job, bool(every), bool(output))

    async def stream(
        self, api: ClientApi, watch: int, job: JobId, attempt: int, offsets: dict[StreamName, int], follow: bool
    ) -> Answer:
        """Send an attempt's output."""
        with self.channels.opening(watch) as channel:
            await self._stream(api, channel, job, attempt, offsets, follow=follow)
        return {}

    async def _watch(self, api: ClientApi, channel: Channel, job: JobId, every: bool, output: bool) -> Answer:
        def told(changed: Job, whole: Riding | None) -> None:
            if channel.is_open:
                if changed.state.terminal:
                    channel.close()
                self._changes.tell(channel.number, changed, whole)

        watching = await api.watch(job, told, every=every, output=output)
        channel.opened(watching.close)
        if watching.job.state.terminal:
            channel.close()
        return {"job": job_to_document(watching.job), **riding(watching.output)}

    async def _stream(
        self,
        api: ClientApi,
        channel: Channel,
        job: JobId,
        attempt: int,
        offsets: dict[StreamName, int],
        *,
        follow: bool,
    ) -> None:
        reader = await api.output(job, attempt, offsets, follow=follow)
        push = OutputPush(self.protocol, channel.number, reader, self._budget, Pace(self._clock), channel.close)
        channel.opened(push.close)
        if channel.is_open:
            push.start()

    def follow(self, api: ClientApi, watch: int, everyone: bool | None) -> None:
        """Tell the client of its jobs, or of all jobs."""
        verb = api.all_events if everyone else api.events
        check_allowed(api.principal, verb)
        if self._followed >= FOLLOWED_MAX:
            raise InvalidArgument(f"watch: events are followed {FOLLOWED_MAX} times already, more are not allowed")
        with self.channels.opening(watch) as channel:
            push = EventPush(self.protocol, watch)
            following = verb(lambda event: push.tell(event) if isinstance(event, JobEvent) else None)

            def close() -> None:
                self._followed -= 1
                following.close()
                push.close()

            self._followed += 1
            channel.opened(close)

    def unsubscribe(self, _api: ClientApi, watch: int) -> None:
        """End a watch, a stream or events."""
        self.channels.close(watch)
        self._changes.forget(watch)

    # the connection

    @property
    def anonymous(self) -> bool:
        """Whether nobody has said yet who is there."""
        return self._anonymous is not None

    def drop(self, why: str) -> None:
        """End the connection now."""
        transport: Any = self.protocol.transport
        if self.protocol.alive and transport is not None:
            _log.warn("connection dropped: {why}", why=why)
            transport.abortConnection()

    def _admit(self, size: int) -> None:
        """A request came; too fast a client is slowed down by not being read from."""
        if self._api is None:
            self._refused += 1
            if self._refused > ANONYMOUS_MAX:
                self.drop(f"{self._refused} requests without Hello")
            return
        delay = self._door.admit(self._api.principal.name, size)
        if delay > 0:
            self.protocol.hold(delay)

    def _malformed(self) -> None:
        if self._api is not None:
            self._door.malformed(self._api.principal.name)

    def _identified(self) -> ClientApi:
        if self._api is None:
            raise HelloRequired("Hello must come before any other command")
        return self._api

    def _known(self) -> None:
        if self._anonymous is not None:
            self._anonymous.cancel()
            self._anonymous = None

    def _too_late(self) -> None:
        self._anonymous = None
        self.drop(f"no Hello within {HELLO_TIMEOUT:g} s")

    def _lost(self) -> None:
        self._known()
        self.channels.close_all()
        self.uploads.abort_all()


def _run(verb: Callable[..., Any], arguments: Mapping[str, Any]) -> Deferred[Any]:
    """Call a verb, of whichever kind."""

    def call() -> Any:
        result = verb(**arguments)
        return Deferred.fromCoroutine(result) if isinstance(result, Coroutine) else result

    return maybeDeferred(call)
