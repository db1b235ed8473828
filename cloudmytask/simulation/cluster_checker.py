"""What must hold in a simulated cluster, checked as it happens.

Invariant: a checker only looks; what it does for each event does not grow with the number of nodes or jobs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from attrs import define, field

from cloudmytask.model.cluster import ClusterView, NodeId, Offer, OfferAnswer, Standing
from cloudmytask.model.job import AttemptId, ClientId, Job, JobId, JobState


class Violation(AssertionError):
    """An invariant does not hold."""


def check_ended(job_id: JobId, job: Job | None) -> None:
    """Look at what is left of an acknowledged job at the end.

    :raises Violation: it is lost, or has no outcome.
    """
    if job is None:
        raise Violation(f"acknowledged job {job_id} is lost")
    if not job.state.terminal:
        raise Violation(f"acknowledged job {job_id} is still {job.state}")


def _raise(violation: Violation) -> None:
    raise violation


@define(eq=False)
class ClusterChecker:
    """Told of events by the run of the cluster. What it finds it gives to ``violated``, as the events come from the
    depths of a node, which would take an exception for its own; what is looked at from outside raises.

    :ivar max_hops: how often a job may be handed on for one attempt.
    :ivar offers_max: how often one attempt may be offered, refused offers included.
    :ivar refusals_max: how many offers may be refused for each job, on average over a whole run.
    :ivar ban_grace: seconds after which a ban is known everywhere.
    :ivar idle_grace: seconds for which a node may have a free slot while jobs wait elsewhere.
    """

    max_hops: int
    offers_max: int = 100
    refusals_max: float = 5.0
    ban_grace: float = 2.0
    idle_grace: float = 1.0
    violated: Callable[[Violation], None] = _raise
    acknowledged: dict[JobId, str] = field(init=False, factory=dict)
    """At which node each job was accepted."""
    accepted_offers: int = field(init=False, default=0)
    refused_offers: int = field(init=False, default=0)
    longest_idle: float = field(init=False, default=0.0)
    """The longest time that a node had a free slot while jobs waited elsewhere, seconds."""
    _outcomes: dict[tuple[str, JobId], JobState] = field(init=False, factory=dict)
    _offers: Counter[AttemptId] = field(init=False, factory=Counter)
    _banned: dict[ClientId, float] = field(init=False, factory=dict)
    _split: bool = field(init=False, default=False)
    _whole_since: float = field(init=False, default=0.0)
    _up_since: dict[str, float] = field(init=False, factory=dict)
    _idle_since: dict[str, float] = field(init=False, factory=dict)

    @property
    def open_jobs(self) -> int:
        """Acknowledged jobs that have no outcome yet."""
        return sum((node, job_id) not in self._outcomes for job_id, node in self.acknowledged.items())

    def started(self, node: str, client: ClientId, *, running: int, slots: int, now: float) -> None:
        """A script was started. ``running``: scripts on the node now, this one included."""
        self._idle_since.pop(node, None)
        if running > slots:
            self.violated(Violation(f"{running} scripts run on the {slots} slots of {node}"))
        since = self._banned.get(client)
        if since is None or self._split:
            return
        known = max(since, self._whole_since, self._up_since.get(node, 0.0)) + self.ban_grace
        if now > known:
            self.violated(Violation(f"{node} starts a job of {client} {now - since:.3f} s after the ban"))

    def offered(self, node: NodeId, offer: Offer, answer: OfferAnswer) -> None:
        """A node answered an offer."""
        self._offers[offer.attempt] += 1
        if self._offers[offer.attempt] > self.offers_max:
            self.violated(Violation(f"attempt {offer.attempt} was offered {self._offers[offer.attempt]} times"))
        if not answer.accepted:
            self.refused_offers += 1
            return
        self.accepted_offers += 1
        if offer.hops > self.max_hops or len(offer.visited) > self.max_hops:
            self.violated(Violation(f"{offer.attempt} is handed on {offer.hops} times, through {offer.visited}"))
        if node in offer.visited or len(set(offer.visited)) < len(offer.visited):
            self.violated(Violation(f"{offer.attempt} comes to {node} though it was at {offer.visited}"))

    def accepted(self, node: str, job_id: JobId) -> None:
        """A submission was acknowledged."""
        self.acknowledged.setdefault(job_id, node)

    def recorded(self, node: str, before: Job | None, job: Job) -> None:
        """A record was committed at the job's origin."""
        known = self._outcomes.get((node, job.id))
        if known is not None and job.state not in (known, JobState.EXPIRED):
            self.violated(Violation(f"job {job.id} was {known} and is {job.state}"))
        if job.state.terminal and known is None:
            self._outcomes[node, job.id] = job.state
        if before is not None and before.state.terminal and not job.state.terminal:
            self.violated(Violation(f"job {job.id} was {before.state} and is {job.state}"))

    def banned(self, client: ClientId, now: float) -> None:
        """A client was banned, or is banned again."""
        self._banned.setdefault(client, now)

    def unused(self, free: Mapping[str, int], waiting: Mapping[str, int], now: float) -> None:
        """The free slots and waiting jobs of the nodes that are up; looked at now and then."""
        total = sum(waiting.values())
        for node, slots in free.items():
            if not slots or total == waiting.get(node, 0):
                self._idle_since.pop(node, None)
            else:
                self.longest_idle = max(self.longest_idle, now - self._idle_since.setdefault(node, now))
        if self.longest_idle > self.idle_grace:
            self.violated(Violation(f"a slot was free for {self.longest_idle:.2f} s while jobs waited elsewhere"))

    def died(self) -> None:
        """A node has just died: who is idle now may not know of waiting jobs."""
        self._idle_since.clear()

    def returned(self, node: str, now: float) -> None:
        """A node is up again, and has missed what was said meanwhile."""
        self._idle_since.clear()
        self._up_since[node] = now

    def split(self) -> None:
        """The network fell into parts that hear nothing of each other."""
        self._idle_since.clear()
        self._split = True

    def healed(self, now: float) -> None:
        """It is whole again."""
        self._idle_since.clear()
        self._split, self._whole_since = False, now

    def places(self, node: str, whereabouts: Mapping[JobId, Sequence[str]]) -> None:
        """In which places a node has each open job."""
        for job_id, places in whereabouts.items():
            if len(places) != 1:
                self.violated(Violation(f"at {node} job {job_id} is in {' and '.join(places) or 'no place'}"))

    def converged(self, views: Iterable[ClusterView], present: Iterable[NodeId]) -> None:
        """After quiet times: everybody believes those alive that are, and nobody else.

        :raises Violation: a view is wrong.
        """
        wanted = set(present)
        for view in views:
            alive = {m.announcement.node_id for m in view.members if m.standing is Standing.ALIVE} | {view.by}
            if alive != wanted:
                missing, excess = sorted(wanted - alive), sorted(alive - wanted)
                raise Violation(f"node {view.by} misses {missing} and believes {excess} alive")

    def settled(self, records: Mapping[str, Mapping[JobId, Job]]) -> None:
        """At the end: every acknowledged job has an outcome on its origin's disk, and they did not cost too much.

        :raises Violation: a job is lost or open, or too many offers were refused.
        """
        for job_id, node in self.acknowledged.items():
            check_ended(job_id, records[node].get(job_id))
        jobs = len(self.acknowledged)
        if self.refused_offers > self.refusals_max * jobs:
            raise Violation(f"{self.refused_offers} offers were refused for {jobs} jobs")
