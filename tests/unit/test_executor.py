"""Attempts that are called off, that take long to get ready, or that meet a bug of ours."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from cloudmytask.boundaries import Launch, OpenSinks, Running, Spool
from cloudmytask.config import NodeConfig
from cloudmytask.model.errors import StoreFailed
from cloudmytask.model.job import (
    Assignment,
    AttemptId,
    Blob,
    ClientId,
    Content,
    Digest,
    Interruption,
    JobId,
    JobSpec,
    Reason,
    Resource,
    StreamName,
)
from cloudmytask.node.gate import Gate
from cloudmytask.node.running.executor import Executor
from cloudmytask.node.running.outputs import Finished, LiveOutput, Outputs
from cloudmytask.node.running.slots import SLOW_STAGING, SlotTable
from cloudmytask.node.shortage_watch import ShortageWatch
from cloudmytask.simulation.runner import ScriptedRunner, ScriptPlan

SCRIPT = Blob(Digest("a" * 64), 1)


def attempt(name: str, number: int = 1) -> AttemptId:
    return AttemptId(JobId(name), 1, number)


@define(eq=False)
class Kept:
    """A spool in memory."""

    data: bytes = b""
    behind: bool = False
    failure: StoreFailed | None = None

    def caught_up(self) -> Deferred[None]:
        raise NotImplementedError

    @property
    def size(self) -> int:
        return len(self.data)

    def append(self, data: bytes) -> None:
        self.data += data

    def read(self, offset: int, size: int) -> Deferred[bytes]:
        raise NotImplementedError

    def seal(self) -> Deferred[Content | Blob | None]:
        raise NotImplementedError

    def discard(self) -> None:
        self.data = b""


@define(eq=False)
class Recording(ScriptedRunner):
    """Knows where scripts were started."""

    directories: list[str] = field(init=False, factory=list)

    def start(self, launch: Launch, directory: str) -> Running:
        self.directories.append(directory)
        return super().start(launch, directory)


@define(eq=False)
class Bench:
    """An executor whose directories are ready when the test says so."""

    clock: Any = field(factory=Clock)
    staging: dict[str, Deferred[str]] = field(factory=dict)
    laid_out: list[Mapping[str, Blob]] = field(factory=list)
    removed: list[str] = field(factory=list)
    launches: list[Launch] = field(factory=list)
    plans: dict[str, ScriptPlan] = field(factory=dict)
    finished: dict[str, Finished] = field(factory=dict)
    events: list[str] = field(factory=list)
    sinks: OpenSinks = field(factory=OpenSinks)
    runner: Recording = field(init=False)
    outputs: Outputs = field(init=False)
    shortages: ShortageWatch = field(init=False)
    executor: Executor = field(init=False)
    entropy: Any = field(factory=lambda: SimpleNamespace(random=random.Random(0)))

    store = property(lambda self: self)  # of the world, in which this stands in for the store too
    python = "/python"

    def __attrs_post_init__(self) -> None:
        self.runner = Recording(self.clock, self._plan, self.sinks)
        config = NodeConfig(state=Path("/none"), name="n", slots=2, kill_grace=3.0)
        world: Any = self
        self.outputs = Outputs(world, self.sinks, 10, "n")
        self.shortages = ShortageWatch(world, Gate("n"))
        self.executor = Executor(world, config, self.outputs, self.shortages)

    def _plan(self, launch: Launch) -> ScriptPlan:
        self.launches.append(launch)
        return self.plans.get(launch.id.job, ScriptPlan(duration=None))

    # the store

    def spool(self, name: str, *, resume: bool = False) -> Spool:
        kept: Spool = Kept()
        return kept

    def stage(self, name: str, files: Mapping[str, Blob], contents: object = ()) -> Deferred[str]:
        self.laid_out.append(files)
        self.staging[name.partition(".")[0]] = Deferred()
        return self.staging[name.partition(".")[0]]

    def unstage(self, name: str) -> Deferred[None]:
        self.removed.append(name)
        done: Deferred[None] = Deferred()
        done.callback(None)
        return done

    # what tests do

    async def nothing(self) -> None:
        """Before a script starts."""

    def run(self, name: str, before_start: Callable[[], Any] | None = None, *, deaths: int = 0, **spec: Any) -> None:
        async def ready() -> None:
            self.events.append(f"{name} starts")

        assignment = Assignment(attempt(name), ClientId("ann"), JobSpec(SCRIPT, "s.py", **spec), "n", deaths)
        running = self.executor.run(assignment, before_start or ready, lambda: self.events.append(f"{name} freed"))
        Deferred.fromCoroutine(running).addCallback(lambda finished: self.finished.update({name: finished}))

    def ready(self, name: str) -> None:
        self.staging[name].callback(f"/dir/{name}")

    def reason(self, name: str) -> Reason:
        return self.finished[name].outcome.reason

    def taken(self) -> tuple[int, int]:
        return self.executor.running, self.executor.claimed


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_launch_is_all_that_a_runner_needs(bench: Bench) -> None:
    bench.plans["a"] = ScriptPlan(duration=1.0, output=((0.5, StreamName.STDOUT, b"x" * 12),))
    bench.run("a", timeout=60.0, stdin=SCRIPT, variables={"A": "1"})
    bench.ready("a")
    (launch,) = bench.launches
    assert (launch.python, launch.script_name, launch.stdin) == ("/python", "s.py", ".cmt-stdin")
    assert bench.laid_out == [launch.files] == [{"s.py": SCRIPT, ".cmt-stdin": SCRIPT}]
    assert bench.runner.directories == ["/dir/a"]
    assert (launch.deadline, launch.kill_grace) == (60.0, 3.0)
    assert launch.variables == {"A": "1", "CMT_JOB_ID": "a", "CMT_ATTEMPT": "1", "CMT_EXECUTOR": "n"}
    target = launch.streams[StreamName.STDOUT]
    assert (target.spool, target.limit) == ("a.1.1.stdout", 10)
    bench.clock.pump([0.5] * 2)
    assert bench.finished["a"].outcome.success and bench.finished["a"].live.streams[StreamName.STDOUT].discarded == 2
    with pytest.raises(KeyError):
        bench.sinks(target)
    assert bench.clock.getDelayedCalls() == []


def test_a_cancel_while_inputs_are_laid_out_ends_the_attempt_at_once(bench: Bench) -> None:
    bench.run("a")
    bench.executor.stop(attempt("a"), Reason.CANCELLED)
    assert bench.reason("a") is Reason.CANCELLED
    assert bench.events == ["a freed"] and bench.taken() == (0, 0) and not bench.executor.attempts
    removing = Deferred.fromCoroutine(bench.executor.clean(attempt("a")))
    assert bench.removed == [], "the store still writes there"
    bench.ready("a")
    assert removing.called and bench.removed == ["a.1.1"] and bench.launches == []
    assert bench.clock.getDelayedCalls() == []


def test_an_attempt_that_comes_back_gets_a_directory_of_its_own(bench: Bench) -> None:
    """It was given up while the store made its directory, and is offered here once more."""
    bench.run("a")
    first = bench.staging["a"]
    bench.executor.stop(attempt("a"), Reason.LOST)
    Deferred.fromCoroutine(bench.executor.clean(AttemptId(JobId("a"), 1, 1)))
    del bench.finished["a"]
    bench.run("a")
    assert bench.staging["a"] is first and bench.removed == [], "the store still writes there"
    first.callback("/dir/a")
    assert bench.removed == ["a.1.1"] and bench.launches == []
    bench.ready("a")
    assert [launch.id.job for launch in bench.launches] == ["a"] and bench.removed == ["a.1.1"]


def test_a_directory_that_fails_after_the_cancel_is_nobodys_concern(bench: Bench) -> None:
    bench.run("a")
    bench.executor.stop(attempt("a"), Reason.CANCELLED)
    bench.staging["a"].errback(StoreFailed("full"))
    assert bench.reason("a") is Reason.CANCELLED
    Deferred.fromCoroutine(bench.executor.clean(attempt("a")))
    assert bench.removed == ["a.1.1"]


def test_an_interrupt_reaches_what_is_not_ready_and_what_runs(bench: Bench) -> None:
    bench.run("a")
    bench.run("b")
    bench.ready("b")
    bench.executor.interrupt()
    bench.clock.advance(0)
    assert [bench.finished[name].interrupted for name in ("a", "b")] == [True, True]


def test_a_timeout_is_no_interruption_though_the_node_shuts_down_meanwhile(bench: Bench) -> None:
    bench.plans["a"] = ScriptPlan(duration=None, term_delay=None)
    bench.run("a", timeout=5.0)
    bench.ready("a")
    bench.clock.advance(5.0)
    bench.executor.interrupt()
    bench.executor.hurry(attempt("a"))
    bench.clock.advance(0)
    assert bench.reason("a") is Reason.TIMEOUT and not bench.finished["a"].interrupted


def test_an_attempt_that_is_slow_to_get_ready_lends_its_slot(bench: Bench) -> None:
    for name in "ab":
        bench.run(name)
    bench.ready("b")
    bench.executor.lend_slots()
    assert bench.taken() == (2, 2), "it is not slow yet"
    bench.clock.advance(SLOW_STAGING)
    bench.executor.lend_slots()
    assert bench.taken() == (1, 1) and bench.events == ["b starts"]
    bench.run("c")
    bench.ready("c")
    assert bench.taken() == (2, 2)
    bench.ready("a")
    assert bench.taken() == (2, 3), "it claims the next slot"
    assert [launch.id.job for launch in bench.launches] == ["b", "c"]
    bench.executor.stop(attempt("c"), Reason.CANCELLED)
    bench.clock.advance(0)
    assert bench.events[-2:] == ["a starts", "c freed"], "before anybody hears of a free slot"
    assert bench.taken() == (2, 2) and bench.runner.peak == 2


def test_a_free_slot_is_taken_by_what_becomes_ready(bench: Bench) -> None:
    bench.run("a")
    bench.clock.advance(SLOW_STAGING)
    bench.executor.lend_slots()
    assert bench.taken() == (0, 0) and bench.executor.attempts
    bench.ready("a")
    assert bench.taken() == (1, 1) and bench.events == ["a starts"]


def test_a_lent_slot_may_end_an_attempt_while_slots_are_lent(bench: Bench) -> None:
    """The one that gets it cannot be started, so it ends before the others have been looked at."""
    bench.plans["a"] = ScriptPlan(launch_failure="no interpreter")
    bench.run("a")
    bench.clock.advance(SLOW_STAGING)
    bench.executor.lend_slots()
    bench.run("b")
    bench.run("c")
    bench.ready("a")
    assert bench.taken() == (2, 3)
    bench.clock.advance(SLOW_STAGING)
    bench.executor.lend_slots()
    assert bench.reason("a") is Reason.LAUNCH and bench.taken() == (0, 0)


def test_one_that_waits_for_its_slot_can_be_cancelled(bench: Bench) -> None:
    bench.run("a")
    bench.clock.advance(SLOW_STAGING)
    bench.executor.lend_slots()
    for name in "bc":
        bench.run(name)
        bench.ready(name)
    bench.ready("a")
    assert bench.taken() == (2, 3)
    bench.executor.stop(attempt("a"), Reason.CANCELLED)
    assert bench.reason("a") is Reason.CANCELLED and bench.taken() == (2, 2)


def test_only_so_many_lend_their_slots() -> None:
    slots = SlotTable(2)
    claims = [slots.claim() for _ in range(2)]
    assert [claim.lend() for claim in claims] == [True, True] and slots.claimed == 0
    further = slots.claim()
    assert not further.lend() and slots.claimed == 1
    claims[0].release()
    assert further.lend() and slots.claimed == 0


def test_slots_are_never_taken_twice() -> None:
    """Any order of what may happen to claims."""
    dice, slots = random.Random(5), SlotTable(3)
    held: list[Any] = []
    lent: list[Any] = []
    waiting: list[tuple[Any, Deferred[None]]] = []
    for _ in range(5000):
        held += [claim for claim, granted in waiting if granted.called]
        waiting = [each for each in waiting if not each[1].called]
        match dice.randrange(5):
            case 0 if slots.claimed < slots.size:
                held.append(slots.claim())
            case 1 if held and held[-1].lend():
                lent.append(held.pop())
            case 2 if lent:
                claim = lent.pop(dice.randrange(len(lent)))
                waiting.append((claim, claim.take()))
            case 3 if held:
                held.pop(dice.randrange(len(held))).release()
            case 4 if waiting:
                claim, granted = waiting.pop(dice.randrange(len(waiting)))
                granted.addErrback(lambda _: None)
                if not granted.called:
                    granted.cancel()
                else:
                    held.append(claim)
                    continue
                claim.release()
        now = len(held) + sum(granted.called for _, granted in waiting)
        assert slots.taken == now <= slots.size
        assert slots.claimed == now + sum(not granted.called for _, granted in waiting)
        assert slots.claimed >= slots.size or not any(not granted.called for _, granted in waiting)


def test_attempts_are_told_apart_by_more_than_their_job(bench: Bench) -> None:
    """Two owners of one job, each with an attempt here: what is said of one does not reach the other."""
    outcomes: list[tuple[LiveOutput, Reason]] = []
    for epoch in (1, 2):
        identity = AttemptId(JobId("a"), epoch, 1)
        assignment = Assignment(identity, ClientId("ann"), JobSpec(SCRIPT, "s.py"), "n")
        running = Deferred.fromCoroutine(bench.executor.run(assignment, bench.nothing, lambda: None))
        running.addCallback(lambda finished: outcomes.append((finished.live, finished.outcome.reason)))
        bench.ready("a")
    assert bench.taken() == (2, 2)
    bench.executor.stop(AttemptId(JobId("a"), 1, 1), Reason.CANCELLED)
    bench.clock.advance(0)
    assert outcomes == [(bench.outputs.live(AttemptId(JobId("a"), 1, 1)), Reason.CANCELLED)]
    assert bench.taken() == (1, 1)


def test_a_bug_ends_the_attempt_with_a_word(bench: Bench, expected_failures: Callable[..., object]) -> None:
    async def broken() -> None:
        raise ZeroDivisionError("a bug")

    bench.run("a", before_start=broken)
    bench.ready("a")
    outcome = bench.finished["a"].outcome
    assert outcome.reason is Reason.LAUNCH and "ZeroDivisionError" in outcome.detail
    assert bench.taken() == (0, 0)
    expected_failures(ZeroDivisionError)


def test_a_shortage_in_staging_is_an_interruption_of_an_attempt_that_never_started(bench: Bench) -> None:
    bench.run("a")
    bench.staging["a"].errback(StoreFailed("No space left.", resource=Resource.DISK))
    finished = bench.finished["a"]
    assert (finished.interrupted, finished.interruption) == (True, Interruption.UNSTARTED)
    assert finished.outcome.detail == "node n is short of room on its disk (No space left)"
    assert bench.shortages.short == (Resource.DISK,)


def test_a_disk_that_refuses_for_another_reason_is_no_shortage(bench: Bench) -> None:
    bench.run("a")
    bench.staging["a"].errback(StoreFailed("Input/output error."))
    assert bench.reason("a") is Reason.LAUNCH and not bench.finished["a"].interrupted
    assert bench.shortages.short == ()


@pytest.mark.parametrize("resource", [each for each in Resource if each is not Resource.DISK])
def test_a_shortage_at_the_launch_is_over_when_a_launch_works(bench: Bench, resource: Resource) -> None:
    bench.runner.machine.short = resource
    bench.run("a")
    bench.ready("a")
    assert bench.finished["a"].interruption is Interruption.UNSTARTED
    assert list(bench.shortages.short) == [resource] and bench.shortages.offered(2) == 0
    bench.clock.advance(10.0)
    assert bench.shortages.offered(2) == 1
    bench.runner.machine.short = None
    bench.run("b")
    assert bench.shortages.offered(1) == 0, "one at a time"
    bench.ready("b")
    assert list(bench.shortages.short) == [] and bench.shortages.offered(1) == 1


def test_a_job_on_its_last_chance_does_not_run_beside_another(bench: Bench) -> None:
    assert bench.executor.may_join(2)
    bench.run("a", deaths=1)
    assert bench.executor.may_join(2)
    bench.run("b", deaths=2)
    assert not bench.executor.may_join(2) and bench.executor.may_join(1) and bench.executor.may_join(0)
