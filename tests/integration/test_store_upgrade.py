"""A store of version 1 is upgraded when it is opened: records, spools, and what no job refers to."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from cloudmytask.codec import body_digest
from cloudmytask.model.job import JobId, JobQuery, JobState, NodeId, Owner
from cloudmytask.store.database import prepare
from cloudmytask.store.schema import CURRENT_VERSION, STEPS
from tests.disk_bench import DiskBench
from tests.store_conformance import ANN, SCRIPT, STDIN, make_job

NODE = "ab" * 16

SPEC = (
    f'{{"script":{{"digest":"{SCRIPT.blob.digest}","size":{SCRIPT.blob.size}}},"script_name":"fit.py","qos":"batch",'
    '"arguments":["1"],"environment":{"A":"1"}}'
)


def _record(job_id: str, sequence: int, state: str) -> str:
    body = "0123456789abcdef" * 4
    return (
        f'{{"id":"{job_id}","client":"ann","body":"{body}","sequence":{sequence},"origin":"a","state":"{state}",'
        '"submitted_at":1.0,"retention":60.0,"attempts":[{"number":1,"executor":"a","staged_at":2.0,"started_at":2.5}],'
        '"trail":[[1.0,"accepted","a",""]]}'
    )


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A directory with a store of version 1: an open job, an ended one, one that has rotted, and a loose blob."""
    directory = tmp_path / "state"
    (directory / "spool").mkdir(parents=True)
    (directory / "spool" / "abc.1.stdout.7").write_bytes(b"so far")
    (directory / "spool" / "gone.1.stdout.8").write_bytes(b"stored already")
    prepare(directory / "jobs.sqlite", STEPS[:1], lambda: NODE)
    connection = sqlite3.connect(directory / "jobs.sqlite")
    with connection:
        for number, (job_id, state) in enumerate([("abc", "running"), ("def", "failed"), ("rot", "waiting")], 1):
            record = _record(job_id, number, state) if job_id != "rot" else "{"
            values = (job_id, number, "ann", "fit.py", state, SPEC, record)
            connection.execute("INSERT INTO jobs VALUES (?, ?, ?, ?, ?, NULL, ?, ?)", values)
            connection.execute("INSERT INTO job_blobs VALUES (?, ?)", (job_id, SCRIPT.blob.digest))
        for content in (SCRIPT, STDIN):
            blob = (content.blob.digest, content.blob.size, content.data)
            connection.execute("INSERT INTO blobs (digest, size, data) VALUES (?, ?, ?)", blob)
    connection.close()
    return directory


def test_a_store_of_version_1_is_upgraded(old: Path, expected_failures: Any) -> None:
    bench = DiskBench(old)
    recovery = bench.store.recover()
    [job] = recovery.own
    assert (recovery.node_id, recovery.next_sequence, recovery.held) == (NODE, 4, ())
    assert (job.id, job.state, job.owner) == ("abc", JobState.RUNNING, Owner.alone(NodeId(NODE), "a"))
    assert job.spec.variables == {"A": "1"}
    assert job.body == body_digest(job.spec)
    found = bench.result(bench.store.newest(ANN, JobQuery(states=frozenset({JobState.FAILED})))).jobs
    assert [each.id for each in found] == ["def"]
    # what the running attempt had written goes on under its present name
    assert bench.result(bench.store.spool("abc.1.1.stdout", resume=True).read(0, 99)) == b"so far"
    assert bench.store.spool("gone.1.1.stdout", resume=True).size == 0
    assert bench.result(bench.store.collect()) == STDIN.blob.size
    assert bench.result(bench.store.has(SCRIPT.blob))
    # and it is an ordinary job from now on
    bench.result(bench.store.save(evolve(job, state=JobState.SUCCEEDED)))
    bench.restart()
    saved = bench.result(bench.store.get(JobId("abc")))
    assert saved is not None
    assert saved.state is JobState.SUCCEEDED
    assert bench.execute("PRAGMA user_version") == [(CURRENT_VERSION,)]
    assert (old / "jobs.sqlite.backup-v1").exists()
    bench.result(bench.store.close())
    expected_failures()


def test_a_record_that_had_rotted_is_left_as_it_was(old: Path) -> None:
    bench = DiskBench(old)
    assert bench.execute("SELECT spec, record FROM jobs WHERE id = 'rot'") == [(SPEC, "{")]
    bench.result(bench.store.close())


def test_row_17_a_store_of_version_2_is_upgraded(tmp_path: Path, expected_failures: Any) -> None:
    directory = tmp_path / "state"
    bench = DiskBench(directory)
    job = make_job(1)
    bench.result(bench.store.save(job, [SCRIPT]))
    [row] = bench.execute("SELECT id, sequence, client, name, state, expires, spec, record FROM jobs")
    bench.result(bench.store.close())
    old = tmp_path / "old"
    old.mkdir()
    prepare(old / "jobs.sqlite", STEPS[:2], lambda: NODE)
    connection = sqlite3.connect(old / "jobs.sqlite")
    with connection:
        connection.execute("INSERT INTO jobs VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
        rotten = ("rot", 2, *row[2:7], "{")
        connection.execute("INSERT INTO jobs VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rotten)
    connection.close()
    bench = DiskBench(old)
    assert bench.store.recover().own == (job,)
    assert bench.execute("PRAGMA user_version") == [(CURRENT_VERSION,)]
    assert (old / "jobs.sqlite.backup-v2").exists()
    assert [each.id for each in bench.result(bench.store.newest(ANN, JobQuery(prefix="job"))).jobs] == [job.id]
    bench.result(bench.store.close())
    expected_failures()
