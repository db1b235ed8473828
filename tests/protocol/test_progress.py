"""The line about a job that prints nothing: the node tells what changes, and is not asked again and again."""

from __future__ import annotations

from typing import Any, cast

from attrs import define, field
from twisted.internet.defer import Deferred

from cloudmytask.addresses import Address
from cloudmytask.cli.reach import habits
from cloudmytask.cli.terminal.output import OutputWriter
from cloudmytask.cli.verbs.progress import Progress
from cloudmytask.client.connection import Connector
from cloudmytask.client.node_session import NodeSession
from cloudmytask.simulation.runner import ScriptPlan
from tests.virtual import FOREVER, NODE, Place


@define
class Terminal:
    """What a person sees."""

    lines: list[str] = field(factory=list)

    def write(self, _descriptor: int, data: bytes) -> None:
        self.lines.append(data.decode().removeprefix("\r\x1b[2K"))


def test_a_job_that_takes_long_is_asked_for_once_in_each_state() -> None:
    place = Place({"slots": 1})
    connector = Connector(lambda _address: place.network.endpoint("ann", NODE), place.clock, "ann")
    node = NodeSession(connector, [Address.parse("node:1", "the test")], None, habits())
    place.result(Deferred.fromCoroutine(node.reach()))
    place.submit(place.connect("bob"), ScriptPlan(duration=20.0))
    job = place.submit(node.client, FOREVER)
    terminal = Terminal()
    progress = Progress(place.clock, node, cast(OutputWriter, terminal), lambda: 200)
    progress.start(job.id)
    place.clock.advance(2.0)
    asked: list[Any] = []
    explain = node.client.explain
    node.client.explain = lambda job_id: asked.append(job_id) or explain(job_id)  # type: ignore[method-assign,func-returns-value]
    place.clock.advance(10.0)
    assert terminal.lines[-1].startswith("cmt: waiting 12 s: ") and not asked
    place.clock.advance(20.0)
    assert terminal.lines[-1].startswith("cmt: running 32 s: ")
    assert 1 <= len(asked) <= 2, "staging and running"
    progress.stop()
    assert terminal.lines[-1] == ""
    place.clock.advance(5.0)
    assert terminal.lines[-1] == "", "nothing comes after it"
