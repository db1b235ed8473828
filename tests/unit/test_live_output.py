"""Output that is being read at the moment in which it becomes durable elsewhere."""

from __future__ import annotations

from attrs import define, field
from twisted.internet.defer import Deferred, succeed

from cloudmytask.boundaries import Spool
from cloudmytask.model.errors import StoreFailed
from cloudmytask.model.job import Blob, Content, StreamName
from cloudmytask.node.running.outputs import CappedSpool, LiveOutput


@define(eq=False)
class SlowSpool:
    """A spool whose reads are answered when the test says so."""

    size: int = 0
    discarded: bool = False
    reads: list[Deferred[bytes]] = field(factory=list)

    behind: bool = False
    failure: StoreFailed | None = None

    def append(self, data: bytes) -> None:
        self.size += len(data)

    def read(self, offset: int, size: int) -> Deferred[bytes]:
        assert not self.discarded
        self.reads.append(Deferred())
        return self.reads[-1]

    def caught_up(self) -> Deferred[None]:
        return succeed(None)

    def seal(self) -> Deferred[Content | Blob | None]:
        raise NotImplementedError

    def discard(self) -> None:
        self.discarded = True


def _live() -> tuple[SlowSpool, LiveOutput]:
    spool = SlowSpool()
    kept: Spool = spool
    return spool, LiveOutput({stream: CappedSpool(kept, 10, "n") for stream in StreamName})


def test_a_spool_is_given_up_when_nobody_reads_it_any_more() -> None:
    spool, live = _live()
    live.write(StreamName.STDOUT, b"abc")
    read = [Deferred.fromCoroutine(live.read(StreamName.STDOUT, 0, 3)) for _ in range(2)]
    live.finish()
    live.retire()
    assert not spool.discarded
    spool.reads[0].callback(b"abc")
    assert not spool.discarded, "there is a second reader"
    spool.reads[1].callback(b"abc")
    assert [each.result for each in read] == [b"abc", b"abc"] and spool.discarded


def test_a_spool_that_nobody_reads_is_given_up_at_once() -> None:
    spool, live = _live()
    live.finish()
    live.retire()
    assert spool.discarded


def test_a_read_that_fails_holds_nothing_back() -> None:
    spool, live = _live()
    reading = Deferred.fromCoroutine(live.read(StreamName.STDOUT, 0, 3))
    live.retire()
    failures: list[object] = []
    reading.addErrback(lambda failure: failures.append(failure.value))
    spool.reads[0].errback(OSError("rotten"))
    assert len(failures) == 1 and spool.discarded


def test_what_is_beyond_the_cap_is_counted_and_not_kept() -> None:
    spool, live = _live()
    for data in (b"123456", b"7890ab", b"", b"cd"):
        live.write(StreamName.STDERR, data)
    assert (spool.size, live.streams[StreamName.STDERR].discarded) == (10, 4)
