"""Scripts in virtual time."""

from __future__ import annotations

import signal
from typing import Any

import pytest
from attrs import define, field
from twisted.internet.task import Clock

from cloudmytask.boundaries import ExitRecord, Running, StreamTarget
from cloudmytask.model.job import Outcome, Reason, StreamName
from cloudmytask.simulation.runner import ScriptedRunner, ScriptPlan, SimulatedMachine
from tests.launching import Heard, Written, launch, sinks

OUT, ERR = StreamName.STDOUT, StreamName.STDERR


@define
class Stage:
    """One machine, its clock, and what has been seen on it."""

    clock: Any = field(factory=Clock)
    machine: SimulatedMachine = field(factory=SimulatedMachine)
    plans: dict[str, ScriptPlan] = field(factory=dict)
    seen: list[tuple[float, str, object]] = field(factory=list)
    records: dict[str, ExitRecord] = field(factory=dict)

    def runner(self, tag: str = "node", written: Written | None = None) -> ScriptedRunner:
        return ScriptedRunner(
            self.clock,
            lambda launch: self.plans[launch.id.job],
            lambda target: sinks(written or self._told(target.spool.partition(".")[0]))(target),
            self.machine,
            tag,
        )

    def _told(self, name: str) -> Written:
        return lambda stream, data: self.seen.append((self.clock.seconds(), name, (stream, data)))

    def start(self, runner: ScriptedRunner, name: str, plan: ScriptPlan, **changes: Any) -> Running:
        self.plans[name] = plan

        def ended(record: ExitRecord) -> None:
            self.records[name] = record
            self.seen.append((self.clock.seconds(), name, record.died))

        running = runner.start(launch(name, **changes), "/d")
        running.ended.addCallback(ended)
        return running

    def outcome(self, name: str) -> tuple[float, Reason, int | None, int | None]:
        found = [(at, what) for at, who, what in self.seen if who == name and isinstance(what, Outcome)]
        assert len(found) == 1
        at, outcome = found[0]
        return at, outcome.reason, outcome.exit_code, outcome.signal


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_it_runs_for_its_duration_and_exits(stage: Stage) -> None:
    stage.start(stage.runner(), "a", ScriptPlan(duration=3.0, exit_code=4, cpu_seconds=2.5, peak_memory=7))
    stage.clock.pump([1.0] * 2)
    assert stage.seen == [] and stage.machine.live == 1
    stage.clock.advance(1.0)
    assert stage.outcome("a") == (3.0, Reason.EXIT, 4, None)
    usage = stage.seen[-1][2].usage  # type: ignore[attr-defined]  # outcome() has just found it to be one
    assert (usage.wall_seconds, usage.cpu_seconds, usage.peak_memory) == (3.0, 2.5, 7)
    assert stage.machine.live == 0 and stage.clock.getDelayedCalls() == []


def test_it_dies_by_a_signal(stage: Stage) -> None:
    stage.start(stage.runner(), "a", ScriptPlan(signal=signal.SIGSEGV))
    stage.clock.advance(1.0)
    assert stage.outcome("a") == (1.0, Reason.SIGNAL, None, signal.SIGSEGV)


def test_output_comes_in_its_time_and_before_the_end(stage: Stage) -> None:
    output = ((2.0, OUT, b"end"), (0.0, OUT, b"now"), (1.0, ERR, b"one"), (1.0, OUT, b"two"), (2.5, OUT, b"never"))
    stage.start(stage.runner(), "a", ScriptPlan(duration=2.0, output=output))
    assert stage.seen == []
    stage.clock.pump([0.5] * 8)
    assert [(at, what) for at, _, what in stage.seen[:-1]] == [
        (0.5, (OUT, b"now")),
        (1.0, (ERR, b"one")),
        (1.0, (OUT, b"two")),
        (2.0, (OUT, b"end")),
    ]
    assert stage.outcome("a")[0] == 2.0


def test_a_launch_that_fails(stage: Stage) -> None:
    stage.start(stage.runner(), "a", ScriptPlan(launch_failure="no interpreter"))
    assert stage.outcome("a")[:2] == (0.0, Reason.LAUNCH)
    assert stage.machine.started == 0


@pytest.mark.parametrize(
    ("plan", "end"),
    [
        (ScriptPlan(duration=None), (1.0, Reason.SIGNAL, None, signal.SIGTERM)),
        (ScriptPlan(duration=None, term_delay=2.0), (3.0, Reason.SIGNAL, None, signal.SIGTERM)),
        (ScriptPlan(duration=None, term_delay=1.0, term_exit_code=9), (2.0, Reason.EXIT, 9, None)),
        (ScriptPlan(duration=5.0, term_delay=None), (5.0, Reason.EXIT, 0, None)),
        (ScriptPlan(duration=2.0, term_delay=8.0), (2.0, Reason.EXIT, 0, None)),
    ],
    ids=["dies at once", "dies later", "catches it", "ignores it", "ends before"],
)
def test_sigterm(stage: Stage, plan: ScriptPlan, end: tuple[float, Reason, int | None, int | None]) -> None:
    running = stage.start(stage.runner(), "a", plan)
    stage.clock.advance(1.0)
    running.stop(Reason.CANCELLED)
    running.stop(Reason.CANCELLED)
    assert stage.seen == [], "nothing ends before terminate has returned"
    stage.clock.pump([0.0] + [1.0] * 8)
    assert stage.outcome("a") == end
    running.stop(Reason.CANCELLED)
    assert stage.clock.getDelayedCalls() == []


@pytest.mark.parametrize("term_delay", [None, 5.0])
def test_sigkill(stage: Stage, term_delay: float | None) -> None:
    running = stage.start(stage.runner(), "a", ScriptPlan(duration=None, term_delay=term_delay))
    running.stop(Reason.CANCELLED)
    stage.clock.advance(1.0)
    running.kill()
    running.kill()
    assert stage.seen == []
    stage.clock.advance(0.0)
    assert stage.outcome("a") == (1.0, Reason.SIGNAL, None, signal.SIGKILL)
    running.kill()
    assert stage.clock.getDelayedCalls() == []


def test_a_script_killed_by_its_own_output_ends_once(stage: Stage) -> None:
    runner = stage.runner(written=lambda *_: running.kill())
    stage.plans["a"] = ScriptPlan(duration=1.0, output=((1.0, OUT, b"x"), (1.0, OUT, b"y")))
    ends: list[ExitRecord] = []
    running = runner.start(launch("a"), "/d")
    running.ended.addCallback(ends.append)
    stage.clock.pump([1.0, 0.0])
    assert len(ends) == 1
    assert stage.clock.getDelayedCalls() == []


def test_the_machine_counts(stage: Stage) -> None:
    runner = stage.runner()
    for name, duration in (("a", 1.0), ("b", 2.0), ("c", 2.0)):
        stage.start(runner, name, ScriptPlan(duration=duration))
    assert [launch.id.job for launch in stage.machine.running()] == ["a", "b", "c"]
    stage.clock.advance(1.0)
    stage.start(runner, "d", ScriptPlan())
    assert (runner.live, runner.peak, stage.machine.started) == (3, 3, 4)
    stage.clock.advance(1.0)
    assert (runner.live, runner.peak) == (0, 3)


def test_after_a_crash_scripts_run_on_unheard_until_the_sweep(stage: Stage) -> None:
    first, neighbor = stage.runner(), stage.runner("neighbor")
    orphan = stage.start(first, "a", ScriptPlan(duration=None, output=((2.0, OUT, b"unheard"),)))
    stage.start(first, "b", ScriptPlan(duration=3.0))
    stage.start(neighbor, "n", ScriptPlan(duration=9.0))
    stage.clock.advance(1.0)
    first.crash()
    orphan.kill()
    stage.clock.pump([1.0] * 3)
    assert [launch.id.job for launch in stage.machine.running()] == ["a", "n"]
    assert stage.seen == []

    second = stage.runner()
    assert second.sweep() == 1
    assert [launch.id.job for launch in stage.machine.running()] == ["n"]
    assert second.sweep() == 0
    stage.clock.pump([1.0] * 5)
    assert [name for _, name, _ in stage.seen] == ["n"]
    assert stage.clock.getDelayedCalls() == []


def test_a_signal_sent_before_the_crash_still_arrives(stage: Stage) -> None:
    runner = stage.runner()
    stage.start(runner, "a", ScriptPlan(duration=None, term_delay=2.0)).stop(Reason.CANCELLED)
    runner.crash()
    stage.clock.advance(2.0)
    assert stage.machine.live == 0 and stage.seen == []


def test_a_dead_node_starts_nothing(stage: Stage) -> None:
    runner = stage.runner()
    runner.crash()
    running = stage.start(runner, "a", ScriptPlan())
    running.stop(Reason.CANCELLED)
    running.kill()
    stage.clock.pump([1.0] * 3)
    assert stage.seen == [] and stage.machine.started == 0


def test_it_is_stopped_when_its_time_is_over_and_killed_after_the_grace(stage: Stage) -> None:
    stage.start(stage.runner(), "a", ScriptPlan(duration=None, term_delay=None), deadline=5.0, kill_grace=2.0)
    stage.clock.advance(5.0)
    assert stage.seen == [] and len(stage.clock.getDelayedCalls()) == 1
    stage.clock.pump([2.0, 0.0])
    assert stage.outcome("a") == (7.0, Reason.SIGNAL, None, signal.SIGKILL)
    record = stage.records["a"]
    assert (record.stopped_for, record.outcome.reason, record.outcome.signal) == (
        Reason.TIMEOUT,
        Reason.TIMEOUT,
        signal.SIGKILL,
    )
    assert stage.clock.getDelayedCalls() == []


def test_the_first_reason_stands(stage: Stage) -> None:
    running = stage.start(stage.runner(), "a", ScriptPlan(duration=None, term_delay=3.0), deadline=2.0)
    stage.clock.advance(1.0)
    running.stop(Reason.CANCELLED)
    running.stop(Reason.LOST)
    stage.clock.pump([1.0] * 4)
    assert running.stopped_for is stage.records["a"].outcome.reason is Reason.CANCELLED
    running.stop(Reason.LOST)
    assert stage.clock.getDelayedCalls() == []


def test_the_record_counts_what_was_not_kept(stage: Stage) -> None:
    sink = Heard(lambda *_: None, OUT, discarded=7)
    runner = ScriptedRunner(stage.clock, lambda _: ScriptPlan(), lambda target: sink)
    records: list[ExitRecord] = []
    runner.start(launch("a", streams={OUT: StreamTarget("a", 0)}), "/d").ended.addCallback(records.append)
    stage.clock.advance(1.0)
    assert [(record.discarded, record.stopped_for) for record in records] == [({OUT: 7}, None)]
