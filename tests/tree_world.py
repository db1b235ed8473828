"""Many neighborhoods in virtual time: the real roster, announcer, relaying and neighborhood of each instance over an
in-memory bus and in-memory links that are late, lose, and break.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar, cast

from attrs import define, field
from twisted.internet.defer import Deferred

from cloudmytask.boundaries import Link
from cloudmytask.cluster.announcer import Announcer
from cloudmytask.cluster.failure_detector import FailureDetector
from cloudmytask.cluster.links import LinkPool
from cloudmytask.cluster.relaying import Relaying
from cloudmytask.core.announcing import Condition
from cloudmytask.listeners import Listeners
from cloudmytask.model.cluster import (
    AttachAnswer,
    BootId,
    BusMessage,
    BusStatistics,
    Capacity,
    NodeId,
    PeerIdentity,
    Pulse,
    Role,
    TreePosition,
)
from cloudmytask.model.errors import CloudMyTaskError, ConnectionInterrupted, NoNode, RequestTimeout
from cloudmytask.node.neighborhood import Neighborhood
from cloudmytask.simulation.clock import Lifetime, VirtualClock
from cloudmytask.simulation.host import SeededEntropy

T = TypeVar("T")

CALL_TIMEOUT = 5.0
HERE = Capacity(slots=2, free=2)


@define(eq=False, repr=False)
class FakeBus:
    """Sends to everybody in its part of the network who has multicast."""

    world: World
    owner: Instance
    heard: Callable[[BusMessage], None] | None = None

    def open(self, heard: Callable[[BusMessage], None]) -> None:
        self.heard = heard

    def send(self, message: BusMessage) -> None:
        world = self.world
        if not self.owner.multicast or self.owner.dead:
            return
        world.sent += 1
        for other in world.instances:
            if other is self.owner or not other.multicast or not world.reaches(self.owner, other):
                continue
            if world.random.random() >= world.loss:
                world.clock.callLater(world.delay(), other.bus.deliver, message)

    def deliver(self, message: BusMessage) -> None:
        if self.heard is not None and not self.owner.dead:
            self.heard(message)

    def close(self) -> None:
        self.heard = None

    def statistics(self) -> BusStatistics:
        return BusStatistics()


@define(eq=False, repr=False)
class FakeLink:
    """One end of a connection; calls arrive in order at the other end's door."""

    world: World
    here: Instance
    there: Instance
    peer: PeerIdentity
    other: FakeLink = field(init=False)
    alive: bool = True
    gone: Listeners[[]] = field(factory=Listeners)
    waiting: bool = False
    idle: float = 0.0
    _next: float = 0.0

    def lost(self) -> None:
        if self.alive:
            self.alive = False
            if not self.here.dead:
                self.gone.tell_last()

    def close(self) -> None:
        if self.alive:
            self._carry(self.other.lost)
            self.world.clock.callLater(0, self.lost)

    def ping(self, timeout: float) -> Deferred[Pulse]:
        return self._call(lambda link: self.there.announcer.pulse(HERE), timeout)

    def attach(self, root: NodeId, depth: int) -> Deferred[AttachAnswer]:
        return self._call(lambda link: self.there.door.attached(link, root, depth))

    def detach(self) -> Deferred[None]:
        return self._call(lambda link: self.there.door.detached(link))

    def tell_path(self, term: int, path: Sequence[NodeId]) -> Deferred[None]:
        return self._call(lambda link: self.there.door.path_told(link, term, path))

    def relay(self, messages: Sequence[BusMessage]) -> Deferred[None]:
        self.world.relayed += len(messages)
        return self._call(lambda link: self.there.relaying.relayed(link, messages))

    def _call(self, there: Callable[[Link], T], timeout: float = CALL_TIMEOUT) -> Deferred[T]:
        answer: Deferred[T] = Deferred()
        self.world.calls += 1

        def settle(call: Callable[[Any], None], value: object) -> None:
            if not answer.called and not self.here.dead:
                call(value)

        def arrive() -> None:
            if not self.there.dead and not self.other.alive:
                self.other._carry(self.lost)  # as by a reset
            if self.there.dead or not self.other.alive or self.there.mute:
                return
            try:
                result = there(cast(Link, self.other))
            except CloudMyTaskError as error:
                self.other._carry(partial(settle, answer.errback, error))
            else:
                self.other._carry(partial(settle, answer.callback, result))

        if self.alive:
            self._carry(arrive)
        self.gone.add(lambda: settle(answer.errback, ConnectionInterrupted("the link is gone")))
        self.world.clock.callLater(timeout, settle, answer.errback, RequestTimeout("no answer in time"))
        return answer

    def _carry(self, what: Callable[[], None]) -> None:
        """What is under way when the sender dies still arrives; what meets a cut does not."""
        world = self.world
        if self.here.dead or not world.reaches(self.here, self.there):
            return
        self._next = max(self._next, world.clock.seconds() + world.delay() + world.lag)
        world.clock.callLater(self._next - world.clock.seconds(), what)


@define(eq=False, repr=False)
class FakeDialer:
    """Connects, or finds that nobody is there."""

    world: World
    owner: Instance

    def open(self, door: object) -> None:
        """Calls go to the instance itself."""

    def connect(self, address: str) -> Deferred[Link]:
        world, pending = self.world, Deferred[Link]()
        there = world.at.get(address)

        def fail(error: Exception) -> None:
            if not pending.called and not self.owner.dead:
                pending.errback(error)

        def arrive() -> None:
            assert there is not None
            if there.silent or not world.reaches(self.owner, there):
                world.clock.callLater(4.0, fail, NoNode(f"{address}: timed out"))
            elif there.dead:
                world.clock.callLater(world.delay(), fail, NoNode(f"{address}: connection refused"))
            elif there.mute:
                world.clock.callLater(4.0, fail, RequestTimeout(f"{address}: no answer"))
            else:
                here_end = FakeLink(world, self.owner, there, there.me)
                there_end = FakeLink(world, there, self.owner, self.owner.me)
                here_end.other, there_end.other = there_end, here_end
                world.links += [here_end, there_end]
                there.pool.welcome(cast(Link, there_end))
                world.clock.callLater(world.delay() + world.lag, established, here_end)

        def established(link: FakeLink) -> None:
            if not self.owner.dead and not pending.called:
                pending.callback(cast(Link, link))

        if there is None:
            world.clock.callLater(world.delay(), fail, NoNode(f"{address}: no such host"))
        else:
            world.clock.callLater(world.delay() + world.lag, arrive)
        return pending


@define(eq=False)
class SkewedLifetime(Lifetime):
    """One whose clock began at another moment, seconds."""

    skew: float = 0.0

    def seconds(self) -> float:
        return super().seconds() + self.skew


@define(eq=False, repr=False)
class Instance:
    """One node: everything that finds and holds the cluster, nothing that runs jobs."""

    world: World
    me: PeerIdentity
    multicast: bool = True
    seeds: tuple[str, ...] = ()
    dead: bool = False
    silent: bool = False
    """Its host is gone as well: nothing refuses a connection."""
    unheard: set[NodeId] = field(factory=set)
    """Whose datagrams and connections do not arrive here."""
    mute: bool = False
    """It takes connections and answers nothing."""
    part: int = 0
    skew: float = 0.0
    bus: FakeBus = field(init=False)
    pool: LinkPool = field(init=False)
    detector: FailureDetector = field(init=False)
    announcer: Announcer = field(init=False)
    relaying: Relaying = field(init=False)
    neighborhood: Neighborhood = field(init=False)
    door: Any = field(init=False)
    """What answers calls about the tree: the neighborhood."""
    _life: Lifetime = field(init=False)

    def __attrs_post_init__(self) -> None:
        world, self._life = self.world, SkewedLifetime(self.world.clock, skew=self.skew)
        entropy = SeededEntropy(random.Random(world.random.random()))
        self.bus = FakeBus(world, self)
        self.pool = LinkPool(self._life, FakeDialer(world, self), self.me)
        self.detector = FailureDetector(self._life, entropy, self.bus, self.pool, self.me)
        self.neighborhood = Neighborhood(self._life, entropy, self.me, self.detector, self.pool)
        self.door = self.neighborhood
        self.announcer = Announcer(
            self._life, entropy, self.me, self.detector.publish, self._condition, self.detector.present
        )
        self.relaying = Relaying(
            self._life,
            entropy,
            self.me,
            self.detector,
            self.pool,
            self.announcer.current,
            lambda: self.announcer.gap,
            self.seeds,
        )
        self.relaying.neighbors = self.neighborhood.neighbors
        self.neighborhood.changed = self.announcer.changed
        self.neighborhood.acquaint = self.relaying.acquaint
        self.detector.own_obituaries.add(self.announcer.refute)
        self.detector.newcomers.add(self.announcer.greet)

    @property
    def node_id(self) -> NodeId:
        return self.me.node_id

    @property
    def position(self) -> TreePosition | None:
        return self.neighborhood.position

    def start(self) -> None:
        self.pool.start()
        self.detector.start()
        self.relaying.start()
        self.announcer.start()
        self.neighborhood.start()

    def die(self, *, silent: bool = False) -> None:
        """The process is killed; with its host, nobody is told."""
        self.dead, self.silent = True, silent
        self._life.end()
        for link in self.world.links:
            if link.here is self and link.alive:
                link.alive = False
                if not silent and self.world.reaches(self, link.there):
                    self.world.clock.callLater(self.world.random.uniform(0.002, 0.012), link.other.lost)

    def leave(self) -> None:
        """A clean end."""
        self.neighborhood.leave()
        self.announcer.leave()
        self.relaying.stop()
        self.detector.stop()
        self.world.clock.callLater(0.5, self._closed)

    def _closed(self) -> None:
        self.pool.close()
        self.world.clock.callLater(0.1, self.die)

    def _condition(self) -> Condition:
        return Condition(HERE, tree=self.neighborhood.position)


@define(eq=False, repr=False)
class World:
    """The network. ``loss`` is the share of datagrams that each receiver misses; ``lag`` is added to the time, in
    seconds, that a connection takes for each way: that of busy peers."""

    seed: int = 0
    loss: float = 0.01
    lag: float = 0.0
    clock: VirtualClock = field(factory=VirtualClock)
    random: random.Random = field(init=False)
    instances: list[Instance] = field(factory=list)
    at: dict[str, Instance] = field(factory=dict)
    links: list[FakeLink] = field(factory=list)
    sent: int = 0
    calls: int = 0
    relayed: int = 0

    def __attrs_post_init__(self) -> None:
        self.random = random.Random(self.seed)

    def delay(self) -> float:
        return self.random.uniform(0.0003, 0.0007)

    def reaches(self, one: Instance, other: Instance) -> bool:
        return one.part == other.part and one.node_id not in other.unheard

    def add(self, *, node_id: NodeId | None = None, start: bool = True, boot: int = 1, **options: Any) -> Instance:
        """A new instance; another boot of one that is dead, if that one's ``node_id`` is given."""
        name = f"n{len(self.instances)}"
        address = f"10.0.{len(self.instances) // 250}.{len(self.instances) % 250}:7000"
        identity = PeerIdentity(
            "lab",
            Role.NODE,
            node_id or NodeId(f"{self.random.getrandbits(128):032x}"),
            BootId(f"{boot:08x}{self.random.getrandbits(32):08x}"),
            name,
            address,
        )
        instance = Instance(self, identity, **options)
        self.instances.append(instance)
        self.at[address] = instance
        if start:
            instance.start()
        return instance

    def boot(self, count: int, **options: Any) -> None:
        """So many start within two seconds."""
        for _ in range(count):
            instance = self.add(start=False, **options)
            self.clock.callLater(self.random.uniform(0.0, 2.0), instance.start)

    @property
    def living(self) -> list[Instance]:
        return [each for each in self.instances if not each.dead]

    def problem(self, part: int | None = None) -> str:
        """What keeps the living (of one part) from being one tree; empty if they are."""
        living = {each.node_id: each for each in self.living if part is None or each.part == part}
        positions = {node_id: each.position for node_id, each in living.items()}
        roots = [node_id for node_id, position in positions.items() if position is None or position.parent is None]
        if len(roots) != 1:
            return f"{len(roots)} roots"
        for node_id, position in positions.items():
            assert position is not None
            if len(position.neighbors) > 5:
                return "more than five neighbors"
            if position.root.node_id != roots[0]:
                return "somebody believes in another root"
            for child in position.children:
                below = positions.get(child)
                if below is None or below.parent != node_id:
                    return "a child that is none"
                if below.depth != position.depth + 1:
                    return "a depth that is wrong"
            if position.parent is not None:
                above = positions.get(position.parent)
                if above is None or node_id not in above.children:
                    return "a parent that is none"
        return ""

    def settle(self, patience: float, part: int | None = None) -> float:
        """Let time pass until there is one tree; how long that took, seconds."""
        begin = self.clock.seconds()
        while problem := self.problem(part):
            if self.clock.seconds() > begin + patience:
                raise AssertionError(f"after {patience} s: {problem}")
            self.clock.advance(0.01)
        return self.clock.seconds() - begin

    def cut(self, members: Sequence[Instance]) -> None:
        """Part these from the others."""
        for each in members:
            each.part = 1

    def mend(self) -> None:
        for each in self.instances:
            each.part = 0

    def edges(self) -> set[tuple[NodeId, NodeId]]:
        """Child and parent, for all links of the tree."""
        return {
            (each.node_id, each.position.parent)
            for each in self.living
            if each.position is not None and each.position.parent is not None
        }

    def root(self) -> Instance:
        return next(each for each in self.living if each.position is not None and each.position.parent is None)

    def inner(self) -> Instance:
        """Somebody with a parent and as many children as possible."""
        return max(
            (each for each in self.living if each.position is not None and each.position.parent is not None),
            key=lambda each: len(each.position.children) if each.position is not None else 0,
        )
