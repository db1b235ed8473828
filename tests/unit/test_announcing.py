"""When an instance announces itself."""

from __future__ import annotations

import random
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from cloudmytask.cluster.announcer import Announcer
from cloudmytask.core.announcing import AnnouncementPace, Condition, worth_telling
from cloudmytask.model.cluster import (
    Announcement,
    Backlog,
    BootId,
    BusMessage,
    Capacity,
    NodeId,
    PeerIdentity,
    Role,
    RootKey,
    TreePosition,
)
from cloudmytask.model.job import QoS, Resource
from cloudmytask.simulation.clock import VirtualClock
from cloudmytask.simulation.host import SeededEntropy

FREE = Condition(Capacity(slots=2, free=2, load=0.1))
ROOT = RootKey(1, NodeId("a" * 32))


@pytest.mark.parametrize(
    ("instances", "budget", "gap", "heartbeat"),
    [
        (3, 4e6, 0.25, 1.0),
        (1000, 4e6, 0.524, 2.096),
        (2000, 4e6, 1.048, 4.192),
        (10_000, 4e6, 5.24, 20.0),
        (10_000, 0.15e6, 139.73, 139.73),
    ],
)
def test_the_pace_keeps_to_the_budget(instances: int, budget: float, gap: float, heartbeat: float) -> None:
    pace = AnnouncementPace(budget)
    assert pace.gap(instances) == pytest.approx(gap, abs=0.01)
    assert pace.heartbeat(instances) == pytest.approx(heartbeat, abs=0.01)


@pytest.mark.parametrize(
    "change",
    [
        {"capacity": Capacity(slots=2, free=0)},
        {"backlog": Backlog({QoS.BATCH: 1})},
        {"tree": TreePosition(ROOT)},
        {"draining": True},
        {"short": (Resource.DISK,)},
        {"bans": "x"},
    ],
)
def test_what_others_decide_by_is_told_at_once(change: dict[str, Any]) -> None:
    assert worth_telling(FREE, evolve(FREE, **change))
    assert worth_telling(evolve(FREE, **change), FREE)


@pytest.mark.parametrize("change", [{"capacity": Capacity(slots=2, free=1, load=0.3)}, {}])
def test_what_nobody_decides_by_waits(change: dict[str, Any]) -> None:
    assert not worth_telling(FREE, evolve(FREE, **change))


@given(st.integers(1, 20_000), st.floats(0, 1), st.floats(0, 100))
def test_the_next_is_never_sooner_than_the_gap_nor_later_than_promised(n: int, jitter: float, at: float) -> None:
    pace = AnnouncementPace()
    pace.sent(at, n, jitter)
    for urgent in (True, False):
        wait = pace.due(at + 0.001, urgent=urgent) - at
        assert pace.gap(n) - 1e-6 <= wait <= pace.heartbeat(n) + 1e-6


class Said:
    """An announcer and what it published."""

    def __init__(self, present: int = 2) -> None:
        self.clock = VirtualClock()
        self.condition = FREE
        self.words: list[tuple[float, Announcement]] = []
        self.broken = False
        me = PeerIdentity("lab", Role.NODE, NodeId("a" * 32), BootId("0" * 16), "a", "10.0.0.1:7000")
        self.announcer = Announcer(
            self.clock, SeededEntropy(random.Random(1)), me, self.publish, lambda: self.condition, lambda: present
        )
        self.announcer.start()

    def publish(self, message: BusMessage) -> None:
        assert isinstance(message, Announcement)
        self.words.append((self.clock.seconds(), message))
        if self.broken:
            raise OSError("no route")

    @property
    def times(self) -> list[float]:
        return [time for time, _ in self.words]


def test_it_speaks_at_its_interval_and_numbers_its_words() -> None:
    said = Said()
    said.clock.advance(20.0)
    gaps = [later - earlier for earlier, later in zip(said.times, said.times[1:], strict=False)]
    assert all(0.7 <= gap <= 1.0 for gap in gaps) and len(gaps) >= 19
    assert [word.sequence for _, word in said.words] == list(range(1, len(said.words) + 1))
    assert {word.interval for _, word in said.words} == {1.0}


def test_a_change_is_told_at_once_within_the_gap() -> None:
    said = Said()
    said.clock.advance(0.5)
    said.condition = evolve(FREE, capacity=Capacity(2, 0))
    said.announcer.changed()
    said.clock.advance(0.0)
    assert said.times == [0.0, 0.5]
    for _ in range(100):
        said.condition = FREE if said.condition is not FREE else evolve(FREE, capacity=Capacity(2, 0))
        said.announcer.changed()
        said.clock.advance(0.01)
    assert len(said.times) <= 7, "however often it changes"
    assert min(b - a for a, b in zip(said.times, said.times[1:], strict=False)) >= 0.25 - 1e-9


def test_no_change_that_matters_is_not_told_at_once() -> None:
    said = Said()
    said.clock.advance(0.5)
    said.announcer.changed()
    said.clock.advance(0.1)
    assert said.times == [0.0]


def test_an_error_never_ends_the_series(expected_failures: Any) -> None:
    said = Said()
    said.broken = True
    said.clock.advance(5.0)
    assert len(said.words) >= 5
    expected_failures(OSError)


def test_an_obituary_of_ours_is_refuted_at_once_and_only_once() -> None:
    said = Said()
    said.clock.advance(0.5)
    said.announcer.refute(0)
    said.announcer.refute(0)
    said.clock.advance(0.0)
    assert [(time, word.incarnation) for time, word in said.words] == [(0.0, 0), (0.5, 1)]


def test_the_last_word_is_said_a_few_times_and_nothing_after_it() -> None:
    said = Said()
    done: list[object] = []
    said.announcer.leave().addCallback(done.append)
    said.clock.advance(10.0)
    assert [word.leaving for _, word in said.words] == [False, True, True, True]
    assert done == [None]
    said.announcer.changed()
    said.announcer.greet()
    said.clock.advance(10.0)
    assert len(said.words) == 4
