"""The waiting queue: who is next."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cloudmytask.core.queue import HEAD_START, Entry, WaitingQueue
from cloudmytask.model import ClientId, JobId, QoS

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
        assert not (each._running or each._served or each._entries or any(each._classes.values()))


class Model(RuleBasedStateMachine):
    """The queue against a plain list of what waits."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = WaitingQueue(5)
        self.waiting: list[Entry] = []
        self.running: list[Entry] = []
        self.now = 0.0
        self.numbers = 0

    @rule(client=st.sampled_from("abc"), qos=st.sampled_from(QoS), passed=st.floats(0, 300))
    def add(self, client: str, qos: QoS, passed: float) -> None:
        self.now += passed
        self.numbers += 1
        entry = Entry(JobId(str(self.numbers)), ClientId(client), qos, self.now)
        self.queue.add(entry)
        self.waiting.append(entry)

    @rule(idle_allowed=st.booleans())
    def pop(self, idle_allowed: bool) -> None:
        entry = self.queue.pop(idle_allowed=idle_allowed)
        allowed = [e for e in self.waiting if idle_allowed or e.qos is not Z]
        if entry is None:
            assert not allowed
            return
        assert entry in allowed
        line = [e for e in self.waiting if (e.client, e.qos) == (entry.client, entry.qos)]
        assert entry is line[0], "never out of order within one client's class"
        load = {c: sum(e.client == c for e in self.running) for c in "abc"}
        rivals = {e.client for e in allowed if e.qos is entry.qos}
        assert load[entry.client] == min(load[client] for client in rivals)
        self.waiting.remove(entry)
        self.running.append(entry)

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
        clients = {entry.client for entry in (*self.waiting, *self.running)}
        assert set(self.queue._served) <= clients and set(self.queue._running) <= clients


TestModel = Model.TestCase
