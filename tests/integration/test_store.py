"""The store on a real disk: conformance, group commit, crashes, rot, a full disk, schemas, and hostile trees."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from twisted.internet import defer
from twisted.internet.defer import Deferred, gatherResults

from cloudmytask.core.blobs import digest_of
from cloudmytask.model.errors import BlobCorrupt, BlobMissing, InvalidArgument, StartFailed, StoreFailed
from cloudmytask.model.job import INLINE_MAX, Digest, JobId, JobState
from cloudmytask.store.schema import CURRENT_VERSION, STEPS, Step
from cloudmytask.store.threads import Operation
from tests.disk_bench import DiskBench
from tests.store_conformance import SCRIPT, STDIN, StoreConformance, blob_of, content_of, large_bytes, make_job


def names_in(directory: Path | str) -> list[str]:
    return sorted(path.name for path in Path(directory).iterdir())


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[DiskBench]:
    bench = DiskBench(tmp_path / "state")
    yield bench
    bench.result(bench.store.close())


class TestConformance(StoreConformance):
    """Everything that any store does."""


# group commit


def test_saves_that_gather_during_a_commit_share_the_next(bench: DiskBench) -> None:
    go = bench.pause_writer()
    jobs = [make_job(number) for number in range(1, 301)]
    saves = [bench.store.save(job, [content_of(b"%d" % job.sequence)]) for job in jobs]
    commits, calls = bench.store.commits, bench.calls_from_threads
    go.set()
    bench.result(gatherResults(saves))
    # one for the operation that kept the thread busy, one for all the others
    assert bench.store.commits - commits == 2
    assert bench.calls_from_threads - calls <= 2
    assert bench.store.recover().own == tuple(jobs)


def test_one_failing_operation_takes_no_other_down(bench: DiskBench) -> None:
    go = bench.pause_writer()

    def spoil(connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM jobs")
        connection.execute("INSERT INTO no_such_table VALUES (1)")

    saves: list[Deferred[Any]] = [bench.store.save(make_job(1))]
    saves.append(bench.parts.writer.submit(Operation(spoil)))
    saves.append(bench.store.save(make_job(2)))
    go.set()
    results = bench.result(defer.DeferredList(saves, consumeErrors=True))
    assert [success for success, _ in results] == [True, False, True]
    assert results[1][1].check(StoreFailed)
    assert str(results[1][1].value) == f"The store at {bench.directory} failed: no such table: no_such_table."
    assert len(bench.store.recover().own) == 2


def test_a_superseded_save_costs_no_row(bench: DiskBench) -> None:
    go = bench.pause_writer()
    written: list[str] = []
    bench.parts.writer._connection.set_trace_callback(written.append)
    states = [JobState.PENDING, JobState.STAGING, JobState.RUNNING, JobState.SUCCEEDED]
    saves = [bench.store.save(make_job(1, state)) for state in states]
    go.set()
    bench.result(gatherResults(saves))
    assert sum("INSERT INTO jobs" in statement for statement in written) == 1
    job = bench.result(bench.store.get(JobId("job0001")))
    assert job is not None
    assert job.state is JobState.SUCCEEDED


def test_listing_open_jobs_needs_no_look_at_finished_ones(bench: DiskBench) -> None:
    statement = (
        "EXPLAIN QUERY PLAN SELECT id FROM jobs "
        "WHERE state IN ('pending', 'waiting', 'staging', 'running') AND unreadable IS NULL ORDER BY sequence"
    )
    plans = bench.execute(statement) + bench.execute(
        "EXPLAIN QUERY PLAN SELECT id FROM jobs "
        "WHERE client = 'a' AND unreadable IS NULL AND state != 'expired' ORDER BY sequence DESC"
    )
    assert "jobs_open" in plans[0][3]
    assert "jobs_newest" in plans[1][3]
    assert not any("B-TREE" in plan[3] for plan in plans)


# crashes

SAVER = """
import sys
from pathlib import Path
from attrs import evolve
from twisted.internet import reactor
from cloudmytask.store.sqlite_store import SqliteStore
from tests.store_conformance import content_of, make_job

store = SqliteStore(Path(sys.argv[1]), call_from_thread=reactor.callFromThread)
store.open()
number = store.recover().next_sequence

def save(_=None):
    global number
    this, number = number, number + 1
    data = content_of(b"output of %d" % this)
    saved = store.save(make_job(this), [data])
    saved.addCallback(lambda _: print(this, flush=True))
    saved.addCallback(save)

def start():
    for _ in range(5):
        save()

store.spool(f"{make_job(1).id}.1.1.stdout").append(b"in the page cache")
reactor.callWhenRunning(start)
reactor.run()
"""


def test_what_was_acknowledged_survives_kill_9(bench: DiskBench) -> None:
    bench.result(bench.store.close())
    root = Path(__file__).parents[2]
    saver = subprocess.Popen(
        [sys.executable, "-c", SAVER, str(bench.directory)],
        stdout=subprocess.PIPE,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        text=True,
    )
    assert saver.stdout is not None
    acknowledged = [int(next(saver.stdout)) for _ in range(60)]
    saver.send_signal(signal.SIGKILL)
    acknowledged += [int(line) for line in saver.stdout if line.endswith("\n")]
    saver.stdout.close()
    assert saver.wait() == -signal.SIGKILL

    store = bench.open()
    present = {job.sequence for job in store.recover().own}
    assert present >= set(acknowledged)
    for number in acknowledged:
        content = content_of(b"output of %d" % number)
        assert bench.result(store.read(content.blob, 0, 100)) == content.data
    assert store.spool(f"{make_job(1).id}.1.1.stdout", resume=True).size == len(b"in the page cache")


def test_files_that_a_crash_left_are_deleted(bench: DiskBench) -> None:
    blob = bench.upload(large_bytes())
    stray = bench.directory / "blobs" / "ab"
    stray.mkdir(exist_ok=True)
    (stray / ("ab" * 32)).write_bytes(b"moved, but never committed")
    (bench.directory / "blobs" / f".{'cd' * 32}").write_bytes(b"deleted, but never unlinked")
    bench.result(bench.store.stage("w1", {}))
    bench.restart()
    # closing waits for the background
    bench.restart()
    files = [path for path in (bench.directory / "blobs").rglob("*") if path.is_file()]
    assert files == [bench.blob_file(blob)]
    assert list((bench.directory / "work").iterdir()) == []
    assert list((bench.directory / "spool").iterdir()) == []


def test_a_sealed_spool_survives_a_crash_before_its_commit(bench: DiskBench) -> None:
    data = large_bytes()
    spool = bench.store.spool("s")
    spool.append(data)

    # the file gets its second name, and then the row is refused
    connection = bench.parts.writer._connection
    connection.execute("CREATE TEMP TRIGGER refuse BEFORE INSERT ON blobs BEGIN SELECT RAISE(FAIL, 'no'); END")
    with pytest.raises(StoreFailed):
        bench.result(spool.seal())
    assert bench.blob_file(blob_of(data)).exists()
    again = bench.restart().spool("s", resume=True)
    assert again.size == len(data)
    assert bench.result(again.seal()) == blob_of(data)


# rot


@pytest.mark.parametrize("position", [0, 262_143, 262_144, 700_000])
def test_a_flipped_bit_in_a_large_blob_is_noticed(bench: DiskBench, position: int) -> None:
    data = large_bytes()
    blob = bench.upload(data)
    with bench.blob_file(blob).open("r+b") as file:
        file.seek(position)
        file.write(bytes([data[position] ^ 1]))
    with pytest.raises(BlobCorrupt):
        bench.result(bench.store.read(blob, position, 1))
    with pytest.raises(BlobCorrupt):
        bench.result(bench.store.stage("w1", {"a": blob}))
    assert [name for name in names_in(bench.directory / "work") if not name.startswith(".")] == []
    # the leaves that are whole can still be read
    other = 0 if position >= 262_144 else 600_000
    assert bench.result(bench.store.read(blob, other, 5)) == data[other : other + 5]
    # and the blob is mended when it comes in again
    assert bench.upload(data) == blob
    assert bench.result(bench.store.read(blob, 0, len(data))) == data


def test_a_truncated_or_lost_file_is_noticed(bench: DiskBench) -> None:
    blob = bench.upload(large_bytes())
    os.truncate(bench.blob_file(blob), 600_000)
    assert not bench.result(bench.store.has(blob))
    with pytest.raises(BlobCorrupt):
        bench.result(bench.store.read(blob, 0, blob.size))
    bench.blob_file(blob).unlink()
    assert not bench.result(bench.store.has(blob))
    with pytest.raises(BlobMissing):
        bench.result(bench.store.read(blob, 650_000, 1))


def test_a_flipped_bit_in_a_small_blob_is_noticed(bench: DiskBench) -> None:
    bench.result(bench.store.save(make_job(1), [SCRIPT]))
    bench.restart()
    bench.execute("UPDATE blobs SET data = ? WHERE digest = ?", b"P" + SCRIPT.data[1:], SCRIPT.blob.digest)
    with pytest.raises(BlobCorrupt):
        bench.result(bench.store.read(SCRIPT.blob, 0, 5))
    with pytest.raises(BlobCorrupt):
        bench.result(bench.store.stage("w1", {"a": SCRIPT.blob}))
    # whoever asks is told to send it again, and that mends it
    assert not bench.result(bench.store.has(SCRIPT.blob))
    bench.result(bench.store.save(make_job(2), [SCRIPT]))
    bench.restart()
    assert bench.result(bench.store.read(SCRIPT.blob, 0, 5)) == b"print"


def test_reading_along_a_large_blob_verifies_each_leaf_once(bench: DiskBench, monkeypatch: pytest.MonkeyPatch) -> None:
    data = large_bytes()
    blob = bench.upload(data)
    hashed: list[int] = []

    def counted(leaf: bytes) -> Digest:
        hashed.append(len(leaf))
        return digest_of(leaf)

    monkeypatch.setattr("cloudmytask.store.blob_reader.digest_of", counted)
    chunk = 48 * 1024
    # all asked for at once, as a reader with a window does
    reads = [bench.store.read(blob, start, chunk) for start in range(0, len(data), chunk)]
    assert b"".join([bench.result(read) for read in reads]) == data
    assert hashed == [262_144, 262_144, 700_001 - 2 * 262_144]


# a full disk


@pytest.fixture
def little_room(bench: DiskBench) -> Iterator[Callable[[], None]]:
    """Let no file grow beyond 2 MiB, until called again."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * 1024 * 1024, hard))

    def restore() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    yield restore
    restore()


def test_a_full_disk_fails_saves_until_there_is_room(bench: DiskBench, little_room: Callable[[], None]) -> None:
    go = bench.pause_writer()
    # more than 2 MiB go into one commit; each alone has room, until the log has grown to the limit
    contents = [content_of(os.urandom(60_000)) for _ in range(60)]
    saves = [bench.store.save(make_job(number), [content]) for number, content in enumerate(contents, 1)]
    go.set()
    results: list[tuple[bool, Any]] = bench.result(defer.DeferredList(saves, consumeErrors=True))
    failed = {number for number, (success, _) in enumerate(results, 1) if not success}
    assert failed
    assert all(results[number - 1][1].check(StoreFailed) for number in failed)
    assert {job.sequence for job in bench.store.recover().own} == set(range(1, 61)) - failed
    little_room()
    bench.result(bench.store.save(make_job(99), [contents[-1]]))
    bench.restart()
    assert bench.store.recover().own[-1].sequence == 99
    assert bench.result(bench.store.read(contents[-1].blob, 0, 60_000)) == contents[-1].data


def test_row_05_what_a_full_disk_took_of_a_spool_is_sealed_and_has_no_gaps(
    bench: DiskBench, little_room: Callable[[], None]
) -> None:
    spool = bench.store.spool("s")
    spool.append(b"x" * 2_000_000)
    bench.result(spool.caught_up())
    spool.append(b"y" * 1_000_000)
    with pytest.raises(StoreFailed, match="too large"):
        bench.result(spool.caught_up())
    little_room()
    spool.append(b"z")
    fitted = 2 * 1024 * 1024
    assert spool.size == fitted
    [file] = (bench.directory / "spool").iterdir()
    assert file.stat().st_size == fitted
    kept = b"x" * 2_000_000 + b"y" * (fitted - 2_000_000)
    assert bench.result(spool.read(1_999_990, 20)) + bench.result(spool.read(2_000_000, fitted)) == kept[1_999_990:]
    assert spool.failure is not None and "too large" in str(spool.failure)
    blob = bench.result(spool.seal())
    assert blob == blob_of(kept)
    spool.discard()
    assert bench.result(bench.store.read(blob, fitted - 1, 10)) == b"y"


def test_row_05_a_small_spool_needs_no_room(bench: DiskBench, little_room: Callable[[], None]) -> None:
    _soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    spool = bench.store.spool("s")
    spool.append(b"first line\n")
    with pytest.raises(StoreFailed):
        bench.result(spool.caught_up())
    spool.append(b"second line\n")
    assert bench.result(spool.read(5, 100)) == b" line\nsecond line\n"
    spool.append(b"x" * INLINE_MAX)
    spool.append(b"after a gap")
    sealed = bench.result(spool.seal())
    assert sealed == content_of((b"first line\nsecond line\n" + b"x" * INLINE_MAX)[:INLINE_MAX])
    spool.discard()


# opening

NEXT_STEP: Step = ("ALTER TABLE jobs ADD COLUMN color TEXT", "UPDATE jobs SET color = 'red'")


def test_an_older_schema_is_upgraded_with_a_backup(bench: DiskBench) -> None:
    bench.result(bench.store.save(make_job(1), [SCRIPT]))
    node_id = bench.store.recover().node_id
    bench.result(bench.store.close())
    store = bench.open(steps=(*STEPS, NEXT_STEP))
    assert store.recover().own == (make_job(1),)
    assert store.recover().node_id == node_id
    assert bench.execute("PRAGMA user_version") == [(CURRENT_VERSION + 1,)]
    assert bench.execute("SELECT color FROM jobs") == [("red",)]

    backup = bench.directory / f"jobs.sqlite.backup-v{CURRENT_VERSION}"
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    bench.result(store.close())
    # the way back: the old program opens the backup
    backup.rename(bench.directory / "jobs.sqlite")
    assert bench.open().recover().own == (make_job(1),)
    assert bench.result(bench.store.read(SCRIPT.blob, 0, 5)) == b"print"


def test_a_failing_upgrade_changes_nothing(bench: DiskBench) -> None:
    bench.result(bench.store.save(make_job(1)))
    bench.result(bench.store.close())
    with pytest.raises(StartFailed, match=r"jobs\.sqlite cannot be opened: no such table"):
        bench.open(steps=(*STEPS, (*NEXT_STEP, "DELETE FROM no_such_table")))
    assert bench.execute("PRAGMA user_version") == [(CURRENT_VERSION,)]
    assert bench.open().recover().own == (make_job(1),)


def test_a_new_database_is_like_an_upgraded_one(bench: DiskBench, tmp_path: Path) -> None:
    bench.result(bench.store.close())
    bench.open(steps=(*STEPS, NEXT_STEP))
    tables = bench.execute("SELECT name, sql FROM sqlite_schema ORDER BY name")
    bench.result(bench.store.close())
    bench.directory = tmp_path / "other"
    bench.open(steps=(*STEPS, NEXT_STEP))
    assert bench.execute("SELECT name, sql FROM sqlite_schema ORDER BY name") == tables


def test_a_newer_schema_is_refused_and_left_alone(bench: DiskBench) -> None:
    bench.result(bench.store.close())
    bench.open(steps=(*STEPS, NEXT_STEP))
    bench.result(bench.store.close())
    before = (bench.directory / "jobs.sqlite").read_bytes()
    with pytest.raises(StartFailed, match=rf"jobs\.sqlite has schema {CURRENT_VERSION + 1}, written by a newer"):
        bench.open()
    assert (bench.directory / "jobs.sqlite").read_bytes() == before


def test_a_half_made_database_is_made_anew(tmp_path: Path) -> None:
    directory = tmp_path / "state"
    directory.mkdir()
    for suffix in ("", "-wal", "-journal"):
        (directory / f"jobs.sqlite.new{suffix}").write_bytes(b"cut short")
    bench = DiskBench(directory)
    assert bench.store.recover().next_sequence == 1
    bench.result(bench.store.close())
    assert [path.name for path in sorted(directory.iterdir()) if path.is_file()] == ["jobs.sqlite", "reserve"]


@pytest.mark.parametrize("contents", [b"", b"something else entirely\n" * 500])
def test_a_file_that_is_not_a_database_is_refused(tmp_path: Path, contents: bytes) -> None:
    (tmp_path / "jobs.sqlite").write_bytes(contents)
    with pytest.raises(StartFailed, match=r"jobs\.sqlite .*not a database"):
        DiskBench(tmp_path)
    assert (tmp_path / "jobs.sqlite").read_bytes() == contents


def test_a_database_of_somebody_else_is_refused(tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / "jobs.sqlite").execute("CREATE TABLE t (a)").connection.close()
    with pytest.raises(StartFailed, match="is not a database of Cloud My Task"):
        DiskBench(tmp_path)


def test_a_damaged_database_is_refused(bench: DiskBench) -> None:
    bench.result(gatherResults([bench.store.save(make_job(number)) for number in range(1, 200)]))
    bench.result(bench.store.close())
    path = bench.directory / "jobs.sqlite"
    with path.open("r+b") as file:
        file.seek(3 * 4096)
        file.write(b"\xff" * (path.stat().st_size - 4 * 4096))
    with pytest.raises(StartFailed, match=r"jobs\.sqlite"):
        bench.open()


@pytest.mark.parametrize("where", ["file", "file/below", "/proc/cmt-state"])
def test_an_impossible_directory_is_refused(tmp_path: Path, where: str) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / where
    with pytest.raises(StartFailed) as caught:
        DiskBench(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_directory_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stranger = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: stranger)
    with pytest.raises(StartFailed, match=f"The directory {tmp_path} belongs to another user"):
        DiskBench(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
@pytest.mark.parametrize(
    ("name", "mode"), [("jobs.sqlite", 0o400), ("", 0o500), ("blobs", 0), ("spool", 0o500), ("work", 0)]
)
def test_what_cannot_be_written_is_refused(bench: DiskBench, name: str, mode: int) -> None:
    bench.result(bench.store.close())
    path = bench.directory / name
    before = stat.S_IMODE(path.stat().st_mode)
    path.chmod(mode)
    try:
        with pytest.raises(StartFailed) as caught:
            bench.open()
        assert str(path) in str(caught.value)
    finally:
        path.chmod(before)
    bench.open()


def test_everything_is_private(bench: DiskBench) -> None:
    old = os.umask(0)
    try:
        path = Path(bench.result(bench.store.stage("w1", {"a": SCRIPT.blob}, [SCRIPT])))
        bench.store.spool("s").append(b"x")
        blob = bench.upload(large_bytes())
        bench.result(bench.store.save(make_job(1)))
    finally:
        os.umask(old)
    directories = [bench.directory, path, *(bench.directory / name for name in ("blobs", "spool", "work"))]
    assert {stat.S_IMODE(directory.stat().st_mode) for directory in directories} == {0o700}
    files = [path / "a", bench.blob_file(blob), *(bench.directory / "spool").iterdir()]
    files += bench.directory.glob("jobs.sqlite*")
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_a_closed_store_says_so(bench: DiskBench) -> None:
    spool = bench.store.spool("s")
    spool.append(large_bytes())
    sealed = spool.seal()
    bench.result(bench.store.close())
    # what was under way came to its end
    assert bench.result(sealed) == blob_of(large_bytes())
    with pytest.raises(StoreFailed, match="not open"):
        bench.store.save(make_job(1))
    bench.result(bench.store.close())


def test_no_thread_outlives_the_store(bench: DiskBench) -> None:
    bench.result(bench.store.close())
    for thread in threading.enumerate():
        if thread.name.startswith("store-"):
            thread.join(60)
            assert not thread.is_alive()


# work directories


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "/a", "a\0b", "n" * 300, "\ud800"])
def test_names_that_lead_elsewhere_are_refused(bench: DiskBench, name: str) -> None:
    with pytest.raises(InvalidArgument):
        bench.result(bench.store.stage(name, {}))
    with pytest.raises(InvalidArgument):
        bench.result(bench.store.unstage(name))
    if name != ".hidden":
        with pytest.raises(InvalidArgument):
            bench.result(bench.store.stage("w1", {name: SCRIPT.blob}, [SCRIPT]))
        with pytest.raises(InvalidArgument):
            bench.store.spool(name)


def test_nothing_of_an_older_directory_stays_in_a_new_one(bench: DiskBench) -> None:
    old = Path(bench.result(bench.store.stage("w1", {"a": SCRIPT.blob}, [SCRIPT])))
    (old / "left").mkdir()
    old.chmod(0)
    new = Path(bench.result(bench.store.stage("w1", {"b": STDIN.blob}, [STDIN])))
    assert new == old
    assert names_in(new) == ["b"]
    assert stat.S_IMODE(new.stat().st_mode) == 0o700


def test_unstage_follows_no_link(bench: DiskBench, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "below").mkdir(parents=True)
    (outside / "file").write_bytes(b"precious")
    path = Path(bench.result(bench.store.stage("w1", {"a": SCRIPT.blob}, [SCRIPT])))
    (path / "to-directory").symlink_to(outside)
    (path / "to-file").symlink_to(outside / "file")
    (path / "hard").hardlink_to(outside / "file")
    (path / "sub").mkdir()
    (path / "sub" / "up").symlink_to("../..")
    (path / "loop").symlink_to("loop")
    os.mkfifo(path / "fifo")
    bench.result(bench.store.unstage("w1"))
    assert (outside / "file").read_bytes() == b"precious"
    assert (outside / "below").is_dir()
    assert names_in(bench.directory / "work") == []


def test_unstage_of_a_link_deletes_the_link(bench: DiskBench, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (bench.directory / "work" / "w1").symlink_to(tmp_path / "outside")
    bench.result(bench.store.unstage("w1"))
    assert (tmp_path / "outside").is_dir()
    assert names_in(bench.directory / "work") == []


def test_unstage_deals_with_any_mode(bench: DiskBench) -> None:
    path = Path(bench.result(bench.store.stage("w1", {"a": SCRIPT.blob}, [SCRIPT])))
    for mode in (0o000, 0o400, 0o100, 0o500):
        (path / f"d{mode}" / "below" / "deep").mkdir(parents=True)
        (path / f"d{mode}" / "below" / "file").touch(mode=0o000)
        (path / f"d{mode}" / "below").chmod(mode)
        (path / f"d{mode}").chmod(mode)
    path.chmod(0)
    bench.result(bench.store.unstage("w1"))
    assert names_in(bench.directory / "work") == []


def test_unstage_deals_with_any_depth(bench: DiskBench) -> None:
    path = bench.result(bench.store.stage("w1", {}))
    # longer than PATH_MAX, deeper than the interpreter's stack, and with a file at each level
    descriptor = os.open(path, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d" * 50, dir_fd=descriptor)
        below = os.open("d" * 50, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
        os.close(os.open("file", os.O_CREAT, dir_fd=descriptor))
    os.close(descriptor)
    bench.result(bench.store.unstage("w1"))
    assert names_in(bench.directory / "work") == []


def test_work_of_an_earlier_life_is_deleted_and_its_names_are_free(bench: DiskBench) -> None:
    path = Path(bench.result(bench.store.stage("w1", {"a": SCRIPT.blob}, [SCRIPT])))
    (path.parent / ".gone-7").mkdir()
    (path.parent / ".gone-7" / "half").mkdir()
    bench.restart()
    bench.result(bench.store.stage("w1", {"b": STDIN.blob}, [STDIN]))
    bench.result(bench.store.unstage("nothing"))
    assert names_in(path) == ["b"]
    bench.restart()
    bench.restart()
    assert names_in(bench.directory / "work") == []


def test_scripts_may_be_hidden_files(bench: DiskBench) -> None:
    path = bench.result(bench.store.stage("w1", {".hidden.py": SCRIPT.blob}, [SCRIPT]))
    assert names_in(path) == [".hidden.py"]


def test_a_tombstone_keeps_no_row_of_references(bench: DiskBench) -> None:
    bench.result(bench.store.save(make_job(1), [SCRIPT]))
    assert bench.execute("SELECT digest FROM job_blobs") == [(SCRIPT.blob.digest,)]
    bench.result(bench.store.save(evolve(make_job(1), state=JobState.EXPIRED)))
    assert bench.execute("SELECT digest FROM job_blobs") == []
