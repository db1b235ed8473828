"""The reports of a node (the paper's ``addToBlackListRequest``) on their way to the CSUs.

Every CSU gets each report: two of them may each have heard of one reporter only, and neither would ban.

Invariant: a report waits for CSUs as long as the ban that it tells of lasts, no longer; there is one per client. A
CSU may get one twice: it counts reporters, not reports.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from cloudmytask.boundaries import Clock, Link
from cloudmytask.cluster.blacklist import LOCAL_TERM
from cloudmytask.model.cluster import Announcement, BanReport, NodeId, Role
from cloudmytask.model.errors import CloudMyTaskError
from cloudmytask.model.job import ClientId

_log = Logger()

REPORTS_MAX = 1000
"""Beyond, the oldest are given up."""


@define(eq=False)
class _PendingReport:
    report: BanReport
    until: float
    told: set[NodeId] = field(factory=set)


@define(eq=False)
class BanReports:
    """Keeps the reports that no CSU has yet, and sends them when one is there.

    :ivar supervisors: the CSUs that are alive now.
    :ivar connect: gives a link to an instance; it is not ours to close.
    """

    _clock: Clock
    _supervisors: Callable[[], Iterable[NodeId]]
    _connect: Callable[[NodeId], Deferred[Link]]
    _waiting: OrderedDict[ClientId, _PendingReport] = field(init=False, factory=OrderedDict)
    _busy: set[NodeId] = field(init=False, factory=set)

    def add(self, report: BanReport) -> None:
        """Tell every CSU there is, and those that come."""
        self._waiting.pop(report.client, None)
        self._waiting[report.client] = _PendingReport(report, self._clock.seconds() + LOCAL_TERM)
        while len(self._waiting) > REPORTS_MAX:
            self._waiting.popitem(last=False)
        for supervisor in self._supervisors():
            self._deliver(supervisor)

    def heard(self, announcement: Announcement) -> None:
        """An instance of our cluster announced itself."""
        if announcement.role is Role.CSU and not announcement.leaving:
            self._deliver(announcement.node_id)

    def __len__(self) -> int:
        return len(self._waiting)

    def _next(self, supervisor: NodeId) -> _PendingReport | None:
        now = self._clock.seconds()
        while self._waiting and next(iter(self._waiting.values())).until <= now:
            self._waiting.popitem(last=False)
        return next((waiting for waiting in self._waiting.values() if supervisor not in waiting.told), None)

    def _deliver(self, supervisor: NodeId) -> None:
        if supervisor not in self._busy and self._next(supervisor) is not None:
            self._busy.add(supervisor)
            delivered = Deferred.fromCoroutine(self._deliver_all(supervisor))
            delivered.addErrback(_failed).addBoth(lambda _: self._busy.discard(supervisor))

    async def _deliver_all(self, supervisor: NodeId) -> None:
        link = await self._connect(supervisor)
        while (waiting := self._next(supervisor)) is not None:
            await link.report(waiting.report)
            waiting.told.add(supervisor)


def _failed(failure: Failure) -> None:
    """The CSU's next announcement is another chance."""
    if failure.check(CloudMyTaskError):
        _log.info("a report could not be delivered: {problem}", problem=failure.getErrorMessage())
    else:
        _log.failure("a report could not be delivered", failure)
