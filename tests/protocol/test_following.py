"""``cmt run`` and ``cmt logs -f`` across the death of a node: each byte of each attempt once, whatever was on disk."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from cloudmytask.addresses import Address
from cloudmytask.cli.follow import attempts
from cloudmytask.cli.reach import habits
from cloudmytask.client.connection import Connector
from cloudmytask.client.node_session import NodeSession
from cloudmytask.codec.people import JobStatus
from cloudmytask.model.job import StreamName
from cloudmytask.simulation.runner import ScriptPlan
from tests.virtual import NODE, Place

OUT = StreamName.STDOUT
FIRST = ScriptPlan(duration=None, output=((0.5, OUT, b"first "),))
SECOND = ScriptPlan(duration=1.0, output=((0.5, OUT, b"second"),))


def _follow(place: Place, job: JobStatus, shown: list[bytes], when_shown: Any) -> Deferred[list[int]]:
    """The numbers of the attempts that have ended, once all have; what they write goes to ``shown``."""
    connector = Connector(lambda _address: place.network.endpoint("ann", NODE), place.clock, "ann")
    node = NodeSession(connector, [Address.parse("node:1", "the test")], None, habits())

    def take(_stream: StreamName, data: bytes) -> None:
        shown.append(data)
        when_shown()

    async def follow() -> list[int]:
        return [end.attempt async for end in attempts(node, job.id, take)]

    return Deferred.fromCoroutine(follow())


def _die(place: Place, *, flushed: bool) -> None:
    place.commit = 0.003
    place.restart(flushed=flushed)


def test_a_node_that_dies_the_moment_output_is_shown() -> None:
    place = Place()
    job = place.submit(place.connect("ann"), FIRST, SECOND)
    shown: list[bytes] = []

    def die_once() -> None:
        if len(shown) == 1:
            place.clock.callLater(0.0, _die, place, flushed=True)

    assert place.result(_follow(place, job, shown, die_once)) == [1, 2]
    assert shown == [b"first ", b"second"]


def test_a_node_that_forgets_an_attempt_gives_its_number_to_another() -> None:
    place = Place({"slots": 1})
    ann = place.connect("ann")
    place.submit(ann, ScriptPlan(duration=1.0), ScriptPlan(duration=0.0))
    job = place.submit(ann, SECOND)
    place.commit = 3600.0  # from here on nothing of it reaches the disk
    shown: list[bytes] = []

    def die_once() -> None:
        if len(shown) == 1:
            place.clock.callLater(0.0, _die, place, flushed=False)

    assert place.result(_follow(place, job, shown, die_once)) == [1]
    assert shown == [b"second", b"second"]
