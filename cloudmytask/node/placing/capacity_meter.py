"""How busy this node is, as it tells others.

Invariant: the picture is of this moment, since all that it depends on tells of its changes. Two pictures with the same
stamp are equal in what they offer; a later picture never has a smaller stamp.
"""

from __future__ import annotations

from attrs import define, field

from cloudmytask.boundaries import LoadProbe
from cloudmytask.config import NodeConfig
from cloudmytask.core.placement import Accounts, is_free
from cloudmytask.model.cluster import Capacity
from cloudmytask.node.gate import Gate
from cloudmytask.node.running.executor import Executor
from cloudmytask.node.shortage_watch import ShortageWatch


@define(eq=False)
class CapacityMeter:
    """Keeps the picture up to date.

    :ivar accounts: say whether there is another node that takes jobs; their owner calls :meth:`update` after a change.
    """

    _config: NodeConfig
    _executor: Executor
    _gate: Gate
    _shortages: ShortageWatch
    _accounts: Accounts
    _probe: LoadProbe
    _closed: bool = field(init=False, default=False)
    _load: float | None = field(init=False, default=None)
    _cpu: float | None = field(init=False, default=None)
    capacity: Capacity = field(init=False)
    """The picture of this moment."""

    def __attrs_post_init__(self) -> None:
        self.capacity = Capacity(self._config.slots, self._config.slots, threshold=self._config.threshold)
        self._executor.slots_changed.add(self.update)
        self._gate.closed.add(self.update)
        self._shortages.changed.add(self.update)
        self._probe.sampled.add(self._sampled)
        self._sampled()

    def _sampled(self) -> None:
        self._load, self._cpu = self._probe.load(), self._probe.cpu()
        self.update()

    def update(self) -> None:
        """Something that the picture depends on has changed."""
        slots, threshold, closed = self._config.slots, self._config.threshold, self._gate.draining
        free = self._shortages.offered(max(0, slots - self._executor.claimed))
        if closed or not is_free(free, self._load, threshold, alone=not self._accounts.peers()):
            free = 0
        stamp = self.capacity.stamp + ((self.capacity.free, self._closed) != (free, closed))
        self._closed = closed
        self.capacity = Capacity(slots, free, self._load, self._cpu, threshold, stamp)
