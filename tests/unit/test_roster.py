"""Hearing, suspecting, asking, burying; and the links over which it is asked."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import define, evolve, field
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from cloudmytask.boundaries import Link
from cloudmytask.core.membership import Member
from cloudmytask.model.cluster import Announcement, BootId, BusMessage, NodeId, Obituary, Pulse, Standing
from cloudmytask.model.errors import (
    ConnectionInterrupted,
    ForeignCluster,
    NoNode,
    NoSuchNode,
    NotPermitted,
    RequestTimeout,
)
from tests.tree_world import HERE, Instance, World


@define(eq=False)
class Pair:
    """``ann`` has a roster; ``ben`` is somebody to be heard of, whose links answer."""

    world: World = field(factory=World)
    ann: Instance = field(init=False)
    ben: Instance = field(init=False)
    published: list[BusMessage] = field(init=False, factory=list)
    dead: list[NodeId] = field(init=False, factory=list)

    def __attrs_post_init__(self) -> None:
        self.ann, self.ben = self.world.add(start=False), self.world.add(start=False)
        self.ann.pool.start()
        self.ann.detector.start()
        self.ann.detector.changes.add(self._count_dead)
        self.ann.detector.news.add(self._note)

    def _count_dead(self, member: Member) -> None:
        if member.standing is Standing.DEAD:
            self.dead.append(member.node_id)

    def _note(self, message: BusMessage, by: NodeId | None) -> None:
        if by == self.ann.node_id:
            self.published.append(message)

    def word(self, sequence: int = 1, **other: Any) -> Announcement:
        me = self.ben.me
        word = evolve(self.ben.announcer.current(), sequence=sequence, boot_id=me.boot_id, interval=1.0)
        return evolve(word, **other)

    def hear(self, sequence: int = 1, **other: Any) -> None:
        """A word that ``ben`` says."""
        announcer, word = self.ben.announcer, self.word(sequence, **other)
        announcer._sequence = max(announcer._sequence, sequence)
        announcer._incarnation = max(announcer._incarnation, word.incarnation)
        self.ann.detector.heard(word)

    def obituary(self, incarnation: int = 0, **other: Any) -> Obituary:
        return evolve(
            Obituary("lab", NodeId("c" * 32), self.ben.node_id, self.ben.me.boot_id, incarnation),
            **other,
        )

    def standing(self) -> Standing | None:
        member = self.ann.detector.get(self.ben.node_id)
        return member.standing if member is not None else None

    def link(self) -> Link:
        link: Link = self.result(self.ann.pool.get(self.ben.me.address))
        return link

    def result(self, deferred: Deferred[Any]) -> Any:
        results: list[Any] = []
        deferred.addBoth(results.append)
        self.world.clock.advance(6.0)
        [result] = results
        if isinstance(result, Failure):
            result.raiseException()
        return result


@pytest.fixture
def pair() -> Pair:
    return Pair()


def test_whoever_answers_is_not_buried(pair: Pair) -> None:
    """Its announcements are lost, and nothing else."""
    pair.hear()
    pair.world.clock.advance(30.0)
    assert pair.standing() is Standing.ALIVE
    assert pair.world.calls > 0 and pair.published == [] and pair.dead == []


def test_whoever_refuses_the_connection_is_dead_at_once(pair: Pair) -> None:
    pair.hear()
    pair.ben.die()
    pair.world.clock.advance(3.5 + 0.25 + 0.1)
    assert pair.standing() is Standing.DEAD and pair.dead == [pair.ben.node_id]
    assert pair.ann.detector.is_dead(pair.ben.node_id)
    assert pair.published == [evolve(pair.obituary(), reporter=pair.ann.node_id)]


@pytest.mark.parametrize("how", ["silent", "mute"])
def test_whoever_does_not_answer_is_dead_after_half_a_second(pair: Pair, how: str) -> None:
    pair.hear()
    setattr(pair.ben, how, True)
    pair.world.clock.advance(3.5)
    assert pair.standing() is Standing.SUSPECT
    pair.world.clock.advance(0.9)
    assert pair.standing() is Standing.DEAD


def test_an_end_of_a_link_that_went_without_a_word_is_asked_anew(pair: Pair) -> None:
    """The open link is a dead one; at the address there is life."""
    pair.hear()
    link: Any = pair.link()
    link.other.alive = False
    pair.hear(2)
    pair.world.clock.advance(5.0)
    assert pair.standing() is Standing.ALIVE and pair.dead == []


def test_a_word_that_comes_while_it_is_asked_counts(pair: Pair) -> None:
    pair.hear()
    pair.ben.silent = True
    pair.world.clock.advance(3.7)
    assert pair.standing() is Standing.SUSPECT
    pair.hear(2)
    pair.world.clock.advance(1.0)
    assert pair.standing() is Standing.ALIVE and pair.published == []


def test_an_obituary_is_believed_about_strangers_without_a_question(pair: Pair) -> None:
    pair.hear()
    pair.ann.detector.heard(pair.obituary())
    assert pair.standing() is Standing.DEAD and pair.world.calls == 0
    pair.hear(2, incarnation=1)
    assert pair.standing() is Standing.ALIVE


def test_an_obituary_about_somebody_with_our_work_is_checked(pair: Pair) -> None:
    pair.hear()
    ended: list[bool] = []
    pair.ann.detector.watch(pair.ben.node_id, pair.ben.me.boot_id, lambda: ended.append(True))
    pair.ann.detector.heard(pair.obituary())
    pair.world.clock.advance(0.5)
    assert pair.standing() is Standing.ALIVE and ended == []
    pair.ben.die()
    pair.ann.detector.heard(pair.obituary())
    pair.world.clock.advance(0.5)
    assert pair.standing() is Standing.DEAD and ended == [True]


@pytest.mark.parametrize(
    "other",
    [{"boot_id": "00000009" + "0" * 8}, {"subject": NodeId("d" * 32)}],
    ids=["another-boot", "a-stranger"],
)
def test_an_obituary_that_fits_nobody_is_void(pair: Pair, other: dict[str, Any]) -> None:
    pair.hear()
    pair.ann.detector.heard(pair.obituary(**other))
    assert pair.standing() is Standing.ALIVE


def test_an_obituary_about_ourselves_is_refuted(pair: Pair) -> None:
    refuted: list[int] = []
    pair.ann.detector.own_obituaries.add(refuted.append)
    ann = pair.ann.me
    pair.ann.detector.heard(pair.obituary(3, subject=ann.node_id, boot_id=ann.boot_id))
    pair.ann.detector.heard(pair.obituary(4, subject=ann.node_id, boot_id="0" * 16))
    assert refuted == [3], "an earlier life of ours may well be dead"


def test_a_lost_link_to_somebody_with_our_work_is_looked_into_at_once(pair: Pair) -> None:
    pair.hear()
    pair.link()
    pair.hear(2)
    ended: list[float] = []
    pair.ann.detector.watch(pair.ben.node_id, pair.ben.me.boot_id, lambda: ended.append(pair.world.clock.seconds()))
    died = pair.world.clock.seconds()
    pair.ben.die()
    pair.world.clock.advance(0.1)
    assert len(ended) == 1 and ended[0] - died < 0.05


def test_a_lost_link_alone_is_no_death(pair: Pair) -> None:
    pair.hear()
    pair.link().close()
    pair.hear(2)
    pair.world.clock.advance(3.0)
    assert pair.standing() is Standing.ALIVE and pair.dead == []


def test_a_watch_ends_with_the_life_that_it_is_about(pair: Pair) -> None:
    told: list[str] = []
    detector, ben = pair.ann.detector, pair.ben.me
    pair.hear()
    detector.watch(ben.node_id, ben.boot_id, lambda: told.append("returned"))
    detector.watch(ben.node_id, ben.boot_id, lambda: told.append("closed")).close()
    pair.hear(1, boot_id="00000002" + "0" * 8)
    assert told == ["returned"]
    detector.watch(ben.node_id, ben.boot_id, lambda: told.append("late"))
    assert told == ["returned"]
    pair.world.clock.advance(0.1)
    assert told == ["returned", "late"]
    detector.watch(ben.node_id, "00000002" + "0" * 8, lambda: told.append("left"))  # type: ignore[arg-type]
    pair.hear(2, boot_id="00000002" + "0" * 8, leaving=True)
    assert told == ["returned", "late", "left"]


def test_another_instance_with_our_id_is_noticed(pair: Pair) -> None:
    detector, ann = pair.ann.detector, pair.ann.me
    detector.heard(pair.word(node_id=ann.node_id, boot_id="00000000" + "0" * 8))
    echo = detector.conflict
    detector.heard(pair.word(node_id=ann.node_id, boot_id="ffffffff" + "0" * 8))
    assert (echo, detector.conflict) == (False, True), "an echo of our last life is none"
    assert list(detector.members()) == []


def test_what_is_relayed_from_another_cluster_is_dropped(pair: Pair) -> None:
    pair.ann.detector.relayed(pair.word(cluster="other"), pair.ben.node_id)
    assert pair.standing() is None


def test_only_news_is_passed_on(pair: Pair) -> None:
    news: list[BusMessage] = []
    pair.ann.detector.news.add(lambda message, by: news.append(message))
    for sequence in (1, 2, 2, 1, 3):
        pair.hear(sequence)
    pair.ann.detector.heard(pair.obituary())
    pair.ann.detector.heard(pair.obituary())
    assert len(news) == 4


def test_people_see_who_is_there(pair: Pair) -> None:
    pair.hear()
    pair.world.clock.advance(2.0)
    [status] = pair.ann.detector.statuses()
    assert (status.heard, status.linked, status.standing, status.conflict) == (2.0, False, Standing.ALIVE, False)
    pair.link()
    assert pair.ann.detector.statuses()[0].linked


# links


def test_callers_at_one_time_share_a_dial_and_a_link(pair: Pair) -> None:
    pair.hear()
    links: list[Link] = []
    for where in (pair.ben.me.address, pair.ben.node_id, pair.ben.me.address):
        pair.ann.pool.get(where).addCallback(links.append)
    pair.world.clock.advance(0.1)
    assert len(links) == 3 and len(set(map(id, links))) == 1
    assert pair.ben.pool.live(pair.ann.node_id) is not None, "and the other end has it too"
    assert pair.result(pair.ann.pool.get(pair.ben.node_id)) is links[0]


def test_one_caller_who_gives_up_does_not_spoil_it_for_the_others(pair: Pair) -> None:
    given_up, patient = pair.ann.pool.get(pair.ben.me.address), pair.ann.pool.get(pair.ben.me.address)
    given_up.addErrback(lambda _: None)
    given_up.cancel()
    assert pair.result(patient).peer == pair.ben.me


def test_both_may_dial_at_once(pair: Pair) -> None:
    pair.ann.pool.get(pair.ben.me.address)
    pair.ben.pool.get(pair.ann.me.address)
    lost: list[NodeId] = []
    pair.ann.pool.lost.add(lost.append)
    pair.world.clock.advance(0.1)
    first = pair.ann.pool.live(pair.ben.node_id)
    assert first is not None
    first.close()
    pair.world.clock.advance(0.1)
    second = pair.ann.pool.live(pair.ben.node_id)
    assert second is not None and second is not first and lost == []
    second.close()
    pair.world.clock.advance(0.1)
    assert pair.ann.pool.live(pair.ben.node_id) is None and lost == [pair.ben.node_id]


def test_a_peer_that_accepts_and_says_nothing_is_given_up(pair: Pair) -> None:
    pair.ben.mute = True
    with pytest.raises(RequestTimeout):
        pair.result(pair.ann.pool.get(pair.ben.me.address))


def test_nobody_there_somebody_else_there_nothing_known(pair: Pair) -> None:
    pool = pair.ann.pool
    with pytest.raises(NoSuchNode):
        pair.result(pool.get("e" * 32))
    with pytest.raises(NoNode):
        pair.result(pool.get("10.9.9.9:1"))
    pair.hear(1, node_id=NodeId("e" * 32))
    with pytest.raises(NoNode, match="n1"):
        pair.result(pool.get("e" * 32))


def test_strangers_and_doubles_are_not_welcome(pair: Pair) -> None:
    link: Any = pair.link()
    with pytest.raises(ForeignCluster):
        pair.ann.pool.welcome(FakePeer(evolve(link.peer, cluster="other")))  # type: ignore[arg-type]
    with pytest.raises(NotPermitted):
        pair.ann.pool.welcome(FakePeer(pair.ann.me))  # type: ignore[arg-type]


def test_a_link_to_a_neighbor_that_does_not_answer_three_times_is_closed(pair: Pair) -> None:
    lost: list[float] = []
    pair.link()
    pair.ann.pool.lost.add(lambda _: lost.append(pair.world.clock.seconds()))
    pair.ann.pool.hold([pair.ben.node_id])
    pair.world.clock.advance(10.0)
    assert lost == []
    pair.ben.mute, begin = True, pair.world.clock.seconds()
    pair.world.clock.advance(10.0)
    assert len(lost) == 1 and 2.4 <= lost[0] - begin <= 3.6


def test_single_misses_with_answers_between_them_close_nothing(pair: Pair) -> None:
    link = pair.link()
    pair.ann.pool.hold([pair.ben.node_id])
    for _ in range(6):
        pair.ben.mute = True
        pair.world.clock.advance(1.0)
        pair.ben.mute = False
        pair.world.clock.advance(2.0)
    assert link.alive and pair.ann.pool.live(pair.ben.node_id) is link


def test_an_answer_over_a_held_link_is_a_sign_of_life(pair: Pair) -> None:
    answers: list[Any] = []
    pair.ann.pool.answered.add(lambda *answer: answers.append(answer))
    pair.link()
    pair.ann.pool.hold([pair.ben.node_id])
    pair.world.clock.advance(2.0)
    assert answers[0] == (pair.ben.me, Pulse(HERE))


def test_after_the_end_there_are_no_links(pair: Pair) -> None:
    link = pair.link()
    pair.ann.pool.close()
    pair.world.clock.advance(0.1)
    assert not link.alive
    with pytest.raises(ConnectionInterrupted):
        pair.result(pair.ann.pool.get(pair.ben.me.address))


NOWHERE = "10.9.9.9:1"
FAR = 2**62


def speak(pair: Pair, begin: int, end: int, **other: Any) -> None:
    """``ben`` announces itself every second."""
    for sequence in range(begin, end):
        pair.hear(sequence, **other)
        pair.world.clock.advance(1.0)


@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("boot", ["f" * 16, "00000002" + "0" * 8])
def test_row_11_a_forged_boot_has_no_lasting_effect(pair: Pair, linked: bool, boot: str) -> None:
    speak(pair, 1, 3)
    if linked:
        pair.link()
        pair.ann.pool.hold([pair.ben.node_id])
        speak(pair, 3, 6)
    forged = pair.word(FAR, boot_id=BootId(boot), address=NOWHERE)
    pair.ann.detector.heard(forged)
    assert not linked or pair.standing() is Standing.ALIVE
    speak(pair, 6, 16)
    member = pair.ann.detector.get(pair.ben.node_id)
    assert member is not None and pair.standing() is Standing.ALIVE
    assert (member.announcement.boot_id, member.announcement.sequence) == (pair.ben.me.boot_id, 15)
    assert member.announcement.address == pair.ben.me.address and not member.conflict_until > pair.world.clock.seconds()
    assert not linked or pair.dead == []


def test_row_11_a_forged_boot_does_not_outlive_its_subjects_restart(pair: Pair) -> None:
    """Also if the hearer has forgotten everything but the forged boot."""
    pair.ann.detector.heard(pair.word(1, boot_id=BootId("f" * 16), address=NOWHERE))
    pair.world.clock.advance(700.0)
    assert pair.standing() is None
    speak(pair, 1, 8)
    assert pair.standing() is Standing.ALIVE


@pytest.mark.parametrize("address", [NOWHERE, None])
@pytest.mark.parametrize("incarnation", [0, FAR])
@pytest.mark.parametrize("sequence", [30, 100, FAR])
@pytest.mark.parametrize("leaving", [False, True])
def test_row_12_a_forged_sequence_has_no_lasting_effect(
    pair: Pair, sequence: int, incarnation: int, address: str | None, leaving: bool
) -> None:
    speak(pair, 1, 4)
    where = pair.ben.me.address if address is None else address
    pair.ann.detector.heard(pair.word(sequence, incarnation=incarnation, address=where, leaving=leaving))
    speak(pair, 4, 20, incarnation=1)  # it refutes the obituary
    member = pair.ann.detector.get(pair.ben.node_id)
    assert member is not None and pair.standing() is Standing.ALIVE
    assert (member.announcement.incarnation, member.announcement.sequence) == (1, 19)


@pytest.mark.parametrize("incarnation", [1, 2**40, FAR])
def test_row_13_a_forged_obituary_lasts_until_its_subject_contradicts(pair: Pair, incarnation: int) -> None:
    speak(pair, 1, 4)
    pair.ann.detector.heard(pair.obituary(incarnation))
    assert pair.standing() is Standing.DEAD
    pair.ben.announcer.refute(incarnation)
    assert pair.ben.announcer.current().incarnation == 1, "what others refuse is never announced"
    pair.hear(4, incarnation=1)
    assert pair.standing() is Standing.ALIVE


@pytest.mark.parametrize("linked", [False, True])
def test_row_19_a_full_table_admits_whoever_proves_to_be_there(pair: Pair, linked: bool) -> None:
    table = pair.ann.detector._membership
    table.capacity = 100
    for number in range(200):
        pair.ann.detector.heard(pair.word(1, node_id=NodeId(f"{number:032x}"), address=NOWHERE, interval=60.0))
    assert len(table) == 100 and pair.ann.detector.established() == 0
    pair.world.clock.advance(1.0)
    if linked:
        pair.link()
    speak(pair, 1, 4)
    assert pair.standing() is Standing.ALIVE and len(table) == 100
    assert pair.ann.detector.established() == 1


class FakePeer:
    """A link of which only the peer matters."""

    alive = True

    def __init__(self, peer: Any) -> None:
        self.peer = peer
