"""When results expire: a clock that only ever counts real time spent.

Invariant: the retention clock never goes back and no step of the wall clock moves it while the node runs. Across a
restart it is credited with what the wall clock says has passed since the last checkpoint, at least nothing and at
most ``DOWNTIME_MAX``, so that a wrong wall clock cannot expire everything at once. Each node has its own such clock:
what travels between nodes is the seconds that remain, and nobody's reading of a clock.
"""

from __future__ import annotations

from attrs import define, evolve

from cloudmytask.model.job import Job, TravelingJob

DOWNTIME_MAX = 7 * 86400.0
"""Seconds that one restart can be credited with."""


def downtime(checkpoint_at: float | None, wall: float) -> float:
    """Seconds to credit for the time since ``checkpoint_at`` (wall clock; None if there was none)."""
    if checkpoint_at is None:
        return 0.0
    return min(max(0.0, wall - checkpoint_at), DOWNTIME_MAX)


@define
class RetentionClock:
    """Seconds of age of a node's state; ``age`` at monotonic time ``at``."""

    age: float
    at: float

    @classmethod
    def resume(cls, age: float, checkpoint_at: float | None, now: float, wall: float) -> RetentionClock:
        """Go on from a checkpoint."""
        return cls(age + downtime(checkpoint_at, wall), now)

    def read(self, now: float) -> float:
        """The age at monotonic time ``now``."""
        return self.age + max(0.0, now - self.at)


def granted(asked: float | None, default: float, maximum: float) -> float:
    """The retention, in seconds, that a job gets: what was asked for, within the node's maximum."""
    return min(default if asked is None else asked, maximum)


def depart(job: Job, age: float) -> TravelingJob:
    """A record as it leaves a node. :param age: that node's retention clock, seconds."""
    if job.expires is None:
        return TravelingJob(job)
    return TravelingJob(evolve(job, expires=None), max(0.0, job.expires - age))


def arrive(traveling: TravelingJob, age: float) -> Job:
    """A record as another node keeps it. :param age: that node's retention clock, seconds."""
    remaining = traveling.remaining
    return traveling.job if remaining is None else evolve(traveling.job, expires=age + remaining)
