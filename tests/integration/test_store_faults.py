"""The store on a real disk at its seams: deletes under way, records that have rotted, trees that never end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from twisted.internet.defer import Deferred

from cloudmytask.model.errors import InternalError, StartFailed, StoreFailed
from cloudmytask.model.job import Job, JobId, JobQuery, JobState
from cloudmytask.store import jobs, removal
from cloudmytask.store.blobs import bury
from cloudmytask.store.jobs import _read
from cloudmytask.version import VERSION
from tests.conftest import ExpectFailures, LoggedFailures
from tests.disk_bench import DiskBench
from tests.store_conformance import ANN, HOUR, SCRIPT, STDIN, blob_of, large_bytes, make_job


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[DiskBench]:
    bench = DiskBench(tmp_path / "state")
    yield bench
    bench.result(bench.store.close())


# deletes under way


def test_a_blob_that_a_delete_is_about_to_take_is_not_promised(bench: DiskBench) -> None:
    bench.result(bench.store.put(SCRIPT))
    large = bench.upload(large_bytes())
    bench.elapse(HOUR + 1)
    go = bench.pause_writer()
    collected = bench.store.collect()
    present = [bench.store.has(blob) for blob in (SCRIPT.blob, large)]
    # the thread that reads has answered whatever it was asked before
    bench.result(bench.store.newest(ANN, JobQuery()))
    go.set()
    assert [bench.result(answer) for answer in present] == [False, False]
    assert bench.result(collected) == SCRIPT.blob.size + large.size


def test_a_blob_that_was_promised_first_is_spared(bench: DiskBench) -> None:
    bench.result(bench.store.put(SCRIPT))
    bench.elapse(HOUR + 1)
    present = bench.store.has(SCRIPT.blob)
    collected = bench.store.collect()
    assert bench.result(present)
    assert bench.result(collected) == 0


def test_asking_for_a_blob_that_is_being_adopted_takes_nothing_of_its_hour(bench: DiskBench) -> None:
    go = bench.pause_writer()
    spool = bench.store.spool("upload-1")
    spool.append(large_bytes())
    sealed = spool.seal()
    # once the thread that hashes is through, the blob waits for its commit
    bench.result(bench.parts.sealing.call(int))
    assert not bench.result(bench.store.has(blob_of(large_bytes())))
    go.set()
    assert bench.result(sealed) == blob_of(large_bytes())
    assert bench.result(bench.store.collect()) == 0


def test_a_burial_that_is_done_once_more_names_the_grave_again(bench: DiskBench) -> None:
    blob = bench.upload(large_bytes())
    bench.execute("DELETE FROM blobs")
    writer = bench.parts.writer
    burials = [
        bench.store._change(partial(bury, directory=bench.directory / "blobs", blobs=[blob, SCRIPT.blob]))
        for _ in range(2)
    ]
    graves = [bench.result(burial) for burial in burials]
    assert writer.commits
    assert graves == [[bench.directory / "blobs" / f".{blob.digest}"]] * 2


# records that cannot be read

DAMAGES = {
    "cut short": "substr(record, 1, 20)",
    "not UTF-8": "CAST(x'7bff7d' AS TEXT)",
    "another value": "'[]'",
    "an unknown state": """replace(record, '"state":"', '"state":"un')""",
    "of another job": """replace(record, '"id":"', '"id":"x')""",
    "of another place": """replace(record, '"sequence":', '"sequence":9')""",
}


@pytest.fixture(params=list(DAMAGES.values()), ids=list(DAMAGES))
def damage(bench: DiskBench, request: pytest.FixtureRequest) -> Callable[..., None]:
    """Spoil the records of the jobs of these numbers."""

    def spoil(*numbers: int) -> None:
        for number in numbers:
            bench.execute(f"UPDATE jobs SET record = {request.param} WHERE sequence = ?", number)

    return spoil


def _save(bench: DiskBench, *jobs: Job) -> None:
    for job in jobs:
        bench.result(bench.store.save(job, [SCRIPT]))


def test_an_unreadable_record_is_named_to_whoever_asks_for_it(bench: DiskBench, damage: Callable[..., None]) -> None:
    _save(bench, make_job(1))
    damage(1)
    with pytest.raises(StoreFailed, match="job0001"):
        bench.result(bench.store.get(JobId("job0001")))


def test_listings_skip_unreadable_records_and_say_so_once(
    bench: DiskBench, damage: Callable[..., None], logged_failures: LoggedFailures
) -> None:
    _save(bench, *(make_job(number) for number in range(1, 8)))
    damage(7, 6, 5, 3)
    for _ in range(2):
        page = bench.result(bench.store.newest(ANN, JobQuery(limit=2)))
        assert ([job.sequence for job in page.jobs], page.next) == ([4, 2], 2)
        page = bench.result(bench.store.newest(ANN, JobQuery(limit=2, before=2)))
        assert ([job.sequence for job in page.jobs], page.next) == ([1], None)
    page = bench.result(bench.store.newest(ANN, JobQuery(prefix="job", limit=3)))
    assert ([job.sequence for job in page.jobs], page.next) == ([4, 2, 1], None)
    assert [event["record"].job_id for event in logged_failures.events] == ["job0007", "job0006", "job0005", "job0003"]
    logged_failures.expect()


def test_row_17_an_unreadable_record_is_set_aside_and_looked_at_no_more(
    bench: DiskBench, damage: Callable[..., None], logged_failures: LoggedFailures, monkeypatch: pytest.MonkeyPatch
) -> None:
    _save(bench, *(make_job(number) for number in range(1, 6)))
    damage(2, 4)
    assert len(bench.result(bench.store.newest(ANN, JobQuery())).jobs) == 3
    bench.result(bench.store.checkpoint(1.0, 2.0))  # the writer has done what it was given before
    assert bench.execute("SELECT sequence, unreadable FROM jobs WHERE unreadable IS NOT NULL ORDER BY 1") == [
        (2, VERSION),
        (4, VERSION),
    ]
    read: list[object] = []

    def count(*row: Any) -> Job | jobs.UnreadableRecord:
        read.append(row)
        return _read(*row)

    monkeypatch.setattr(jobs, "_read", count)
    bench.restart()
    assert [job.sequence for job in bench.store.recover().own] == [1, 3, 5]
    assert len(bench.result(bench.store.newest(ANN, JobQuery())).jobs) == 3
    assert len(read) == 6
    assert [event["record"].job_id for event in logged_failures.events] == ["job0004", "job0002"]
    # its job is written once more, or another version of the program has a look
    _save(bench, make_job(2, JobState.FAILED))
    assert len(bench.result(bench.store.newest(ANN, JobQuery())).jobs) == 4
    monkeypatch.setattr("cloudmytask.store.sqlite_store.VERSION", "another")
    bench.restart()
    assert [job.sequence for job in bench.store.recover().own] == [1, 3, 5]
    assert [event["record"].job_id for event in logged_failures.events][2:] == ["job0004"]
    logged_failures.expect()


@pytest.mark.parametrize(
    "odd",
    [{"retention": float("nan")}, {"submitted_at": 1e308}, {"sequence": -1}, {"retention": "soon"}, {"attempts": (1,)}],
    ids=str,
)
def test_row_17_nothing_is_stored_that_cannot_be_read_back(bench: DiskBench, odd: dict[str, Any]) -> None:
    go = bench.pause_writer()
    saves = [bench.store.save(job, [SCRIPT]) for job in (make_job(1), evolve(make_job(2), **odd), make_job(3))]
    held = bench.store.hold(evolve(make_job(4), **odd))
    go.set()
    bench.result(saves[0])
    with pytest.raises((InternalError, ValueError, AttributeError)):
        bench.result(saves[1])
    bench.result(saves[2])
    with pytest.raises((InternalError, ValueError, AttributeError)):
        bench.result(held)
    assert [job.sequence for job in bench.restart().recover().own] == [1, 3]


def test_row_17_a_listing_by_prefix_looks_at_no_job_of_others(bench: DiskBench) -> None:
    query = (
        "SELECT rowid AS place, sequence FROM jobs INDEXED BY jobs_prefix WHERE client = 'a' AND unreadable IS NULL"
        " AND id >= 'a' AND id < 'b' AND state IN ('failed', 'lost') ORDER BY sequence DESC LIMIT 5"
    )
    plan, *_ = bench.execute(f"EXPLAIN QUERY PLAN {query}")
    assert plan[3].endswith("COVERING INDEX jobs_prefix (client=? AND id>? AND id<?)")


def test_unreadable_records_take_no_place_among_those_due(
    bench: DiskBench, damage: Callable[..., None], expected_failures: ExpectFailures
) -> None:
    _save(bench, *(evolve(make_job(number, JobState.FAILED), expires=float(number)) for number in range(1, 7)))
    damage(1, 2, 3, 5)
    assert [job.sequence for job in bench.result(bench.store.due(9.0, 1))] == [4]
    assert [job.sequence for job in bench.result(bench.store.due(9.0, 2))] == [4, 6]
    bench.result(bench.store.forget(JobId("job0004")))
    bench.result(bench.store.forget(JobId("job0006")))
    assert bench.result(bench.store.due(9.0, 2)) == ()
    expected_failures()


def test_an_unreadable_open_job_keeps_no_node_from_starting(
    bench: DiskBench, damage: Callable[..., None], expected_failures: ExpectFailures
) -> None:
    _save(bench, make_job(1), make_job(2), make_job(3))
    damage(2)
    rows = bench.execute("SELECT id, state, hex(spec), hex(record) FROM jobs")
    bench.restart()
    recovery = bench.store.recover()
    assert [job.sequence for job in recovery.own] == [1, 3]
    assert recovery.next_sequence == 4
    assert bench.execute("SELECT id, state, hex(spec), hex(record) FROM jobs") == rows
    expected_failures()


def test_the_blobs_of_an_unreadable_job_are_kept(bench: DiskBench, expected_failures: ExpectFailures) -> None:
    _save(bench, make_job(1))
    bench.execute("UPDATE jobs SET record = '{'")
    bench.restart().recover()
    bench.elapse(2 * HOUR)
    assert bench.result(bench.store.collect()) == 0
    expected_failures()


def test_an_id_that_has_rotted_keeps_no_node_from_starting(bench: DiskBench, expected_failures: ExpectFailures) -> None:
    _save(bench, make_job(1), make_job(2))
    bench.execute("UPDATE jobs SET id = CAST(x'6aff' AS TEXT) WHERE sequence = 1")
    bench.restart()
    assert [job.sequence for job in bench.store.recover().own] == [2]
    expected_failures()


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM meta WHERE key = 'node_id'",
        "UPDATE meta SET value = 'soon' WHERE key = 'age'",
        "UPDATE meta SET value = CAST(x'ff' AS TEXT) WHERE key = 'age'",
        "DROP TABLE meta",
    ],
)
def test_what_cannot_be_recovered_is_a_failed_start(bench: DiskBench, statement: str) -> None:
    bench.result(bench.store.checkpoint(1.0, 2.0))
    bench.execute(statement)
    with pytest.raises(StartFailed, match=r"jobs\.sqlite cannot be read: "):
        bench.store.recover()


# trees that never end


@pytest.fixture
def endless(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """The tree whose removal begins first is written to for ever; set once that is so."""
    begun = threading.Event()

    def remove_tree(parent: int, name: str, fresh_name: Callable[[], str]) -> Generator[bool]:
        if not begun.is_set():
            begun.set()
            while True:
                yield True
        yield from removal.remove_tree(parent, name, fresh_name)

    monkeypatch.setattr("cloudmytask.store.staging.remove_tree", remove_tree)
    # as short as they can be: every step is a slice
    monkeypatch.setattr(removal, "SLICE", 0.0)
    return begun


def _unstage_tree(bench: DiskBench, name: str) -> Deferred[None]:
    path = Path(bench.result(bench.store.stage(name, {})))
    (path / "below").mkdir()
    unstaged = bench.store.unstage(name)
    # it is out of the way, and its removal under way
    bench.result(bench.parts.staging.call(int))
    return unstaged


def test_a_tree_that_never_ends_holds_up_no_other_and_no_file(bench: DiskBench, endless: threading.Event) -> None:
    large = bench.upload(large_bytes())
    bench.elapse(HOUR + 1)
    _unstage_tree(bench, "w1")
    assert endless.wait(60)
    bench.result(_unstage_tree(bench, "w2"))
    assert bench.result(bench.store.collect()) == large.size
    assert not bench.blob_file(large).exists()
    [left] = (bench.directory / "work").iterdir()
    assert left.name.startswith(".gone-")


def test_files_are_deleted_while_a_tree_is(bench: DiskBench) -> None:
    busy, go = threading.Event(), threading.Event()

    def clear() -> None:
        busy.set()
        assert go.wait(60)

    bench.parts.clearing.call(clear)
    assert busy.wait(60)
    large = bench.upload(large_bytes())
    bench.elapse(HOUR + 1)
    try:
        assert bench.result(bench.store.collect()) == large.size
    finally:
        go.set()


def test_a_tree_that_never_ends_is_given_up_and_left_to_the_next_start(
    bench: DiskBench, endless: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removal, "PATIENCE", 0.0)
    with pytest.raises(StoreFailed, match=r"somebody goes on writing to \.gone-"):
        bench.result(_unstage_tree(bench, "w1"))
    # the name is free
    path = Path(bench.result(bench.store.stage("w1", {"a": STDIN.blob}, [STDIN])))
    assert [entry.name for entry in path.iterdir()] == ["a"]
    bench.result(bench.store.unstage("w1"))
    monkeypatch.undo()
    bench.restart()
    bench.restart()
    assert list((bench.directory / "work").iterdir()) == []


def test_a_store_closes_while_a_tree_is_removed(bench: DiskBench, endless: threading.Event) -> None:
    unstaged = _unstage_tree(bench, "w1")
    assert endless.wait(60)
    bench.result(bench.store.close())
    bench.result(unstaged)
    [left] = (bench.directory / "work").iterdir()
    assert left.name.startswith(".gone-")


def test_a_directory_that_is_replaced_may_never_end(
    bench: DiskBench, endless: threading.Event, monkeypatch: pytest.MonkeyPatch, expected_failures: ExpectFailures
) -> None:
    monkeypatch.setattr(removal, "PATIENCE", 0.0)
    path = Path(bench.result(bench.store.stage("w1", {})))
    assert Path(bench.result(bench.store.stage("w1", {}))) == path
    bench.result(bench.store.close())
    expected_failures(StoreFailed)
