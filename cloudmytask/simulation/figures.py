"""What a simulated cluster achieved, against a central queue that knows everything.

Invariant: pure; the same run gives the same figures, apart from the seconds that computing it took.
"""

from __future__ import annotations

from typing import Any

from attrs import asdict, frozen

from cloudmytask.simulation.central_queue import Figures


@frozen
class ClusterFigures:
    """The figures of one run. Times in virtual seconds."""

    nodes: int
    slots: int
    """Of each node."""
    jobs: int
    """Accepted."""
    succeeded: int
    refused: int
    """Submissions that no node accepted."""
    cluster: Figures
    ideal: Figures
    """The same jobs in a central queue without latency."""
    utilization: float
    """Share of all slots' time, from the first arrival to the last end, that went into attempts that succeeded."""
    forwards_per_job: float
    """Offers that were accepted, by jobs."""
    refusals_per_job: float
    messages_per_job: float
    """Pieces sent over all links, by jobs."""
    announcements: float
    """For each node and second."""
    executions: int
    """Scripts that were started."""
    kills: int
    longest_idle: float
    """The longest time that a node had a free slot while jobs waited elsewhere."""
    duration: float
    """From the start to the last end."""
    trace: str
    """Equal for equal runs: a digest over what happened and when."""

    @property
    def executed_again(self) -> int:
        """Executions beyond the first of each job that succeeded."""
        return max(0, self.executions - self.succeeded)

    @property
    def ratio(self) -> float:
        """Mean slowdown by that of the central queue."""
        return self.cluster.mean / self.ideal.mean

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "executed_again": self.executed_again, "ratio": self.ratio}

    def rows(self) -> list[tuple[str, str, str]]:
        """What people read: a label, the cluster's figure, and the central queue's where it has one."""
        mine, best = self.cluster, self.ideal
        return [
            ("", "CLUSTER", "CENTRAL QUEUE"),
            ("jobs done", f"{self.succeeded} of {self.jobs}", f"{best.jobs}"),
            ("slowdown, mean", f"{mine.mean:.3f}  ({self.ratio:.3f} x)", f"{best.mean:.3f}"),
            ("slowdown, median", f"{mine.p50:.3f}", f"{best.p50:.3f}"),
            ("slowdown, p99", f"{mine.p99:.3f}", f"{best.p99:.3f}"),
            ("makespan", f"{mine.makespan:.1f} s", f"{best.makespan:.1f} s"),
            ("utilization", f"{self.utilization:.1%}", ""),
            ("forwards per job", f"{self.forwards_per_job:.3f}", ""),
            ("refusals per job", f"{self.refusals_per_job:.3f}", ""),
            ("messages per job", f"{self.messages_per_job:.1f}", ""),
            ("announcements", f"{self.announcements:.2f} /node/s", ""),
            ("idle beside waiting", f"{self.longest_idle:.2f} s at most", ""),
            ("nodes killed", f"{self.kills}", ""),
            ("executed again", f"{self.executed_again}", ""),
            ("refused", f"{self.refused}", ""),
        ]
