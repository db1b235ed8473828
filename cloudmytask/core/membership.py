"""Who is there: the table of the other instances, by node id.

An announcement counts by its boot, incarnation and sequence, never by anybody's wall clock: what is not newer than what
was heard before is a replay and changes nothing. A member silent for too long is suspected; whether a suspect is dead
is found out by asking it, which is the shell's part.

What is announced is anybody's word. Who is there can prove it, by an answer over a link, and :meth:`Membership.confirm`
believes that before any announcement: so a forged one never keeps the true ones out.

Invariant: of two boots of one node the greater stays, in any order of arrival, so two instances with one id are
flagged as a conflict and never take turns; but for a greater one that proves nothing, where the other does. The table
and its memory of the departed are bounded, and a full one has room for an instance that proves to be there.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator

from attrs import Factory, define, evolve, field

from cloudmytask.core.member_record import RIVAL_WORDS, Rival, Tomb
from cloudmytask.core.member_record import Member as Member
from cloudmytask.model.cluster import Announcement, BootId, NodeId, Pulse, Standing

SILENCE = 3.5
"""Announced intervals of silence after which an instance is suspected (simulated: 3.5 s and a question find a dead
host; without the question a lossy network would bury the living)."""
SILENCE_UNLINKED = 1.0
"""The same once a link to it was lost."""
LATE = 0.5
"""Seconds by which this instance's tick may be late before it distrusts its ears instead of the silent (Lifeguard)."""
REMEMBERED = 600.0
"""Seconds for which the dead and the departed are shown."""
MEMBERS_MAX = 10_000
ECHOES = 100
"""Announcements of one boot by which a relayed one may be late; what is staler may be the true one."""
CROSSING = 8
"""Announcements of one boot that may be heard while an answer of it is on its way."""
SPOKEN = 2
"""Announcements after which an instance counts as one that is there."""


class Heard(enum.Enum):
    """What an announcement was to us."""

    NEW = enum.auto()
    """The first of its node, or of a new boot of it."""
    FRESH = enum.auto()
    CHANGED = enum.auto()
    """Fresh, and its sender's standing is another now."""
    STALE = enum.auto()
    """A replay, an older boot, or the last word of a dead one that was still under way."""
    DOUBTED = enum.auto()
    """It contradicts what is believed, and may be true: its sender is to be asked."""


@define(eq=False)
class Membership:
    """The members that are known, and what is believed of each. ``period`` is how often :meth:`tick` is called,
    seconds; ``capacity`` how many it holds."""

    period: float = 0.25
    capacity: int = MEMBERS_MAX
    _members: dict[NodeId, Member] = Factory(dict)
    _tombs: dict[NodeId, Tomb] = Factory(dict)
    """Of those forgotten, the oldest first."""
    _ticked: float | None = None
    _awake: float = field(default=float("-inf"))
    """When we last noticed that we had been late."""

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[Member]:
        return iter(self._members.values())

    def get(self, node_id: NodeId) -> Member | None:
        """None for an instance that is not known."""
        return self._members.get(node_id)

    def present(self) -> int:
        """How many are alive or suspected."""
        return sum(1 for member in self._members.values() if member.present)

    def established(self) -> int:
        """How many of them have spoken more than once, or proven that they are there."""
        return sum(1 for m in self._members.values() if m.present and (m.proven or m.words >= SPOKEN))

    def hear(self, announcement: Announcement, now: float, *, direct: bool = True) -> Heard:
        """Take in an announcement by another instance.

        :param direct: it came over the bus, not by relay.
        """
        member = self._members.get(announcement.node_id)
        if member is None:
            return self._meet(announcement, now, direct)
        last = member.announcement
        if announcement.boot_id != last.boot_id:
            return self._other_boot(member, announcement, now, direct)
        if direct:
            member.direct = now
        if (announcement.incarnation, announcement.sequence) <= (last.incarnation, last.sequence):
            return self._stale(member, announcement)
        before = member.standing
        member.announcement = announcement
        member.words = min(member.words + 1, SPOKEN)
        if announcement.leaving:
            self._settle(member, Standing.LEFT, now)
            return Heard.STALE if before is Standing.LEFT else Heard.CHANGED
        if (
            before is Standing.DEAD
            and announcement.incarnation <= member.buried
            and now < member.since + SILENCE * member.interval
        ):
            return Heard.STALE  # it may have been under way when its sender died
        member.heard = now
        member.unlinked = False
        member.deadline = now + SILENCE * member.interval
        if before is Standing.ALIVE:
            return Heard.FRESH
        member.standing, member.since = Standing.ALIVE, now
        return Heard.CHANGED

    def bury(
        self, node_id: NodeId, boot_id: BootId, incarnation: int, now: float, *, sequence: int | None = None
    ) -> bool:
        """Somebody asked it and got no answer; whether it is dead from now on.

        :param sequence: the last that was heard of it when it was asked; anything later shows that it lives.
        """
        member = self._members.get(node_id)
        if member is None or member.standing is Standing.DEAD or member.announcement.boot_id != boot_id:
            return False
        last = member.announcement
        if last.incarnation > incarnation or (sequence is not None and last.sequence > sequence):
            return False
        if member.standing is Standing.LEFT:
            return False
        member.buried, member.proven = last.incarnation, False
        self._settle(member, Standing.DEAD, now)
        return True

    def confirm(self, node_id: NodeId, boot_id: BootId, now: float, pulse: Pulse | None = None) -> bool:
        """It answered over a link: it lives. Whether that changes its standing.

        :param pulse: what it said; an announcement that went further was none of its.
        """
        member = self._members.get(node_id)
        if member is None or member.announcement.boot_id != boot_id:
            return False
        last = member.announcement
        if pulse is not None and (
            last.incarnation > pulse.incarnation + 1 or last.sequence > pulse.sequence + CROSSING
        ):
            member.announcement = evolve(
                last, incarnation=pulse.incarnation, sequence=pulse.sequence, leaving=False, draining=False
            )
        elif member.standing is Standing.LEFT:
            return False
        member.proven = pulse is not None or member.proven
        changed = member.standing is not Standing.ALIVE
        if changed:
            member.standing, member.since = Standing.ALIVE, now
        member.deadline = max(member.deadline if not changed else now, now + SILENCE * member.interval)
        return changed

    def reinstate(self, announcement: Announcement, pulse: Pulse, now: float) -> Heard:
        """The sender of a word that was doubted proved over a link who it is, and the instance that is believed in
        did not: the word counts, and what contradicts it does not."""
        node_id = announcement.node_id
        self._tombs.pop(node_id, None)
        true = evolve(announcement, incarnation=pulse.incarnation, sequence=pulse.sequence)
        member = self._members.get(node_id)
        if member is None:
            heard = self._admit(true, now, direct=True)
        else:
            heard = Heard.CHANGED if member.announcement.boot_id == true.boot_id else Heard.NEW
            heard = heard if member.standing is not Standing.ALIVE or heard is Heard.NEW else Heard.FRESH
            member.announcement, member.buried, member.rival = true, -1, None
            member.conflict_until = float("-inf")
            self._revive(member, now)
        self._members[node_id].proven = True
        return heard

    def lose_link(self, node_id: NodeId, now: float) -> None:
        """A link to it ended: with silence on top of that it is suspected sooner."""
        member = self._members.get(node_id)
        if member is not None:
            member.proven = False
        if member is not None and member.standing is Standing.ALIVE:
            member.unlinked = True
            member.deadline = min(member.deadline, max(now, member.heard + SILENCE_UNLINKED * member.interval))

    def relink(self, node_id: NodeId) -> None:
        """There is a link to it again."""
        member = self._members.get(node_id)
        if member is not None:
            member.unlinked = False

    def tick(self, now: float) -> list[Member]:
        """Look who is silent; called every ``period`` seconds.

        :returns: those to be asked whether they live: new suspects, and old ones about whom nothing was found out.
        """
        if self._ticked is not None and now - self._ticked > self.period + LATE:
            self._awake = now
        self._ticked = now
        due = [member for member in self._members.values() if member.deadline <= now]
        suspects = []
        for member in due:
            if not member.present:
                self._forget(member)
            elif now < self._awake + member.interval:
                member.deadline = self._awake + member.interval
            else:
                if member.standing is Standing.ALIVE:
                    member.standing, member.since = Standing.SUSPECT, now
                member.deadline = now + SILENCE * member.interval
                suspects.append(member)
        return suspects

    def _meet(self, announcement: Announcement, now: float, direct: bool) -> Heard:
        tomb = self._tombs.get(announcement.node_id)
        if announcement.leaving:
            return Heard.STALE
        if tomb is not None and (announcement.boot_id, announcement.sequence) <= (tomb.boot_id, tomb.sequence):
            if tomb.rival is None or tomb.rival.boot_id < announcement.boot_id:
                tomb.rival = Rival.of(announcement)
            return Heard.DOUBTED if tomb.rival.speaks(announcement) else Heard.STALE
        if len(self._members) >= self.capacity and all(m.present for m in self._members.values()):
            return Heard.DOUBTED
        return self._admit(announcement, now, direct)

    def _admit(self, announcement: Announcement, now: float, direct: bool) -> Heard:
        """Take one in; if there is no room, at the expense of one that is gone, or else of the one that has shown least
        that it is there."""
        if len(self._members) >= self.capacity:
            self._forget(min(self._members.values(), key=lambda m: (m.present, m.proven, m.words, m.heard)))
        self._tombs.pop(announcement.node_id, None)
        member = Member(announcement, now, Standing.ALIVE, now, deadline=0.0)
        member.deadline = now + SILENCE * member.interval
        member.direct = now if direct else member.direct
        self._members[announcement.node_id] = member
        return Heard.NEW

    def _other_boot(self, member: Member, announcement: Announcement, now: float, direct: bool) -> Heard:
        last = member.announcement
        if announcement.boot_id < last.boot_id:
            return self._compare(member, announcement, now)
        if member.proven and member.present:
            return Heard.DOUBTED  # the life that is proven may have ended; it can be asked
        member.announcement = announcement
        member.buried, member.rival, member.words = -1, Rival.of(last), 1
        member.direct = now if direct else float("-inf")
        if announcement.leaving:
            self._settle(member, Standing.LEFT, now)
            return Heard.CHANGED
        self._revive(member, now)
        return Heard.NEW

    def _revive(self, member: Member, now: float) -> None:
        member.heard = member.since = now
        member.standing, member.unlinked = Standing.ALIVE, False
        member.deadline = now + SILENCE * member.interval

    def _stale(self, member: Member, announcement: Announcement) -> Heard:
        """A replay, or the true word after a forged one that went far beyond it."""
        last = member.announcement
        if announcement.incarnation == last.incarnation and last.sequence - announcement.sequence <= ECHOES:
            return Heard.STALE
        rival = member.rival
        if rival is None or rival.boot_id < announcement.boot_id:
            rival = member.rival = Rival.of(announcement)
        return Heard.DOUBTED if rival.speaks(announcement) else Heard.STALE

    def _compare(self, member: Member, older: Announcement, now: float) -> Heard:
        """An older boot that goes on talking, from elsewhere, is a second instance with the same id, or the only one
        that there is."""
        rival = member.rival
        if rival is None or rival.boot_id < older.boot_id:
            member.rival = Rival.of(older)
            return Heard.STALE
        words = rival.words
        doubted = rival.speaks(older)
        if words < rival.words >= RIVAL_WORDS and rival.address != member.announcement.address:
            member.conflict_until = now + 10 * member.interval
        return Heard.DOUBTED if doubted else Heard.STALE

    def _settle(self, member: Member, standing: Standing, now: float) -> None:
        if member.standing is not standing:
            member.standing, member.since = standing, now
        member.deadline = member.since + REMEMBERED

    def _forget(self, member: Member) -> None:
        del self._members[member.node_id]
        self._tombs[member.node_id] = Tomb(member.announcement.boot_id, member.announcement.sequence)
        while len(self._tombs) > self.capacity:
            del self._tombs[next(iter(self._tombs))]
