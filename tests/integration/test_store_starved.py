"""The store when the disk is full, when it is taken away, and when the system gives no thread."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from benchmarks.rude.surroundings import fill
from cloudmytask.model.errors import StartFailed, StoreFailed
from cloudmytask.model.job import JobQuery, JobState
from cloudmytask.model.words import Resource
from cloudmytask.store.opened import WORKERS
from cloudmytask.store.reserve import FOR_A_START, RESERVE_SIZE, Reserve
from cloudmytask.store.sqlite_store import SqliteStore
from cloudmytask.store.threads import Worker
from tests.disk_bench import DiskBench
from tests.integration.small_disk import small_disk
from tests.store_conformance import ANN, SCRIPT, content_of, make_job

MIB = 1024 * 1024


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 24 MiB."""
    with small_disk(tmp_path, 24) as path:
        yield path


def test_row_03_an_outcome_has_room_on_a_full_disk_and_new_work_has_none(disk: Path) -> None:
    bench = DiskBench(disk / "state")
    jobs = [make_job(number) for number in range(1, 9)]
    for job in jobs:
        bench.result(bench.store.save(job, [SCRIPT]))
    bench.result(bench.store.look())
    reserve = bench.directory / "reserve"
    assert reserve.stat().st_size == RESERVE_SIZE and reserve.stat().st_mode & 0o777 == 0o600
    filler = fill(disk)
    assert os.statvfs(disk).f_bavail == 0
    bulky = content_of(os.urandom(60_000))
    new = [make_job(number) for number in range(20, 120)]
    refused = []
    for job in new:  # what is free within the database's files may still be used up
        try:
            bench.result(bench.store.save(job, [content_of(os.urandom(60_000))]))
        except StoreFailed as problem:
            refused.append(problem)
    assert refused and all(problem.resource is Resource.DISK for problem in refused)
    assert reserve.stat().st_size == RESERVE_SIZE, "new work gets nothing of it"
    for job in jobs:
        ended = evolve(job, state=JobState.SUCCEEDED, expires=1.0)
        bench.result(bench.store.save(ended, [bulky]))
    assert reserve.stat().st_size == FOR_A_START, "the last part is for a start"
    bench.result(bench.store.look())
    assert reserve.stat().st_size == FOR_A_START, "there is no room for it"
    filler.unlink()
    bench.result(bench.store.look())
    assert reserve.stat().st_size == RESERVE_SIZE
    bench.result(bench.store.close())


def test_row_03_what_a_script_filled_the_disk_with_can_be_deleted(disk: Path) -> None:
    bench = DiskBench(disk / "state")
    path = Path(bench.result(bench.store.stage("w1", {})))
    for number in range(40):
        (path / f"d{number}" / "deep").mkdir(parents=True)
    fill(path)
    assert os.statvfs(path).f_bavail == 0
    bench.result(bench.store.unstage("w1"))
    assert list((bench.directory / "work").iterdir()) == []
    bench.result(bench.store.save(make_job(1), [SCRIPT]))
    bench.result(bench.store.close())


def test_row_05_every_byte_that_was_on_a_full_disk_is_sealed(disk: Path) -> None:
    bench = DiskBench(disk / "state")
    bench.result(bench.store.look())
    spool = bench.store.spool("job0001.1.1.stdout")
    data = os.urandom(20 * MIB)
    for start in range(0, len(data), MIB):
        spool.append(data[start : start + MIB])
    with pytest.raises(StoreFailed) as refused:
        bench.result(spool.caught_up())
    assert refused.value.resource is Resource.DISK
    kept = spool.size
    assert 8 * MIB < kept < len(data)
    blob: Any = bench.result(spool.seal())
    assert blob.size == kept
    assert bench.result(bench.store.read(blob, kept - 100, 200)) == data[kept - 100 : kept]
    bench.result(bench.store.close())


def test_a_disk_without_room_for_a_reserve_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reserve = Reserve(tmp_path, 10**15)
    assert not reserve.take() and not reserve.give_up() and list(tmp_path.iterdir()) == []
    reserve = Reserve(tmp_path)

    def no_room(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", no_room)
    assert not reserve.take() and (tmp_path / "reserve").stat().st_size == 0


# the state directory or the database is taken away


def _vanish(bench: DiskBench) -> None:
    shutil.rmtree(bench.directory)


def _replace(bench: DiskBench) -> None:
    aside = bench.directory.with_name("aside")
    bench.directory.rename(aside)
    shutil.copytree(aside, bench.directory)


def _lose_database(bench: DiskBench) -> None:
    (bench.directory / "jobs.sqlite").unlink()


def _replace_database(bench: DiskBench) -> None:
    database = bench.directory / "jobs.sqlite"
    shutil.copy(database, database.with_suffix(".copy"))
    database.with_suffix(".copy").rename(database)


def _lose_log(bench: DiskBench) -> None:
    (bench.directory / "jobs.sqlite-wal").unlink()


@pytest.mark.parametrize("take_away", [_vanish, _replace, _lose_database, _replace_database, _lose_log])
def test_row_22_nothing_is_acknowledged_by_a_store_that_is_gone(
    tmp_path: Path, take_away: Callable[[DiskBench], None]
) -> None:
    bench = DiskBench(tmp_path / "state")
    bench.result(bench.store.save(make_job(1), [SCRIPT]))
    bench.result(bench.store.look())
    take_away(bench)
    with pytest.raises(StoreFailed, match=r"was (removed|replaced) while it was in use"):
        bench.result(bench.store.save(make_job(2), [SCRIPT]))
    with pytest.raises(StoreFailed, match=r"was (removed|replaced) while it was in use"):
        bench.result(bench.store.look())
    if take_away is _replace:
        # also if all is as it was
        shutil.rmtree(bench.directory)
        bench.directory.with_name("aside").rename(bench.directory)
        with pytest.raises(StoreFailed, match="was replaced"):
            bench.result(bench.store.save(make_job(3), [SCRIPT]))
    bench.result(bench.store.close())


def test_row_22_a_backup_tool_that_comes_and_goes_is_no_loss(tmp_path: Path) -> None:
    bench = DiskBench(tmp_path / "state")
    for number in range(1, 4):
        bench.result(bench.store.save(make_job(number), [SCRIPT]))
        with sqlite3.connect(bench.directory / "jobs.sqlite") as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            connection.execute("VACUUM INTO ?", (str(tmp_path / f"backup-{number}"),))
        connection.close()
        bench.result(bench.store.look())
    assert len(bench.result(bench.store.newest(ANN, JobQuery())).jobs) == 3
    bench.result(bench.store.close())


# no thread


@pytest.mark.parametrize("given", [0, 3, len(WORKERS) - 1])
def test_row_07_a_store_without_threads_does_not_open_and_leaves_none(tmp_path: Path, given: int) -> None:
    made: list[str] = []
    stopped: list[str] = []

    class Given:
        def __init__(self, name: str) -> None:
            self.name = name

        def do(self, task: Callable[[], None]) -> None:
            raise AssertionError("nothing is to be done")

        def stop(self) -> None:
            stopped.append(self.name)

    def make_worker(name: str) -> Worker:
        if len(made) == given:
            raise StartFailed("The store's threads cannot be started: can't start new thread.")
        made.append(name)
        return Given(name)

    store = SqliteStore(tmp_path / "state", call_from_thread=lambda *_: None, make_worker=make_worker)
    with pytest.raises(StartFailed, match="can't start new thread"):
        store.open()
    assert sorted(stopped) == sorted(made) and len(made) == given


def test_row_07_a_thread_that_the_system_does_not_give_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    store = SqliteStore(tmp_path / "state", call_from_thread=lambda *_: None)
    with pytest.raises(StartFailed, match=r"^The store's threads cannot be started: can't start new thread\.$"):
        store.open()
