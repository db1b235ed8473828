"""The store with a long history and a slow disk, step by step: what waits for what, and how many rows are looked at.

The workers are the test's own: nothing happens before it says so. Work is counted in steps of SQLite's machine, not in
seconds.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from attrs import Factory, define
from twisted.internet.defer import CancelledError, Deferred

from cloudmytask.core.blobs import blob_of
from cloudmytask.model.errors import TooManyRequests
from cloudmytask.model.job import ClientId, JobId, JobQuery, JobState
from cloudmytask.store.blobs import STEP_BLOBS
from cloudmytask.store.jobs import newest_jobs
from cloudmytask.store.opened import LISTINGS_MAX
from cloudmytask.store.spool import BEHIND
from cloudmytask.store.sqlite_store import SqliteStore
from tests.conftest import LoggedFailures
from tests.disk_bench import DiskBench
from tests.store_conformance import ANN, SCRIPT, content_of, make_job


@define(eq=False)
class StepWorker:
    """A worker that works when it is told to."""

    tasks: list[Callable[[], None]] = Factory(list)

    def do(self, task: Callable[[], None]) -> None:
        self.tasks.append(task)

    def stop(self) -> None:
        """Nothing to end."""

    def go(self) -> None:
        """Do all that was given so far, and what comes of it."""
        while self.tasks:
            self.tasks.pop(0)()


@define(eq=False)
class Steps:
    """Counts the steps of SQLite's machine on connections."""

    all: int = 0
    transactions: list[int] = Factory(list)
    """Steps of each transaction."""

    def watch(self, connection: sqlite3.Connection) -> None:
        connection.set_progress_handler(self._count, 1)
        connection.set_trace_callback(self._trace)

    def _count(self) -> int:
        self.all += 1
        if self.transactions:
            self.transactions[-1] += 1
        return 0

    def _trace(self, statement: str) -> None:
        if statement.startswith("BEGIN"):
            self.transactions.append(0)


def stepped(directory: Path) -> tuple[SqliteStore, dict[str, StepWorker]]:
    """A store that was opened, and its workers by name; none has worked yet."""
    workers: dict[str, StepWorker] = {}
    store = SqliteStore(
        directory,
        call_from_thread=lambda function: function(),
        make_worker=lambda name: workers.setdefault(name, StepWorker()),
    )
    store.open()
    return store, workers


def close(store: SqliteStore, workers: dict[str, StepWorker]) -> None:
    closed = store.close()
    while not closed.called:
        for worker in workers.values():
            worker.go()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[DiskBench]:
    bench = DiskBench(tmp_path / "state")
    yield bench
    bench.result(bench.store.close())


def _history(bench: DiskBench, jobs: int, state: JobState = JobState.SUCCEEDED, blobs: int = 1) -> None:
    """Ended jobs, each with ``blobs`` blobs of its own."""
    bench.result(bench.store.save(make_job(1, JobState.SUCCEEDED), [SCRIPT]))
    with sqlite3.connect(bench.directory / "jobs.sqlite") as connection:
        numbers = [(number,) for number in range(2, jobs + 1)]
        connection.executemany(
            "INSERT INTO jobs (id, sequence, client, name, state, expires, spec, record)"
            " SELECT ?1 || 'x', ?1, client, name, 'succeeded', NULL, spec,"
            " json_set(record, '$.id', ?1 || 'x', '$.sequence', ?1) FROM jobs WHERE sequence = 1",
            numbers,
        )
        connection.execute("UPDATE jobs SET state = ? WHERE sequence > 1", (str(state),))
        for each in range(blobs):
            connection.executemany(f"INSERT INTO job_blobs VALUES (?1 || 'x', ?1 || '.{each}')", numbers)
            connection.executemany(f"INSERT INTO blobs (digest, size, data) VALUES (?1 || '.{each}', 0, '')", numbers)
    connection.close()


def _forget_history(bench: DiskBench) -> None:
    bench.execute("DELETE FROM jobs WHERE sequence > 1")
    bench.execute("DELETE FROM job_blobs WHERE job_id != 'job0001'")
    bench.execute("DELETE FROM blobs WHERE digest LIKE '%.0'")


# collections


def test_a_collection_looks_at_no_blob_that_a_job_refers_to(bench: DiskBench) -> None:
    steps = Steps()
    steps.watch(bench.parts.writer._connection)
    counts = []
    for jobs in (10, 4_000):
        _history(bench, jobs)
        before = steps.all
        assert bench.result(bench.store.collect()) == 0
        counts.append(steps.all - before)
        _forget_history(bench)
    assert counts[0] == counts[1]


def test_no_commit_waits_for_more_than_one_step_of_a_collection(bench: DiskBench) -> None:
    contents = [content_of(b"loose %d" % number) for number in range(1_050)]
    bench.result(bench.store.save(make_job(1), contents))
    steps = Steps()
    steps.watch(bench.parts.writer._connection)
    assert bench.result(bench.store.collect()) == sum(content.blob.size for content in contents)
    assert bench.execute("SELECT count(*) FROM blobs") == bench.execute("SELECT count(*) FROM loose") == [(0,)]
    assert len(steps.transactions) >= len(contents) // STEP_BLOBS
    assert max(steps.transactions) < 100 * STEP_BLOBS


def test_large_rows_make_a_step_shorter(bench: DiskBench) -> None:
    contents = [content_of(b"%05d" % number + b"x" * 60_000) for number in range(60)]
    bench.result(bench.store.save(make_job(1), contents))
    commits = bench.store.commits
    assert bench.result(bench.store.collect()) == 60 * 60_005
    # four steps of a mebibyte, each with its burial
    assert bench.store.commits - commits == 8


def test_a_blob_that_came_in_between_two_steps_is_spared(bench: DiskBench) -> None:
    contents = [content_of(b"loose %d" % number) for number in range(2 * STEP_BLOBS)]
    bench.result(bench.store.save(make_job(1), contents))
    go = bench.pause_writer()
    collected = bench.store.collect()
    last = max(contents, key=lambda content: content.blob.digest)
    put = bench.store.put(last)
    go.set()
    bench.result(put)
    assert bench.result(collected) == sum(content.blob.size for content in contents) - last.blob.size
    assert bench.result(bench.store.read(last.blob, 0, 100)) == last.data


# starts


def test_a_start_reads_no_history(bench: DiskBench, monkeypatch: pytest.MonkeyPatch) -> None:
    connect, counts = sqlite3.connect, []
    for jobs in (10, 3_000):
        _history(bench, jobs)
        bench.result(bench.store.close())
        steps = Steps()

        def connecting(*args: Any, steps: Steps = steps, **kwargs: Any) -> sqlite3.Connection:
            connection: sqlite3.Connection = connect(*args, **kwargs)
            steps.watch(connection)
            return connection

        with monkeypatch.context() as patch:
            patch.setattr(sqlite3, "connect", connecting)
            store, workers = stepped(bench.directory)
            assert store.recover().next_sequence == jobs + 1
            counts.append(steps.all)
            close(store, workers)
        bench.open()
        _forget_history(bench)
    assert counts[0] == counts[1]


def test_damage_that_no_start_meets_is_found_later_and_logged(
    bench: DiskBench, logged_failures: LoggedFailures
) -> None:
    _history(bench, 2_000)
    bench.result(bench.store.close())
    [[root, page]] = sqlite3.connect(bench.directory / "jobs.sqlite").execute(
        "SELECT rootpage, (SELECT page_size FROM pragma_page_size) FROM sqlite_schema WHERE name = 'jobs_state'"
    )
    assert root > 1
    path = bench.directory / "jobs.sqlite"
    pages = path.stat().st_size // page
    with path.open("r+b") as file:
        file.seek((pages - 3) * page)
        file.write(b"\xff" * page)
    store = bench.open()
    assert store.recover().next_sequence == 2_001
    [event] = logged_failures.events
    assert "is damaged" in event["log_format"]
    logged_failures.expect()


# listings


@pytest.mark.parametrize(
    "query",
    [
        JobQuery(states=frozenset({JobState.FAILED})),
        JobQuery(states=frozenset({JobState.FAILED, JobState.CANCELLED}), before=9_999),
        JobQuery(name="none of that name"),
        JobQuery(name="script.py", states=frozenset({JobState.RUNNING})),
        JobQuery(limit=5),
        JobQuery(states=frozenset({JobState.SUCCEEDED}), limit=5),
        JobQuery(name="script.py", limit=5),
    ],
)
@pytest.mark.parametrize("state", [JobState.SUCCEEDED, JobState.EXPIRED])
def test_a_listing_looks_at_no_more_jobs_than_it_tells(bench: DiskBench, query: JobQuery, state: JobState) -> None:
    counts = []
    for jobs in (100, 2_000):
        _history(bench, jobs, state)
        steps = Steps()
        with closing(sqlite3.connect(bench.directory / "jobs.sqlite")) as connection:
            steps.watch(connection)
            newest_jobs(connection, ANN, query)
        counts.append(steps.all)
        _forget_history(bench)
    assert counts[1] <= counts[0] + 50


def test_short_reads_wait_for_no_listing(tmp_path: Path) -> None:
    store, workers = stepped(tmp_path)
    listings = [store.newest(ANN, JobQuery()) for _ in range(3)]
    answers: list[Deferred[Any]] = [store.get(JobId("a")), store.has(SCRIPT.blob)]
    workers["reader"].go()
    assert all(answer.called for answer in answers)
    assert not any(listing.called for listing in listings)
    close(store, workers)
    assert all(listing.called for listing in listings)


def test_listings_do_not_pile_up_and_those_that_nobody_waits_for_are_dropped(tmp_path: Path) -> None:
    store, workers = stepped(tmp_path)
    listings = [store.newest(ANN, JobQuery()) for _ in range(LISTINGS_MAX)]
    refused: list[Any] = []
    store.newest(ANN, JobQuery()).addErrback(refused.append)
    assert refused[0].check(TooManyRequests)
    steps = Steps()
    steps.watch(store._parts.lister)
    for listing in listings:
        listing.addErrback(lambda failure: failure.trap(CancelledError))
        listing.cancel()
    last = store.newest(ClientId("bob"), JobQuery())
    workers["lister"].go()
    assert last.called
    assert 0 < steps.all < 200
    close(store, workers)


# commits


def test_what_gathers_during_one_commit_is_the_next(tmp_path: Path) -> None:
    store, workers = stepped(tmp_path)
    saves = [store.save(make_job(number)) for number in (1, 2, 3)]
    assert not any(save.called for save in saves)
    saves[0].addCallback(lambda _: saves.append(store.save(make_job(4))))
    workers["writer"].tasks.pop(0)()
    assert [save.called for save in saves] == [True, True, True, False]
    assert store.commits == 1
    workers["writer"].go()
    assert store.commits == 2
    close(store, workers)


# spools


def test_appending_touches_no_file_and_is_read_at_once(tmp_path: Path) -> None:
    store, workers = stepped(tmp_path)
    spool, piece = store.spool("s"), b"p" * 50_000
    for _ in range(4):
        spool.append(piece)
    assert list((tmp_path / "spool").iterdir()) == []
    found: list[bytes] = []
    spool.read(199_990, 100).addCallback(found.append)
    assert found == [b"p" * 10]
    # what gathered while the first piece was on its way goes at once
    assert len(workers["spooler"].tasks) == 1
    workers["spooler"].tasks.pop(0)()
    assert len(workers["spooler"].tasks) == 1
    workers["spooler"].go()
    [file] = (tmp_path / "spool").iterdir()
    assert file.read_bytes() == piece * 4
    read = spool.read(0, 10)
    workers["reader"].go()
    read.addCallback(found.append)
    assert found[1:] == [b"p" * 10]
    close(store, workers)


def test_a_spool_says_when_it_is_behind_and_when_it_has_caught_up(tmp_path: Path) -> None:
    store, workers = stepped(tmp_path)
    spool = store.spool("s")
    behind = []
    for data in (b"x" * BEHIND, b"x"):
        spool.append(data)
        behind.append(spool.behind)
    caught_up = spool.caught_up()
    told = [caught_up.called]
    workers["spooler"].go()
    assert [*told, caught_up.called] == [False, True]
    assert [*behind, spool.behind] == [False, True, False]
    close(store, workers)


def test_a_spool_that_is_sealed_or_discarded_while_it_is_written(tmp_path: Path) -> None:
    store, workers = stepped(tmp_path)
    sealed, gone = store.spool("a"), store.spool("b")
    for spool in (sealed, gone):
        spool.append(b"x" * 300_000)
        spool.append(b"y")
    results: list[Any] = []
    sealed.seal().addCallback(results.append)
    gone.discard()
    close(store, workers)
    assert results == [blob_of(b"x" * 300_000 + b"y")]
    assert [path.name for path in (tmp_path / "spool").iterdir()] == ["a.1"]


def test_what_was_appended_is_written_before_the_store_closes(tmp_path: Path) -> None:
    store, workers = stepped(tmp_path)
    spool = store.spool("job0001.1.1.stdout")
    for _ in range(3):
        spool.append(b"abc")
    close(store, workers)
    [file] = (tmp_path / "spool").iterdir()
    assert file.read_bytes() == b"abc" * 3


def test_a_spool_is_not_removed_while_a_read_that_was_cancelled_is_under_way(tmp_path: Path) -> None:
    """Its thread may be inside pread(2), and a descriptor closed under it may be another file's by then."""
    store, workers = stepped(tmp_path / "state")
    workers["remover"].go()
    spool = store.spool("s")
    spool.append(b"x" * 100_000)
    workers["spooler"].go()
    read = spool.read(0, 10)
    [reading] = workers["reader"].tasks
    read.addErrback(lambda failure: failure.trap(CancelledError))
    read.cancel()
    spool.discard()
    assert workers["remover"].tasks == []
    reading()
    assert len(workers["remover"].tasks) == 1
    workers["reader"].tasks.clear()
    close(store, workers)
    assert list((tmp_path / "state" / "spool").iterdir()) == []
