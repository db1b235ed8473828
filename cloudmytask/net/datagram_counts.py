"""What passed a multicast bus, counted for people, and what is wrong with it, logged once a minute.

Invariant: whatever is received, it takes a fixed amount of memory and of log.
"""

from __future__ import annotations

from attrs import define, field
from twisted.logger import Logger

from cloudmytask.boundaries import Clock
from cloudmytask.model.cluster import BusStatistics
from cloudmytask.wire.announcement import Foreign, Forged, Unreadable

_log = Logger(namespace="cloudmytask.bus")

FOREIGN_MAX = 20
"""Foreign clusters that are counted by name."""
OTHERS = "…"
"""The name under which all further ones are counted together; no cluster can have it."""
LOG_INTERVAL = 60.0
"""Seconds between two lines about datagrams of one kind."""


@define(eq=False)
class DatagramCounts:
    """See the module."""

    _clock: Clock
    sent: int = 0
    heard: int = 0
    unsent: int = 0
    _malformed: int = 0
    _forged: int = 0
    _foreign: dict[str, int] = field(factory=dict)
    _logged: dict[type[Unreadable], float] = field(factory=dict)

    def unreadable(self, problem: Unreadable) -> None:
        """One more that is not for us."""
        if isinstance(problem, Foreign):
            known = problem.name in self._foreign or len(self._foreign) < FOREIGN_MAX
            name = problem.name if known else OTHERS
            self._foreign[name] = self._foreign.get(name, 0) + 1
        elif isinstance(problem, Forged):
            self._forged += 1
        else:
            self._malformed += 1
        kind, now = type(problem), self._clock.seconds()
        if kind not in self._logged or now - self._logged[kind] >= LOG_INTERVAL:
            self._logged[kind] = now
            self._log(problem)

    def _log(self, problem: Unreadable) -> None:
        if isinstance(problem, Foreign):
            _log.info("another cluster in our group: {name}", name=problem.name)
        elif isinstance(problem, Forged):
            _log.warn("a forged datagram: {problem}; so far {count}", problem=str(problem), count=self._forged)
        else:
            _log.warn("a malformed datagram: {problem}; so far {count}", problem=str(problem), count=self._malformed)

    def statistics(self, group: str, joined: bool, error: str, receive_buffer: int) -> BusStatistics:
        """A picture of now."""
        return BusStatistics(
            group=group,
            joined=joined,
            error=error,
            sent=self.sent,
            heard=self.heard,
            unsent=self.unsent,
            malformed=self._malformed,
            forged=self._forged,
            foreign=dict(self._foreign),
            receive_buffer=receive_buffer,
        )
