"""The waiting queue: who is next."""

from __future__ import annotations

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cloudmytask.core.queue import HEAD_START, Entry, Line, WaitingQueue
from cloudmytask.model.cluster import NodeId
from cloudmytask.model.job import ClientId, JobId, QoS

N, B, Z = QoS.INTERACTIVE, QoS.BATCH, QoS.IDLE


def _queue(*entries: tuple[str, str, QoS, float], capacity: int = 1_000_000) -> WaitingQueue:
    queue = WaitingQueue(capacity)
    for job, client, qos, arrival in entries:
        queue.add(Entry(JobId(job), ClientId(client), qos, arrival))
    return queue


def _all(queue: WaitingQueue, *, idle_allowed: bool = True) -> list[str]:
    """Everything in its order, each job having ended before the next is placed."""
    order = []
    while (entry := queue.pop(idle_allowed=idle_allowed)) is not None:
        order.append(entry.job_id)
        queue.ended(entry.client)
    return list(map(str, order))


def test_an_empty_queue_has_nothing_next() -> None:
    assert WaitingQueue(3).pop(idle_allowed=True) is None


def test_one_clients_jobs_of_one_class_come_out_as_they_came() -> None:
    assert _all(_queue(*((f"j{n}", "ann", B, float(n)) for n in range(20)))) == [f"j{n}" for n in range(20)]


def test_interactive_goes_before_batch_goes_before_idle() -> None:
    assert _all(_queue(("z", "ann", Z, 0.0), ("b", "ann", B, 1.0), ("i", "ann", N, 2.0))) == ["i", "b", "z"]


def test_a_class_that_has_waited_long_enough_goes_first_all_the_same() -> None:
    """Nothing starves: a head start is worth a time, not for ever."""
    lead = HEAD_START[N] - HEAD_START[B]
    assert _all(_queue(("b", "ann", B, 0.0), ("i", "ann", N, lead - 1.0))) == ["i", "b"]
    assert _all(_queue(("b", "ann", B, 0.0), ("i", "ann", N, lead + 1.0))) == ["b", "i"]
    lead = HEAD_START[N] - HEAD_START[Z]
    assert _all(_queue(("z", "ann", Z, 0.0), ("i", "ann", N, lead + 1.0))) == ["z", "i"]


def test_idle_jobs_wait_until_they_may() -> None:
    queue = _queue(("z", "ann", Z, 0.0), ("b", "ann", B, 100_000.0))
    assert _all(queue, idle_allowed=False) == ["b"]
    assert queue.pop(idle_allowed=False) is None and len(queue) == 1
    assert _all(queue) == ["z"]


def test_ten_thousand_jobs_do_not_hold_back_another_clients_first() -> None:
    queue = _queue(*((f"a{n}", "ann", B, 0.0) for n in range(10_000)), ("b", "ben", B, 500.0))
    first = queue.pop(idle_allowed=True)
    second = queue.pop(idle_allowed=True)
    assert first is not None and second is not None
    assert [first.job_id, second.job_id] == ["a0", "b"], "ann has one running already, ben none"


def test_clients_take_turns() -> None:
    entries = [(f"{client}{n}", client, B, 0.0) for client in ("a", "b", "c") for n in range(3)]
    order = _all(_queue(*entries))
    assert [job[0] for job in order] == ["a", "b", "c"] * 3


def test_whoever_runs_least_goes_first() -> None:
    queue = _queue(*((f"a{n}", "a", B, 0.0) for n in range(3)))
    for _ in range(2):
        queue.pop(idle_allowed=True)
    for n in range(4):
        queue.add(Entry(JobId(f"b{n}"), ClientId("b"), B, 1.0))
    order = [queue.pop(idle_allowed=True) for _ in range(4)]
    assert [entry.job_id for entry in order if entry] == ["b0", "b1", "a2", "b2"]
    for _ in range(3):
        queue.ended(ClientId("b"))
    queue.ended(ClientId("a"))
    last = queue.pop(idle_allowed=True)
    assert last is not None and last.job_id == "b3"


def test_a_slot_given_back_counts_for_its_client() -> None:
    queue = _queue(("a1", "a", B, 0.0), ("b1", "b", B, 0.0))
    assert [queue.pop(idle_allowed=True) is not None for _ in range(2)] == [True, True]
    queue.ended(ClientId("b"))
    for job, client in (("a2", "a"), ("b2", "b")):
        queue.add(Entry(JobId(job), ClientId(client), B, 1.0))
    entry = queue.pop(idle_allowed=True)
    assert entry is not None and entry.job_id == "b2"


def test_capacity_is_told_and_not_enforced() -> None:
    """What was accepted fits back in, for instance after its attempt was interrupted."""
    queue = _queue(("a", "ann", B, 0.0), capacity=2)
    full = [queue.full]
    for job in "bc":
        queue.add(Entry(JobId(job), ClientId("ann"), B, 0.0))
        full.append(queue.full)
    for job in "ab":
        queue.remove(JobId(job))
        full.append(queue.full)
    assert full == [False, True, True, True, False] and len(queue) == 1


def test_adding_twice_changes_nothing() -> None:
    queue = _queue(("a", "ann", B, 0.0), ("b", "ann", B, 1.0), ("a", "ann", N, 2.0))
    assert len(queue) == 2 and _all(queue) == ["a", "b"]


def test_remove_takes_out_from_anywhere() -> None:
    queue = _queue(("a", "ann", B, 0.0), ("b", "ann", B, 1.0), ("c", "ann", N, 1.0))
    assert queue.remove(JobId("b")) and not queue.remove(JobId("b")) and JobId("b") not in queue
    assert _all(queue) == ["c", "a"]
    assert not queue.remove(JobId("a"))


def test_counts_and_positions() -> None:
    queue = _queue(("a", "ann", B, 0.0), ("b", "ben", B, 1.0), ("i", "ann", N, 5.0), ("z", "ann", Z, 0.0))
    assert queue.counts() == {N: 1, B: 2, Z: 1}
    assert [queue.position(JobId(job)) for job in ("i", "a", "b", "z", "none")] == [0, 1, 2, 3, None]


def test_nothing_is_remembered_of_clients_that_are_gone() -> None:
    queue = _queue(*((f"j{n}", f"client{n}", B, 0.0) for n in range(100)))
    _all(queue)
    removed = _queue(("a", "ann", B, 0.0))
    removed.remove(JobId("a"))
    for each in (queue, removed):
        assert not (each._running or each._entries or any(each._classes.values()))


def _next(queue: WaitingQueue) -> str | None:
    entry = queue.pop(idle_allowed=True)
    return None if entry is None else str(entry.job_id)


def test_jobs_that_run_elsewhere_count() -> None:
    """A client that floods through every node does not get a share at each."""
    queue = _queue(("a1", "ann", B, 0.0), ("a2", "ann", B, 0.0), ("b1", "ben", B, 1.0), ("b2", "ben", B, 1.0))
    queue.learn(NodeId("n1"), {ClientId("ann"): 1, ClientId("eve"): 3})
    queue.learn(NodeId("n2"), {ClientId("ann"): 1})
    assert queue.running_elsewhere == {"ann": 2, "eve": 3}
    assert [_next(queue), _next(queue)] == ["b1", "b2"], "ben has none, then one; ann two"
    queue.learn(NodeId("n1"), {})
    queue.forget_node(NodeId("n2"))
    queue.forget_node(NodeId("unknown"))
    assert queue.running_elsewhere == {}
    assert _next(queue) == "a1"


def test_what_another_node_says_replaces_what_it_said() -> None:
    queue = WaitingQueue(1)
    for number in (3, 1, 1):
        queue.learn(NodeId("n1"), {ClientId("ann"): number})
    assert queue.running_elsewhere == {"ann": 1}


def test_the_head_and_its_age() -> None:
    queue = _queue(("b", "ann", B, 60.0), ("z", "ann", Z, 10.0))
    head = queue.head(130.0)
    assert head is not None and (head[0].job_id, head[1]) == ("b", 70.0 + HEAD_START[B])
    assert len(queue) == 2 and queue.top(1) == (), "only looked at"
    queue.remove(JobId("b"))
    head = queue.head(140.0)
    assert head is not None and (head[0].job_id, head[1]) == ("z", 130.0)
    assert queue.head(130.0, idle_allowed=False) is None


def test_a_wish_that_cannot_be_granted_holds_back_nothing_else() -> None:
    queue = WaitingQueue(10)
    pinned = Entry(JobId("a1"), ClientId("ann"), B, 0.0, wish=("node", "n1"))
    for entry in (pinned, Entry(JobId("a2"), ClientId("ann"), B, 1.0), Entry(JobId("b1"), ClientId("ben"), B, 2.0)):
        queue.add(entry)
    asked = []

    def fits(wish: object) -> bool:
        asked.append(wish)
        return wish is None

    head = queue.head(5.0, fits=fits)
    assert head is not None and head[0].job_id == "a2"
    popped = [queue.pop(idle_allowed=True, fits=fits) for _ in range(3)]
    assert [entry and entry.job_id for entry in popped] == ["a2", "b1", None]
    queue.ended(ClientId("ann"))
    assert queue.pop(idle_allowed=True, fits=lambda wish: wish == ("node", "n1")) == pinned


def test_a_client_whose_wishes_cannot_be_granted_does_not_take_a_turn() -> None:
    queue = _queue(("b", "ben", B, 0.0))
    queue.pop(idle_allowed=True)
    queue.add(Entry(JobId("b2"), ClientId("ben"), B, 0.0))
    queue.add(Entry(JobId("a"), ClientId("ann"), B, 0.0, wish="elsewhere"))
    entry = queue.pop(idle_allowed=True, fits=lambda wish: wish is None)
    assert entry is not None and entry.job_id == "b2", "though ann has none running and ben has"


def test_the_oldest_of_several_wishes_goes_first() -> None:
    queue = WaitingQueue(10)
    for number, wish in enumerate((None, "x", None, "y")):
        queue.add(Entry(JobId(f"j{number}"), ClientId("ann"), B, 1.0, wish))
    queue.put_back(Entry(JobId("first"), ClientId("ann"), B, 9.0, "y"))
    assert _all(queue) == ["first", "j0", "j1", "j2", "j3"]


def test_each_wish_is_asked_about_once() -> None:
    queue = WaitingQueue(10_000)
    for number in range(1_000):
        queue.add(Entry(JobId(f"j{number}"), ClientId(f"c{number % 50}"), B, 0.0, wish=number % 2))
    asked: list[object] = []

    def fits(wish: object) -> bool:
        asked.append(wish)
        return bool(wish)

    entry = queue.pop(idle_allowed=True, fits=fits)
    assert entry is not None and entry.wish == 1 and sorted(map(repr, asked)) == ["0", "1"]


def test_a_refused_job_has_its_old_place() -> None:
    """Though others of its moment stand there, and one came back to the front meanwhile."""
    queue = _queue(*((f"j{n}", "ann", B, 0.0) for n in range(4)))
    taken = [queue.pop(idle_allowed=True) for _ in range(3)]
    for entry in (taken[1], taken[0], taken[2], taken[2]):
        assert entry is not None
        queue.restore(entry)
    for _ in taken:
        queue.ended(ClientId("ann"))
    assert queue.top(3) == () and _all(queue) == ["j0", "j1", "j2", "j3"]


def test_a_refused_job_does_not_cost_its_client_the_turn() -> None:
    queue = _queue(*((client, client, B, 0.0) for client in "abc"))
    for _ in range(3):
        entry = queue.pop(idle_allowed=True)
        assert entry is not None and entry.job_id == "a"
        queue.ended(entry.client)
        queue.restore(entry)
    assert _all(queue) == ["a", "b", "c"]


def test_offering_in_vain_for_ever_costs_no_memory() -> None:
    queue = _queue(*((f"j{n}", "ann", B, float(n)) for n in range(3)))
    for _ in range(1_000):
        entry = queue.pop(idle_allowed=True)
        assert entry is not None and entry.job_id == "j0"
        queue.ended(entry.client)
        queue.restore(entry)
    for number in range(1_000):
        queue.add(Entry(JobId("come"), ClientId("ann"), B, 10.0 + number))
        queue.remove(JobId("come"))
    line = queue._classes[B][ClientId("ann")].lines[None]
    assert len(line._heap) < 50


def test_the_clients_with_the_most_running_jobs() -> None:
    queue = _queue(*((f"{client}{n}", client, B, 0.0) for client in "abc" for n in range(4)))
    for _ in range(7):
        queue.pop(idle_allowed=True)
    queue.ended(ClientId("b"))
    queue.learn(NodeId("n1"), {ClientId("z"): 9})
    assert queue.top(2) == (("a", 3), ("c", 2)) and queue.top(8) == (("a", 3), ("c", 2), ("b", 1))


def test_users_who_come_back_at_once_do_not_pass_one_who_waits() -> None:
    """One slot, two users who submit their next job when the last has ended, and one with a batch of jobs."""
    queue = _queue(*((f"a{n}", "ann", B, 0.0) for n in range(100)))
    order = []
    for client in ("ben", "cat"):
        queue.add(Entry(JobId(f"{client}0"), ClientId(client), B, 0.0))
    for turn in range(1, 31):
        entry = queue.pop(idle_allowed=True)
        assert entry is not None
        order.append(entry.client)
        queue.ended(entry.client)
        if entry.client != "ann":
            queue.add(Entry(JobId(f"{entry.client}{turn}"), entry.client, B, float(turn)))
    assert {client: order.count(ClientId(client)) for client in ("ann", "ben", "cat")} == {
        "ann": 10,
        "ben": 10,
        "cat": 10,
    }


@hypothesis.settings(max_examples=60)
@given(
    waiting=st.sampled_from(QoS),
    rivals=st.lists(
        st.tuples(st.sampled_from(QoS), st.sampled_from(["same", "other", "fresh"])), min_size=1, max_size=6
    ),
    backlog=st.integers(0, 20),
)
def test_nothing_starves(waiting: QoS, rivals: list[tuple[QoS, str]], backlog: int) -> None:
    """However others keep coming, a job is placed within its rivals' head start and its turn among them.

    One slot turns over each thirty seconds, and two jobs arrive for each that is placed.
    """
    queue = WaitingQueue(1_000_000)
    for number in range(backlog):
        queue.add(Entry(JobId(f"before{number}"), ClientId("other"), waiting, 0.0))
    target = Entry(JobId("target"), ClientId("ann"), waiting, 0.0)
    queue.add(target)
    for turn in range(1, 300):
        for second in range(2):
            qos, kind = rivals[(2 * turn + second) % len(rivals)]
            client = {"same": "ann", "other": "other", "fresh": f"fresh{turn}.{second}"}[kind]
            queue.add(Entry(JobId(f"{turn}.{second}"), ClientId(client), qos, 30.0 * turn))
        entry = queue.pop(idle_allowed=True)
        assert entry is not None
        queue.ended(entry.client)
        if entry == target:
            return
    pytest.fail("never placed")


@hypothesis.settings(max_examples=50)
@given(slots=st.integers(1, 8), jobs=st.lists(st.integers(1, 200), min_size=2, max_size=6))
def test_clients_of_a_class_share_fairly(slots: int, jobs: list[int]) -> None:
    """While two clients both have jobs waiting, neither gets ahead of the other by more than one turn."""
    queue = WaitingQueue(1_000_000)
    for client, number in enumerate(jobs):
        for job in range(number):
            queue.add(Entry(JobId(f"{client}.{job}"), ClientId(str(client)), B, 0.0))
    served = [0] * len(jobs)
    running: list[Entry] = []
    while queue:
        while len(running) < slots and (entry := queue.pop(idle_allowed=True)) is not None:
            running.append(entry)
            served[int(entry.client)] += 1
        backlogged = [done for done, number in zip(served, jobs, strict=True) if done < number]
        assert max(backlogged, default=0) - min(backlogged, default=0) <= 1
        queue.ended(running.pop(0).client)


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=60))
def test_a_line_is_always_in_order(steps: list[tuple[int, bool]]) -> None:
    line, kept = Line(), list[Entry]()
    for number, (arrival, add) in enumerate(steps):
        if add or not kept:
            kept.append(Entry(JobId(str(number)), ClientId("ann"), B, float(arrival), number=number))
            line.insert(kept[-1])
        else:
            line.remove(kept.pop(arrival % len(kept)))
        assert len(line) == len(kept)
        if kept:
            assert line.first() == min(kept, key=lambda entry: (entry.arrival, entry.number))


class Model(RuleBasedStateMachine):
    """The queue against a plain list of what waits."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = WaitingQueue(5)
        self.waiting: list[Entry] = []
        self.running: list[Entry] = []
        self.elsewhere = {"n1": dict.fromkeys("abc", 0), "n2": dict.fromkeys("abc", 0)}
        self.now = 0.0
        self.numbers = 0

    @rule(
        client=st.sampled_from("abc"),
        qos=st.sampled_from(QoS),
        wish=st.sampled_from([None, "x", "y"]),
        passed=st.sampled_from([0.0, 1.0, 300.0]),
    )
    def add(self, client: str, qos: QoS, wish: str | None, passed: float) -> None:
        self.now += passed
        self.numbers += 1
        entry = Entry(JobId(str(self.numbers)), ClientId(client), qos, self.now, wish)
        self.queue.add(entry)
        self.waiting.append(entry)

    @rule(idle_allowed=st.booleans(), granted=st.none() | st.sets(st.sampled_from([None, "x", "y"])))
    def pop(self, idle_allowed: bool, granted: set[str | None] | None) -> None:
        fits = None if granted is None else (lambda wish: wish in granted)
        head = self.queue.head(self.now, idle_allowed=idle_allowed, fits=fits)
        entry = self.queue.pop(idle_allowed=idle_allowed, fits=fits)
        allowed = [
            e for e in self.waiting if (idle_allowed or e.qos is not Z) and (granted is None or e.wish in granted)
        ]
        if entry is None:
            assert not allowed and head is None
            return
        assert head == (entry, self.now - entry.arrival + HEAD_START[entry.qos])
        assert entry in allowed
        line = [e for e in allowed if (e.client, e.qos) == (entry.client, entry.qos)]
        assert entry == line[0], "never out of order within one client's class"
        load = {c: sum(e.client == c for e in self.running) + self._elsewhere(c) for c in "abc"}
        rivals = {e.client for e in allowed if e.qos is entry.qos}
        assert load[entry.client] == min(load[client] for client in rivals)
        self.waiting.remove(entry)
        self.running.append(entry)

    def _elsewhere(self, client: str) -> int:
        return sum(counts[client] for counts in self.elsewhere.values())

    @rule(node=st.sampled_from(["n1", "n2"]), counts=st.lists(st.integers(0, 3), min_size=3, max_size=3))
    def learn(self, node: str, counts: list[int]) -> None:
        self.elsewhere[node] = dict(zip("abc", counts, strict=True))
        self.queue.learn(NodeId(node), {ClientId(c): n for c, n in self.elsewhere[node].items()})

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def refuse(self, data: st.DataObject) -> None:
        entry = data.draw(st.sampled_from(self.running))
        self.running.remove(entry)
        self.queue.ended(entry.client)
        self.queue.restore(entry)
        self.waiting.append(entry)
        self.waiting.sort(key=lambda e: int(e.job_id))

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        entry = data.draw(st.sampled_from(self.running))
        self.running.remove(entry)
        self.queue.ended(entry.client)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        entry = data.draw(st.sampled_from(self.waiting))
        self.waiting.remove(entry)
        assert self.queue.remove(entry.job_id)

    @invariant()
    def agrees(self) -> None:
        assert len(self.queue) == len(self.waiting)
        assert self.queue.full == (len(self.waiting) >= 5)
        assert self.queue.counts() == {qos: sum(e.qos is qos for e in self.waiting) for qos in QoS}
        assert all(entry.job_id in self.queue for entry in self.waiting)
        assert set(self.queue._running) == {entry.client for entry in self.running}
        assert all(
            line
            for clients in self.queue._classes.values()
            for each in clients.values()
            for line in each.lines.values()
        )


TestModel = Model.TestCase
