"""What is left of a node that has drained: nothing that would go on by itself."""

from __future__ import annotations

from cloudmytask.model.job import JobState
from cloudmytask.simulation.runner import ScriptPlan
from tests.virtual import Place


def test_no_pause_between_attempts_outlives_the_node(place: Place) -> None:
    ann = place.connect()
    job = place.submit(ann, ScriptPlan(duration=0.1, exit_code=1), retries=3, local=True)
    node = place.host.node
    place.until(lambda: bool(node._origin._pauses))
    _, timer = next(iter(node._origin._pauses.values()))
    place.result(node.drain())
    assert not timer.active()
    assert not node._origin._pauses
    assert place.record(job).state is JobState.WAITING
