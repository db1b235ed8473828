"""Whose work a node accepts, and how fast, decided in one place.

Invariant: no decision waits for anybody; the bans that count are those that the node holds.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import Factory, define

from cloudmytask.cluster.flood_control import FloodControl
from cloudmytask.core.units import show_size
from cloudmytask.deferreds import Signal
from cloudmytask.listeners import Listeners
from cloudmytask.model.errors import DiskShort, NodeDraining
from cloudmytask.model.job import ClientId


@define
class Gate:
    """The state of a node's door. ``flood_control``: None if nobody is banned, and all may ask as fast as they like."""

    node: str
    flood_control: FloodControl | None = None
    disk_free: Callable[[], int | None] = lambda: None
    disk_min: int = 0
    """Bytes that must be free for new work to be accepted."""
    draining: bool = False
    closing: Signal = Factory(Signal)
    """Fired when draining begins, and again when it is cut short."""
    closed: Listeners[[]] = Factory(Listeners)
    """Told of the same."""

    def close(self) -> None:
        """Accept no new work from now on."""
        self.draining = True
        self.closed.tell()
        self.closing.fire()

    def admit(self, client: ClientId, size: int) -> float:
        """A request of ``size`` bytes came in; the seconds to hold it back before it is looked at.

        :raises Banned, TooManyRequests: it is not to be looked at.
        """
        return 0.0 if self.flood_control is None else self.flood_control.admit(client, size)

    def malformed(self, client: ClientId) -> None:
        """Something came from ``client`` that no program of ours sends: undecodable, or beyond what the wire allows.

        :raises Banned: it was once too often.
        """
        if self.flood_control is not None:
            self.flood_control.malformed(client)

    def check_banned(self, client: ClientId) -> None:
        """Whether work of ``client`` may be accepted or started here. For a job that another node brought it is the one
        that submitted it; there is no rate for those, their origin saw to that.

        :raises Banned: the sentence says why, by whom, and for how long still.
        """
        if self.flood_control is not None:
            self.flood_control.check(client)

    @property
    def disk_short(self) -> bool:
        """Whether there is too little room on the disk for new work."""
        free = self.disk_free()
        return free is not None and free < self.disk_min

    def admit_bytes(self, size: int) -> None:
        """Check that there is room on the disk for ``size`` bytes.

        :raises DiskShort: not for now.
        """
        free = self.disk_free()
        if free is not None and free - size < self.disk_min:
            wanted = f"; {show_size(size)} are to come" if size else ""
            raise DiskShort(
                f"node {self.node} has {show_size(max(0, free))} left on its disk and accepts new work from"
                f" {show_size(self.disk_min)} on (disk_min){wanted}"
            )

    def admit_work(self) -> None:
        """Check that new work is accepted.

        :raises NodeDraining: not any more. :raises DiskShort: not for now.
        """
        self.admit_bytes(0)
        if self.draining:
            raise NodeDraining(f"node {self.node} is shutting down and accepts no new work")
