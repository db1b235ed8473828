"""A node, its clients and strangers in virtual time, for tests that neither wait nor open a socket."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import pytest
from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.protocols import amp
from twisted.python.failure import Failure
from zope.interface import implementer

from cloudmytask.boundaries import Launch, OutputEnd
from cloudmytask.client.node_client import NodeClient
from cloudmytask.client.sources import Source
from cloudmytask.codec.people import JobStatus
from cloudmytask.config import NodeConfig
from cloudmytask.model.job import Job, JobSpec, JobState, StreamName
from cloudmytask.simulation.clock import VirtualClock
from cloudmytask.simulation.host import Host, SeededEntropy
from cloudmytask.simulation.network import Network
from cloudmytask.simulation.runner import ScriptPlan

T = TypeVar("T")

FOREVER = ScriptPlan(duration=None)
NODE = "node"


def result_of(deferred: Deferred[T], clock: VirtualClock, patience: float = 300.0) -> T:
    """What ``deferred`` fires with, within ``patience`` virtual seconds; a failure is raised."""
    results: list[T | Failure] = []
    deferred.addBoth(results.append)
    until(lambda: bool(results), clock, patience)
    result = results[0]
    if isinstance(result, Failure):
        result.raiseException()
    return result


def until(condition: Callable[[], bool], clock: VirtualClock, patience: float = 300.0) -> None:
    """Let time pass, call by call, until ``condition`` holds."""
    end = clock.seconds() + patience
    while not condition():
        assert clock.seconds() <= end and clock.step(), f"still waiting at {clock.seconds():.3f} s"


class Desk:
    """What a test does with nodes in virtual time. Scripts do what ``plans`` says: script name → a plan for each
    attempt, the last one for all that follow."""

    clock: VirtualClock
    plans: dict[str, tuple[ScriptPlan, ...]]
    _numbers: count[int]

    def planned(self, launch: Launch) -> ScriptPlan:
        """What a launched script does."""
        plans = self.plans.get(launch.script_name, (ScriptPlan(),))
        return plans[min(launch.id.number, len(plans)) - 1]

    def result(self, deferred: Deferred[T], patience: float = 300.0) -> T:
        """See :func:`result_of`."""
        return result_of(deferred, self.clock, patience)

    def refused(self, deferred: Deferred[Any], error: type[Exception]) -> str:
        """The sentence of the failure, which must be exactly of that type."""
        with pytest.raises(error) as raised:
            self.result(deferred)
        assert type(raised.value) is error
        return str(raised.value)

    def until(self, condition: Callable[[], bool], patience: float = 300.0) -> None:
        """See :func:`until`."""
        until(condition, self.clock, patience)

    def spec(self, *plans: ScriptPlan, script: bytes | None = None, **fields: Any) -> tuple[JobSpec, Source]:
        """A spec whose script does what is planned, attempt by attempt; a script of its own, unless it is given."""
        name = f"script{next(self._numbers)}.py"
        self.plans[name] = plans or (ScriptPlan(),)
        source = Source.of_bytes(script or name.encode())
        return JobSpec(script=source.blob, script_name=name, **fields), source

    def begin(
        self, client: NodeClient, *plans: ScriptPlan, key: str | None = None, **fields: Any
    ) -> Deferred[JobStatus]:
        """Submit, without waiting for the answer."""
        return client.submit(*self.spec(*plans, **fields), key=key)

    def submit(self, client: NodeClient, *plans: ScriptPlan, key: str | None = None, **fields: Any) -> JobStatus:
        """Submit a job of these plans, and see it accepted."""
        return self.result(self.begin(client, *plans, key=key, **fields))

    def reach(self, client: NodeClient, job: JobStatus, state: JobState) -> JobStatus:
        """Wait until a job is in a state."""
        while (found := self.result(client.getScriptJobStatus(job.id))).state is not state:
            assert not found.state.terminal, f"{found} never becomes {state}"
            self.clock.advance(0.01)
        return found

    def wait(self, client: NodeClient, job: JobStatus, patience: float = 300.0) -> JobStatus:
        """Wait for a job's outcome."""
        return self.result(client.wait(job.id), patience)

    def read(self, client: NodeClient, job: JobStatus, **options: Any) -> tuple[bytes, bytes, OutputEnd]:
        """Output and error output of a job, and how they end."""
        kept: dict[StreamName, bytearray] = {stream: bytearray() for stream in StreamName}

        def write(stream: StreamName, data: bytes) -> None:
            kept[stream] += data

        end = self.result(client.output(job.id, write, **options))
        return bytes(kept[StreamName.STDOUT]), bytes(kept[StreamName.STDERR]), end


@define(eq=False)
class Place(Desk):
    """One host with a running node."""

    options: dict[str, Any] = field(factory=dict)
    plans: dict[str, tuple[ScriptPlan, ...]] = field(factory=dict)
    launches: list[tuple[float, Launch]] = field(factory=list)
    commit: float = 0.003
    """Seconds that a commit takes."""
    clock: VirtualClock = field(factory=VirtualClock)
    network: Network = field(init=False)
    host: Host = field(init=False)
    _numbers: count[int] = field(factory=lambda: count(1))

    def __attrs_post_init__(self) -> None:
        self.network = Network(self.clock)
        options: dict[str, Any] = {"slots": 2, "queue_max": 5, "retention": 600.0, "load_source": "none"}
        config = NodeConfig(state=Path("/simulated"), name=NODE, **{**options, **self.options})
        entropy = SeededEntropy(random.Random(7))
        self.host = Host(NODE, self.clock, self.network, config, self._plan, entropy, lambda: self.commit)
        self.host.start()
        self.clock.advance(2 * self.commit)  # the first checkpoint

    def _plan(self, launch: Launch) -> ScriptPlan:
        self.launches.append((self.clock.seconds(), launch))
        return self.planned(launch)

    def connect(self, client: str = "ann") -> NodeClient:
        """A client's connection."""
        return self.result(self.host.connect(client, client))

    def restart(self, *, flushed: bool = False) -> None:
        """``kill -9``, and start the node again."""
        self.host.kill(flushed=flushed)
        self.host.start()

    def record(self, job: JobStatus) -> Job:
        """What the disk holds of a job."""
        return self.host.disk.jobs[job.id]

    def stranger(self) -> Stranger:
        """A connection of somebody who sends whatever they like."""
        stranger = Stranger(self.clock)
        self.result(self.network.endpoint("stranger", NODE).connect(Factory.forProtocol(lambda: stranger.protocol)))
        return stranger


@implementer(amp.IBoxReceiver)
class Stranger:
    """The other end of a connection, box by box."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.protocol: Any = amp.BinaryBoxProtocol(self)
        self.boxes: list[dict[bytes, bytes]] = []
        self.lost = False
        self._tags = count(1)

    def startReceivingBoxes(self, sender: object) -> None:
        """Twisted's interface."""

    def ampBoxReceived(self, box: amp.AmpBox) -> None:
        """Twisted's interface."""
        self.boxes.append(dict(box))

    def stopReceivingBoxes(self, reason: Failure) -> None:
        """Twisted's interface."""
        self.lost = True

    def write(self, data: bytes) -> None:
        """Send bytes."""
        self.protocol.transport.write(data)

    def send(self, box: dict[bytes, bytes]) -> None:
        """Send a box."""
        self.write(amp.AmpBox(box).serialize())

    def ask(self, command: bytes, arguments: dict[bytes, bytes] | None = None) -> dict[bytes, bytes]:
        """Send a command; its answer, error or not."""
        tag = b"s%d" % next(self._tags)
        self.send({amp.COMMAND: command, amp.ASK: tag, **(arguments or {})})
        found: list[dict[bytes, bytes]] = []

        def answered() -> bool:
            found.extend(box for box in self.boxes if tag in (box.get(amp.ANSWER), box.get(amp.ERROR)))
            return bool(found) or self.lost

        until(answered, self.clock)
        assert found, f"the connection was lost over {command!r}"
        self.boxes.remove(found[0])
        return found[0]

    def accept(self, command: bytes, arguments: dict[bytes, bytes] | None = None) -> dict[bytes, bytes]:
        """Like :meth:`ask`, for what must succeed."""
        answer = self.ask(command, arguments)
        assert amp.ANSWER in answer, answer
        return answer

    def refused(self, command: bytes, arguments: dict[bytes, bytes] | None = None) -> tuple[str, str]:
        """Like :meth:`ask`, for what must fail: the failure's code and sentence."""
        answer = self.ask(command, arguments)
        assert amp.ERROR in answer, answer
        return answer[amp.ERROR_CODE].decode(), answer[amp.ERROR_DESCRIPTION].decode()

    def calls(self, command: bytes) -> list[dict[bytes, bytes]]:
        """The commands of that name that came from the node and were not looked at yet."""
        found = [box for box in self.boxes if box.get(amp.COMMAND) == command]
        self.boxes = [box for box in self.boxes if box.get(amp.COMMAND) != command]
        return found

    def answer(self, call: dict[bytes, bytes]) -> None:
        """Answer a command of the node with nothing."""
        self.send({amp.ANSWER: call[amp.ASK]})

    def hello(self, client: str = "stranger") -> None:
        """Introduce ourselves properly."""
        self.accept(b"Hello", {b"versions": b"\x00\x011", b"role": b"client", b"client": client.encode()})
