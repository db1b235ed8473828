"""Asks other nodes for work while this one has a free slot: the other half of balancing the load.

Of two nodes that are known to have waiting jobs the one whose next job waits longer is asked; a job that waits
elsewhere goes before our own if it is well ahead of them (overlay simulation: "age-aware pull").

Invariant: a bounded number of questions is open at a time, and a slot is kept free for an answer no longer than the
question is open.
"""

from __future__ import annotations

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from cloudmytask.boundaries import World
from cloudmytask.core.placement import ELDER, Policy
from cloudmytask.model.cluster import Backlog, Capacity, NodeId
from cloudmytask.model.errors import CloudMyTaskError
from cloudmytask.node.placing.placer import Placer
from cloudmytask.node.roles import Acquaintances, Door

_log = Logger()

QUESTIONS_MAX = 4
"""Open at a time."""
TRIES_MAX = 3
"""Nodes that are asked in a row, if the first ones turn out to have nothing."""


@define(eq=False)
class WorkStealer:
    """See the module."""

    _world: World
    _policy: Policy
    _door: Door
    _placer: Placer
    _others: Acquaintances
    _questions: int = field(init=False, default=0)

    def seek(self) -> None:
        """Ask, if there is room here and work elsewhere."""
        if not self._policy.accounts or self._door.draining or self._questions >= QUESTIONS_MAX:
            return
        if self._placer.here().free <= self._placer.held + self._questions or not (target := self._target()):
            return
        before_own = self._placer.waiting > 0
        self._questions += 1
        self._placer.held += before_own
        asked = Deferred.fromCoroutine(self._ask(target))
        asked.addErrback(lambda failure: _log.failure("asking for work broke", failure))
        asked.addBoth(self._asked, before_own)

    def _asked(self, _: object, before_own: bool) -> None:
        self._questions -= 1
        self._placer.held -= before_own
        if before_own:
            self._placer.place()

    def _target(self) -> NodeId | None:
        """Of two nodes with waiting jobs the one whose next is oldest, if it is to go first."""
        backlogs, dice = list(self._placer.backlogs().items()), self._world.entropy.random
        if not backlogs:
            return None
        sample = backlogs if len(backlogs) <= 2 else dice.sample(backlogs, 2)
        node_id, backlog = max(sample, key=_age)
        if self._placer.waiting and backlog.head_age <= self._placer.head_age() + ELDER:
            return None
        return node_id

    async def _ask(self, target: NodeId) -> None:
        for _ in range(TRIES_MAX):
            capacity: Capacity = self._placer.here()
            if not capacity.free:
                return
            coming = 0
            try:
                link = await self._others.link(target)
                coming = await link.ask_for_work(capacity)
            except CloudMyTaskError as problem:
                _log.debug("{node} was asked for work: {problem}", node=target, problem=str(problem))
            if coming:
                return
            self._placer.exhausted(target)
            following = self._target()
            if following is None:
                return
            target = following


def _age(item: tuple[NodeId, Backlog]) -> float:
    return item[1].head_age
