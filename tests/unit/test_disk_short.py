"""Output and uploads that meet a full disk: what is kept, what is told, what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import define, field
from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

from cloudmytask.boundaries import OutputEnd
from cloudmytask.core.blobs import blob_of
from cloudmytask.core.explain import describe_loss
from cloudmytask.model.errors import CloudMyTaskError, DiskShort, StoreFailed, UploadFailed
from cloudmytask.model.job import Blob, Content, Loss, Output, StreamName
from cloudmytask.model.words import Resource
from cloudmytask.node.gate import Gate
from cloudmytask.node.remote.inputs import IncomingBlob, receive
from cloudmytask.node.running.outputs import CappedSpool

FULL = StoreFailed("The store at /s failed: No space left on device.", resource=Resource.DISK)
ROTTEN = StoreFailed("The store at /s failed: Input/output error.")


@define(eq=False)
class SmallDisk:
    """A spool on a disk with room for so many bytes."""

    room: int
    problem: StoreFailed = FULL
    data: bytes = b""
    failure: StoreFailed | None = None
    behind: bool = False
    discarded: bool = False
    no_seal: list[StoreFailed] = field(factory=list)

    @property
    def size(self) -> int:
        return len(self.data)

    def append(self, data: bytes) -> None:
        assert not self.discarded
        if self.failure is None:
            self.data = (self.data + data)[: self.room]
            if len(self.data) == self.room:
                self.failure = self.problem

    def caught_up(self) -> Deferred[None]:
        return succeed(None) if self.failure is None else fail(self.failure)

    def read(self, offset: int, size: int) -> Deferred[bytes]:
        return succeed(self.data[offset : offset + size])

    def seal(self) -> Deferred[Content | Blob | None]:
        if self.no_seal:
            return fail(self.no_seal.pop())
        return succeed(blob_of(self.data))

    def discard(self) -> None:
        self.discarded = True


def _result(deferred: Deferred[Any]) -> Any:
    found: list[Any] = []
    deferred.addBoth(found.append)
    [result] = found
    if isinstance(result, Failure):
        result.raiseException()
    return result


def _sealed(kept: CappedSpool, *, last: bool = False) -> Output:
    output: Output = _result(Deferred.fromCoroutine(kept.seal(last=last)))[0]
    return output


@pytest.mark.parametrize("problem", [FULL, ROTTEN])
def test_row_05_output_that_met_a_full_disk_says_how_much_is_missing_and_why(problem: StoreFailed) -> None:
    kept = CappedSpool(SmallDisk(10, problem), 100, "b")
    for _ in range(4):
        kept.append(b"1234")
    output = _sealed(kept)
    assert output == Output(blob_of(b"1234123412"), 0, Loss("b", 10, 6, problem is FULL))
    assert output.lost is not None
    how = "was full" if problem is FULL else "failed"
    told = f"the disk of node b {how} after 10 B: 6 bytes of stdout are missing"
    assert describe_loss("stdout", output.lost) == told


def test_row_05_what_is_beyond_output_max_is_not_the_disks_fault() -> None:
    kept = CappedSpool(SmallDisk(10), 14, "b")
    for _ in range(5):
        kept.append(b"1234")
    assert kept.known == 20
    assert _sealed(kept) == Output(blob_of(b"1234123412"), 6, Loss("b", 10, 4))


def test_row_05_a_note_of_what_was_kept_that_has_no_room_is_tried_again() -> None:
    spool = SmallDisk(100, no_seal=[FULL])
    kept = CappedSpool(spool, 100, "b")
    kept.append(b"1234")
    with pytest.raises(StoreFailed):
        _sealed(kept)
    assert _sealed(kept) == Output(blob_of(b"1234"))


@pytest.mark.parametrize(("problem", "last"), [(FULL, True), (ROTTEN, False)])
def test_row_05_output_that_cannot_be_made_durable_at_all_keeps_no_outcome_back(
    problem: StoreFailed, last: bool, expected_failures: Any
) -> None:
    kept = CappedSpool(SmallDisk(100, no_seal=[problem]), 100, "b")
    kept.append(b"1234")
    assert _sealed(kept, last=last) == Output(lost=Loss("b", 0, 4, problem is FULL))
    expected_failures()


@pytest.mark.parametrize(
    ("came", "lost"), [(10, Loss("b", 10, 7)), (12, Loss("b", 12, 5)), (17, None)], ids=["all", "more", "everything"]
)
def test_row_05_what_another_nodes_disk_lost_is_told_with_its_name(came: int, lost: Loss | None) -> None:
    """It kept 10 of 17 bytes; some of what its disk refused may have been told before."""
    kept = CappedSpool(SmallDisk(100), 100, "a")
    kept.append(b"x" * came)
    kept.end_there(3, Loss("b", 10, 7))
    assert _sealed(kept) == Output(blob_of(b"x" * came), 3, lost)


def test_row_05_two_full_disks_are_one_loss_that_begins_with_the_first_gap() -> None:
    kept = CappedSpool(SmallDisk(4), 100, "a")
    kept.append(b"x" * 10)
    kept.end_there(0, Loss("b", 10, 7))
    assert _sealed(kept) == Output(blob_of(b"xxxx"), 0, Loss("a", 4, 13))


def test_what_is_missing_of_an_output_counts_both() -> None:
    end = OutputEnd(1, {}, {StreamName.STDOUT: 3}, {StreamName.STDOUT: Loss("a", 1, 4)})
    assert [end.missing(stream) for stream in StreamName] == [7, 0]


# uploads


@define(eq=False)
class Place:
    """A world in which only the disk counts."""

    room: int
    spool_room: int = 10_000
    spools: list[SmallDisk] = field(factory=list)

    @property
    def store(self) -> Place:
        return self

    entropy: Any = None

    def has(self, _: Blob) -> Deferred[bool]:
        return succeed(False)

    def spool(self, _: str) -> SmallDisk:
        self.spools.append(SmallDisk(self.spool_room))
        return self.spools[-1]

    def token(self, size: int) -> bytes:
        return bytes(size)

    def disk_taken(self, size: int) -> None:
        self.room -= size

    def begin(self, size: int, disk_min: int = 100) -> IncomingBlob:
        self.entropy = self
        gate = Gate("n", None, lambda: self.room, disk_min)
        upload = _result(Deferred.fromCoroutine(receive(self, gate, blob_of(b"x" * size))))  # type: ignore[arg-type]
        assert isinstance(upload, IncomingBlob)
        return upload


def test_row_20_an_upload_that_does_not_fit_is_refused_before_anything_comes() -> None:
    place = Place(room=1000)
    with pytest.raises(DiskShort, match=r"node n has 1000 B left .*; 901 B are to come"):
        place.begin(901)
    assert place.spools == []
    place.begin(900)


def test_row_20_an_upload_looks_at_the_disk_as_it_goes_and_is_refused_with_its_word() -> None:
    place = Place(room=1000)
    upload = place.begin(800)
    _result(upload.append(0, b"x" * 100))
    assert place.room == 900, "others are told before the disk is measured again"
    place.room = 99  # somebody else wrote
    for offset in (100, 200):
        with pytest.raises(DiskShort, match="node n has 99 B left"):
            upload.append(offset, b"x" * 100)
    assert place.spools[0].discarded, "what was received is removed"
    place.room = 10_000
    with pytest.raises(DiskShort, match="node n has 99 B left"):
        upload.append(300, b"x" * 100)
    with pytest.raises(DiskShort):
        _result(upload.commit())
    upload.abort()


@pytest.mark.parametrize("behind", [True, False])
def test_row_20_an_upload_that_met_a_full_disk_is_refused_with_its_word(behind: bool) -> None:
    place = Place(room=10_000, spool_room=150)
    upload = place.begin(800, 0)
    place.spools[0].behind = behind
    refused: list[CloudMyTaskError] = []
    for offset in (0, 100, 200, 300):
        try:
            _result(upload.append(offset, b"x" * 100))
        except CloudMyTaskError as problem:
            refused.append(problem)
    assert {str(problem) for problem in refused} == {"the disk of node n was full after 200 of 800 bytes"}
    assert len(refused) == (3 if behind else 2)
    assert place.spools[0].discarded


def test_row_20_the_last_piece_may_be_the_one_that_does_not_fit() -> None:
    place = Place(room=10_000, spool_room=150)
    upload = place.begin(200, 0)
    _result(upload.append(0, b"x" * 200))
    with pytest.raises(DiskShort, match="was full after 200 of 200 bytes"):
        _result(upload.commit())


def test_an_upload_that_skips_bytes_is_told_so() -> None:
    upload = Place(room=10_000).begin(800)
    with pytest.raises(UploadFailed, match="a piece for offset 5 came where 0 was next"):
        upload.append(5, b"x")
