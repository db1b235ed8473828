"""What every implementation of ``JobStore`` must do, as tests to be inherited.

A module that inherits :class:`StoreConformance` provides the fixture ``bench``. The tests never wait by themselves:
``bench.result`` brings a Deferred to its end, by the reactor or in virtual time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar

import pytest
from attrs import evolve
from twisted.internet.defer import Deferred, gatherResults
from twisted.python.failure import Failure

from cloudmytask.boundaries import JobStore
from cloudmytask.codec import body_digest
from cloudmytask.model.errors import BlobCorrupt, BlobMissing
from cloudmytask.model.job import (
    INLINE_MAX,
    Attempt,
    Blob,
    ClientId,
    Content,
    Digest,
    Job,
    JobId,
    JobQuery,
    JobSpec,
    JobState,
    NodeId,
    Outcome,
    Output,
    Owner,
    Reason,
    Stamp,
)

T = TypeVar("T")

ANN, BOB = ClientId("ann"), ClientId("bob")

HOUR = 3600.0


def blob_of(data: bytes) -> Blob:
    return Blob(Digest(hashlib.sha256(data).hexdigest()), len(data))


def content_of(data: bytes) -> Content:
    return Content(blob_of(data), data)


def large_bytes(size: int = 700_001) -> bytes:
    """More than two leaves, no two of them alike, and an odd end."""
    return b"".join(hashlib.sha256(b"%d" % n).digest() for n in range(size // 32 + 1))[:size]


SCRIPT = content_of(b"print('hello')\n")
STDIN = content_of(b"1\n2\n3\n")
OUTPUT = content_of(b"hello\n")


def make_job(
    number: int,
    state: JobState = JobState.PENDING,
    client: ClientId = ANN,
    spec: JobSpec | None = None,
    job_id: str | None = None,
) -> Job:
    spec = spec if spec is not None else JobSpec(SCRIPT.blob, arguments=(str(number),))
    return Job(
        id=JobId(job_id if job_id is not None else f"job{number:04}"),
        client=client,
        spec=spec,
        body=body_digest(spec),
        sequence=number,
        owner=Owner.alone(NodeId("a" * 32), "a"),
        state=state,
        submitted_at=1_700_000_000.25 + number,
        retention=60.0,
        trail=(Stamp(1_700_000_000.5, "received", "a"),),
    )


def ended(job: Job, *outputs: Content) -> Job:
    """``job`` after one successful attempt, whose stdout and stderr are ``outputs``."""
    stdout, stderr = (*(Output(content.blob) for content in outputs), Output(), Output())[:2]
    attempt = Attempt(1, "a", 1.0, 2.0, 3.0, Outcome(Reason.EXIT, exit_code=0), stdout, stderr)
    return evolve(job, state=JobState.SUCCEEDED, attempts=(attempt,), ended_at=3.0)


def brought_to_an_end(deferred: Deferred[T], turn: Callable[[], object]) -> T:
    """What ``deferred`` fires with after as many turns as it takes; a failure is raised."""
    results: list[T | Failure] = []
    deferred.addBoth(results.append)
    while not results:
        turn()
    [result] = results
    if isinstance(result, Failure):
        result.raiseException()
    assert not isinstance(result, Failure)
    return result


class Bench(Protocol):
    """A store, and the means to try it."""

    @property
    def store(self) -> JobStore: ...
    def result(self, deferred: Deferred[T]) -> T:
        """Wait for it; raise what it fails with."""

    def restart(self) -> JobStore:
        """Close the store and open another one on the same disk."""

    def elapse(self, seconds: float) -> None:
        """Let so much time go by."""

    def staged(self, path: str) -> Mapping[str, bytes]:
        """The files of a work directory."""


def upload(bench: Bench, data: bytes) -> Blob:
    """Bring a large blob."""
    spool = bench.store.spool("upload-1")
    spool.append(data)
    blob = bench.result(spool.seal())
    assert isinstance(blob, Blob)
    spool.discard()
    return blob


class StoreConformance:
    """Inherit, and provide ``bench``."""

    # records

    def test_a_fresh_store_is_empty(self, bench: Bench) -> None:
        recovery = bench.store.recover()
        assert (recovery.own, recovery.next_sequence, recovery.age, recovery.checkpoint_at) == ((), 1, 0.0, None)
        assert bench.result(bench.store.get(JobId("nobody"))) is None
        assert bench.result(bench.store.newest(ANN, JobQuery())).jobs == ()

    def test_a_saved_job_is_read_back_equal(self, bench: Bench) -> None:
        job = ended(make_job(1), OUTPUT)
        bench.result(bench.store.save(job, [SCRIPT, OUTPUT]))
        assert bench.result(bench.store.get(job.id)) == job
        bench.restart()
        assert bench.result(bench.store.get(job.id)) == job

    def test_the_last_of_many_saves_of_one_job_stays(self, bench: Bench) -> None:
        jobs = [make_job(1, state) for state in (JobState.PENDING, JobState.STAGING, JobState.RUNNING)]
        saves = [
            bench.store.save(jobs[0], [SCRIPT]),
            bench.store.save(jobs[1], [STDIN]),
            bench.store.save(jobs[2], [OUTPUT]),
        ]
        bench.result(gatherResults(saves))
        assert bench.result(bench.store.get(jobs[0].id)) == jobs[2]
        for content in (SCRIPT, STDIN, OUTPUT):
            assert bench.result(bench.store.has(content.blob))

    def test_a_job_may_be_forgotten_and_saved_again_at_once(self, bench: Bench) -> None:
        first, second = make_job(1), make_job(1, JobState.RUNNING)
        bench.store.save(first)
        bench.store.forget(first.id)
        bench.result(bench.store.save(second))
        assert bench.result(bench.store.get(first.id)) == second

    def test_closing_commits_what_was_saved(self, bench: Bench) -> None:
        job = make_job(1)
        bench.store.save(job)
        bench.restart()
        assert bench.result(bench.store.get(job.id)) == job

    def test_text_that_is_not_utf8_survives(self, bench: Bench) -> None:
        spec = JobSpec(SCRIPT.blob, arguments=("\udcff", "a\0b", "日本"), name="n\udc80")
        job = make_job(1, spec=spec)
        bench.result(bench.store.save(job))
        assert bench.result(bench.store.get(job.id)) == job
        assert bench.result(bench.store.newest(job.client, JobQuery(name="n\udc80"))).jobs == (job,)
        assert bench.result(bench.store.newest(ClientId("c\\udc80"), JobQuery())).jobs == ()

    def test_recovery_has_every_job_without_an_outcome_oldest_first(self, bench: Bench) -> None:
        open_states = [JobState.RUNNING, JobState.PENDING, JobState.WAITING, JobState.STAGING]
        jobs = [make_job(number, state) for number, state in zip((4, 2, 3, 1), open_states, strict=True)]
        others = [make_job(10 + number, state) for number, state in enumerate(s for s in JobState if s.terminal)]
        bench.result(gatherResults([bench.store.save(job) for job in jobs + others]))
        recovery = bench.restart().recover()
        assert recovery.own == tuple(sorted(jobs, key=lambda job: job.sequence))
        assert recovery.next_sequence == others[-1].sequence + 1

    def test_the_node_id_and_the_checkpoint_survive(self, bench: Bench) -> None:
        node_id = bench.store.recover().node_id
        bench.result(gatherResults([bench.store.checkpoint(1.0, 90.0), bench.store.checkpoint(2.5, 100.0)]))
        recovery = bench.restart().recover()
        assert (recovery.node_id, recovery.age, recovery.checkpoint_at) == (node_id, 2.5, 100.0)
        assert len(node_id) == 32

    def test_what_the_node_remembers_survives_and_the_last_word_counts(self, bench: Bench) -> None:
        assert bench.store.recover().memory == {}
        bench.store.remember("bans", "[]")
        bench.store.remember("age", "not the retention clock")
        bench.result(bench.store.remember("bans", '["x", "é", "\U0001f600"]'))
        recovery = bench.restart().recover()
        assert recovery.memory == {"bans": '["x", "é", "\U0001f600"]', "age": "not the retention clock"}
        assert recovery.age == 0.0

    def test_every_opening_is_counted(self, bench: Bench) -> None:
        assert [bench.store.recover().boots for _ in range(2)] == [1, 1]
        assert [bench.restart().recover().boots for _ in range(2)] == [2, 3]

    # listings

    def test_newest_lists_the_jobs_of_one_client(self, bench: Bench) -> None:
        mine = [make_job(number) for number in (1, 4, 2)]
        self._save(bench, *mine, make_job(3, client=BOB))
        page = bench.result(bench.store.newest(ANN, JobQuery()))
        assert [job.sequence for job in page.jobs] == [4, 2, 1]
        assert page.next is None

    def test_newest_goes_from_page_to_page(self, bench: Bench) -> None:
        self._save(bench, *(make_job(number) for number in range(1, 8)))
        seen, cursor = [], None
        for _ in range(4):
            page = bench.result(bench.store.newest(ANN, JobQuery(before=cursor, limit=3)))
            seen.append([job.sequence for job in page.jobs])
            cursor = page.next
            if cursor is None:
                break
        assert seen == [[7, 6, 5], [4, 3, 2], [1]]

    @pytest.mark.parametrize(
        ("query", "expected"),
        [
            (JobQuery(), [5, 4, 3, 2, 1]),
            (JobQuery(prefix="ab"), [3, 1]),
            (JobQuery(prefix="ab", limit=1), [3]),
            (JobQuery(prefix="ab_"), []),
            (JobQuery(prefix="zz"), []),
            (JobQuery(name="fit"), [4, 2]),
            (JobQuery(name="script.py", prefix="a"), [3, 1]),
            (JobQuery(states=frozenset({JobState.RUNNING, JobState.FAILED})), [5, 2]),
            (JobQuery(states=frozenset({JobState.EXPIRED})), [6]),
            (JobQuery(before=3), [2, 1]),
        ],
    )
    def test_newest_selects(self, bench: Bench, query: JobQuery, expected: list[int]) -> None:
        fit = JobSpec(SCRIPT.blob, name="fit")
        self._save(
            bench,
            make_job(1, job_id="abc1"),
            make_job(2, JobState.RUNNING, job_id="acc2", spec=fit),
            make_job(3, job_id="abd3"),
            make_job(4, job_id="b4", spec=fit),
            make_job(5, JobState.FAILED, job_id="c5"),
            make_job(6, JobState.EXPIRED, job_id="d6"),
            make_job(7, job_id="abe7", client=BOB),
        )
        page = bench.result(bench.store.newest(ANN, query))
        assert [job.sequence for job in page.jobs] == expected
        assert (page.next is not None) is (query.limit == 1)

    def test_due_lists_what_has_fallen_due_first_things_first(self, bench: Bench) -> None:
        for number, expires in ((1, 30.0), (2, 10.0), (3, None), (4, 20.0), (5, 10.0)):
            self._save(bench, evolve(make_job(number, JobState.FAILED), expires=expires))
        assert [job.sequence for job in bench.result(bench.store.due(20.0, 10))] == [2, 5, 4]
        assert [job.sequence for job in bench.result(bench.store.due(99.0, 2))] == [2, 5]
        assert bench.result(bench.store.due(9.9, 10)) == ()

    def test_a_forgotten_job_is_gone_for_good(self, bench: Bench) -> None:
        self._save(bench, make_job(1), make_job(2))
        bench.result(bench.store.forget(JobId("job0001")))
        bench.result(bench.store.forget(JobId("never")))
        bench.restart()
        assert bench.result(bench.store.get(JobId("job0001"))) is None
        assert bench.result(bench.store.get(JobId("job0002"))) is not None

    # blobs

    def test_contents_are_saved_with_the_job(self, bench: Bench) -> None:
        bench.result(bench.store.save(make_job(1), [SCRIPT, STDIN]))
        bench.restart()
        for content in (SCRIPT, STDIN):
            assert bench.result(bench.store.has(content.blob))
            assert bench.result(bench.store.read(content.blob, 0, 1000)) == content.data

    def test_the_empty_blob_is_always_there(self, bench: Bench) -> None:
        empty = blob_of(b"")
        assert bench.result(bench.store.has(empty))
        assert bench.result(bench.store.read(empty, 0, 10)) == b""
        path = bench.result(bench.store.stage("w1", {"stdin": empty}))
        assert bench.staged(path) == {"stdin": b""}

    @pytest.mark.parametrize("size", [0, 1, INLINE_MAX])
    def test_small_blobs_of_every_size(self, bench: Bench, size: int) -> None:
        content = content_of(b"x" * size)
        bench.result(bench.store.save(make_job(1), [content]))
        bench.restart()
        assert bench.result(bench.store.has(content.blob))
        assert bench.result(bench.store.read(content.blob, 0, size + 1)) == content.data

    @pytest.mark.parametrize(("offset", "size"), [(0, 3), (2, 3), (6, 100), (7, 1), (100, 1), (0, 0)])
    def test_pieces_of_a_small_blob(self, bench: Bench, offset: int, size: int) -> None:
        content = content_of(b"0123456")
        bench.result(bench.store.save(make_job(1), [content]))
        for _ in range(2):
            assert bench.result(bench.store.read(content.blob, offset, size)) == content.data[offset : offset + size]
            bench.restart()

    def test_an_unknown_blob_is_missing(self, bench: Bench) -> None:
        bench.result(bench.store.save(make_job(1), [SCRIPT]))
        for blob in (blob_of(b"never seen"), Blob(SCRIPT.blob.digest, 1), blob_of(large_bytes())):
            assert not bench.result(bench.store.has(blob))
            with pytest.raises(BlobMissing):
                bench.result(bench.store.read(blob, 0, 10))

    def test_contents_under_a_false_name_are_refused_and_nothing_is_stored(self, bench: Bench) -> None:
        lie = Content(SCRIPT.blob, STDIN.data)
        good = bench.store.save(make_job(2))
        with pytest.raises(BlobCorrupt):
            bench.result(bench.store.save(make_job(1), [STDIN, lie]))
        bench.result(good)
        assert bench.result(bench.store.get(JobId("job0001"))) is None
        assert bench.result(bench.store.get(JobId("job0002"))) is not None
        for content in (SCRIPT, STDIN):
            assert not bench.result(bench.store.has(content.blob))

    def test_contents_on_their_way_are_there_already(self, bench: Bench) -> None:
        saved = bench.store.save(make_job(1), [SCRIPT])
        present = bench.store.has(SCRIPT.blob)
        data = bench.store.read(SCRIPT.blob, 0, 5)
        path = bench.store.stage("w1", {"script.py": SCRIPT.blob})
        assert bench.result(present)
        assert bench.result(data) == b"print"
        assert bench.staged(bench.result(path)) == {"script.py": SCRIPT.data}
        bench.result(saved)

    # collection

    def test_collect_deletes_what_nobody_refers_to(self, bench: Bench) -> None:
        spare, kept = content_of(b"spare"), content_of(b"kept")
        job = ended(make_job(1, spec=JobSpec(SCRIPT.blob, stdin=STDIN.blob)), OUTPUT)
        bench.result(bench.store.save(job, [SCRIPT, STDIN, OUTPUT, spare, kept]))
        assert bench.result(bench.store.collect([kept.blob.digest])) == len(spare.data)
        assert self._present(bench, SCRIPT, STDIN, OUTPUT, kept, spare) == [True, True, True, True, False]
        with pytest.raises(BlobMissing):
            bench.result(bench.store.read(spare.blob, 0, 10))

    def test_collect_spares_what_another_job_still_needs(self, bench: Bench) -> None:
        first, second = ended(make_job(1), OUTPUT), make_job(2)
        self._save(bench, first, second, contents=[SCRIPT, OUTPUT])
        bench.result(bench.store.forget(first.id))
        assert bench.result(bench.store.collect()) == len(OUTPUT.data)
        assert self._present(bench, SCRIPT, OUTPUT) == [True, False]

    def test_a_tombstone_needs_no_blobs(self, bench: Bench) -> None:
        job = ended(make_job(1), OUTPUT)
        bench.result(bench.store.save(job, [SCRIPT, OUTPUT]))
        bench.result(bench.store.save(evolve(job, state=JobState.EXPIRED)))
        assert bench.result(bench.store.collect()) == len(SCRIPT.data) + len(OUTPUT.data)
        assert bench.result(bench.store.get(job.id)) == evolve(job, state=JobState.EXPIRED)

    def test_an_upload_has_an_hour_to_be_referred_to(self, bench: Bench) -> None:
        data = large_bytes()
        blob = upload(bench, data)
        assert bench.result(bench.store.collect()) == 0
        assert bench.result(bench.store.has(blob))
        bench.elapse(HOUR + 1)
        assert bench.result(bench.store.collect()) == len(data)
        assert not bench.result(bench.store.has(blob))
        with pytest.raises(BlobMissing):
            bench.result(bench.store.read(blob, 0, 10))

    def test_a_small_upload_has_an_hour_as_well(self, bench: Bench) -> None:
        bench.result(bench.store.put(SCRIPT))
        assert bench.result(bench.store.collect()) == 0
        assert bench.result(bench.store.read(SCRIPT.blob, 0, 5)) == b"print"
        bench.elapse(HOUR + 1)
        assert bench.result(bench.store.collect()) == len(SCRIPT.data)
        assert not bench.result(bench.store.has(SCRIPT.blob))

    def test_put_makes_a_content_durable(self, bench: Bench) -> None:
        put = bench.store.put(SCRIPT)
        assert bench.result(bench.store.has(SCRIPT.blob))
        bench.result(put)
        bench.restart()
        assert bench.result(bench.store.read(SCRIPT.blob, 0, 5)) == b"print"
        with pytest.raises(BlobCorrupt):
            bench.result(bench.store.put(Content(STDIN.blob, b"lie")))

    def test_a_blob_that_was_just_asked_for_is_spared(self, bench: Bench) -> None:
        bench.result(bench.store.save(make_job(1), [SCRIPT]))
        bench.result(bench.store.forget(JobId("job0001")))
        assert bench.result(bench.store.has(SCRIPT.blob))
        assert bench.result(bench.store.collect()) == 0
        bench.elapse(HOUR + 1)
        assert bench.result(bench.store.collect()) == len(SCRIPT.data)

    def test_an_upload_keeps_its_hour_across_a_restart(self, bench: Bench) -> None:
        data = large_bytes()
        bench.result(bench.store.put(SCRIPT))
        bench.elapse(HOUR / 2)
        upload(bench, data)
        bench.restart()
        assert bench.result(bench.store.collect()) == 0
        assert bench.result(bench.store.read(SCRIPT.blob, 0, 5)) == b"print"
        bench.elapse(HOUR / 2 + 1)
        assert bench.result(bench.store.collect()) == len(SCRIPT.data)
        bench.elapse(HOUR / 2)
        assert bench.result(bench.store.collect()) == len(data)

    def test_bringing_an_upload_once_more_begins_its_hour_anew(self, bench: Bench) -> None:
        data = large_bytes()
        for _ in range(2):
            bench.result(bench.store.put(SCRIPT))
            upload(bench, data)
            bench.elapse(HOUR / 2 + 1)
        bench.restart()
        assert bench.result(bench.store.collect()) == 0
        bench.elapse(HOUR / 2)
        assert bench.result(bench.store.collect()) == len(data) + len(SCRIPT.data)

    def test_a_blob_that_is_being_deleted_is_not_promised(self, bench: Bench) -> None:
        data = large_bytes()
        bench.result(bench.store.put(SCRIPT))
        large = upload(bench, data)
        bench.elapse(HOUR + 1)
        collected = bench.store.collect()
        present = [bench.store.has(blob) for blob in (SCRIPT.blob, large, blob_of(b""))]
        assert bench.result(gatherResults(present)) == [False, False, True]
        assert bench.result(collected) == len(data) + len(SCRIPT.data)

    def test_what_comes_in_again_while_it_is_being_deleted_stays(self, bench: Bench) -> None:
        data = large_bytes()
        bench.result(bench.store.put(SCRIPT))
        large = upload(bench, data)
        bench.elapse(HOUR + 1)
        spool = bench.store.spool("upload-2")
        spool.append(data)
        collected = bench.store.collect()
        put, sealed = bench.store.put(SCRIPT), spool.seal()
        bench.result(put)
        assert bench.result(sealed) == large
        bench.result(collected)
        assert bench.result(bench.store.collect()) == 0
        bench.restart()
        assert bench.result(bench.store.read(SCRIPT.blob, 0, 5)) == b"print"
        assert bench.result(bench.store.read(large, 0, len(data))) == data

    def test_asking_for_an_upload_on_its_way_takes_nothing_of_its_hour(self, bench: Bench) -> None:
        spool = bench.store.spool("upload-1")
        spool.append(large_bytes())
        sealed = spool.seal()
        bench.result(bench.store.has(blob_of(large_bytes())))
        bench.result(sealed)
        assert bench.result(bench.store.collect()) == 0

    def test_a_collected_blob_can_come_back(self, bench: Bench) -> None:
        data = large_bytes()
        for _ in range(2):
            upload(bench, data)
            assert bench.result(bench.store.read(blob_of(data), 300_000, 5)) == data[300_000:300_005]
            bench.elapse(HOUR + 1)
            assert bench.result(bench.store.collect()) == len(data)

    # spools

    def test_an_empty_spool(self, bench: Bench) -> None:
        spool = bench.store.spool("s")
        assert spool.size == 0
        assert bench.result(spool.read(0, 10)) == b""
        assert bench.result(spool.seal()) is None
        spool.discard()

    def test_a_small_spool_becomes_a_content(self, bench: Bench) -> None:
        spool = bench.store.spool("s")
        for piece in (b"he", b"", b"llo\n"):
            spool.append(piece)
        assert spool.size == 6
        assert bench.result(spool.read(1, 3)) == b"ell"
        assert bench.result(spool.read(6, 3)) == b""
        assert bench.result(spool.seal()) == OUTPUT
        assert bench.result(spool.read(4, 100)) == b"o\n"
        spool.discard()
        spool.discard()

    @pytest.mark.parametrize(("size", "inline"), [(INLINE_MAX, True), (INLINE_MAX + 1, False)])
    def test_the_border_between_small_and_large(self, bench: Bench, size: int, inline: bool) -> None:
        spool = bench.store.spool("s")
        spool.append(b"a" * (size - 1))
        spool.append(b"b")
        sealed = bench.result(spool.seal())
        assert isinstance(sealed, Content) is inline
        assert (sealed.blob if isinstance(sealed, Content) else sealed) == blob_of(b"a" * (size - 1) + b"b")
        spool.discard()

    def test_a_large_spool_becomes_a_durable_blob(self, bench: Bench) -> None:
        data = large_bytes()
        spool = bench.store.spool("s")
        for start in range(0, len(data), 100_000):
            spool.append(data[start : start + 100_000])
            assert bench.result(spool.read(start, 10)) == data[start : start + 10]
        sealed = bench.result(spool.seal())
        assert sealed == blob_of(data)
        assert isinstance(sealed, Blob)
        assert bench.result(spool.read(262_140, 10)) == data[262_140:262_150]
        spool.discard()
        bench.restart()
        assert bench.result(bench.store.has(sealed))
        pieces = [bench.result(bench.store.read(sealed, start, 48 * 1024)) for start in range(0, len(data), 48 * 1024)]
        assert b"".join(pieces) == data
        assert bench.result(bench.store.read(sealed, 1, len(data))) == data[1:]
        assert bench.result(bench.store.read(sealed, len(data), 10)) == b""

    def test_equal_large_spools_share_a_blob(self, bench: Bench) -> None:
        data = large_bytes()
        spools = [bench.store.spool(name) for name in "ab"]
        for spool in spools:
            spool.append(data)
        assert bench.result(gatherResults([spool.seal() for spool in spools])) == [blob_of(data)] * 2
        for spool in spools:
            spool.discard()
        assert bench.result(bench.store.read(blob_of(data), 0, 9)) == data[:9]

    def test_a_spool_discarded_while_it_is_sealed_leaves_its_blob(self, bench: Bench) -> None:
        data = large_bytes()
        spool = bench.store.spool("s")
        spool.append(data)
        sealed = spool.seal()
        spool.discard()
        assert bench.result(sealed) == blob_of(data)
        bench.restart()
        assert bench.result(bench.store.read(blob_of(data), 0, len(data))) == data

    def test_a_sealed_or_discarded_spool_takes_no_more(self, bench: Bench) -> None:
        sealed, discarded = bench.store.spool("s"), bench.store.spool("d")
        bench.result(sealed.seal())
        discarded.discard()
        for spool in (sealed, discarded):
            with pytest.raises(RuntimeError):
                spool.append(b"late")

    @pytest.mark.parametrize("size", [10, INLINE_MAX + 10])
    def test_a_spool_goes_on_after_a_restart(self, bench: Bench, size: int) -> None:
        data = large_bytes(size)
        bench.store.spool("s").append(data[:9])
        spool = bench.restart().spool("s", resume=True)
        assert spool.size == 9
        assert bench.result(spool.read(3, 100)) == data[3:9]
        spool.append(data[9:])
        sealed = bench.result(spool.seal())
        assert (sealed.blob if isinstance(sealed, Content) else sealed) == blob_of(data)
        spool.discard()

    def test_a_new_spool_begins_empty_whatever_an_earlier_life_left(self, bench: Bench) -> None:
        bench.store.spool("s").append(b"left")
        spool = bench.restart().spool("s")
        assert spool.size == 0
        spool.append(b"new")
        assert bench.result(spool.seal()) == content_of(b"new")
        resumed = bench.restart().spool("s", resume=True)
        assert bench.result(resumed.read(0, 10)) == b"new"

    @pytest.mark.parametrize("name", ["upload-1", "s"])
    def test_what_does_not_outlive_a_restart(self, bench: Bench, name: str) -> None:
        spool = bench.store.spool(name)
        spool.append(b"old")
        if name == "s":
            spool.discard()
        assert bench.restart().spool(name, resume=True).size == 0

    def test_a_name_can_be_used_again_after_a_discard(self, bench: Bench) -> None:
        for data in (b"first", b"2nd"):
            spool = bench.store.spool("s")
            spool.append(data)
            assert bench.result(spool.seal()) == content_of(data)
            spool.discard()
        last = bench.store.spool("s")
        last.append(b"3")
        assert bench.restart().spool("s", resume=True).size == 1

    def test_a_leftover_that_nobody_asks_for_is_collected(self, bench: Bench) -> None:
        for name in "ab":
            bench.store.spool(name).append(b"left")
        wanted = bench.restart().spool("a", resume=True)
        bench.elapse(HOUR + 1)
        bench.result(bench.store.collect())
        bench.restart()
        assert [bench.store.spool(name, resume=True).size for name in "ab"] == [wanted.size, 0]

    # work directories

    def test_stage_makes_a_directory_with_copies(self, bench: Bench) -> None:
        data = large_bytes()
        large = upload(bench, data)
        bench.result(bench.store.save(make_job(1), [SCRIPT]))
        bench.restart()
        files = {"script.py": SCRIPT.blob, "stdin": large, "given": STDIN.blob}
        path = bench.result(bench.store.stage("w1", files, [STDIN]))
        assert bench.staged(path) == {"script.py": SCRIPT.data, "stdin": data, "given": STDIN.data}
        assert path.startswith("/")

    def test_stage_replaces_what_had_that_name(self, bench: Bench) -> None:
        for content in (SCRIPT, STDIN):
            path = bench.result(bench.store.stage("w1", {content.blob.digest: content.blob}, [content]))
        assert bench.staged(path) == {STDIN.blob.digest: STDIN.data}

    def test_stage_after_unstage_without_waiting(self, bench: Bench) -> None:
        bench.result(bench.store.stage("w1", {"a": SCRIPT.blob}, [SCRIPT]))
        removed = bench.store.unstage("w1")
        staged = bench.store.stage("w1", {"b": STDIN.blob}, [STDIN])
        bench.result(removed)
        assert bench.staged(bench.result(staged)) == {"b": STDIN.data}

    def test_a_missing_blob_cannot_be_staged(self, bench: Bench) -> None:
        with pytest.raises(BlobMissing):
            bench.result(bench.store.stage("w1", {"a": SCRIPT.blob, "b": STDIN.blob}, [SCRIPT]))
        path = bench.result(bench.store.stage("w1", {}))
        assert bench.staged(path) == {}

    def test_false_contents_cannot_be_staged(self, bench: Bench) -> None:
        with pytest.raises(BlobCorrupt):
            bench.result(bench.store.stage("w1", {"a": SCRIPT.blob}, [Content(SCRIPT.blob, STDIN.data)]))

    def test_unstage_is_idempotent(self, bench: Bench) -> None:
        bench.result(bench.store.stage("w1", {"a": SCRIPT.blob}, [SCRIPT]))
        for _ in range(2):
            bench.result(bench.store.unstage("w1"))

    # copies of other nodes' jobs

    def test_a_copy_is_no_job_of_this_node(self, bench: Bench) -> None:
        copy = evolve(make_job(7, client=ANN), expires=1.0)
        bench.result(bench.store.hold(copy, [SCRIPT]))
        assert bench.result(bench.store.get(copy.id)) is None
        assert bench.result(bench.store.newest(ANN, JobQuery())).jobs == ()
        assert bench.result(bench.store.due(9.0, 9)) == ()
        recovery = bench.restart().recover()
        assert (recovery.own, recovery.next_sequence, recovery.held) == ((), 1, (copy,))

    def test_the_last_copy_counts_and_an_own_job_of_that_id_stays_apart(self, bench: Bench) -> None:
        own, copy = make_job(1), make_job(1, JobState.RUNNING)
        bench.result(gatherResults([bench.store.save(own), bench.store.hold(make_job(1)), bench.store.hold(copy)]))
        assert bench.result(bench.store.get(own.id)) == own
        bench.result(bench.store.forget(own.id))
        recovery = bench.restart().recover()
        assert (recovery.own, recovery.held) == ((), (copy,))

    def test_a_copy_keeps_its_blobs(self, bench: Bench) -> None:
        own, copy = make_job(1), make_job(1, spec=JobSpec(SCRIPT.blob, stdin=STDIN.blob))
        bench.result(gatherResults([bench.store.save(own, [SCRIPT]), bench.store.hold(copy, [STDIN, OUTPUT])]))
        bench.result(bench.store.forget(own.id))
        assert bench.result(bench.store.collect()) == OUTPUT.blob.size
        assert self._present(bench, SCRIPT, STDIN) == [True, True]
        bench.result(bench.store.hold(evolve(copy, state=JobState.EXPIRED)))
        bench.elapse(HOUR + 1)
        assert bench.result(bench.store.collect()) == SCRIPT.blob.size + STDIN.blob.size

    # pieces of the tests

    def _save(self, bench: Bench, *jobs: Job, contents: list[Content] | None = None) -> None:
        bench.result(gatherResults([bench.store.save(job, contents or []) for job in jobs]))

    def _present(self, bench: Bench, *contents: Content) -> list[bool]:
        return [bench.result(bench.store.has(content.blob)) for content in contents]

    def test_the_output_of_a_job_that_has_ended_is_not_left_in_the_spool(self, bench: Bench) -> None:
        """The node died between the end's commit and the spool's deletion."""
        job = make_job(1)
        bench.result(bench.store.save(job))
        for name in (f"{job.id}.1.1.stdout", "0therj0b.1.1.stdout"):
            bench.store.spool(name).append(b"left")
        store = bench.restart()
        assert [found.id for found in store.recover().own] == [job.id]
        assert store.spool("0therj0b.1.1.stdout", resume=True).size == 0
        assert store.spool(f"{job.id}.1.1.stdout", resume=True).size == 4

    def test_a_brought_blob_goes_with_the_job_that_it_was_for(self, bench: Bench) -> None:
        content = content_of(b"brought before its job")
        bench.result(bench.store.put(content))
        assert bench.result(bench.store.collect()) == 0, "its job may still come"
        job = make_job(1)
        job = evolve(job, spec=evolve(job.spec, script=content.blob))
        bench.result(bench.store.save(job))
        bench.result(bench.store.save(evolve(job, state=JobState.EXPIRED)))
        bench.result(bench.store.collect())
        assert not bench.result(bench.store.has(content.blob))
