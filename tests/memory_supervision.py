"""The store of a simulated CSU: what is committed survives its death.

Invariant: a store that another one on the same disk took the place of never touches the disk nor fires a Deferred
again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred

from cloudmytask.boundaries import Clock
from cloudmytask.boundaries.supervision import SeenInstance, Supervision
from cloudmytask.model.cluster import LoadSample, NodeId
from cloudmytask.model.errors import StoreFailed

T = TypeVar("T")


@define(eq=False)
class SupervisionDisk:
    """What survives the CSU. Open to tests and to the checkers of a simulation."""

    node_id: str
    boots: int = 0
    memory: dict[str, str] = field(factory=dict)
    samples: list[LoadSample] = field(factory=list)
    instances: dict[NodeId, SeenInstance] = field(factory=dict)
    full: bool = False
    """While true, every change fails."""


@define(eq=False)
class MemorySupervisionStore:
    """Implements ``boundaries.supervision.SupervisionStore``; each change takes ``commit`` seconds."""

    _disk: SupervisionDisk
    _clock: Clock
    _commit: float = 0.003
    _boot: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._disk.boots += 1
        self._boot = self._disk.boots

    def recover(self) -> Supervision:
        disk = self._disk
        instances = sorted(disk.instances.values(), key=lambda each: (each.last_seen, each.node_id))
        return Supervision(disk.node_id, disk.boots, tuple(instances), dict(disk.memory))

    def remember(self, key: str, text: str) -> Deferred[None]:
        return self._change(lambda: self._disk.memory.update({key: text}))

    def record(self, samples: Sequence[LoadSample], instances: Sequence[SeenInstance]) -> Deferred[None]:
        def write() -> None:
            self._disk.samples.extend(samples)
            self._disk.instances.update({each.node_id: each for each in instances})

        return self._change(write)

    def samples(self, since: float, until: float, limit: int) -> Deferred[tuple[LoadSample, ...]]:
        return self._soon(lambda: self._found(since, until, limit), 0.0)

    def _found(self, since: float, until: float, limit: int) -> tuple[LoadSample, ...]:
        def order(sample: LoadSample) -> tuple[float, str]:
            return (sample.at, sample.node)

        found = sorted((each for each in self._disk.samples if since <= each.at <= until), key=order)
        if len(found) <= limit:
            return tuple(found)
        parts = max(1, limit // len({each.node for each in found}))
        last = {(each.node, int(min((each.at - since) * parts / (until - since), parts - 1))): each for each in found}
        return tuple(sorted(last.values(), key=order)[:limit])

    def prune(self, before: float, instances: int) -> Deferred[None]:
        def delete() -> None:
            disk = self._disk
            disk.samples = [each for each in disk.samples if each.at >= before]
            newest = sorted(disk.instances.values(), key=lambda each: (-each.last_seen, each.node_id))
            disk.instances = {each.node_id: each for each in newest[:instances]}

        return self._change(delete)

    def close(self) -> Deferred[None]:
        return self._soon(lambda: None, self._commit)

    def _change(self, apply: Callable[[], None]) -> Deferred[None]:
        def apply_if_room() -> None:
            if self._disk.full:
                raise StoreFailed("The disk is full.")
            apply()

        return self._soon(apply_if_room, self._commit)

    def _soon(self, function: Callable[[], T], delay: float) -> Deferred[T]:
        told: Deferred[T] = Deferred()

        def run() -> None:
            if self._boot != self._disk.boots:
                return
            try:
                value = function()
            except StoreFailed as failed:
                told.errback(failed)
            else:
                told.callback(value)

        self._clock.callLater(delay, run)
        return told
