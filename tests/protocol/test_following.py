"""``cmt run`` and ``cmt logs -f`` across the death of a node: each byte of each attempt once, whatever was on disk."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamClientEndpoint

from cloudmytask.cli.follow import attempts
from cloudmytask.cli.link import Link
from cloudmytask.model import StreamName
from cloudmytask.simulation.runner import ScriptPlan
from cloudmytask.wire.documents import JobStatus
from tests.virtual import NODE, Place

OUT = StreamName.STDOUT
FIRST = ScriptPlan(duration=None, output=((0.5, OUT, b"first "),))
SECOND = ScriptPlan(duration=1.0, output=((0.5, OUT, b"second"),))


@frozen
class _Address:
    place: Place
    text: str = NODE

    def endpoint(self, _reactor: object) -> IStreamClientEndpoint:
        return self.place.network.endpoint("ann", NODE)


def _follow(place: Place, job: JobStatus, shown: list[bytes], when_shown: Any) -> Deferred[list[int]]:
    """The numbers of the attempts that have ended, once all have; what they write goes to ``shown``."""
    address: Any = _Address(place)
    link = Link(place.clock, "ann", address, place.connect("ann"))

    def take(_stream: StreamName, data: bytes) -> None:
        shown.append(data)
        when_shown()

    async def follow() -> list[int]:
        return [end.attempt async for end in attempts(link, job.id, take)]

    return Deferred.fromCoroutine(follow())


@pytest.mark.parametrize("on_disk", [True, False])
def test_a_node_that_dies_the_moment_output_is_shown(on_disk: bool) -> None:
    """If the attempt was not on disk yet, another one gets its number, and what that writes is new."""
    place = Place()
    job = place.submit(place.connect("ann"), *((FIRST, SECOND) if on_disk else (SECOND,)))
    shown: list[bytes] = []
    if not on_disk:
        place.commit = 3600.0

    def die() -> None:
        place.commit = 0.003
        place.restart(flushed=on_disk)

    def die_once() -> None:
        if len(shown) == 1:
            place.clock.callLater(0.0, die)

    ended = place.result(_follow(place, job, shown, die_once))
    assert (ended, shown) == (([1, 2], [b"first ", b"second"]) if on_disk else ([1], [b"second", b"second"]))
