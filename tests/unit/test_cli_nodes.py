"""The cluster as a table, and what is to be said about it; the network as doctor sees it."""

from __future__ import annotations

import pytest
from attrs import evolve

from cloudmytask.cli.terminal.cluster import COLUMNS, SINGLE_MACHINE, listing, notices, ordered, rows
from cloudmytask.cli.terminal.tables import drawn, table
from cloudmytask.cli.verbs.network_checks import Check, check_network
from cloudmytask.model.cluster import BusStatistics, Capacity, ClusterView, Resource, Role, Standing
from cloudmytask.net.multicast import RECEIVE_BUFFER
from tests.cluster_fakes import BUS, id_of, member, position, small_view, view


def test_a_line_per_instance_the_living_first_and_nodes_before_csus() -> None:
    lines = rows(small_view())
    assert [line[0] for line in lines] == ["a", "b", "c", "d", "csu", "e"]
    assert lines[0] == ("a", "node", "alive", "0.25", "1/2", "0", "self", "b,c", "10.0.0.1:7000")
    assert lines[1] == ("b", "node", "alive", "0.50", "0/2", "3", "0.40s", "a,d", "10.0.0.1:7000")
    assert lines[2][2] == "draining"
    assert lines[4] == ("csu", "csu", "alive", "-", "-", "-", "0.40s", "-", "10.0.0.9:7009")
    assert lines[5][2:8] == ("dead", "-", "-", "-", "12.0s", "-")
    assert all(len(line) == len(COLUMNS) for line in lines)


def test_what_is_not_known_is_a_dash_and_an_unknown_neighbor_its_id() -> None:
    (line,) = rows(view(member("a", position("x", "x"), capacity=Capacity(1, 1), address="")))
    assert (line[3], line[7], line[8]) == ("-", id_of("x")[:8], "-")


def test_a_name_or_an_address_cannot_break_a_row() -> None:
    (line,) = rows(view(member("a\nb", address="\x1b[2J:1")))
    assert line[0] == r"a\x0ab"
    assert line[8] == r"\x1b[2J:1"


def test_markup_is_shown_as_it_is() -> None:
    assert "[red]x[/red]" in drawn(table(("NAME",), [("[red]x[/red]",)]), 80, color=False)


def test_a_healthy_cluster_needs_no_word() -> None:
    assert notices(small_view()) == []


def _notice(seen: ClusterView) -> str:
    (notice,) = notices(seen)
    return notice


def test_an_insecure_node_has_a_banner() -> None:
    notice = _notice(view(member("a"), member("b", insecure=True)))
    assert notice == "insecure_lan: b: everybody who reaches the network of these can run scripts on them"


@pytest.mark.parametrize("address", ["127.0.0.1:7001", "[::1]:7001", "localhost:7001", ""])
def test_a_cluster_on_loopback_says_so(address: str) -> None:
    assert _notice(view(member("a", address=address), member("b", address=address))) == SINGLE_MACHINE
    assert notices(view(member("a", address=address), member("b", address="lab-7:7001"))) == []


@pytest.mark.parametrize(
    ("bus", "words"),
    [
        (BusStatistics(), "multicast is off"),
        (evolve(BUS, joined=False, error="Network is unreachable"), "is not joined (Network is unreachable)"),
        (evolve(BUS, joined=False), "is not joined (no reason given)"),
        (evolve(BUS, error="No buffer space available"), "is joined, but: No buffer space available"),
    ],
)
def test_trouble_with_multicast_is_one_line(bus: BusStatistics, words: str) -> None:
    assert words in _notice(view(member("a"), member("b"), bus=bus))


def test_a_lonely_node_says_that_it_runs_everything() -> None:
    for seen in (view(member("a")), view(member("a"), member("b", standing=Standing.DEAD), member("c", role=Role.CSU))):
        assert _notice(seen) == "no other node is known: scripts run on this one only"


def test_an_id_that_two_claim_is_named() -> None:
    assert id_of("b") in _notice(view(member("a"), member("b", conflict=True)))


def test_a_node_that_is_short_of_something_is_named() -> None:
    found = notices(view(member("a"), member("b", short=(Resource.DISK, Resource.PROCESSES))))
    assert "short of room on its disk, taking no new jobs: b" in found
    assert "short of processes, taking no new jobs: b" in found


def test_a_long_list_is_cut() -> None:
    assert listing(["a", "b"]) == "a, b"
    assert listing([f"n{i}" for i in range(100)], 3) == "n0, n1, n2 and 97 more"


def test_the_order_does_not_depend_on_the_view() -> None:
    seen = small_view()
    again = evolve(seen, members=tuple(reversed(seen.members)))
    assert ordered(seen) == ordered(again)


# doctor


def _checks(seen: ClusterView) -> dict[str, Check]:
    return {check.name: check for check in check_network(seen)}


def test_a_network_in_order() -> None:
    found = _checks(view(member("a"), member("b"), member("s", role=Role.CSU)))
    assert {name: check.level for name, check in found.items()} == {"cluster": "ok", "multicast": "ok", "buffer": "ok"}
    assert found["cluster"].text == "lab: 1 other node alive (b), CSU: s"
    assert "10 sent, 20 heard" in found["multicast"].text


def test_who_is_missing_is_named() -> None:
    found = _checks(small_view())["cluster"]
    assert (found.level, found.text[-8:]) == ("note", "; e dead")


@pytest.mark.parametrize(
    ("bus", "level", "words"),
    [
        (BusStatistics(), "note", "off: "),
        (evolve(BUS, joined=False, error="No such device"), "note", "is not joined: No such device"),
        (evolve(BUS, error="Network is down", unsent=3), "note", "3 could not be sent, "),
        (evolve(BUS, heard=0), "note", "others are alive, so the network drops multicast"),
    ],
)
def test_multicast_and_why_not(bus: BusStatistics, level: str, words: str) -> None:
    found = _checks(view(member("a"), member("b"), bus=bus))["multicast"]
    assert found.level == level
    assert words in found.text


def test_nobody_heard_is_no_fault_where_nobody_is() -> None:
    assert _checks(view(member("a"), bus=evolve(BUS, heard=0)))["multicast"].level == "ok"


def test_strangers_are_counted_and_cannot_draw() -> None:
    bus = evolve(BUS, foreign={"x\x1b[2J": 2, "other": 5}, forged=4, malformed=9)
    found = _checks(view(member("a"), member("b"), bus=bus))
    assert r"other (5), x\x1b[2J (2)" in found["foreign"].text
    assert found["forged"].text.startswith("4 announcements without a valid signature")
    assert found["malformed"].text == "9 datagrams that are no announcements"


def test_a_small_receive_buffer_is_mended_by_a_sysctl() -> None:
    found = _checks(view(member("a"), member("b"), bus=evolve(BUS, receive_buffer=212_992)))["buffer"]
    assert found.level == "note"
    assert f"net.core.rmem_max={RECEIVE_BUFFER}" in found.text


def test_two_instances_with_one_id_are_a_problem() -> None:
    found = _checks(view(member("a"), member("b", conflict=True, insecure=True)))
    assert found["identity"].level == "problem"
    assert found["security"].level == "note"
    assert _checks(view(member("a", address="127.0.0.1:1")))["security"] == Check("security", "ok", SINGLE_MACHINE)
