"""What is known of one other instance: its latest announcement, what is believed of it, and what speaks against that.

Invariant: no judgment; ``core.membership`` has the rules.
"""

from __future__ import annotations

from attrs import define

from cloudmytask.model.cluster import Announcement, BootId, NodeId, Standing

INTERVALS = (0.25, 60.0)
"""Seconds; an announced interval outside is taken as the nearer end."""
RIVAL_WORDS = 3
"""Words of an older boot, each newer than the last, that show two instances with one id."""


@define(eq=False)
class Rival:
    """A node of which something else is believed, and that is still heard of."""

    boot_id: BootId
    incarnation: int
    sequence: int
    address: str
    words: int = 0
    doubt: int = RIVAL_WORDS
    """At how many words it is asked; each question doubles it."""

    @classmethod
    def of(cls, announcement: Announcement) -> Rival:
        return cls(announcement.boot_id, announcement.incarnation, announcement.sequence, announcement.address)

    def speaks(self, announcement: Announcement) -> bool:
        """Take in another word of it, if it is newer; whether its sender should be asked now."""
        order = (announcement.incarnation, announcement.sequence)
        if announcement.boot_id != self.boot_id or order <= (self.incarnation, self.sequence):
            return False
        self.incarnation, self.sequence = order
        self.address = announcement.address
        self.words += 1
        if self.words < self.doubt:
            return False
        self.doubt *= 2
        return True


@define(eq=False)
class Tomb:
    """The last boot and sequence of one that is forgotten."""

    boot_id: BootId
    sequence: int
    rival: Rival | None = None


@define(eq=False)
class Member:
    """One instance. Times on this instance's clock, seconds."""

    announcement: Announcement
    """Its latest."""
    heard: float
    standing: Standing
    since: float
    """When its standing became what it is."""
    deadline: float
    """When :meth:`Membership.tick` looks at it next."""
    direct: float = float("-inf")
    """When it was last heard over the bus itself, not by relay."""
    unlinked: bool = False
    """A link to it was lost, and it has not been heard since."""
    conflict_until: float = float("-inf")
    words: int = 1
    """How many new announcements were heard of it, so far as that matters."""
    proven: bool = False
    """It answered over a link, which has not been lost since."""
    buried: int = -1
    """The incarnation that was declared dead."""
    rival: Rival | None = None

    @property
    def node_id(self) -> NodeId:
        return self.announcement.node_id

    @property
    def interval(self) -> float:
        """Seconds between its announcements, as it says, within reason."""
        low, high = INTERVALS
        return min(max(self.announcement.interval, low), high)

    @property
    def present(self) -> bool:
        """Neither gone nor thought so."""
        return self.standing is Standing.ALIVE or self.standing is Standing.SUSPECT
