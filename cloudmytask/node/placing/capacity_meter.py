"""How busy this node is, as it tells others.

Invariant: two pictures with the same stamp are equal in what they offer; a later picture never has a smaller stamp.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field

from cloudmytask.boundaries import LoadProbe
from cloudmytask.core.placement import is_free
from cloudmytask.model.cluster import Capacity


@define(eq=False)
class CapacityMeter:
    """
    :ivar slots: how many scripts may run at once.
    :ivar claimed: how many of them are not free; may be more than there are.
    :ivar closed: whether the node takes no more work.
    :ivar alone: whether there is no other node that takes jobs.
    """

    _slots: int
    _threshold: float
    _probe: LoadProbe
    _claimed: Callable[[], int]
    _closed: Callable[[], bool]
    _alone: Callable[[], bool]
    _stamp: int = field(init=False, default=0)
    _told: tuple[int, bool] = field(init=False, default=(-1, False))

    def read(self) -> Capacity:
        """The picture of this moment."""
        free, load, closed = max(0, self._slots - self._claimed()), self._probe.load(), self._closed()
        if closed or not is_free(free, load, self._threshold, self._alone()):
            free = 0
        if self._told != (free, closed):
            self._told = (free, closed)
            self._stamp += 1
        return Capacity(self._slots, free, load, self._probe.cpu(), self._threshold, self._stamp)
