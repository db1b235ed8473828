"""What ``cmt doctor`` finds: the form of a finding, and those about the network, from what the node has sent and heard.

Invariant: pure. A network without multicast is a note, because seeds and the tree do its work; what a stranger
sent is escaped.
"""

from __future__ import annotations

from typing import Any, Literal

from attrs import asdict, frozen

from cloudmytask.cli.terminal.cluster import conflicts, counted, insecure, listing, name_of, ordered, single
from cloudmytask.cli.terminal.escape import one_line
from cloudmytask.core.units import show_size
from cloudmytask.model.cluster import BusStatistics, ClusterView, Role, Standing
from cloudmytask.net.multicast import RECEIVE_BUFFER


@frozen
class Check:
    """One finding. A problem keeps a node or a client from working here; a note is what one may want to know."""

    name: str
    level: Literal["ok", "note", "problem"]
    text: str

    def document(self) -> dict[str, Any]:
        """Make it ready for JSON."""
        return asdict(self)


def check_network(view: ClusterView) -> list[Check]:
    """Check everything, in the order in which a person would look."""
    return [
        check_peers(view),
        check_multicast(view),
        *check_strangers(view.bus),
        *check_buffer(view.bus),
        *check_exposure(view),
    ]


def check_peers(view: ClusterView) -> Check:
    """Say who else is there."""
    others = [each for each in ordered(view) if each.announcement.node_id != view.by]
    alive = [each for each in others if each.standing is Standing.ALIVE]
    nodes = [name_of(each) for each in alive if each.announcement.role is Role.NODE]
    supervisors = [name_of(each) for each in alive if each.announcement.role is Role.CSU]
    text = f"{one_line(view.cluster)}: " if view.cluster else ""
    text += f"{counted(len(nodes), 'other node')} alive" + (f" ({listing(nodes)})" if nodes else "")
    text += f", CSU: {listing(supervisors)}" if supervisors else ", no CSU"
    missing = [f"{name_of(each)} {each.standing.value}" for each in others if each.standing is not Standing.ALIVE]
    text += f"; {listing(missing)}" if missing else ""
    if not nodes:
        return Check("cluster", "note", f"{text}: scripts run on this node only; other nodes need the same group")
    return Check("cluster", "note" if missing else "ok", text)


def check_multicast(view: ClusterView) -> Check:
    """Look whether announcements go out and come in."""
    bus = view.bus
    if not bus.group:
        return Check("multicast", "note", "off: nodes are found by seeds, announcements travel along the tree")
    group, error = one_line(bus.group), one_line(bus.error)
    counts = f"{bus.sent} sent, {bus.heard} heard"
    counts += f", {bus.unsent} could not be sent" if bus.unsent else ""
    if not bus.joined:
        return Check(
            "multicast",
            "note",
            f"{group} is not joined: {error or 'no reason given'}; {counts}; meanwhile nodes are found by seeds (option"
            " seeds)",
        )
    text = f"{group} is joined, {counts}, an announcement each {view.interval:.3g} s at least"
    if error:
        return Check("multicast", "note", f"{text}; lately: {error}")
    known = any(each.announcement.node_id != view.by and each.standing is Standing.ALIVE for each in view.members)
    if known and not bus.heard:
        return Check("multicast", "note", f"{text}: others are alive, so the network drops multicast")
    return Check("multicast", "ok", text)


def check_strangers(bus: BusStatistics) -> list[Check]:
    """Count the datagrams in our group that are not of our cluster."""
    found = []
    if bus.foreign:
        names = [f"{one_line(name)} ({count})" for name, count in sorted(bus.foreign.items(), key=lambda it: -it[1])]
        found.append(
            Check("foreign", "note", f"announcements of other clusters in this group, not joined: {listing(names)}")
        )
    if bus.forged:
        found.append(
            Check(
                "forged",
                "note",
                f"{bus.forged} announcements without a valid signature: a node without our cluster_key_file, or forged",
            )
        )
    if bus.malformed:
        found.append(Check("malformed", "note", f"{bus.malformed} datagrams that are no announcements"))
    return found


def check_buffer(bus: BusStatistics) -> list[Check]:
    """Look whether the kernel keeps enough datagrams while the node is busy."""
    if not bus.receive_buffer:
        return []
    granted = f"receive buffer of {show_size(bus.receive_buffer)}"
    if bus.receive_buffer < RECEIVE_BUFFER:
        wanted = show_size(RECEIVE_BUFFER)
        return [
            Check(
                "buffer",
                "note",
                f"{granted}, {wanted} were wanted: a large cluster needs sysctl net.core.rmem_max={RECEIVE_BUFFER}",
            )
        ]
    return [Check("buffer", "ok", granted)]


def check_exposure(view: ClusterView) -> list[Check]:
    """Say who may reach us, and whether ids are unique."""
    found = [Check("identity", "problem", each) for each in conflicts(view)]
    if banner := insecure(view):
        found.append(Check("security", "note", banner))
    if banner := single(view):
        found.append(Check("security", "ok", banner))
    return found
