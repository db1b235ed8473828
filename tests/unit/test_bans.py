"""The ban list: merging, lifting, ends, its digest and its bounds; and how it is written down."""

from __future__ import annotations

import json
from itertools import permutations
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from cloudmytask.codec.ban_list import bans_from_text, bans_to_text
from cloudmytask.core.ban_checks import REASON_MAX, TERM_MAX, check_ban, check_reason, check_report, check_term
from cloudmytask.core.bans import BanList, arriving, leaving, sentence
from cloudmytask.model.cluster import COUNTER_MAX, Ban, BanReport, BanVersion, NodeId
from cloudmytask.model.errors import InvalidArgument, NoSuchBan
from cloudmytask.model.job import ClientId

MALLORY, EVE = ClientId("mallory"), ClientId("eve")
A, B = NodeId("a" * 32), NodeId("b" * 32)


def entry(
    client: str = "mallory",
    counter: int = 1,
    *,
    admin: bool = True,
    node: NodeId = A,
    until: float = 100.0,
    lifted: bool = False,
    **fields: Any,
) -> Ban:
    version = BanVersion(counter, admin, node)
    values: dict[str, Any] = {"reason": "floods", "by": "root", "term": 100.0, **fields}
    return Ban(client=ClientId(client), until=until, version=version, lifted=lifted, **values)


def listed(*bans: Ban, now: float = 0.0, limit: int = 1000) -> BanList:
    found = BanList(limit)
    found.merge(bans, now)
    return found


entries = st.builds(
    entry,
    client=st.sampled_from(["mallory", "eve", "trudy"]),
    counter=st.integers(1, 3),
    admin=st.booleans(),
    node=st.sampled_from([A, B]),
    until=st.sampled_from([10.0, 50.0, 100.0]),
    lifted=st.booleans(),
    reason=st.sampled_from(["floods", "spams"]),
)
several = st.lists(entries, max_size=8)


def held(bans: BanList, now: float = 0.0) -> tuple[tuple[Ban, ...], str]:
    return bans.current(now), bans.digest(now)


class TestMerging:
    @given(several, several, st.integers(1, 3))
    def test_the_order_does_not_matter(self, left: list[Ban], right: list[Ban], limit: int) -> None:
        assert held(listed(*left, *right, limit=limit)) == held(listed(*right, *left, limit=limit))

    @given(several, several, several, st.integers(1, 3))
    def test_neither_does_who_merged_first(self, one: list[Ban], two: list[Ban], three: list[Ban], limit: int) -> None:
        pair, other = listed(*one, *two, limit=limit), listed(*two, *three, limit=limit)
        pair.merge(three, 0.0)
        other.merge(one, 0.0)
        assert held(pair) == held(other)

    @given(several, several)
    def test_merging_again_changes_nothing_and_tells_no_news(self, left: list[Ban], right: list[Ban]) -> None:
        bans = listed(*left, *right)
        before = held(bans)
        assert bans.merge(bans.current(0.0), 0.0) == bans.merge(left, 0.0) == ()
        assert held(bans) == before

    @given(several)
    def test_the_digest_is_that_of_the_entries_however_they_came(self, bans: list[Ban]) -> None:
        first = listed(*bans)
        assert listed(*first.current(0.0)).digest(0.0) == first.digest(0.0)
        assert (first.digest(0.0) == "") == (not bans)

    def test_the_greater_version_wins(self) -> None:
        weak, admin, late = entry(admin=False, node=B), entry(node=A), entry(counter=2, admin=False)
        for order in permutations((weak, admin, late)):
            assert listed(*order).in_force(MALLORY, 0.0) == late
        assert listed(weak, admin).in_force(MALLORY, 0.0) == admin

    def test_a_merge_tells_what_was_new(self) -> None:
        bans = listed(entry())
        newer, other = entry(counter=2), entry("eve")
        assert bans.merge([entry(), newer, other], 0.0) == (newer, other)

    def test_what_travels_to_and_fro_never_lasts_longer(self) -> None:
        here, there = listed(entry(until=100.0)), BanList()
        now = 0.0
        for _ in range(1000):
            there.merge([arriving(leaving(ban, now), now + 0.05) for ban in here.current(now)], now + 0.05)
            now += 0.1
            here.merge([arriving(leaving(ban, now - 0.05), now) for ban in there.current(now - 0.05)], now)
        assert here.in_force(MALLORY, 100.1) is None
        assert there.in_force(MALLORY, 100.1) is None

    def test_a_ban_that_comes_in_lasts_its_term_at_most(self) -> None:
        assert arriving(entry(until=1e9), 7.0).until == 107.0
        assert arriving(entry(until=-5.0), 7.0).until == 7.0


class TestDeciding:
    def test_a_ban_is_in_force_until_its_term_ends(self) -> None:
        bans = BanList()
        ban = bans.ban(MALLORY, "floods", "root", 60.0, A, 10.0, admin=True)
        assert bans.in_force(MALLORY, 69.9) == ban
        assert bans.in_force(MALLORY, 70.0) is None
        assert bans.in_force(EVE, 10.0) is None

    def test_lifting_ends_it_everywhere(self) -> None:
        here = BanList()
        ban = here.ban(MALLORY, "floods", "root", 60.0, A, 0.0, admin=True)
        there = listed(ban)
        lifted = here.lift(MALLORY, "ann", B, 5.0)
        assert (lifted.lifted, lifted.by, lifted.until) == (True, "ann", 60.0)
        assert there.merge([lifted], 5.0) == (lifted,)
        assert here.in_force(MALLORY, 5.0) is there.in_force(MALLORY, 5.0) is None
        assert there.merge([ban], 6.0) == (), "an older copy brings it back"
        assert here.digest(6.0) == there.digest(6.0) != ""

    def test_lifting_what_is_not_there(self) -> None:
        bans = listed(entry(lifted=True))
        for client in (MALLORY, EVE):
            with pytest.raises(NoSuchBan, match=f"client {client} is not banned"):
                bans.lift(client, "ann", A, 0.0)

    def test_a_client_can_be_banned_again(self) -> None:
        bans = listed(entry(counter=4, lifted=True))
        again = bans.ban(MALLORY, "again", "root", 30.0, A, 0.0, admin=False)
        assert again.version.counter == 5
        assert bans.in_force(MALLORY, 0.0) == again


class TestEnds:
    def test_what_has_ended_is_gone_from_list_and_digest(self) -> None:
        bans = listed(entry(until=10.0), entry("eve", until=20.0))
        assert bans.digest(10.0) == listed(entry("eve")).digest(0.0)
        assert [ban.client for ban in bans.current(10.0)] == ["eve"]
        assert held(bans, 20.0) == ((), "")
        assert bans.remembered() == ()

    def test_a_shorter_ban_that_has_ended_still_keeps_the_longer_one_before_it_out(self) -> None:
        long = entry(until=100.0)
        bans = listed(long)
        short = bans.ban(MALLORY, "less", "root", 10.0, A, 0.0, admin=True)
        assert held(bans, 20.0) == ((), "")
        assert bans.better([long], 20.0) == (short,), "whoever still has the long one is told"
        stale = listed(long)
        assert bans.merge([long], 20.0) == ()
        assert stale.merge([arriving(leaving(short, 20.0), 20.0)], 20.0) != ()
        assert stale.in_force(MALLORY, 20.0) is None
        assert (held(bans, 20.0), held(stale, 20.0)) == (((), ""), ((), ""))
        assert bans.better([long], 100.0) == ()

    def test_what_came_too_late_is_not_taken(self) -> None:
        bans = BanList()
        assert bans.merge([entry(until=10.0)], 10.0) == ()
        assert bans.remembered() == ()


def test_a_full_list_drops_the_oldest_versions() -> None:
    bans = BanList(3)
    for number in range(5):
        bans.ban(ClientId(f"c{number}"), "floods", "root", 60.0, A, 0.0, admin=False)
    assert [ban.client for ban in bans.current(0.0)] == ["c2", "c3", "c4"]
    assert bans.digest(0.0) == listed(*bans.current(0.0)).digest(0.0)
    assert bans.merge([entry("c0", counter=1, until=50.0)], 0.0) == (), "a dropped entry is no news"


def test_the_sentence_says_why_by_whom_and_for_how_long() -> None:
    said = sentence(entry(until=3700.0, by="ann", reason="mines coins"), 100.0)
    assert said == "client mallory is banned by ann for another 1 h 0 min: mines coins"


class TestChecks:
    @pytest.mark.parametrize(
        ("changes", "field"),
        [
            ({"client": "no spaces"}, "client"),
            ({"reason": ""}, "reason"),
            ({"reason": "two\nlines"}, "reason"),
            ({"reason": "x" * (REASON_MAX + 1)}, "reason"),
            ({"term": 0.0}, "term"),
            ({"term": TERM_MAX + 1}, "term"),
            ({"term": float("nan")}, "term"),
            ({"until": float("inf")}, "until"),
            ({"by": ""}, "by"),
            ({"by": "x" * 65}, "by"),
            ({"version": BanVersion(0, True, A)}, "counter"),
            ({"version": BanVersion(COUNTER_MAX + 1, True, A)}, "counter"),
            ({"version": BanVersion(1, True, NodeId(""))}, "node_id"),
            ({"reporters": ("a",) * 9}, "reporters"),
            ({"reporters": ("a\n",)}, "reporters"),
            ({"version": BanVersion(1, False, A)}, "reporters"),
            ({"version": BanVersion(1, False, A), "reporters": ("a", "a")}, "reporters"),
        ],
    )
    def test_a_bad_entry_is_refused_by_its_field(self, changes: dict[str, Any], field: str) -> None:
        with pytest.raises(InvalidArgument, match=field):
            check_ban(evolve(entry(), **changes))

    def test_good_ones_pass(self) -> None:
        check_ban(entry(reason="x" * REASON_MAX, term=TERM_MAX))
        check_ban(entry(admin=False, reporters=("a", "b")))
        check_report(BanReport(MALLORY, "floods", A, "a", 3))
        assert check_reason("mines coins") == "mines coins"
        assert check_term(0.5) == 0.5

    def test_a_bad_report_is_refused(self) -> None:
        with pytest.raises(InvalidArgument, match="reporter_name"):
            check_report(BanReport(MALLORY, "floods", A, "", 3))


class TestWriting:
    def test_what_was_written_is_read_back(self) -> None:
        shared = [(entry(until=150.0), 150.0), (entry("eve", lifted=True, until=140.0), 160.0)]
        own = [(entry("own", admin=False, until=120.0, reporters=("a", "b")), 120.0)]
        text = bans_to_text(shared, own, now=100.0, wall=1e9)
        assert bans_from_text(text, 100.0, 1e9) == (shared, own)

    def test_time_that_went_by_counts_but_a_clock_set_back_adds_none(self) -> None:
        text = bans_to_text([(entry(until=150.0), 150.0)], [], now=100.0, wall=1e9)
        [(later, known_until)], _ = bans_from_text(text, 5.0, 1e9 + 20)
        assert (later.until, known_until) == (35.0, 35.0)
        [(same, _)], _ = bans_from_text(text, 5.0, 1e9 - 86400)
        assert same.until == 55.0

    @pytest.mark.parametrize(
        "text", ["", "[]", "{}", '{"wall": 1, "shared": [{}], "own": []}', '{"wall": "x"}', "[" * 9999]
    )
    def test_something_else_is_said_to_be_so(self, text: str) -> None:
        with pytest.raises(ValueError):
            bans_from_text(text, 0.0, 0.0)

    def test_a_rotten_entry_is_said_to_be_so(self) -> None:
        document = json.loads(bans_to_text([(entry(), 100.0)], [], 0.0, 0.0))
        document["shared"][0]["ban"]["version"] = [1]
        with pytest.raises(ValueError):
            bans_from_text(json.dumps(document), 0.0, 0.0)
