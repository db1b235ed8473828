"""Who reported which client, and whether that is enough for a ban of the cluster (design section 5).

Invariant: one reporter, however often it reports, never gets anybody banned; memory is bounded.
"""

from __future__ import annotations

from collections import OrderedDict

from attrs import define, field

from cloudmytask.core.ban_checks import REPORTERS_NEEDED
from cloudmytask.model.cluster import REPORTERS_MAX, BanReport, NodeId
from cloudmytask.model.job import ClientId

WINDOW = 600.0
"""Seconds for which a report counts: as long as the reporter's own ban lasts."""
CLIENTS_MAX = 10_000
"""Beyond, those are forgotten whose last report is the oldest."""


@define
class _Word:
    at: float
    report: BanReport


@define(eq=False)
class Witnesses:
    """The reports of the last :data:`WINDOW` seconds. ``now`` is monotonic."""

    _reports: OrderedDict[ClientId, dict[NodeId, _Word]] = field(init=False, factory=OrderedDict)

    def hear(self, report: BanReport, now: float) -> tuple[BanReport, ...]:
        """The latest of each reporter against the client, if there are enough to ban it; otherwise none."""
        words = self._reports.pop(report.client, {})
        words = {reporter: word for reporter, word in words.items() if word.at > now - WINDOW}
        words.pop(report.reporter, None)
        words[report.reporter] = _Word(now, report)
        while len(words) > REPORTERS_MAX:
            del words[next(iter(words))]
        self._reports[report.client] = words
        while len(self._reports) > CLIENTS_MAX:
            self._reports.popitem(last=False)
        return tuple(word.report for word in words.values()) if len(words) >= REPORTERS_NEEDED else ()

    def forget(self, client: ClientId) -> None:
        """What was said against ``client`` counts no more."""
        self._reports.pop(client, None)
