"""Jobs between a failed attempt and the next one.

Invariant: a job pauses at most once at a time; a pause that was ended never resumes its job.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field

from cloudmytask.boundaries import Clock, DelayedCall
from cloudmytask.model.job import Job, JobId


@define(eq=False)
class Pauses:
    """``over`` takes over a job whose pause has passed."""

    _clock: Clock
    _over: Callable[[Job], None]
    _pauses: dict[JobId, tuple[float, DelayedCall]] = field(init=False, factory=dict)

    def __len__(self) -> int:
        return len(self._pauses)

    def __contains__(self, job_id: JobId) -> bool:
        return job_id in self._pauses

    def begin(self, job: Job, delay: float) -> None:
        """:param delay: seconds."""
        due = self._clock.seconds() + delay
        self._pauses[job.id] = (due, self._clock.callLater(delay, self._passed, job))

    def end(self, job_id: JobId) -> None:
        """It pauses no longer, and is not taken up again. Idempotent."""
        pause = self._pauses.pop(job_id, None)
        if pause is not None:
            pause[1].cancel()

    def remaining(self, job_id: JobId) -> float | None:
        """Seconds; None if the job does not pause."""
        pause = self._pauses.get(job_id)
        return None if pause is None else max(0.0, pause[0] - self._clock.seconds())

    def _passed(self, job: Job) -> None:
        del self._pauses[job.id]
        self._over(job)
