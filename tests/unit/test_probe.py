"""The load of the machine by other things than our scripts."""

from __future__ import annotations

import math
from collections.abc import Iterator

import psutil
import pytest
from attrs import astuple, define

from cloudmytask.probe import CpuProbe, NoProbe


@define
class Times:
    user: float = 100.0
    system: float = 50.0
    idle: float = 1000.0
    iowait: float = 10.0
    steal: float = 0.0
    guest: float = 0.0
    guest_nice: float = 0.0

    def __iter__(self) -> Iterator[float]:
        return iter(astuple(self))


@define
class Machine:
    """Two cores whose counters go on as a test says."""

    times: Times
    own: float = 0.0

    def run(self, probe: CpuProbe, seconds: int, busy: float) -> None:
        for _ in range(seconds):
            self.times.user += 2.0 * busy
            self.times.idle += 2.0 * (1.0 - busy)
            probe.sample()


@pytest.fixture
def machine() -> Machine:
    return Machine(Times())


@pytest.fixture
def probe(machine: Machine) -> CpuProbe:
    made = CpuProbe(lambda: machine.times, lambda: machine.own)
    made.sample()
    return made


def test_nothing_is_known_before_the_second_sample(probe: CpuProbe) -> None:
    assert probe.load() is None and probe.cpu() is None


def test_the_first_interval_counts_in_full(probe: CpuProbe, machine: Machine) -> None:
    machine.run(probe, 1, busy=0.5)
    assert probe.load() == pytest.approx(0.5)


def test_the_average_follows_with_a_time_constant_of_five_seconds(probe: CpuProbe, machine: Machine) -> None:
    machine.run(probe, 1, busy=0.0)
    machine.run(probe, 5, busy=1.0)
    assert probe.load() == pytest.approx(1.0 - math.exp(-1.0))
    machine.run(probe, 60, busy=1.0)
    assert probe.load() == pytest.approx(1.0, abs=1e-4)


def test_our_own_scripts_do_not_count(probe: CpuProbe, machine: Machine) -> None:
    machine.own = 0.5
    machine.run(probe, 10, busy=0.8)
    assert probe.load() == pytest.approx(0.3)


def test_they_count_for_what_is_in_use_at_all(probe: CpuProbe, machine: Machine) -> None:
    machine.own = 0.5
    machine.run(probe, 1, busy=0.5)
    assert probe.cpu() == pytest.approx(0.5)
    machine.run(probe, 5, busy=1.0)
    assert probe.cpu() == pytest.approx(1.0 - 0.5 * math.exp(-1.0))


def test_an_estimate_that_is_too_high_hides_no_later_load(probe: CpuProbe, machine: Machine) -> None:
    machine.own = 1.0
    machine.run(probe, 10, busy=0.1)
    assert probe.load() == 0.0
    machine.own = 0.0
    machine.run(probe, 5, busy=1.0)
    assert probe.load() == pytest.approx(1.0 - math.exp(-1.0))


def test_waiting_for_a_disk_is_idle_and_stolen_time_is_busy(probe: CpuProbe, machine: Machine) -> None:
    machine.times.iowait += 1.0
    machine.times.steal += 1.0
    probe.sample()
    assert probe.load() == pytest.approx(0.5)


def test_guests_are_not_counted_twice(probe: CpuProbe, machine: Machine) -> None:
    machine.times.user += 1.0
    machine.times.guest += 1.0
    machine.times.idle += 1.0
    probe.sample()
    assert probe.load() == pytest.approx(0.5)


def test_counters_that_stand_still_or_step_back_change_nothing(probe: CpuProbe, machine: Machine) -> None:
    machine.run(probe, 1, busy=0.5)
    probe.sample()
    machine.times.idle -= 5.0
    probe.sample()
    assert probe.load() == pytest.approx(0.5)


def test_the_load_is_a_share_even_if_idle_time_steps_back(probe: CpuProbe, machine: Machine) -> None:
    machine.times.idle -= 1.0
    machine.times.user += 3.0
    probe.sample()
    assert probe.load() == 1.0


def test_the_real_counters_fit() -> None:
    probe = CpuProbe(psutil.cpu_times)
    probe.sample()
    before = psutil.cpu_times()
    while psutil.cpu_times() == before:
        pass
    probe.sample()
    load = probe.load()
    assert load is not None and 0.0 <= load <= 1.0


def test_no_probe() -> None:
    probe = NoProbe()
    probe.sample()
    assert probe.load() is None and probe.cpu() is None
