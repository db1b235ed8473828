"""The line about a job that prints nothing: the node tells what changes, and is not asked again and again."""

from __future__ import annotations

from typing import Any, cast

import pytest
from attrs import define, field
from twisted.internet.defer import Deferred

from cloudmytask.addresses import Address
from cloudmytask.cli.reach import habits
from cloudmytask.cli.terminal.output import OutputWriter
from cloudmytask.cli.verbs.progress import Progress
from cloudmytask.cli.verbs.waiting import WaitingNotes, kind
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


def reached(place: Place) -> NodeSession:
    connector = Connector(lambda _address: place.network.endpoint("ann", NODE), place.clock, "ann")
    node = NodeSession(connector, [Address.parse("node:1", "the test")], None, habits())
    place.result(Deferred.fromCoroutine(node.reach()))
    return node


def test_a_job_that_takes_long_is_asked_for_once_in_each_state() -> None:
    place = Place({"slots": 1})
    node = reached(place)
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


def test_why_a_job_waits_is_said_once_for_each_reason() -> None:
    place = Place({"slots": 1})
    node, bob = reached(place), place.connect("bob")
    place.submit(bob, ScriptPlan(duration=20.0))
    place.submit(bob, ScriptPlan(duration=10.0))
    submitted = place.result(node.client.submit_watched(*place.spec(FOREVER), every=True))
    said: list[str] = []
    notes = WaitingNotes(place.clock, node, submitted, said.append)
    notes.start()
    place.clock.advance(1.9)
    assert said == []
    place.clock.advance(15.0)
    assert said == ["waiting: The only slot of node is taken, and no other node is known, and 1 job waits before it."]
    details = place.result(node.client.explain(submitted.job.id)).details
    assert details[1].endswith("waiting on node: 1 of 1 slots taken, 1 job before it")
    place.clock.advance(8.0)
    assert len(said) == 1, "another number of jobs before it is no other reason"
    place.clock.advance(8.0)
    asked: list[Any] = []
    node.client.explain = lambda job_id: asked.append(job_id)  # type: ignore[method-assign,assignment,return-value]
    place.clock.advance(20.0)
    assert not asked and len(said) == 1, "it runs"
    notes.stop()


def test_nothing_is_said_while_something_else_says_it_nor_after_the_end() -> None:
    place = Place({"slots": 1})
    node = reached(place)
    place.submit(place.connect("bob"), FOREVER)
    submitted = place.result(node.client.submit_watched(*place.spec(FOREVER), every=True))
    said: list[str] = []
    muted = True
    notes = WaitingNotes(place.clock, node, submitted, said.append, lambda: muted)
    notes.start()
    place.clock.advance(10.0)
    assert said == []
    muted = False
    place.clock.advance(3.0)
    assert len(said) == 1
    notes.stop()
    place.clock.advance(10.0)
    assert len(said) == 1


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("All 2 slots of a are taken, and 3 jobs wait before it.", "All 2 slots of a are taken.", True),
        (
            "All slots are taken, and no other node is free (b 0 free).",
            "All slots are taken, and no other node is free (b 0 free, c 0 free).",
            True,
        ),
        (
            "The load of a is 0.91, and it starts jobs below 0.50.",
            "The load of a is 0.83, and it starts jobs below 0.50.",
            True,
        ),
        (
            "It waits for zz, where it is to run, and zz is not there now.",
            "It waits for zz, where it is to run, and no other node is free (zz 0 free).",
            False,
        ),
        (
            "The only slot of a is taken.",
            "a is shutting down; the job stays queued and runs when the node is back.",
            False,
        ),
    ],
)
def test_what_says_the_same_with_other_figures(one: str, other: str, alike: bool) -> None:
    assert (kind(one) == kind(other)) is alike
