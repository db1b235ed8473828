"""What this node is short of at this moment, and how many of its free slots it offers meanwhile.

Invariant: the beginning and the end of each shortage are logged once. A disk with less room than ``disk_min`` is a
shortage for as long as that is so; every other one is over when an attempt has got as far as its script.
"""

from __future__ import annotations

from attrs import define, field
from twisted.logger import Logger

from cloudmytask.boundaries import World
from cloudmytask.core.shortages import Shortages
from cloudmytask.listeners import Listeners
from cloudmytask.model.job import Resource
from cloudmytask.node.gate import Gate

_log = Logger()

_DISK = Resource.DISK.words


@define(eq=False)
class ShortageWatch:
    """The shortages of one node, by its clock."""

    _world: World
    _gate: Gate
    changed: Listeners[[]] = field(factory=Listeners)
    """Told when :attr:`short` or :meth:`offered` may have changed."""
    _shortages: Shortages = field(init=False, factory=Shortages)
    _disk_short: bool = field(init=False, default=False)
    """Whether the disk was below its limit at the last look."""

    @property
    def short(self) -> tuple[Resource, ...]:
        """What the node is short of, in the order of the class."""
        met = self._shortages.current
        if self._gate.disk_short and Resource.DISK not in met:
            met = (Resource.DISK, *met)
        return met

    def offered(self, free: int) -> int:
        """How many of so many free slots may be taken now: while the node is short of something none, or one for a
        trial."""
        if self._gate.disk_short:
            return 0
        if not self._shortages.current:
            return free
        return min(free, 1) if self._shortages.may_try(self._world.clock.seconds()) else 0

    def begin(self) -> None:
        """An attempt is about to need all that there is to need."""
        if self._shortages.current:
            self._shortages.trial(self._world.clock.seconds())

    def met(self, resource: Resource, why: str) -> str:
        """An attempt could not go on for want of ``resource``; the sentence for its job.

        :param why: what the system said.
        """
        now, jitter = self._world.clock.seconds(), self._world.entropy.random.random()
        sentence = f"node {self._gate.node} is short of {resource.words} ({why.rstrip('.')})"
        if self._shortages.met(resource, now, jitter):
            _log.warn("{sentence}: it takes nothing new until that is over", sentence=sentence)
        self.changed.tell()
        return sentence

    def worked(self) -> None:
        """An attempt has got all that it needs."""
        for resource in (ended := self._shortages.over(*self._shortages.current)):
            _log.info("node {node} has {what} again", node=self._gate.node, what=resource.words)
        if ended:
            self.changed.tell()

    def look(self) -> None:
        """Called by the clock: a pause may be over, and others use the disk too."""
        low = self._gate.disk_short
        before, self._disk_short = self._disk_short, low
        if low and not before:
            _log.warn("node {node} is short of {what}: it takes nothing new", node=self._gate.node, what=_DISK)
        elif before and not low:
            _log.info("node {node} has {what} again", node=self._gate.node, what=_DISK)
        if low is not before or self._shortages.current:
            self.changed.tell()
