"""A cluster that says what a test has it say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from attrs import define, evolve, field
from twisted.internet.defer import Deferred, fail, succeed

from cloudmytask.boundaries import Event, Watch
from cloudmytask.listeners import Listeners
from cloudmytask.model.cluster import (
    Announcement,
    Backlog,
    Ban,
    BanVersion,
    BootId,
    BusStatistics,
    Capacity,
    ClusterView,
    LoadSample,
    MemberStatus,
    NodeId,
    Role,
    RootKey,
    Standing,
    TreePosition,
)
from cloudmytask.model.errors import NoSuchBan, NotPermitted, NotSupervised
from cloudmytask.model.job import ClientId, NodeStatus, QoS

BOOT = BootId("0000000189abcdef")
BUS = BusStatistics(group="239.255.77.77:7700", joined=True, sent=10, heard=20, receive_buffer=2 * 1024**2)


def id_of(name: str) -> NodeId:
    """The node id that goes with a name."""
    return NodeId(name.encode().hex().rjust(32, "0"))


def position(root: str, parent: str | None = None, *children: str, depth: int = 0) -> TreePosition:
    """A place in the tree of ``root``."""
    return TreePosition(
        root=RootKey(1, id_of(root)),
        depth=depth,
        parent=None if parent is None else id_of(parent),
        children=tuple(map(id_of, children)),
    )


def member(
    name: str,
    tree: TreePosition | None = None,
    *,
    standing: Standing = Standing.ALIVE,
    conflict: bool = False,
    heard: float = 0.4,
    capacity: Capacity | None = None,
    waiting: int = 0,
    **fields: Any,
) -> MemberStatus:
    """One instance; ``fields`` of its announcement."""
    said = Announcement(
        cluster="lab",
        role=fields.pop("role", Role.NODE),
        node_id=fields.pop("node_id", id_of(name)),
        boot_id=BOOT,
        incarnation=0,
        sequence=7,
        name=name,
        address=fields.pop("address", "10.0.0.1:7000"),
        interval=1.0,
        capacity=capacity or Capacity(slots=2, free=1, load=0.25, cpu=0.5),
        backlog=Backlog({QoS.BATCH: waiting}),
        tree=tree,
        version="0.1.0",
        **fields,
    )
    return MemberStatus(said, standing, heard=heard, linked=tree is not None, conflict=conflict)


def view(*members: MemberStatus, **fields: Any) -> ClusterView:
    """What the first of ``members`` sees."""
    settings = {"by": members[0].announcement.node_id, "cluster": "lab", "bus": BUS, "interval": 1.0, **fields}
    return ClusterView(members=members, **settings)


def small_view() -> ClusterView:
    """Root a with b and c below, d below b, a CSU, and e, which is dead."""
    return view(
        member("a", position("a", None, "b", "c")),
        member("b", position("a", "a", "d", depth=1), capacity=Capacity(slots=2, free=0, load=0.5), waiting=3),
        member("c", position("a", "a", depth=1), draining=True),
        member("d", position("a", "b", depth=2)),
        member("e", position("a", "a", depth=1), standing=Standing.DEAD, heard=12.0),
        member("csu", role=Role.CSU, capacity=Capacity(slots=0, free=0), address="10.0.0.9:7009"),
    )


@define(eq=False)
class FakeCluster:
    """Implements ``boundaries.ClusterDoor``."""

    seen: ClusterView = field(factory=small_view)
    entries: dict[ClientId, Ban] = field(factory=dict)
    samples: tuple[LoadSample, ...] | None = None
    """None: this is no CSU."""

    def jobs_of(self) -> NoReturn:
        """It takes none."""
        raise NotPermitted("a takes no jobs")

    def admit(self, client: ClientId, size: int) -> float:
        """As fast as they like."""
        return 0.0

    def malformed(self, client: ClientId) -> None:
        """Nobody minds."""

    def follow(self, client: ClientId | None, told: Callable[[Event], None]) -> Watch:
        """Nobody is ever told anything."""
        return Listeners[[Event]]().add(told)

    def describe(self) -> NodeStatus:
        """A picture that nobody looks at."""
        return NodeStatus("a", id_of("a"), BOOT, "0.1.0", 2, 0, {}, 10, None, False, 1.0, 1000)

    def cluster(self) -> ClusterView:
        """As set."""
        return self.seen

    def bans(self) -> tuple[Ban, ...]:
        """Those that were not lifted."""
        return tuple(self.entries.values())

    def ban(self, by: ClientId, client: ClientId, reason: str, term: float) -> Deferred[Ban]:
        """Note it."""
        self.entries[client] = Ban(client, reason, by, term, term, BanVersion(1, True, id_of("a")))
        return succeed(self.entries[client])

    def lift_ban(self, by: ClientId, client: ClientId) -> Deferred[Ban]:
        """Forget it."""
        if client not in self.entries:
            return fail(NoSuchBan(f"{client} is not banned"))
        return succeed(evolve(self.entries.pop(client), lifted=True, by=by))

    def history(self, seconds: float) -> Deferred[tuple[LoadSample, ...]]:
        """The samples of the last ``seconds`` before the newest."""
        if self.samples is None:
            return fail(NotSupervised("a keeps no history; a CSU does"))
        end = max((sample.at for sample in self.samples), default=0.0)
        return succeed(tuple(sample for sample in self.samples if sample.at >= end - seconds))
