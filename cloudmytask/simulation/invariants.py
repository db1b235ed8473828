"""What must hold in every simulated moment, whatever happens.

Invariant: a checker only looks; it never changes the course of events.
"""

from __future__ import annotations

from attrs import define, field

from cloudmytask.codec.people import JobStatus
from cloudmytask.model.job import Job, JobId, JobState
from cloudmytask.simulation.host import Host


class Violation(AssertionError):
    """An invariant does not hold."""


def check_ended(job_id: JobId, job: Job | None) -> None:
    """What is left of a job that was acknowledged, at the end. :raises Violation: it has no outcome."""
    if job is None:
        raise Violation(f"acknowledged job {job_id} is lost")
    if not job.state.terminal:
        raise Violation(f"acknowledged job {job_id} is still {job.state}")


@define(eq=False)
class HostChecker:
    """Checks one host after every step of the clock."""

    host: Host
    terminal: dict[JobId, JobState] = field(init=False, factory=dict)
    _started: int = field(init=False, default=-1)

    def check(self) -> None:
        """:raises Violation:"""
        machine, slots = self.host.machine, self.host.config.slots
        if machine.live > slots:
            raise Violation(f"{machine.live} scripts run on {slots} slots")
        if machine.started != self._started:
            self._started = machine.started
            running = [launch.id.job for launch in machine.running()]
            if len(set(running)) < len(running):
                raise Violation(f"a job runs twice at once: {sorted(running)}")
            for job_id in running:
                if job_id in self.terminal:
                    raise Violation(f"job {job_id} runs though it is {self.terminal[job_id]}")

    def check_places(self) -> None:
        """Every job without outcome is in exactly one place. :raises Violation:"""
        if self.host.up:
            for job_id, places in self.host.node.whereabouts().items():
                if len(places) != 1:
                    raise Violation(f"job {job_id} is in {places or 'no place'}")

    def check_disk(self) -> None:
        """What the disk holds never contradicts what it held. :raises Violation:"""
        for job in self.host.disk.jobs.values():
            state = job.state
            before = self.terminal.get(job.id)
            if before is not None and state not in (before, JobState.EXPIRED):
                raise Violation(f"job {job.id} was {before} and is {state}")
            if state.terminal:
                self.terminal[job.id] = state


@define(eq=False)
class PromiseChecker:
    """Checks what clients were told against what they were told before."""

    acknowledged: dict[JobId, float] = field(init=False, factory=dict)
    """When each was acknowledged, virtual seconds."""
    outcomes: dict[JobId, JobStatus] = field(init=False, factory=dict)
    learned: dict[JobId, float] = field(init=False, factory=dict)
    """The latest moment at which the job can have ended: when somebody first heard of its outcome."""

    def accepted(self, job_id: JobId, now: float) -> None:
        """A submission was acknowledged."""
        self.acknowledged.setdefault(job_id, now)

    def told(self, status: JobStatus, now: float, retention: float) -> None:
        """A client was told a state. :raises Violation:"""
        before = self.outcomes.get(status.id)
        if status.state is JobState.EXPIRED:
            return
        if before is not None and (status.state, status.exit_code) != (before.state, before.exit_code):
            raise Violation(f"job {status.id} was told as {before.state} and then as {status.state}")
        if status.state.terminal:
            self.outcomes.setdefault(status.id, status)
            learned = self.learned.setdefault(status.id, now)
            if now - learned > retention:
                raise Violation(f"job {status.id} is served {now - learned:.1f} s after its end")

    def settled(self, host: Host) -> None:
        """At the end, everything that was acknowledged has one outcome or is a tombstone. :raises Violation:"""
        for job_id in self.acknowledged:
            check_ended(job_id, host.disk.jobs.get(job_id))
