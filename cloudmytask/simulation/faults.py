"""What goes wrong in a simulated cluster: nodes die and come back or are short of something, the network
falls in two, a client is banned.

Invariant: what happens, and when, is decided by the dice it is given; each fault is over after a while.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from attrs import define, field
from twisted.internet.defer import Deferred

from cloudmytask.model.cluster import Ban
from cloudmytask.model.job import ClientId, Resource
from cloudmytask.simulation.clock import VirtualClock
from cloudmytask.simulation.cluster_checker import ClusterChecker
from cloudmytask.simulation.host import Host
from cloudmytask.simulation.network import Network
from cloudmytask.simulation.plan import ClusterPlan

BANNED = ClientId("client0")
"""Who is banned, if anybody is."""


@define(eq=False, repr=False)
class Faults:
    """Makes the faults of a plan happen.

    :ivar note: remembers what happened.
    :ivar died: told of each node that dies, after it did.
    """

    _plan: ClusterPlan
    _clock: VirtualClock
    _dice: random.Random
    _network: Network
    _hosts: dict[str, Host]
    _checker: ClusterChecker
    _note: Callable[..., None]
    _died: Callable[[str], None]
    kills: int = field(init=False, default=0)
    under_way: int = field(init=False, default=0)
    """Faults that are still to come, or not over yet."""

    def schedule(self, start: float, span: float) -> None:
        """Decide what happens in the ``span`` seconds that begin ``start`` seconds from now."""
        dice, plan = self._dice, self._plan
        for name in dice.sample(list(self._hosts), round(plan.kill * plan.nodes)):
            self._later(start + dice.uniform(0.1, 0.9) * span, self._kill, name, dice.uniform(2.0, 20.0))
        for number in range(plan.partitions):
            share = (number + dice.random()) / plan.partitions
            self._later(start + share * span, self._partition, dice.uniform(5.0, 15.0))
        for _ in range(plan.shortages):
            host = dice.choice(list(self._hosts.values()))
            self._later(start + dice.uniform(0.1, 0.9) * span, self._starve, host, dice.uniform(2.0, 20.0))
        if plan.ban:
            self._later(start + 0.4 * span, self._ban)

    def _later(self, seconds: float, fault: Callable[..., None], *arguments: object) -> None:
        self.under_way += 1
        self._clock.callLater(seconds, fault, *arguments)

    def _over(self) -> None:
        self.under_way -= 1

    def _kill(self, name: str, down: float) -> None:
        host = self._hosts[name]
        self.kills += 1
        self._note("kill", name)
        self._checker.died()
        if self._dice.random() < 0.5:
            host.lose_power()
        else:
            host.kill(flushed=self._dice.random() < 0.5)
        self._died(name)
        self._clock.callLater(down, self._revive, host)

    def _revive(self, host: Host) -> None:
        self._note("start", host.name)
        self._checker.returned(host.name, self._clock.seconds())
        host.start()
        self._over()

    def _partition(self, seconds: float) -> None:
        names = list(self._hosts)
        self._dice.shuffle(names)
        middle = self._dice.randrange(1, len(names)) if len(names) > 1 else 1
        self._note("partition", middle)
        self._checker.split()
        self._network.paths.partition(names[:middle], names[middle:])
        self._clock.callLater(seconds, self._heal)

    def _heal(self) -> None:
        self._note("heal")
        self._checker.healed(self._clock.seconds())
        self._network.paths.partition()
        self._over()

    def _starve(self, host: Host, seconds: float) -> None:
        self._note("starve", host.name)
        host.machine.short = Resource.PROCESSES

        def fed() -> None:
            self._note("feed", host.name)
            host.machine.short = None
            self._over()

        self._clock.callLater(seconds, fed)

    def _ban(self) -> None:
        host = self._dice.choice([host for host in self._hosts.values() if host.up])
        self._note("ban", host.name)
        banning: Deferred[Ban] = host.node.front_door.ban(ClientId("admin"), BANNED, "a flood of jobs", 86_400.0)
        banning.addCallback(lambda _: self._checker.banned(BANNED, self._clock.seconds()))
        self._over()
