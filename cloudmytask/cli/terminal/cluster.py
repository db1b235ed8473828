"""A cluster as text for people: its instances, and what is to be said about it.

Invariant: pure; what another instance said is escaped before it gets into a line of ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address

from cloudmytask.cli.terminal.escape import one_line
from cloudmytask.cli.terminal.jobs import seconds_text
from cloudmytask.client import state_of
from cloudmytask.model.cluster import ClusterView, MemberStatus, NodeId, Role, Standing

COLUMNS = ("NAME", "ROLE", "STATE", "LOAD", "FREE", "WAITING", "HEARD", "NEIGHBORS", "ADDRESS")
NUMBERS = frozenset({"LOAD", "FREE", "WAITING", "HEARD"})
ID_SHOWN = 8
"""Digits of a node id that stand for an instance whose name is not known."""
SINGLE_MACHINE = "single machine: the nodes listen on loopback addresses only, other machines cannot join"


def ordered(view: ClusterView) -> list[MemberStatus]:
    """Put the instances in the order of a reader's interest: nodes before CSUs, those that serve first, by name."""
    return sorted(
        view.members,
        key=lambda each: (
            not serves(each),
            each.announcement.role is not Role.NODE,
            each.announcement.name,
            each.announcement.node_id,
        ),
    )


def serves(member: MemberStatus) -> bool:
    """Whether what it last said of itself may still hold."""
    return member.standing in (Standing.ALIVE, Standing.SUSPECT)


def names_of(view: ClusterView) -> Mapping[NodeId, str]:
    """Names by id, harmless for a terminal."""
    return {each.announcement.node_id: name_of(each) for each in view.members}


def name_of(member: MemberStatus) -> str:
    """Its name, harmless for a terminal."""
    return one_line(member.announcement.name)


def rows(view: ClusterView) -> list[tuple[str, ...]]:
    """Make a line of ``cmt nodes`` for each instance."""
    names = names_of(view)
    return [_row(each, names, is_self=each.announcement.node_id == view.by) for each in ordered(view)]


def _row(member: MemberStatus, names: Mapping[NodeId, str], is_self: bool) -> tuple[str, ...]:
    said = member.announcement
    neighbors = said.tree.neighbors if said.tree is not None and serves(member) else ()
    works = serves(member) and said.role is Role.NODE
    return (
        name_of(member),
        said.role.value,
        state_of(member),
        load_text(said.capacity.load if works else None),
        f"{said.capacity.free}/{said.capacity.slots}" if works else "-",
        str(said.backlog.total) if works else "-",
        "self" if is_self else seconds_text(member.heard),
        ",".join(names.get(each, each[:ID_SHOWN]) for each in neighbors) or "-",
        one_line(said.address) or "-",
    )


def load_text(load: float | None) -> str:
    """Write a load as ``0.25``, or as a dash if it is not measured."""
    return "-" if load is None else f"{load:.2f}"


def notices(view: ClusterView) -> list[str]:
    """List what somebody who looks at the cluster has to be told, a line each."""
    found = [insecure(view), single(view), _multicast(view), _alone(view), *conflicts(view), *_shortages(view)]
    return [each for each in found if each]


def insecure(view: ClusterView) -> str:
    """Word the banner of ``insecure_lan``; empty if it is not needed."""
    names = [name_of(each) for each in ordered(view) if each.announcement.insecure]
    if not names:
        return ""
    return f"insecure_lan: {listing(names)}: everybody who reaches the network of these can run scripts on them"


def single(view: ClusterView) -> str:
    """Word the banner of a cluster on one machine; empty if it is not needed."""
    return SINGLE_MACHINE if all(_on_loopback(each.announcement.address) for each in view.members) else ""


def _on_loopback(address: str) -> bool:
    """Whether ``HOST:PORT`` reaches no other machine; an instance without an address is not reached at all."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        return not host or ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _multicast(view: ClusterView) -> str:
    bus = view.bus
    if not bus.group:
        return "multicast is off: other nodes are found by seeds only"
    group, error = one_line(bus.group), one_line(bus.error)
    if not bus.joined:
        return f"multicast group {group} is not joined ({error or 'no reason given'}): nodes are found by seeds only"
    return f"multicast group {group} is joined, but: {error}" if error else ""


def _alone(view: ClusterView) -> str:
    others = [
        each
        for each in view.members
        if each.standing is Standing.ALIVE
        and each.announcement.role is Role.NODE
        and each.announcement.node_id != view.by
    ]
    return "" if others else "no other node is known: scripts run on this one only"


def conflicts(view: ClusterView) -> list[str]:
    """List the ids that are not unique, a sentence each."""
    return [
        f"two instances claim the id {each.announcement.node_id}, one of them is {name_of(each)}"
        f" ({one_line(each.announcement.address)}): a state directory was copied; give one of them a new one"
        for each in ordered(view)
        if each.conflict
    ]


def _shortages(view: ClusterView) -> list[str]:
    """A line for each resource that a node is short of."""
    short = [(each, name_of(member)) for member in ordered(view) for each in member.announcement.short]
    return [
        f"short of {resource.words}, taking no new jobs: {listing([name for each, name in short if each is resource])}"
        for resource in dict.fromkeys(each for each, _ in short)
    ]


def listing(names: list[str], limit: int = 8) -> str:
    """Name the first of many, and say how many more there are."""
    more = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {more} more" if more > 0 else "")


def counted(number: int, what: str) -> str:
    """``1 node``, ``2 nodes``."""
    return f"{number} {what}{'' if number == 1 else 's'}"
