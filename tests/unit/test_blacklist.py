"""The blacklist at an instance: what it enforces, keeps, spreads, exchanges and reports; and the gate that obeys it."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, TypeVar

import pytest
from attrs import define, evolve, field
from twisted.internet.defer import Deferred, fail, succeed

from cloudmytask.boundaries import Link
from cloudmytask.cluster.ban_exchange import EXCHANGES_MAX, BanExchange
from cloudmytask.cluster.ban_reports import REPORTS_MAX, BanReports
from cloudmytask.cluster.blacklist import LOCAL_TERM, PAGE, Blacklist
from cloudmytask.cluster.flood_control import FloodControl
from cloudmytask.core.bans import ENTRIES_MAX, ROOM, STEP
from cloudmytask.core.rates import RateLimits, Rates
from cloudmytask.model.cluster import (
    COUNTER_MAX,
    Announcement,
    Ban,
    BanReport,
    BanVersion,
    BootId,
    Capacity,
    NodeId,
    PeerIdentity,
    Role,
)
from cloudmytask.model.errors import (
    Banned,
    CloudMyTaskError,
    ConnectionInterrupted,
    InvalidArgument,
    NodeDraining,
    NoSuchBan,
    StoreFailed,
    TooManyRequests,
)
from cloudmytask.model.job import ClientId
from cloudmytask.node.gate import Gate
from cloudmytask.simulation.clock import VirtualClock
from cloudmytask.simulation.host import SeededEntropy
from tests.store_conformance import brought_to_an_end

T = TypeVar("T")

ROOT, MALLORY, EVE = ClientId("root"), ClientId("mallory"), ClientId("eve")
LATENCY = 0.01
DEFAULT = RateLimits()


@define(eq=False)
class Wire:
    """An end of a link between two instances of a test; implements as much of ``boundaries.Link`` as is needed."""

    clock: VirtualClock
    here: Place
    there: Place

    @property
    def peer(self) -> PeerIdentity:
        return self.there.identity()

    def _ask(self, question: Callable[[Wire], Any]) -> Deferred[Any]:
        answer: Deferred[Any] = Deferred()

        def arrived() -> None:
            if self.there.cut:
                answer.errback(ConnectionInterrupted("cut"))
                return
            try:
                value = question(Wire(self.clock, self.there, self.here))
            except CloudMyTaskError as refusal:
                answer.errback(refusal)
                return
            self.clock.callLater(LATENCY, answer.callback, value)

        self.clock.callLater(LATENCY, arrived)
        return answer

    def exchange_bans(self, bans: Sequence[Ban]) -> Deferred[Sequence[Ban]]:
        self.there.asked += 1
        return self._ask(lambda back: self.there.blacklist.answer(bans, back))  # type: ignore[arg-type]

    def report(self, report: BanReport) -> Deferred[bool]:
        def take(_: Wire) -> bool:
            self.there.reports.append(report)
            return False

        return self._ask(take)


@define(eq=False)
class Place:
    """One instance."""

    name: str
    clock: VirtualClock
    neighbors: list[Place] = field(factory=list)
    known: dict[NodeId, Place] = field(factory=dict)
    memory: dict[str, str] = field(factory=dict)
    saves: int = 0
    full: bool = False
    cut: bool = False
    asked: int = 0
    reports: list[BanReport] = field(factory=list)
    blacklist: Blacklist = field(init=False)
    exchange: BanExchange = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.start()

    @property
    def node_id(self) -> NodeId:
        return NodeId(self.name * 32)

    def start(self) -> None:
        self.blacklist = Blacklist(self.node_id, self.name, self.clock, self.clock.wall, self.remember)
        self.blacklist.recall(self.memory.get("bans"))
        self.exchange = BanExchange(
            self.blacklist,
            self.clock,
            SeededEntropy(random.Random(1)),
            lambda: [self.link(each) for each in self.neighbors],
            self.connect,
        )
        self.exchange.start()

    def remember(self, key: str, text: str) -> Deferred[None]:
        saved: Deferred[None] = Deferred()
        self.saves += 1

        def committed() -> None:
            if self.full:
                saved.errback(StoreFailed("The disk is full."))
                return
            self.memory[key] = text
            saved.callback(None)

        self.clock.callLater(0.003, committed)
        return saved

    def link(self, other: Place) -> Link:
        return Wire(self.clock, self, other)  # type: ignore[return-value]

    def connect(self, node_id: NodeId) -> Deferred[Link]:
        other = self.known[node_id]
        return fail(ConnectionInterrupted("cut")) if other.cut else succeed(self.link(other))

    def identity(self) -> PeerIdentity:
        return PeerIdentity("cmt", Role.NODE, self.node_id, BootId("0" * 16), self.name, "127.0.0.1:1")

    def announcement(self, role: Role = Role.NODE) -> Announcement:
        return Announcement(
            cluster="cmt",
            role=role,
            node_id=self.node_id,
            boot_id=BootId("0" * 16),
            incarnation=0,
            sequence=1,
            name=self.name,
            address="127.0.0.1:1",
            interval=1.0,
            capacity=Capacity(1, 1),
            bans=self.blacklist.digest,
        )

    def banned(self, client: ClientId = MALLORY) -> bool:
        return self.blacklist.in_force(client) is not None


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


def places(clock: VirtualClock, count: int) -> list[Place]:
    """That know each other; the neighborhood is a chain."""
    found = [Place(chr(ord("a") + number), clock) for number in range(count)]
    for left, right in pairwise(found):
        left.neighbors.append(right)
        right.neighbors.append(left)
    for place in found:
        place.known = {each.node_id: each for each in found}
    return found


@pytest.fixture
def place(clock: VirtualClock) -> Place:
    return Place("a", clock)


def result(deferred: Deferred[T], clock: VirtualClock) -> T:
    def turn() -> None:
        assert clock.step(), "this Deferred will never fire"

    return brought_to_an_end(deferred, turn)


def ban(place: Place, client: ClientId = MALLORY, term: float = 3600.0) -> Ban:
    return result(place.blacklist.ban(ROOT, client, "floods", term), place.clock)


class TestEnforcing:
    def test_a_ban_is_in_force_at_once_and_told_with_reason_banner_and_time(self, place: Place) -> None:
        told: list[Ban] = []
        place.blacklist.enforced.add(told.append)
        pending = place.blacklist.ban(ROOT, MALLORY, "floods", 3600.0)
        with pytest.raises(Banned) as raised:
            place.blacklist.check(MALLORY)
        assert str(raised.value) == "client mallory is banned by root for another 1 h 0 min: floods"
        place.blacklist.check(EVE)
        assert [each.client for each in told] == [MALLORY]
        found = result(pending, place.clock)
        assert found.until == pytest.approx(3600.0 - 0.003)
        assert place.memory, "it is told as accepted before it is durable"

    def test_it_ends_by_itself(self, place: Place) -> None:
        ban(place, term=60.0)
        assert place.banned()
        place.clock.advance(60.0)
        assert not place.banned()
        assert place.blacklist.bans() == ()
        assert place.blacklist.digest == ""

    def test_a_ban_that_cannot_be_stored_is_in_force_all_the_same(self, place: Place) -> None:
        place.full = True
        with pytest.raises(StoreFailed):
            ban(place)
        assert place.banned()

    @pytest.mark.parametrize(
        ("by", "client", "reason", "term", "error"),
        [
            (ROOT, ROOT, "floods", 1.0, InvalidArgument),
            (ROOT, ClientId("no good"), "floods", 1.0, InvalidArgument),
            (ROOT, MALLORY, "", 1.0, InvalidArgument),
            (ROOT, MALLORY, "floods", 0.0, InvalidArgument),
            (EVE, MALLORY, "floods", 1.0, Banned),
        ],
    )
    def test_what_cannot_be_banned(
        self, place: Place, by: ClientId, client: ClientId, reason: str, term: float, error: type[Exception]
    ) -> None:
        ban(place, EVE)
        with pytest.raises(error):
            place.blacklist.ban(by, client, reason, term)
        assert [each.client for each in place.blacklist.bans()] == [EVE]

    def test_lifting(self, place: Place) -> None:
        ban(place)
        with pytest.raises(Banned):
            place.blacklist.lift(MALLORY, MALLORY)
        lifted = result(place.blacklist.lift(ROOT, MALLORY), place.clock)
        assert lifted.lifted
        assert not place.banned()
        with pytest.raises(NoSuchBan):
            place.blacklist.lift(ROOT, MALLORY)

    def test_our_own_ban_is_short_and_nobody_else_gets_it(self, place: Place) -> None:
        place.blacklist.ban_here(MALLORY, "went on asking")
        assert place.banned()
        assert place.blacklist.digest == ""
        assert place.blacklist.answer(()) == ()
        [listed] = place.blacklist.bans()
        assert (listed.by, listed.reporters, listed.term) == ("a", ("a",), LOCAL_TERM)
        place.clock.advance(LOCAL_TERM)
        assert not place.banned()

    def test_lifting_ends_our_own_ban_too(self, place: Place) -> None:
        place.blacklist.ban_here(MALLORY, "went on asking")
        assert result(place.blacklist.lift(ROOT, MALLORY), place.clock).lifted
        assert not place.banned()
        place.blacklist.ban_here(MALLORY, "went on asking")
        ban(place)
        result(place.blacklist.lift(ROOT, MALLORY), place.clock)
        assert not place.banned()


class TestKeeping:
    def test_bans_survive_a_restart_and_go_on_ending(self, place: Place) -> None:
        ban(place, MALLORY, 100.0)
        place.blacklist.ban_here(EVE, "went on asking")
        ban(place, ClientId("trudy"))
        result(place.blacklist.lift(ROOT, ClientId("trudy")), place.clock)
        digest = place.blacklist.digest
        place.clock.advance(40.0)
        place.start()
        assert (place.banned(), place.banned(EVE), place.banned(ClientId("trudy"))) == (True, True, False)
        assert place.blacklist.digest == digest
        assert place.blacklist.bans()[1].until == pytest.approx(60.0, abs=0.1)
        place.clock.advance(60.0)
        assert not place.banned()

    def test_time_while_the_instance_was_down_counts(self, place: Place) -> None:
        ban(place, term=100.0)
        place.clock.offset += 101.0
        place.start()
        assert not place.banned()

    def test_a_rotten_list_does_not_keep_it_from_starting(
        self, place: Place, expected_failures: Callable[..., object]
    ) -> None:
        place.memory["bans"] = "{"
        place.start()
        expected_failures()
        assert place.blacklist.bans() == ()

    def test_many_changes_are_few_writes(self, place: Place) -> None:
        pending = [place.blacklist.ban(ROOT, ClientId(f"c{number}"), "floods", 60.0) for number in range(100)]
        for each in pending:
            result(each, place.clock)
        assert place.saves == 2
        place.start()
        assert len(place.blacklist.bans()) == 100


class TestSpreading:
    def test_a_ban_goes_along_the_tree_at_once(self, clock: VirtualClock) -> None:
        chain = places(clock, 6)
        ban(chain[2])
        clock.advance(4 * LATENCY)
        assert all(place.banned() for place in chain)
        assert [place.asked for place in chain] == [1, 1, 0, 1, 1, 1], "it was sent back to whom it came from"
        result(chain[5].blacklist.lift(ROOT, MALLORY), clock)
        clock.advance(6 * LATENCY)
        assert not any(place.banned() for place in chain)

    def test_a_difference_in_the_announcement_makes_the_lists_one(self, clock: VirtualClock) -> None:
        one, other = places(clock, 2)
        one.neighbors.clear()
        other.neighbors.clear()
        ban(one)
        ban(other, EVE)
        one.exchange.heard(other.announcement())
        clock.advance(1.0)
        assert [[each.client for each in place.blacklist.bans()] for place in (one, other)] == [[EVE, MALLORY]] * 2
        assert one.blacklist.digest == other.blacklist.digest
        one.asked = other.asked = 0
        one.exchange.heard(other.announcement())
        other.exchange.heard(one.announcement())
        clock.advance(2.0)
        assert (one.asked, other.asked) == (0, 0), "equal lists are exchanged"

    def test_what_came_along_the_tree_meanwhile_is_not_asked_for(self, clock: VirtualClock) -> None:
        one, other = places(clock, 2)
        stale = other.announcement()
        ban(one)
        one.exchange.heard(stale)
        clock.advance(0.1)
        one.exchange.heard(other.announcement())
        other.asked = 0
        clock.advance(2.0)
        assert other.asked == 0

    def test_one_exchange_at_a_time_with_a_peer_and_few_at_all(self, clock: VirtualClock) -> None:
        found = places(clock, 20)
        hub, others = found[0], found[1:]
        for place in found:
            place.neighbors.clear()
        ban(hub)
        for _ in range(3):
            for place in others:
                hub.exchange.heard(place.announcement())
        clock.advance(1.0)
        assert sum(place.banned() for place in others) == EXCHANGES_MAX
        assert {place.asked for place in others} == {0, 2}, "more than a question and a gift each"

    def test_an_exchange_that_failed_is_begun_again(self, clock: VirtualClock) -> None:
        one, other = places(clock, 2)
        one.neighbors.clear()
        ban(one)
        other.cut = True
        one.exchange.heard(other.announcement())
        clock.advance(1.0)
        other.cut = False
        one.exchange.heard(other.announcement())
        clock.advance(1.0)
        assert other.banned()

    def test_lists_of_more_than_a_page_become_one(self, clock: VirtualClock) -> None:
        one, other = places(clock, 2)
        one.neighbors.clear()
        other.neighbors.clear()
        for number in range(PAGE + 50):
            one.blacklist.ban(ROOT, ClientId(f"c{number}"), "floods", 3600.0)
            other.blacklist.ban(ROOT, ClientId(f"d{number}"), "floods", 3600.0)
        for _ in range(3):
            one.exchange.heard(other.announcement())
            clock.advance(1.0)
        assert one.blacklist.digest == other.blacklist.digest
        assert len(one.blacklist.bans()) == 2 * (PAGE + 50) <= ENTRIES_MAX

    def test_whoever_is_pardoned_by_the_cluster_is_served_here_too(self, clock: VirtualClock) -> None:
        one, other = places(clock, 2)
        ban(one)
        clock.advance(1.0)
        other.blacklist.ban_here(MALLORY, "went on asking")
        result(one.blacklist.lift(ROOT, MALLORY), clock)
        clock.advance(1.0)
        assert not other.banned()
        other.start()
        assert not other.banned()

    def test_row_10_nonsense_is_refused_alone(self, place: Place) -> None:
        good = Ban(EVE, "floods", "root", 60.0, 60.0, BanVersion(1, True, NodeId("b" * 32)))
        rogue = evolve(good, client=MALLORY, version=BanVersion(1, False, NodeId("b" * 32)), reporters=("b",))
        place.blacklist.answer([rogue, good])
        assert [ban.client for ban in place.blacklist.bans()] == [EVE]

    @pytest.mark.parametrize("counter", [COUNTER_MAX, ROOM + STEP, 2**40])
    def test_row_10_no_forged_counter_ends_the_counters(self, clock: VirtualClock, counter: int) -> None:
        """A rogue node bans somebody: an administrator lifts that, and bans, everywhere."""
        one, other = places(clock, 2)
        forged = Ban(MALLORY, "forged", "rogue", 1e6, 1e6, BanVersion(counter, True, NodeId("f" * 32)))
        one.blacklist.answer([forged])
        clock.advance(1.0)
        assert one.banned() == other.banned() == (counter <= ROOM + STEP)
        if one.banned():
            result(one.blacklist.lift(ROOT, MALLORY), clock)
            clock.advance(1.0)
            assert not one.banned() and not other.banned()
        one.blacklist.answer([forged])
        assert not one.banned()
        ban(one)
        clock.advance(1.0)
        assert one.banned() and other.banned(), "a later ban gets through"
        result(other.blacklist.ban(ROOT, EVE, "floods", 60.0), clock)
        clock.advance(1.0)
        assert one.blacklist.in_force(EVE) is not None
        result(other.blacklist.lift(ROOT, MALLORY), clock)
        clock.advance(1.0)
        assert not one.banned() and not other.banned()

    def test_the_end_stops_what_was_planned(self, clock: VirtualClock) -> None:
        one, other = places(clock, 2)
        one.neighbors.clear()
        ban(one)
        one.exchange.heard(other.announcement())
        one.exchange.stop()
        one.exchange.heard(other.announcement())
        clock.advance(5.0)
        assert other.asked == 0


class TestReporting:
    def report(self, client: ClientId = MALLORY) -> BanReport:
        return BanReport(client, "went on asking", NodeId("a" * 32), "a", 21)

    def reports(self, place: Place, supervisors: Sequence[Place]) -> BanReports:
        place.known = {each.node_id: each for each in supervisors}
        return BanReports(place.clock, lambda: [each.node_id for each in supervisors if not each.cut], place.connect)

    def test_every_csu_gets_it_once(self, clock: VirtualClock) -> None:
        node, one, two = (Place(name, clock) for name in "abc")
        reports = self.reports(node, [one, two])
        reports.add(self.report())
        clock.advance(1.0)
        for supervisor in (one, two):
            reports.heard(supervisor.announcement(Role.CSU))
        clock.advance(1.0)
        assert one.reports == two.reports == [self.report()]

    def test_it_waits_for_a_csu_to_come(self, clock: VirtualClock) -> None:
        node, late, other = (Place(name, clock) for name in "abc")
        late.cut = True
        reports = self.reports(node, [late])
        reports.add(self.report())
        reports.add(self.report(EVE))
        reports.heard(late.announcement(Role.CSU))
        clock.advance(1.0)
        late.cut = False
        reports.heard(other.announcement(Role.NODE))
        reports.heard(late.announcement(Role.CSU))
        reports.heard(late.announcement(Role.CSU))
        clock.advance(1.0)
        assert late.reports == [self.report(), self.report(EVE)]

    def test_but_no_longer_than_the_ban_lasts(self, clock: VirtualClock) -> None:
        node, late = Place("a", clock), Place("b", clock)
        reports = self.reports(node, [late])
        late.cut = True
        reports.add(self.report())
        clock.advance(LOCAL_TERM)
        late.cut = False
        reports.heard(late.announcement(Role.CSU))
        clock.advance(1.0)
        assert late.reports == []
        assert len(reports) == 0

    def test_there_is_a_limit_to_how_many_wait(self, place: Place) -> None:
        reports = self.reports(place, [])
        for number in range(REPORTS_MAX + 10):
            reports.add(self.report(ClientId(f"c{number}")))
            reports.add(self.report(ClientId(f"c{number}")))
        assert len(reports) == REPORTS_MAX


class TestGate:
    def gate(self, place: Place, limits: RateLimits = DEFAULT) -> Gate:
        flood_control = FloodControl(
            place.node_id, place.name, place.clock, place.blacklist, place.reports.append, Rates(limits)
        )
        return Gate(place.name, flood_control)

    def test_it_slows_down_then_refuses_then_bans_and_reports(self, place: Place) -> None:
        gate = self.gate(place, RateLimits(requests=10.0, requests_burst=2.0, patience=1.0, strikes_burst=3.0))
        delays = [gate.admit(MALLORY, 100) for _ in range(12)]
        assert delays[:2] == [0.0, 0.0]
        assert delays[2:] == sorted(delays[2:])
        assert 0 < delays[2] < delays[-1] <= 1.0
        with pytest.raises(TooManyRequests, match="try again in 100 ms"):
            gate.admit(MALLORY, 100)
        assert gate.admit(EVE, 100) == 0.0
        for _ in range(60):
            if place.banned():
                break
            place.clock.advance(1.0)
            for _ in range(30):
                with pytest.raises((TooManyRequests, Banned)):
                    for _ in range(12):
                        gate.admit(MALLORY, 100)
        assert place.banned()
        with pytest.raises(Banned, match="is banned by a for another 10 min 0 s: went on asking after"):
            gate.admit(MALLORY, 100)
        [report] = place.reports
        assert (report.client, report.reporter_name) == (MALLORY, "a")
        assert report.count > 10
        place.clock.advance(LOCAL_TERM)
        assert gate.admit(MALLORY, 100) == 0.0

    def test_malformed_input_is_banned_for(self, place: Place) -> None:
        gate = self.gate(place)
        for _ in range(10):
            gate.malformed(MALLORY)
        with pytest.raises(Banned, match="sent malformed input more than 10 times"):
            gate.malformed(MALLORY)
        gate.malformed(MALLORY)
        assert len(place.reports) == 1

    def test_a_forwarded_job_is_refused_for_who_submitted_it(self, place: Place) -> None:
        gate = self.gate(place)
        ban(place)
        with pytest.raises(Banned, match="client mallory is banned by root"):
            gate.check_banned(MALLORY)
        gate.check_banned(EVE)

    def test_a_lifted_ban_is_forgiven(self, place: Place) -> None:
        gate = self.gate(place, RateLimits(requests=1.0, requests_burst=1.0, patience=0.5, strikes_burst=1.0))
        while not place.banned():
            place.clock.advance(1.1)
            with pytest.raises((TooManyRequests, Banned)):
                for _ in range(5):
                    gate.admit(MALLORY, 100)
        result(place.blacklist.lift(ROOT, MALLORY), place.clock)
        assert gate.admit(MALLORY, 100) == 0.0

    def test_without_sensing_everybody_is_served(self, place: Place) -> None:
        gate = Gate(place.name)
        assert {gate.admit(MALLORY, 10**9) for _ in range(5000)} == {0.0}
        gate.malformed(MALLORY)
        gate.check_banned(MALLORY)
        gate.close()
        with pytest.raises(NodeDraining):
            gate.admit_work()
