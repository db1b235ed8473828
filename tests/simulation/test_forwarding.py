"""Jobs that run on another node than the one that accepted them: to their clients there is no difference."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from twisted.internet.defer import Deferred, fail

from cloudmytask.model.errors import Banned, InvalidArgument, JobMoved, NodeDraining, NoSuchNode, StoreFailed
from cloudmytask.model.job import INLINE_MAX, ClientId, Content, Job, JobId, JobState, QoS, Reason, StreamName
from cloudmytask.simulation.runner import ScriptPlan
from tests.conftest import ExpectFailures
from tests.virtual import FOREVER
from tests.virtual_cluster import Company

OUT, ERR = StreamName.STDOUT, StreamName.STDERR


@pytest.fixture
def two() -> Company:
    company = Company(2)
    company.acquainted()
    return company


def test_a_full_node_forwards_and_its_client_sees_no_difference(two: Company) -> None:
    ann = two.connect("a")
    first = two.submit(ann, ScriptPlan(duration=10.0))
    pieces = ((0.5, OUT, b"one "), (1.0, ERR, b"oops"), (1.5, OUT, b"two"))
    second = two.submit(ann, ScriptPlan(duration=2.0, exit_code=3, output=pieces))
    ended = two.wait(ann, second)
    assert (ended.state, ended.exit_code, ended.executor) == (JobState.FAILED, 3, "b")
    assert two.output(ann, second) == (b"one two", b"oops")
    assert two.wait(ann, first).executor == "a"
    assert (two.ran(first), two.ran(second)) == (["a"], ["b"])


def test_live_output_comes_while_the_script_runs_elsewhere(two: Company) -> None:
    ann = two.connect("a")
    two.submit(ann, ScriptPlan(duration=60.0))
    job = two.submit(ann, ScriptPlan(duration=30.0, output=((1.0, OUT, b"early"),)))
    got: list[bytes] = []
    followed = ann.output(job.id, lambda _stream, data: got.append(data), follow=True)
    two.until(lambda: b"".join(got) == b"early", patience=5.0)
    two.result(followed)


def test_many_lines_are_few_messages_between_nodes_too(two: Company, asked: list[str]) -> None:
    ann = two.connect("a")
    two.submit(ann, FOREVER)
    lines = tuple((number / 2_000, OUT, b"%d\n" % number) for number in range(2_000))
    job = two.submit(ann, ScriptPlan(duration=1.0, output=lines))
    assert two.wait(ann, job).executor == "b"
    assert two.output(ann, job) == (b"".join(data for _, _, data in lines), b"")
    assert 0 < asked.count("AttemptOutput") < 300


def test_large_output_and_what_is_beyond_output_max() -> None:
    company = Company(2, each={"a": {"output_max": 500_000}, "b": {"output_max": 300_000}})
    company.acquainted()
    ann = company.connect("a")
    company.submit(ann, FOREVER)
    pieces = tuple((0.01 * n, OUT, bytes([n]) * 10_000) for n in range(40))
    job = company.submit(ann, ScriptPlan(duration=1.0, output=pieces))
    company.wait(ann, job)
    out, _ = company.output(ann, job)
    assert out == b"".join(piece[2] for piece in pieces)[:300_000]
    [attempt] = company.record("a", job).attempts
    assert attempt.stdout.size == 300_000 and attempt.stdout.discarded == 100_000


def test_cancel_reaches_the_executor(two: Company) -> None:
    ann = two.connect("a")
    two.submit(ann, FOREVER)
    job = two.submit(ann, FOREVER)
    two.reach(ann, job, JobState.RUNNING)
    two.result(ann.cancel(job.id, "enough"))
    assert two.wait(ann, job).state is JobState.CANCELLED
    assert two.hosts["b"].machine.live == 0


def test_a_script_that_ignores_the_cancel_is_killed_by_a_second_one(two: Company) -> None:
    ann = two.connect("a")
    two.submit(ann, FOREVER)
    job = two.submit(ann, ScriptPlan(duration=None, term_delay=None))
    two.reach(ann, job, JobState.RUNNING)
    two.result(ann.cancel(job.id))
    two.clock.advance(1.0)
    two.result(ann.cancel(job.id))
    two.until(lambda: two.hosts["b"].machine.live == 0, patience=1.0)
    assert two.wait(ann, job).state is JobState.CANCELLED


def test_a_timeout_holds_elsewhere(two: Company) -> None:
    ann = two.connect("a")
    two.submit(ann, FOREVER)
    job = two.submit(ann, FOREVER, timeout=3.0)
    ended = two.wait(ann, job)
    assert (ended.state, ended.reason, ended.executor) == (JobState.TIMED_OUT, Reason.TIMEOUT, "b")


def test_a_large_script_travels_once(two: Company) -> None:
    ann = two.connect("a")
    two.submit(ann, FOREVER)
    script = bytes(range(256)) * 1000
    assert len(script) > INLINE_MAX
    first = two.submit(ann, ScriptPlan(duration=1.0), script=script)
    two.wait(ann, first)
    carried = two.network.carried
    second = two.submit(ann, ScriptPlan(duration=1.0), script=script)
    two.wait(ann, second)
    assert two.ran(first) == two.ran(second) == ["b"]
    assert two.network.carried - carried < len(script) + 100_000  # to its own node, and not on to the executor again


def test_why_tells_where_and_on_what_grounds(two: Company) -> None:
    ann = two.connect("a")
    two.submit(ann, FOREVER)
    job = two.submit(ann, ScriptPlan(duration=5.0))
    two.reach(ann, job, JobState.RUNNING)
    why = two.why(ann, job)
    assert "It is running on b" in why and "1 of 1 slots free" in why and "a forwarded it" in why
    third = two.submit(ann, ScriptPlan())
    two.reach(ann, third, JobState.WAITING)
    assert "The only slot of a is taken, and no other node is free (b 0 free)" in two.why(ann, third)


def test_pin_avoid_and_local(two: Company) -> None:
    ann = two.connect("a")
    pinned = two.submit(ann, ScriptPlan(duration=1.0), node="b")
    assert two.wait(ann, pinned).executor == "b"
    avoiding = two.submit(ann, ScriptPlan(duration=1.0), avoid=("a",))
    assert two.wait(ann, avoiding).executor == "b"
    two.submit(ann, ScriptPlan(duration=5.0))
    local = two.submit(ann, ScriptPlan(duration=1.0), local=True)
    two.reach(ann, local, JobState.WAITING)
    assert "it is to run on this node only" in two.why(ann, local)
    assert two.wait(ann, local).executor == "a"


def test_a_pinned_job_does_not_hold_others_back(two: Company) -> None:
    bob = two.connect("b")
    two.submit(bob, ScriptPlan(duration=30.0))
    ann = two.connect("a")
    pinned = two.submit(ann, ScriptPlan(duration=1.0), node="b")
    other = two.submit(ann, ScriptPlan(duration=1.0))
    assert two.wait(ann, other, patience=5.0).executor == "a"
    assert "It waits for b, where it is to run, and no other node is free (b 0 free)" in two.why(ann, pinned)
    assert two.wait(ann, pinned).executor == "b"


def test_a_job_pinned_to_an_unknown_node_is_refused(two: Company) -> None:
    ann = two.connect("a")
    spec, source = two.spec(node="nowhere")
    with pytest.raises(NoSuchNode, match="no node named 'nowhere' is known here; known are a, b"):
        two.result(ann.submit(spec, source))
    spec, source = two.spec(local=True, avoid=("a",))
    with pytest.raises(InvalidArgument, match="local"):
        two.result(ann.submit(spec, source))
    assert two.wait(ann, two.submit(ann)).state is JobState.SUCCEEDED  # the connection survived


def test_all_full_jobs_wait_at_their_origin_and_leave_as_soon_as_anyone_is_free(two: Company) -> None:
    ann = two.connect("a")
    two.submit(ann, ScriptPlan(duration=100.0))
    two.submit(ann, ScriptPlan(duration=10.0))
    job = two.submit(ann, ScriptPlan(duration=1.0))
    two.reach(ann, job, JobState.WAITING)
    before = two.clock.seconds()
    ended = two.wait(ann, job)
    assert ended.executor == "b"
    assert two.clock.seconds() - before < 12.0


def test_a_node_that_becomes_free_asks_for_work() -> None:
    company = Company(3)
    company.acquainted()
    ann, bob = company.connect("a"), company.connect("b")
    company.submit(bob, ScriptPlan(duration=5.0))
    company.submit(company.connect("c"), ScriptPlan(duration=100.0))
    company.submit(ann, ScriptPlan(duration=100.0))
    job = company.submit(ann, ScriptPlan(duration=1.0))  # waits at a; b becomes free without having heard from a
    ended = company.wait(ann, job, patience=8.0)
    assert ended.executor == "b"


def test_threshold_zero_runs_nothing_and_one_counts_slots_alone() -> None:
    company = Company(2, each={"a": {"threshold": 0.0}, "b": {"threshold": 1.0}})
    company.acquainted()
    ann = company.connect("a")
    jobs = [company.submit(ann, ScriptPlan(duration=1.0)) for _ in range(3)]
    assert {company.wait(ann, job).executor for job in jobs} == {"b"}


def test_policy_local_never_forwards() -> None:
    company = Company(2, options={"placement": "local"})
    company.acquainted()
    ann = company.connect("a")
    jobs = [company.submit(ann, ScriptPlan(duration=1.0)) for _ in range(3)]
    assert {company.wait(ann, job).executor for job in jobs} == {"a"}


def test_policy_paper_hands_on_from_a_full_target_and_relays_the_answer() -> None:
    company = Company(3, options={"placement": "paper"})
    company.acquainted()
    ann = company.connect("a")
    jobs = [company.submit(ann, ScriptPlan(duration=2.0, output=((0.5, OUT, b"%d" % n),))) for n in range(6)]
    for n, job in enumerate(jobs):
        assert company.wait(ann, job).state is JobState.SUCCEEDED
        assert company.output(ann, job)[0] == b"%d" % n
    assert {name for job in jobs for name in company.ran(job)} == {"a", "b", "c"}


def test_idle_class_goes_only_where_the_load_is_low(two: Company) -> None:
    ann = two.connect("a")
    two.submit(ann, FOREVER)
    job = two.submit(ann, ScriptPlan(duration=1.0), qos=QoS.IDLE)
    assert two.wait(ann, job).executor == "b"


def test_the_executor_dies_and_the_job_runs_again_elsewhere() -> None:
    company = Company(3)
    company.acquainted()
    ann = company.connect("a")
    company.submit(ann, FOREVER)
    job = company.submit(ann, ScriptPlan(duration=20.0, output=((1.0, OUT, b"again"),)))
    running = company.reach(ann, job, JobState.RUNNING)
    company.clock.advance(2.0)
    assert running.executor is not None
    company.hosts[running.executor].kill()
    ended = company.wait(ann, job)
    assert (ended.state, ended.attempt) == (JobState.SUCCEEDED, 2)
    assert ended.executor not in (None, "a", running.executor)
    assert company.output(ann, job) == (b"again", b"")
    assert f"node {running.executor} died" in company.why(ann, job)


def test_an_at_most_once_job_is_lost_with_its_executor(two: Company) -> None:
    ann = two.connect("a")
    two.submit(ann, FOREVER)
    job = two.submit(ann, ScriptPlan(duration=20.0), at_most_once=True)
    two.reach(ann, job, JobState.RUNNING)
    two.hosts["b"].kill()
    ended = two.wait(ann, job)
    assert (ended.state, ended.attempt) == (JobState.LOST, 1)
    assert "must not run twice" in two.why(ann, job)


def test_the_executor_falls_silent(two: Company) -> None:
    ann = two.connect("a")
    two.submit(ann, ScriptPlan(duration=15.0))
    job = two.submit(ann, ScriptPlan(duration=20.0))
    two.reach(ann, job, JobState.RUNNING)
    two.hosts["b"].lose_power()
    ended = two.wait(ann, job, patience=60.0)
    assert (ended.state, ended.attempt, ended.executor) == (JobState.SUCCEEDED, 2, "a")


def test_the_origin_is_started_again_and_takes_up_what_runs_elsewhere(two: Company) -> None:
    ann = two.connect("a")
    two.submit(ann, ScriptPlan(duration=1.0))
    pieces = ((1.0, OUT, b"before "), (15.0, OUT, b"after"))
    job = two.submit(ann, ScriptPlan(duration=20.0, output=pieces))
    two.reach(ann, job, JobState.RUNNING)
    two.clock.advance(3.0)
    two.hosts["a"].kill()
    two.clock.advance(5.0)
    two.hosts["a"].start()
    ann = two.connect("a")
    ended = two.wait(ann, job)
    assert (ended.state, ended.attempt, ended.executor) == (JobState.SUCCEEDED, 1, "b")
    assert two.output(ann, job) == (b"before after", b"")
    assert two.ran(job) == ["b"]


def test_the_origin_does_not_come_back_and_its_script_ends(two: Company) -> None:
    ann = two.connect("a")
    two.submit(ann, ScriptPlan(duration=1.0))
    job = two.submit(ann, FOREVER)
    two.reach(ann, job, JobState.RUNNING)
    two.hosts["a"].kill()
    two.until(lambda: two.hosts["b"].machine.live == 0, patience=120.0)
    bob = two.connect("b")
    assert two.wait(bob, two.submit(bob)).state is JobState.SUCCEEDED


def test_a_ban_is_obeyed_by_the_executor_too(two: Company) -> None:
    mallory = two.connect("b", "mallory")
    two.submit(mallory, ScriptPlan(duration=30.0))
    waiting = two.submit(mallory, ScriptPlan(duration=200.0))
    stuck = two.submit(mallory, ScriptPlan(duration=1.0))
    two.reach(mallory, stuck, JobState.WAITING)
    two.result(two.hosts["a"].node.front_door.ban(ClientId("ann"), ClientId("mallory"), "test", 3600.0))
    two.clock.advance(2.0)
    with pytest.raises(Banned, match="test"):
        two.submit(mallory)
    ended = two.hosts["b"].disk.jobs[stuck.id]
    assert ended.state is JobState.CANCELLED
    assert ended.cancellation is not None and "mallory is banned" in ended.cancellation.note
    assert not two.hosts["b"].disk.jobs[waiting.id].state.terminal  # what runs may end by itself


def test_a_draining_node_gets_no_more_jobs_and_leaves(two: Company) -> None:
    ann = two.connect("a")
    two.submit(ann, FOREVER)
    two.result(two.hosts["b"].stop())
    two.until(lambda: two.alive("a") == ["a"], patience=5.0)
    job = two.submit(ann, ScriptPlan())
    two.clock.advance(5.0)
    assert two.result(ann.getScriptJobStatus(job.id)).state is JobState.WAITING


def test_a_draining_node_hands_its_queue_to_others(two: Company) -> None:
    ann = two.connect("a")
    two.submit(ann, ScriptPlan(duration=30.0))
    two.submit(two.connect("b"), ScriptPlan(duration=8.0))
    script = bytes(range(256)) * 1000
    small = two.submit(ann, ScriptPlan(duration=1.0, output=((0.5, OUT, b"small"),)))
    large = two.submit(ann, ScriptPlan(duration=1.0, output=((0.5, OUT, b"large"),)), script=script)
    local = two.submit(ann, ScriptPlan(duration=1.0), local=True)
    two.result(two.hosts["a"].stop())
    there = two.connect("b")
    for job, text in ((small, b"small"), (large, b"large")):
        ended = two.wait(there, job)
        assert (ended.state, ended.executor, ended.document["origin"]) == (JobState.SUCCEEDED, "b", "b")
        assert two.output(there, job)[0] == text
        assert "taken over on b: from a" in two.why(there, job)
    two.hosts["a"].start()
    ann = two.connect("a")
    with pytest.raises(JobMoved, match=r"handed over to b at 127\.0\.0\.2:7001"):
        two.result(ann.getScriptJobStatus(small.id))
    assert two.wait(ann, local).executor == "a"
    assert two.ran(small) == ["b"]


@pytest.mark.parametrize("noted", [True, False])
def test_who_follows_a_job_that_is_handed_over_learns_it(
    two: Company, expected_failures: ExpectFailures, noted: bool
) -> None:
    ann, host = two.connect("a"), two.hosts["a"]
    two.submit(ann, ScriptPlan(duration=30.0))
    two.submit(two.connect("b"), ScriptPlan(duration=8.0))
    job = two.submit(ann, ScriptPlan(duration=1.0))
    two.reach(ann, job, JobState.WAITING)
    client, identity, store = ClientId("ann"), JobId(job.id), host.node._world.store
    from_start = dict.fromkeys(StreamName, 0)
    following = two.result(host.node.front_door.output(client, identity, 0, from_start, True)).next(1000)
    saving, late = store.save, []

    def save(record: Job, contents: Sequence[Content] = ()) -> Deferred[None]:
        if record.moved_to is None:
            return saving(record, contents)
        late.append(two.result(host.node.front_door.output(client, identity, 0, from_start, True)).next(1000))
        return saving(record, contents) if noted else fail(StoreFailed("full"))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(store), "save", lambda _, record, contents=(): save(record, contents))
        stopped = host.node.drain()
        two.refused(following, JobMoved if noted else NodeDraining)
        two.refused(late[0], NodeDraining)
        two.result(stopped)
    if not noted:
        expected_failures()


def test_a_job_that_no_node_may_run_says_so(two: Company) -> None:
    ann = two.connect("a")
    nowhere = two.submit(ann, ScriptPlan(duration=1.0), avoid=("a", "b"))
    two.submit(ann, ScriptPlan(duration=30.0), node="a")
    here = two.submit(ann, ScriptPlan(duration=1.0), node="a")
    two.clock.advance(2.0)
    assert "It is not to run on a, and none of the other nodes may run it." in two.why(ann, nowhere)
    assert "and it is to run on this node only" in two.why(ann, here)


def test_a_queue_that_nobody_takes_stays(two: Company) -> None:
    ann = two.connect("a")
    two.submit(ann, ScriptPlan(duration=1.0))
    two.submit(ann, ScriptPlan(duration=30.0))
    job = two.submit(ann, ScriptPlan(duration=1.0), node="a")
    two.hosts["b"].kill()
    two.until(lambda: two.alive("a") == ["a"], patience=10.0)
    two.result(two.hosts["a"].stop())
    two.hosts["a"].start()
    assert two.wait(two.connect("a"), job).state is JobState.SUCCEEDED


def test_a_draining_executor_interrupts_and_the_origin_goes_on_elsewhere() -> None:
    company = Company(3, options={"drain_timeout": 2.0})
    company.acquainted()
    ann = company.connect("a")
    company.submit(ann, FOREVER)
    job = company.submit(ann, ScriptPlan(duration=20.0))
    running = company.reach(ann, job, JobState.RUNNING)
    assert running.executor is not None
    company.result(company.hosts[running.executor].stop())
    ended = company.wait(ann, job)
    assert (ended.state, ended.attempt) == (JobState.SUCCEEDED, 2)


def test_an_idempotent_submission_is_one_job_wherever_it_runs(two: Company) -> None:
    ann = two.connect("a")
    two.submit(ann, FOREVER)
    spec, source = two.spec(ScriptPlan(duration=5.0))
    first = two.result(ann.submit(spec, source, key="k"))
    again = two.result(ann.submit(spec, source, key="k"))
    assert first.id == again.id
    two.wait(ann, first)
    assert two.ran(first) == ["b"]


def test_a_drain_takes_no_longer_than_is_told_to_systemd() -> None:
    """Of the nodes that could take over what waits one takes the calls and says nothing."""
    options = {"drain_timeout": 5.0, "kill_grace": 2.0}
    among = Company(2, options=options)
    among.acquainted()
    ann = among.connect("a")
    stubborn = among.submit(ann, ScriptPlan(duration=None, term_delay=None), local=True)
    among.reach(ann, stubborn, JobState.RUNNING)
    among.submit(among.connect("b"), FOREVER, local=True)
    waiting = [among.submit(ann, FOREVER) for _ in range(3)]
    assert all(among.result(ann.getScriptJobStatus(job.id)).state is JobState.WAITING for job in waiting)
    among.network.paths.cut("a", "b")
    node, began = among.hosts["a"].node, among.clock.seconds()
    among.result(node.drain())
    assert 5.0 + 2.0 < among.clock.seconds() - began <= node.drain_time
