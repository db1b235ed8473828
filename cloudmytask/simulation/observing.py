"""What the checkers of a simulated cluster see of its nodes: offers on their links, commits on their disks, failures in
their logs.

Invariant: an observer is told after the fact and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, LogEvent, formatEvent
from zope.interface import implementer

from cloudmytask.boundaries import AttemptSink, Link, PeerDoor
from cloudmytask.model.access import AccessRole, allowed
from cloudmytask.model.cluster import Offer, OfferAnswer
from cloudmytask.model.job import Content, Job, JobId
from cloudmytask.net.peer_links import PeerLinks

Offered = Callable[[Offer, OfferAnswer], None]
"""Told of each offer that a node answered."""


class ObservedLinks(PeerLinks):
    """The links of a node whose offers are observed. ``observer`` must be set before it is opened."""

    observer: Offered | None = None

    def open(self, door: PeerDoor) -> None:
        """See ``boundaries.Links``."""
        super().open(door if self.observer is None else cast(PeerDoor, _ObservedDoor(door, self.observer)))


class _ObservedDoor:
    def __init__(self, door: PeerDoor, observer: Offered) -> None:
        self._door = door
        self._observer = observer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._door, name)

    @allowed(AccessRole.NODE)
    def offered(
        self, link: Link, offer: Offer, contents: Sequence[Content], sink: AttemptSink
    ) -> Deferred[OfferAnswer]:
        def answered(answer: OfferAnswer) -> OfferAnswer:
            self._observer(offer, answer)
            return answer

        return self._door.offered(link, offer, contents, sink).addCallback(answered)


class ObservedRecords(dict[JobId, Job]):
    """The records on a disk. ``observer`` is told of each change: the record before, or None, and the one now."""

    def __init__(self, observer: Callable[[Job | None, Job], None]) -> None:
        super().__init__()
        self._observer = observer

    def __setitem__(self, job_id: JobId, job: Job) -> None:
        before = self.get(job_id)
        super().__setitem__(job_id, job)
        self._observer(before, job)


@implementer(ILogObserver)
class LoggedFailures:
    """Tells of each failure that is logged: a node that logs one has a bug."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell

    def __call__(self, event: LogEvent) -> None:
        if "log_failure" in event:
            self._tell(f"{formatEvent(event)}: {event['log_failure'].getTraceback()}")
