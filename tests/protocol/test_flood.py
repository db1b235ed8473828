"""A client that asks faster than it may: slowed down, refused with a time to try again, banned for a while."""

from __future__ import annotations

from collections import Counter

from twisted.protocols import amp

from cloudmytask.simulation.runner import ScriptPlan
from tests.virtual import Place, Stranger

LIMITS = {"request_rate": 100, "request_burst": 200}


def _flood(swarm: list[Stranger], number: int) -> Counter[str]:
    """Ask so often on each connection, without waiting for answers; how the node answered."""
    answers: Counter[str] = Counter()
    request = amp.AmpBox({amp.COMMAND: b"DescribeNode", amp.ASK: b"f"}).serialize()
    for stranger in swarm:
        stranger.write(request * number)
    swarm[0].clock.advance(1.0)
    for stranger in swarm:
        answers.update(box[amp.ERROR_CODE].decode() if amp.ERROR in box else "answered" for box in stranger.boxes)
        stranger.boxes.clear()
    return answers


def test_a_flood_is_refused_and_then_banned_while_others_are_served() -> None:
    place = Place(options=LIMITS)
    swarm = [place.stranger() for _ in range(10)]
    for each in swarm:
        each.hello("mallory")
    answers = _flood(swarm, 200)
    assert answers["answered"] >= 200 and answers["TooManyRequests"] > 0, answers
    ann = place.connect("ann")
    assert place.wait(ann, place.submit(ann, ScriptPlan(duration=0.1))).exit_code == 0
    for _ in range(60):
        answers = _flood(swarm, 200)
        if answers["Banned"]:
            break
    assert answers["Banned"], answers
    mallory = place.stranger()
    mallory.hello("mallory")
    code, sentence = mallory.refused(b"DescribeNode")
    assert code == "Banned" and "mallory is banned by node" in sentence
    assert place.wait(ann, place.submit(ann, ScriptPlan(duration=0.1))).exit_code == 0
    place.clock.advance(600.0)
    mallory.accept(b"DescribeNode")  # a ban by one node is short


def test_whoever_waits_for_answers_is_never_refused() -> None:
    place = Place(options={**LIMITS, "queue_max": 5000, "slots": 1})
    ann = place.connect("ann")
    spec, source = place.spec(ScriptPlan(duration=None))
    for number in range(2000):
        place.result(ann.submit(spec, source, key=f"k{number}"))


def test_one_connection_that_does_not_wait_is_read_more_slowly() -> None:
    place = Place(options=LIMITS)
    hasty = place.stranger()
    hasty.hello("hasty")
    began = place.clock.seconds()
    for _ in range(1000):
        hasty.send({amp.COMMAND: b"DescribeNode", amp.ASK: b"f"})
    place.until(lambda: len(hasty.boxes) == 1000)
    assert not [box for box in hasty.boxes if amp.ERROR in box]
    assert place.clock.seconds() - began > 7.0  # 200 at once, then 100 a second


def test_malformed_requests_have_a_budget() -> None:
    place = Place()
    mallory = place.stranger()
    mallory.hello("mallory")
    codes = [mallory.refused(b"GetScriptJobStatus", {b"job": b"\xff"})[0] for _ in range(20)]
    assert codes[0] == "InvalidArgument" and codes[-1] == "Banned"
    assert not mallory.lost
