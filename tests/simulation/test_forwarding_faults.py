"""What goes wrong on the way of a forwarded job: nothing is lost, run twice without need, or left behind."""

from __future__ import annotations

import random
from typing import Any

import pytest
from attrs import define, field
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from cloudmytask.boundaries import OpenSinks
from cloudmytask.client.node_client import NodeClient
from cloudmytask.codec.people import JobStatus
from cloudmytask.core.blobs import blob_of
from cloudmytask.listeners import Listeners
from cloudmytask.model.cluster import BootId, NodeId, Offer, PeerIdentity, RemoteEnd, Role
from cloudmytask.model.errors import CloudMyTaskError, ConnectionInterrupted, NodeDraining, StoreFailed
from cloudmytask.model.job import AttemptId, ClientId, Content, JobId, JobSpec, JobState, Reason, StreamName
from cloudmytask.node.node import Node
from cloudmytask.node.remote.delivery import Delivery
from cloudmytask.node.running.executor import Executor
from cloudmytask.node.running.outputs import Outputs
from cloudmytask.simulation.clock import VirtualClock
from cloudmytask.simulation.runner import ScriptPlan
from tests.conftest import ExpectFailures
from tests.virtual import FOREVER
from tests.virtual_cluster import Company

_log = Logger(namespace="tests.forwarding")

OUT = StreamName.STDOUT
SHORT = ScriptPlan(duration=1.0)


def company(size: int = 2, **fields: Any) -> Company:
    made = Company(size, **fields)
    made.acquainted()
    return made


def node(among: Company, name: str) -> Node:
    return among.hosts[name].node


def slow(among: Company, seconds: float) -> None:
    """Bytes between nodes take a while; clients are near."""
    nodes = among.hosts
    among.network.latency = lambda here, there: seconds if here in nodes and there in nodes else 0.0005


def linked(among: Company, here: str, there: str) -> None:
    among.result(node(among, here).cluster_member.link(node(among, there).identity.node_id))


def cut_links(among: Company, here: str, there: str) -> None:
    """Their connections break; what was stalled on a cut path is lost."""
    for transport in [t for t in among.network._open if {t.here, t.there} == {here, there}]:
        transport.abortConnection()


def guests(among: Company, name: str) -> int:
    return node(among, name)._guests.present


def left_behind(among: Company) -> dict[str, Any]:
    """What a quiet node should not have any more."""
    found: dict[str, Any] = {}
    for name, host in among.hosts.items():
        if host.up:
            each = host.node
            counts = {
                "running": dict(each._queue._running),
                "sent": dict(each._accounts._sent),
                "guests": each._guests.present,
                "remotes": each._delegate.running,
                "slots": each._executor.running,
                "held": each._placer.held,
                "questions": each._work_stealer._questions,
                "offers": dict(each._placer._offering._under_way),
                "works": dict(each._placer._works),
                "open": each.whereabouts(),
                "outputs": dict(each._outputs._live),
            }
            found.update({f"{name}.{what}": count for what, count in counts.items() if count})
    return found


def quiet(among: Company, patience: float = 5.0) -> None:
    among.clock.advance(patience)
    assert left_behind(among) == {}


def accepted_unheard(among: Company, client: NodeClient, executor: str, *plans: ScriptPlan, **fields: Any) -> JobStatus:
    """Submit at ``a``; ``executor`` accepts the offer, but the link breaks before ``a`` hears of it."""
    linked(among, "a", executor)
    spec, source = among.spec(*plans, **fields)
    among.network.paths.cut(executor, "a")
    submitted = client.submit(spec, source)
    among.until(lambda: guests(among, executor) == 1, patience=5.0)
    among.clock.advance(0.01)
    cut_links(among, "a", executor)
    among.clock.advance(0.001)
    among.network.paths.mend(executor, "a")
    return among.result(submitted)


# an offer, and a cancel or a full disk at a bad moment


@pytest.mark.parametrize("after", [0.0, 0.15, 0.25, 0.35, 0.5, 0.7])
@pytest.mark.parametrize("size", [10, 300_000])
def test_a_cancel_at_any_moment_of_an_offer_leaves_nothing(after: float, size: int) -> None:
    among = company(2)
    ann = among.connect("a")
    first = among.submit(ann, FOREVER)
    slow(among, 0.1)
    job = among.submit(ann, FOREVER, script=bytes(size))
    among.clock.advance(after)
    among.result(ann.cancel(job.id))
    assert among.wait(ann, job, patience=5.0).state is JobState.CANCELLED
    among.result(ann.cancel(first.id))
    among.until(lambda: among.hosts["b"].machine.live == 0, patience=5.0)
    quiet(among)


def test_an_acceptance_that_fails_while_an_offer_is_not_answered_is_told() -> None:
    among = company(2)
    ann = among.connect("a")
    among.submit(ann, FOREVER)
    linked(among, "a", "b")
    among.network.paths.cut("a", "b")
    among.hosts["a"].disk.full = True
    spec, source = among.spec(SHORT)
    submitted = ann.submit(spec, source)
    with pytest.raises(StoreFailed):
        among.result(submitted, patience=25.0)


def test_an_acceptance_that_fails_while_an_offer_is_accepted_leaves_nothing() -> None:
    among = company(2)
    ann = among.connect("a")
    first = among.submit(ann, FOREVER)
    slow(among, 0.1)
    among.hosts["a"].disk.full = True
    spec, source = among.spec(FOREVER)
    with pytest.raises(StoreFailed):
        among.result(ann.submit(spec, source), patience=25.0)
    among.hosts["a"].disk.full = False
    among.result(ann.cancel(first.id))
    quiet(among)


def test_a_cancel_that_the_disk_refuses_keeps_a_job_in_one_place(expected_failures: ExpectFailures) -> None:
    among = company(2)
    ann = among.connect("a")
    among.submit(ann, FOREVER)
    slow(among, 0.5)
    job = among.submit(ann, FOREVER)
    among.hosts["a"].disk.full = True
    with pytest.raises(StoreFailed):
        among.result(ann.cancel(job.id))
    expected_failures()
    places = node(among, "a").whereabouts()
    among.hosts["a"].disk.full = False
    assert len(places[job.id]) == 1, places


# an offer whose answer is lost


def test_an_attempt_whose_acceptance_was_not_heard_is_stopped_when_the_link_is_back() -> None:
    among = company(3)
    ann = among.connect("a")
    among.submit(ann, FOREVER)
    among.submit(among.connect("c"), ScriptPlan(duration=2.0))
    job = accepted_unheard(among, ann, "b", ScriptPlan(duration=50.0), node=None, avoid=())
    among.until(lambda: among.ran(job) != [], patience=5.0)
    among.clock.advance(10.0)
    running = [name for name, host in among.hosts.items() for each in host.machine.running() if each.id.job == job.id]
    assert len(running) == 1, running


def test_a_silent_script_that_ended_before_its_offer_was_heard_ends_its_job() -> None:
    among = company(2)
    ann = among.connect("a")
    among.submit(ann, FOREVER)
    job = accepted_unheard(among, ann, "b", ScriptPlan(duration=0.01))
    among.clock.advance(0.1)
    assert among.wait(ann, job, patience=60.0).state is JobState.SUCCEEDED
    assert among.ran(job) == ["b"]


def test_an_at_most_once_job_whose_offer_was_not_heard_is_offered_again() -> None:
    among = company(2)
    ann = among.connect("a")
    among.submit(ann, FOREVER)
    job = accepted_unheard(among, ann, "b", SHORT, at_most_once=True)
    assert among.wait(ann, job, patience=200.0).state is JobState.SUCCEEDED
    assert among.ran(job) == ["b"]


def test_a_start_is_not_allowed_before_its_attempt_is_on_record() -> None:
    among = company(2, each={"b": {"slots": 2}})
    ann = among.connect("a")
    among.submit(ann, ScriptPlan(duration=30.0))
    job = accepted_unheard(among, ann, "b", ScriptPlan(duration=60.0), at_most_once=True)
    among.until(lambda: among.ran(job) == ["b"], patience=20.0)
    among.clock.advance(0.5)
    among.hosts["b"].lose_power()
    assert among.wait(ann, job, patience=120.0).state is JobState.LOST
    assert among.ran(job) == ["b"]


def _orphan_before_its_start(among: Company) -> JobStatus:
    ann = among.connect("a")
    among.submit(ann, FOREVER)
    job = accepted_unheard(among, ann, "b", SHORT, at_most_once=True)
    among.hosts["a"].lose_power()
    return job


def test_the_slot_of_an_orphan_that_was_not_started_is_given_back() -> None:
    among = company(2, options={"orphan_grace": 5.0})
    _orphan_before_its_start(among)
    among.until(lambda: node(among, "b")._executor.running == 0, patience=60.0)


def test_a_drain_is_not_held_up_by_an_orphan_that_was_not_started() -> None:
    among = company(2, options={"orphan_grace": 5.0, "drain_timeout": 2.0})
    _orphan_before_its_start(among)
    among.result(among.hosts["b"].stop(), patience=60.0)


@define(eq=False)
class _Sink:
    ends: list[RemoteEnd] = field(factory=list)
    starts: list[Deferred[None]] = field(factory=list)
    answered: bool = True

    def started(self) -> Deferred[None]:
        self.starts.append(succeed(None) if self.answered else Deferred())
        return self.starts[-1]

    def output(self, stream: StreamName, offset: int, data: bytes) -> Deferred[None]:
        return succeed(None)

    def ended(self, end: RemoteEnd) -> Deferred[None]:
        self.ends.append(end)
        return succeed(None)


def test_two_nodes_that_offer_one_attempt_are_not_both_left_to_follow_it() -> None:
    """Under policy ``paper``: the origin and a relay of which it knows nothing."""
    among = company(3)
    links = [
        among.result(node(among, name).cluster_member.link(node(among, "c").identity.node_id)) for name in ("a", "b")
    ]
    script = b"once"
    among.plans["once.py"] = (SHORT,)
    spec = JobSpec(script=blob_of(script), script_name="once.py")
    origin = PeerIdentity("default", Role.NODE, NodeId("0" * 32), BootId("0" * 16), "x", "127.0.0.9:7001")
    offer = Offer(AttemptId(_job_id(among), 1, 1), ClientId("ann"), spec, origin, 1, (origin.node_id,))
    contents = [Content(spec.script, script)]
    sinks = [_Sink(), _Sink()]
    answers = [among.result(link.offer(offer, contents, sink)) for link, sink in zip(links, sinks, strict=True)]
    among.clock.advance(5.0)
    told = [bool(sink.ends) for sink in sinks]
    assert told == [answer.accepted for answer in answers]


def _job_id(among: Company) -> JobId:
    """The id of some job."""
    return JobId(among.submit(among.connect("a"), ScriptPlan(duration=0.1)).id)


@define(eq=False)
class _Link:
    gone: Listeners[[]] = field(init=False, factory=Listeners)


def test_a_start_is_told_to_a_follower_who_came_before_the_last_one_was_given_up() -> None:
    clock = VirtualClock()
    world: Any = _World(clock)
    outputs = Outputs(None, OpenSinks(), 1, "n")  # type: ignore[arg-type]
    delivery = Delivery(world, outputs, AttemptId(JobId("j"), 1, 1), 60.0, lambda: None, lambda: None)
    old, new = _Sink(answered=False), _Sink()
    link: Any = _Link()
    delivery.follow(link, old, {})
    told = Deferred.fromCoroutine(delivery.started())
    delivery.follow(link, new, {})
    old.starts[0].errback(ConnectionInterrupted("gone"))
    assert told.called and len(new.starts) == 1


@define
class _World:
    clock: VirtualClock


# the origin dies


def test_the_answer_to_a_start_is_lost_with_the_link() -> None:
    among = company(2)
    ann = among.connect("a")
    among.submit(ann, FOREVER)
    linked(among, "a", "b")
    slow(among, 0.05)
    job = among.submit(ann, SHORT)

    def state() -> JobState:
        live = node(among, "a")._ledger.live(JobId(job.id))
        return JobState.LOST if live is None else live.state

    among.until(lambda: state() is JobState.STAGING)
    among.network.paths.cut("a", "b")
    among.until(lambda: state() is JobState.RUNNING)
    cut_links(among, "a", "b")
    among.clock.advance(0.001)
    among.network.paths.mend("a", "b")
    assert among.wait(ann, job, patience=60.0).state is JobState.SUCCEEDED
    assert among.ran(job) == ["b"]


def test_the_origin_dies_before_it_answers_that_an_at_most_once_job_may_start() -> None:
    among = company(2)
    ann = among.connect("a")
    among.submit(ann, FOREVER)
    slow(among, 0.05)
    job = among.submit(ann, SHORT, at_most_once=True)
    disk = among.hosts["a"].disk
    among.until(lambda: job.id in disk.jobs and disk.jobs[job.id].state is JobState.RUNNING)
    among.hosts["a"].kill()
    among.clock.advance(1.0)
    among.hosts["a"].start()
    ended = among.wait(among.connect("a"), job, patience=60.0)
    assert (ended.state, among.ran(job)) == (JobState.SUCCEEDED, ["b"])


def test_an_orphan_that_was_stopped_does_not_make_its_job_lost() -> None:
    among = company(2, options={"orphan_grace": 6.0})
    ann = among.connect("a")
    among.submit(ann, ScriptPlan(duration=1.0))
    job = among.submit(ann, FOREVER, SHORT)
    among.reach(ann, job, JobState.RUNNING)
    among.clock.advance(0.5)
    among.hosts["a"].kill()
    among.until(lambda: among.hosts["b"].machine.live == 0, patience=10.0)
    among.hosts["a"].start()
    ended = among.wait(among.connect("a"), job, patience=60.0)
    assert (ended.state, ended.attempt) == (JobState.SUCCEEDED, 2)


def test_the_attempt_ended_while_its_origin_was_down() -> None:
    among = company(2)
    ann = among.connect("a")
    among.submit(ann, ScriptPlan(duration=1.0))
    job = among.submit(ann, ScriptPlan(duration=4.0, exit_code=3, output=((3.5, OUT, b"late"),)))
    among.reach(ann, job, JobState.RUNNING)
    among.clock.advance(0.5)
    among.hosts["a"].lose_power()
    among.clock.advance(20.0)
    among.hosts["a"].start()
    ann = among.connect("a")
    ended = among.wait(ann, job, patience=30.0)
    assert (ended.state, ended.exit_code, ended.attempt) == (JobState.FAILED, 3, 1)
    assert among.output(ann, job)[0] == b"late"
    assert among.ran(job) == ["b"]
    quiet(among)


# partitions


def test_an_executor_that_was_thought_dead_gets_the_next_attempt() -> None:
    among = company(2, each={"b": {"slots": 2}})
    ann = among.connect("a")
    among.submit(ann, FOREVER)
    job = among.submit(ann, FOREVER, SHORT)
    among.reach(ann, job, JobState.RUNNING)
    among.network.paths.partition(["a", "ann"], ["b"])
    among.until(lambda: among.hosts["a"].node.whereabouts()[JobId(job.id)] == ["queue"], patience=30.0)
    among.network.paths.partition()
    ended = among.wait(ann, job, patience=30.0)
    assert (ended.state, ended.attempt, ended.executor) == (JobState.SUCCEEDED, 2, "b")


def test_an_executor_that_was_thought_dead_is_stopped_when_it_is_back() -> None:
    among = company(3)
    ann = among.connect("a")
    among.submit(ann, FOREVER)
    among.submit(among.connect("c"), ScriptPlan(duration=2.0))
    job = among.submit(ann, ScriptPlan(duration=50.0), ScriptPlan(duration=30.0))
    among.reach(ann, job, JobState.RUNNING)
    assert among.ran(job) == ["b"]
    among.network.paths.partition(["a", "ann", "c"], ["b"])
    among.until(lambda: among.ran(job) == ["b", "c"], patience=30.0)
    among.network.paths.partition()
    among.until(lambda: among.alive("a") == ["a", "b", "c"], patience=10.0)
    among.clock.advance(5.0)
    stopped = among.hosts["b"].machine.live == 0
    ended = among.wait(ann, job)
    assert (ended.state, ended.executor, ended.attempt) == (JobState.SUCCEEDED, "c", 2)
    assert stopped


def test_an_at_most_once_job_behind_a_partition_does_not_run_twice() -> None:
    among = company(3)
    ann = among.connect("a")
    among.submit(ann, FOREVER)
    job = among.submit(ann, ScriptPlan(duration=20.0), at_most_once=True)
    among.reach(ann, job, JobState.RUNNING)
    [where] = among.ran(job)
    among.network.paths.partition([name for name in ("a", "b", "c", "ann") if name != where], [where])
    assert among.wait(ann, job, patience=60.0).state is JobState.LOST
    among.network.paths.partition()
    among.clock.advance(120.0)
    assert among.ran(job) == [where]
    assert among.result(ann.getScriptJobStatus(job.id)).state is JobState.LOST


@pytest.mark.parametrize("seconds", [0.5, 1.5, 3.0, 8.0, 40.0])
def test_output_larger_than_the_window_survives_a_partition(seconds: float) -> None:
    among = company(2)
    ann = among.connect("a")
    among.submit(ann, ScriptPlan(duration=2.0))
    pieces = tuple((0.02 * n, OUT, bytes([n]) * 30_000) for n in range(100))
    job = among.submit(ann, ScriptPlan(duration=3.0, output=pieces))
    among.reach(ann, job, JobState.RUNNING)
    among.clock.advance(0.5)
    among.network.paths.partition(["a", "ann"], ["b"])
    among.clock.advance(seconds)
    among.network.paths.partition()
    assert among.wait(ann, job, patience=200.0).state is JobState.SUCCEEDED
    assert among.output(ann, job)[0] == b"".join(piece[2] for piece in pieces)
    quiet(among, 130.0)


# full and slow disks at the origin


def test_a_guest_is_forgotten_though_its_end_was_long_not_durable(expected_failures: ExpectFailures) -> None:
    among = company(2, options={"orphan_grace": 10.0})
    ann = among.connect("a")
    first = among.submit(ann, FOREVER)
    job = among.submit(ann, SHORT)
    among.reach(ann, job, JobState.RUNNING)
    among.hosts["a"].disk.full = True
    among.clock.advance(45.0)
    among.hosts["a"].disk.full = False
    assert among.wait(ann, job, patience=60.0).state is JobState.SUCCEEDED
    among.result(ann.cancel(first.id))
    expected_failures()
    expected_failures(StoreFailed)
    quiet(among, 30.0)


def test_a_start_that_waits_long_for_the_disk_of_its_origin() -> None:
    among = company(2)
    host, delay = among.hosts["a"], [0.003]
    host.kill()
    host.commit_delay = lambda: delay[0]
    host.start()
    among.acquainted()
    ann = among.connect("a")
    among.submit(ann, FOREVER)
    slow(among, 0.05)
    job = among.submit(ann, SHORT, at_most_once=True)
    among.until(lambda: guests(among, "b") == 1)
    delay[0] = 35.0
    among.clock.advance(1.0)
    delay[0] = 0.003
    assert among.wait(ann, job, patience=120.0).state is JobState.SUCCEEDED


# drains


def test_a_cancel_while_a_job_is_handed_over() -> None:
    among = company(2, options={"drain_timeout": 1.0})
    ann = among.connect("a")
    among.submit(ann, FOREVER)
    among.submit(among.connect("b"), ScriptPlan(duration=10.0))
    job = among.submit(ann, SHORT)
    among.reach(ann, job, JobState.WAITING)
    linked(among, "a", "b")
    slow(among, 0.2)
    stopped = among.hosts["a"].stop()
    among.clock.advance(0.3)
    with pytest.raises(NodeDraining, match="being handed over to another node"):
        among.result(ann.cancel(job.id))
    among.result(stopped, patience=60.0)
    there = among.connect("b")
    among.result(there.cancel(job.id))
    among.clock.advance(20.0)
    assert among.ran(job) == []


@pytest.mark.parametrize("ending", [0.0, 0.02, 0.04, 0.07, 0.1, 0.2])
def test_a_node_becomes_free_while_another_one_hands_over_its_queue(ending: float) -> None:
    among = company(2, options={"drain_timeout": 1.0}, each={"b": {"slots": 4}})
    ann, bob = among.connect("a"), among.connect("b")
    among.submit(ann, FOREVER)
    start = among.clock.seconds()
    for _ in range(4):
        among.submit(bob, ScriptPlan(duration=10.0))
    jobs = [among.submit(ann, SHORT) for _ in range(30)]
    linked(among, "a", "b")
    among.clock.advance(start + 10.0 - ending - among.clock.seconds())
    slow(among, 0.02)
    among.result(among.hosts["a"].stop(), patience=60.0)
    among.clock.advance(40.0)
    among.hosts["a"].start()
    among.clock.advance(60.0)
    assert {len(among.ran(job)) for job in jobs} == {1}


def test_a_full_disk_does_not_keep_a_node_from_shutting_down(expected_failures: ExpectFailures) -> None:
    among = company(3, options={"drain_timeout": 1.0})
    ann = among.connect("a")
    for name in ("a", "b", "c"):
        among.submit(among.connect(name), ScriptPlan(duration=20.0))
    job = among.submit(ann, SHORT)
    among.reach(ann, job, JobState.WAITING)
    among.hosts["a"].disk.full = True
    stopped = Deferred.fromCoroutine(node(among, "a")._handover.all_waiting(10.0))
    assert among.result(stopped, patience=60.0) <= 1
    owners = [name for name in ("b", "c") if job.id in node(among, name).whereabouts()]
    assert len(owners) == 1, owners
    expected_failures()  # it says that this is not noted


@pytest.mark.parametrize("once", [True, False])
def test_a_job_whose_handover_was_not_heard_does_not_run_twice(once: bool) -> None:
    among = company(3, options={"drain_timeout": 1.0})
    ann = among.connect("a")
    for name in ("a", "b", "c"):
        among.submit(among.connect(name), ScriptPlan(duration=20.0), local=True)
    linked(among, "a", "b")
    linked(among, "a", "c")
    job = among.submit(ann, SHORT, at_most_once=once)
    among.reach(ann, job, JobState.WAITING)
    slow(among, 0.02)
    stopped = among.hosts["a"].stop()

    def taken() -> list[str]:
        return [name for name in ("b", "c") if job.id in among.hosts[name].disk.jobs]

    among.clock.advance(0.07)
    for name in ("b", "c"):
        among.network.paths.cut(name, "a")
    among.clock.advance(0.05)
    for name in taken():
        cut_links(among, "a", name)
    among.clock.advance(0.001)
    for name in ("b", "c"):
        among.network.paths.mend(name, "a")
    among.result(stopped, patience=60.0)
    among.clock.advance(60.0)
    among.hosts["a"].start()
    among.clock.advance(60.0)
    assert len(among.ran(job)) == 1, among.ran(job)


def test_a_job_that_is_handed_over_and_back_is_not_lost() -> None:
    among = company(2, options={"drain_timeout": 0.5})
    ann = among.connect("a")
    for name in ("a", "b"):
        among.submit(among.connect(name), ScriptPlan(duration=30.0), local=True)
    job = among.submit(ann, SHORT)
    among.reach(ann, job, JobState.WAITING)
    among.result(among.hosts["a"].stop(), patience=60.0)
    assert job.id in node(among, "b").whereabouts()
    among.hosts["a"].start()
    among.acquainted()
    among.result(among.hosts["b"].stop(), patience=60.0)
    assert among.wait(among.connect("a"), job, patience=120.0).state is JobState.SUCCEEDED
    assert among.ran(job) == ["a"]


def test_an_executor_that_drains_gives_back_what_waits_there() -> None:
    among = company(2, options={"placement": "paper", "drain_timeout": 2.0})
    ann = among.connect("a")
    jobs = [among.submit(ann, ScriptPlan(duration=5.0)) for _ in range(5)]
    among.until(lambda: guests(among, "b") >= 2, patience=5.0)
    among.result(among.hosts["b"].stop(), patience=60.0)
    for job in jobs:
        assert among.wait(ann, job, patience=60.0).state is JobState.SUCCEEDED
    quiet(among)


def test_both_drain_and_come_back() -> None:
    among = company(2, options={"drain_timeout": 2.0})
    ann = among.connect("a")
    jobs = [among.submit(ann, ScriptPlan(duration=5.0)) for _ in range(5)]
    among.clock.advance(1.0)
    stops = [host.stop() for host in among.hosts.values()]
    for stop in stops:
        among.result(stop, patience=60.0)
    for host in among.hosts.values():
        host.start()
    ann = among.connect("a")
    for job in jobs:
        assert among.wait(ann, job, patience=120.0).state is JobState.SUCCEEDED
    quiet(among, 10.0)


def test_an_origin_that_drains_takes_up_its_attempts_again() -> None:
    among = company(2, options={"drain_timeout": 2.0})
    ann = among.connect("a")
    among.submit(ann, SHORT)
    job = among.submit(ann, ScriptPlan(duration=20.0, output=((1.0, OUT, b"x"), (15.0, OUT, b"y"))))
    among.reach(ann, job, JobState.RUNNING)
    among.clock.advance(3.0)
    among.result(among.hosts["a"].stop(), patience=60.0)
    among.clock.advance(5.0)
    among.hosts["a"].start()
    ann = among.connect("a")
    ended = among.wait(ann, job)
    assert (ended.state, ended.attempt, among.ran(job)) == (JobState.SUCCEEDED, 1, ["b"])
    assert among.output(ann, job)[0] == b"xy"
    quiet(among)


def test_a_node_that_leaves_before_its_guests_are_told_logs_nothing() -> None:
    among = company(2, options={"drain_timeout": 0.2})
    ann = among.connect("a")
    among.submit(ann, FOREVER)
    job = among.submit(ann, FOREVER)
    among.reach(ann, job, JobState.RUNNING)
    among.network.paths.partition(["a", "ann"], ["b"])
    among.result(among.hosts["b"].stop(), patience=60.0)


# policy paper


def test_guests_that_waited_in_a_queue_leave_no_count_behind() -> None:
    among = company(2, options={"placement": "paper"})
    ann = among.connect("a")
    for job in [among.submit(ann, SHORT) for _ in range(5)]:
        among.wait(ann, job)
    quiet(among)


def _relayed(among: Company) -> tuple[NodeClient, JobStatus]:
    """A job of ``a`` that ``b`` took and handed on to ``c``."""
    ann = among.connect("a")
    among.submit(ann, ScriptPlan(duration=500.0), local=True)
    among.submit(among.connect("c"), ScriptPlan(duration=3.0), local=True)
    among.clock.advance(1.0)
    slow(among, 0.02)  # both are on their way to b before it says that it is full
    begun = [among.begin(ann, ScriptPlan(duration=60.0), ScriptPlan(duration=30.0)) for _ in range(2)]
    jobs = [among.result(each) for each in begun]
    among.until(lambda: any("c" in among.ran(job) for job in jobs), patience=20.0)
    among.clock.advance(0.1)
    [relayed] = [job for job in jobs if "c" in among.ran(job)]
    assert node(among, "b")._delegate.running == 1
    return ann, relayed


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_the_middle_one_of_three_ends(how: str) -> None:
    among = company(3, options={"placement": "paper", "orphan_grace": 5.0, "drain_timeout": 1.0})
    ann, job = _relayed(among)
    among.clock.advance(1.0)
    if how == "kill":
        among.hosts["b"].kill()
    else:
        among.result(among.hosts["b"].stop(), patience=60.0)
    ended = among.wait(ann, job, patience=200.0)
    assert (ended.state, ended.attempt) == (JobState.SUCCEEDED, 2)


def test_a_relayed_job_is_cancelled() -> None:
    among = company(3, options={"placement": "paper"})
    ann, job = _relayed(among)
    among.result(ann.cancel(job.id))
    among.until(lambda: not among.hosts["c"].machine.live, patience=5.0)
    assert among.wait(ann, job, patience=5.0).state is JobState.CANCELLED


# bans


def test_a_banned_clients_failed_job_is_not_tried_again() -> None:
    among = company(2)
    mallory = among.connect("a", "mallory")
    job = among.submit(mallory, ScriptPlan(duration=5.0, exit_code=1), SHORT, retries=3)
    among.reach(mallory, job, JobState.RUNNING)
    among.result(node(among, "a").front_door.ban(ClientId("ann"), ClientId("mallory"), "test", 3600.0))
    among.clock.advance(60.0)
    assert among.ran(job) == ["a"]


def test_a_banned_clients_job_that_waits_elsewhere_is_not_started() -> None:
    among = company(2, options={"placement": "paper"})
    ann = among.connect("a")
    among.submit(ann, ScriptPlan(duration=30.0), local=True)
    mallory = among.connect("a", "mallory")
    begun = [among.begin(mallory, ScriptPlan(duration=8.0)) for _ in range(3)]
    jobs = [among.result(each) for each in begun]
    among.until(lambda: guests(among, "b") >= 2, patience=5.0)
    among.result(node(among, "b").front_door.ban(ClientId("ann"), ClientId("mallory"), "test", 3600.0))
    among.clock.advance(4.0)
    before = len(among.launches)
    among.clock.advance(60.0)
    assert len(among.launches) == before
    assert all(among.record("a", job).state.terminal for job in jobs)


# what does not fit


def test_a_job_that_a_node_cannot_take_does_not_keep_others_from_it() -> None:
    among = company(2, each={"b": {"script_max": 2000}})
    ann = among.connect("a")
    among.submit(ann, FOREVER)
    among.submit(ann, SHORT, script=bytes(5000))
    among.clock.advance(0.01)
    small = among.submit(ann, SHORT)
    among.until(lambda: among.ran(small) == ["b"], patience=0.1)


def test_a_rotten_script_of_a_job_that_is_pinned_elsewhere() -> None:
    among = company(2)
    bob = among.connect("b")
    among.submit(bob, ScriptPlan(duration=5.0))
    ann = among.connect("a")
    script = bytes(range(256)) * 1000
    job = among.submit(ann, SHORT, script=script, node="b")
    among.hosts["a"].disk.corrupt[blob_of(script).digest] = None
    ended = among.wait(ann, job, patience=60.0)
    assert (ended.state, ended.reason) == (JobState.FAILED, Reason.LAUNCH)


# all of it at once


@define(eq=False)
class _Turmoil:
    """Jobs, cancels and faults by the dice; whereabouts are looked at after every event."""

    seed: int
    jobs: int = 120
    paper: bool = False
    dice: random.Random = field(init=False)
    among: Company = field(init=False)
    clients: dict[str, NodeClient] = field(init=False, factory=dict)
    accepted: dict[str, str] = field(init=False, factory=dict)
    once: set[str] = field(init=False, factory=set)
    busy: set[str] = field(init=False, factory=set)

    def __attrs_post_init__(self) -> None:
        self.dice = random.Random(self.seed)
        options: dict[str, Any] = {
            "orphan_grace": 8.0,
            "drain_timeout": 1.5,
            "slots": 2,
            "placement": "paper" if self.paper else "reserve-pull",
            "sweep_interval": 1000.0,
        }
        self.among = Company(self.dice.choice((3, 4)), options=options, seed=self.seed)
        self.among.acquainted()
        self.among.network.latency = lambda _here, _there: self.dice.uniform(0.0002, 0.02)

    def run(self) -> None:
        for _ in range(self.jobs):
            self.pass_time(self.dice.expovariate(6.0))
            self.submit()
            if self.dice.random() < 0.08:
                self.disturb()
        self.among.network.paths.heal()
        self.pass_time(40.0)
        self.among.clock.advance(100.0)
        self.check()
        for job, name in self.accepted.items():
            owners = {
                at: record.state
                for at, host in self.among.hosts.items()
                if (record := host.disk.jobs.get(JobId(job))) is not None and record.state is not JobState.EXPIRED
            }
            assert len(owners) == 1 and all(state.terminal for state in owners.values()), (job, name, owners)
        for job in self.once:
            assert sum(launch.id.job == job for _, launch in self.among.launches) <= 1, job
        assert left_behind(self.among) == {}

    def pass_time(self, seconds: float) -> None:
        end = self.among.clock.seconds() + seconds
        while self.among.clock.seconds() < end and self.among.clock.step():
            self.check()

    def check(self) -> None:
        for name, host in self.among.hosts.items():
            if host.up:
                wrong = {job: at for job, at in host.node.whereabouts().items() if len(at) != 1}
                assert not wrong, f"seed {self.seed}, at {name}, {self.among.clock.seconds():.3f} s: {wrong}"

    def plan(self) -> ScriptPlan:
        dice, duration = self.dice, self.dice.expovariate(1.0)
        pieces = tuple(
            (dice.uniform(0.0, duration), OUT, bytes(dice.randrange(1, 40_000))) for _ in range(dice.choice((0, 2, 20)))
        )
        return ScriptPlan(duration=duration, exit_code=dice.choice((0, 0, 0, 1)), output=pieces, term_delay=0.2)

    def submit(self) -> None:
        dice, name = self.dice, self.dice.choice([*"aaab", *self.among.hosts])
        if not self.among.hosts[name].up:
            return
        once = dice.random() < 0.2
        spec, source = self.among.spec(
            *(self.plan() for _ in range(3)),
            script=dice.randbytes(dice.choice((30, 30, 100_000))),
            at_most_once=once,
            retries=0 if once else dice.choice((0, 1)),
        )

        async def submitted() -> None:
            client = await self.among.hosts[name].connect("client", dice.choice(("ann", "bob")))
            try:
                job = await client.submit(spec, source)
                self.accepted[job.id] = name
                if once:
                    self.once.add(job.id)
                if dice.random() < 0.25:
                    over: Deferred[None] = Deferred()
                    self.among.clock.callLater(dice.choice((0.0, 0.01, 0.05, 0.5, 2.0)), over.callback, None)
                    await over
                    await client.cancel(job.id)
            except CloudMyTaskError:
                return
            finally:
                client.close()

        Deferred.fromCoroutine(submitted()).addErrback(lambda failure: failure.trap(CloudMyTaskError))

    def disturb(self) -> None:
        among, dice = self.among, self.dice
        name = dice.choice(list(among.hosts))
        kind = dice.choice(("kill", "power", "drain", "partition", "links"))
        if kind == "links":
            cut_links(among, *dice.sample(list(among.hosts), 2))
        elif kind == "partition":
            names = dice.sample(list(among.hosts), len(among.hosts))
            middle = dice.randrange(1, len(names))
            among.network.paths.partition(names[:middle], names[middle:])
            among.clock.callLater(dice.choice((0.3, 2.0, 6.0)), among.network.paths.partition)
        elif name not in self.busy and among.hosts[name].up:
            self.busy.add(name)
            host = among.hosts[name]
            if kind == "drain":
                stopped = host.stop()
                stopped.addCallback(lambda _: among.clock.callLater(dice.uniform(0.1, 3.0), self.revive, name))
                stopped.addErrback(lambda failure: _log.failure("drain broke", failure))
            else:
                host.kill() if kind == "kill" else host.lose_power()
                among.clock.callLater(dice.choice((0.1, 2.0, 6.0, 15.0)), self.revive, name)

    def revive(self, name: str) -> None:
        self.among.hosts[name].start()
        self.busy.discard(name)


@pytest.mark.parametrize("seed", range(3))
def test_turmoil(seed: int) -> None:
    _Turmoil(seed).run()


@pytest.mark.parametrize("seed", [0, 1, 3, 34])
def test_turmoil_under_policy_paper(seed: int) -> None:
    _Turmoil(100 + seed, paper=True).run()


def test_a_bug_on_the_way_of_a_guest_is_its_last_word(
    monkeypatch: pytest.MonkeyPatch, expected_failures: ExpectFailures
) -> None:
    among = company(2)
    ann = among.connect("a")
    monkeypatch.setattr(Executor, "run", lambda self, *_: 1 / 0)
    job = among.submit(ann, ScriptPlan(), node="b")
    done = among.wait(ann, job, patience=10.0)
    assert (done.state, done.reason) == (JobState.FAILED, Reason.LAUNCH)
    assert "the node failed: ZeroDivisionError" in among.result(ann.explain(job.id)).sentence
    expected_failures(ZeroDivisionError)
