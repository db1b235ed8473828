"""The jobs of a simulated cluster: submitted as they arrive, and followed until each has an outcome.

Invariant: each case is closed once: its job has an outcome, or no node took it. Clients whose node dies before it
acknowledged a job submit it to another one, under another key.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

from cloudmytask.boundaries import Launch, Receipt, Submission
from cloudmytask.core.blobs import blob_of
from cloudmytask.core.job_id import job_id as id_of
from cloudmytask.model.errors import CloudMyTaskError
from cloudmytask.model.job import ClientId, Content, Job, JobId, JobSpec, JobState
from cloudmytask.node.front_door import NodeFrontDoor
from cloudmytask.simulation.arrivals import Arrival
from cloudmytask.simulation.clock import VirtualClock
from cloudmytask.simulation.cluster_checker import ClusterChecker
from cloudmytask.simulation.host import Host
from cloudmytask.simulation.runner import ScriptPlan

SCRIPT = b"# what it does is decided by the simulation\n"


@define(eq=False, repr=False)
class Case:
    """One job that is to be done."""

    number: int
    arrival: Arrival
    client: ClientId
    tries: int = 0
    end: float | None = None
    """When its script ended, on the clock; None until it has succeeded."""


@define(eq=False, repr=False)
class Workload:
    """See the module.

    :ivar note: remembers what happened.
    :ivar failed: told of whatever is not a declared failure.
    :ivar progress: told now and then how many cases are closed, of how many.
    """

    cases: list[Case]
    _clock: VirtualClock
    _hosts: dict[str, Host]
    _checker: ClusterChecker
    _note: Callable[..., None]
    _failed: Callable[[Failure], None]
    _progress: Callable[[int, int], None]
    closed: int = field(init=False, default=0)
    refused: int = field(init=False, default=0)
    executions: int = field(init=False, default=0)
    _by_id: dict[JobId, Case] = field(init=False, factory=dict)
    _pending: dict[JobId, str] = field(init=False, factory=dict)
    """Jobs that are not acknowledged yet, and by whom."""
    _launches: dict[tuple[JobId, int], float] = field(init=False, factory=dict)
    _script: Content = field(init=False, factory=lambda: Content(blob_of(SCRIPT), SCRIPT))

    @property
    def open(self) -> int:
        """Cases that are not closed."""
        return len(self.cases) - self.closed

    def begin(self) -> None:
        """Arrivals count from now."""
        self._arrive(0, 0.0)

    def launched(self, host: Host, launch: Launch) -> ScriptPlan:
        """A script is started; what it does."""
        case, now = self._by_id[launch.id.job], self._clock.seconds()
        self.executions += 1
        self._launches[launch.id.job, launch.id.number] = now
        self._note("launch", host.name, launch.id.job, launch.id.number)
        running, slots = host.machine.live + 1, host.config.slots
        self._checker.started(host.name, case.client, running=running, slots=slots, now=now)
        return ScriptPlan(duration=case.arrival.length)

    def recorded(self, name: str, before: Job | None, job: Job) -> None:
        """A record was committed on a node's disk."""
        self._checker.recorded(name, before, job)
        if not job.state.terminal or (before is not None and before.state.terminal):
            return
        self._note(job.state, name, job.id)
        if job.state is JobState.SUCCEEDED and job.attempt is not None:
            case = self._by_id[job.id]
            case.end = self._launches[job.id, job.attempt.number] + case.arrival.length
        if job.id in self._checker.acknowledged:
            self._close()

    def node_died(self, name: str) -> None:
        """Whoever had asked that node for something learns nothing of it, and asks another one."""
        for job_id in [job_id for job_id, there in self._pending.items() if there == name]:
            del self._pending[job_id]
            self._submit(self._by_id[job_id])

    def _arrive(self, number: int, before: float) -> None:
        """Wait for the next job, and submit it."""
        if number < len(self.cases):
            arrival = self.cases[number].arrival.at
            self._clock.callLater(arrival - before, self._arrived, number)

    def _arrived(self, number: int) -> None:
        case = self.cases[number]
        self._submit(case)
        self._arrive(number + 1, case.arrival.at)

    def _submit(self, case: Case) -> None:
        """To its node, or to the next that is up, as a client would that knows several."""
        hosts = list(self._hosts.values())
        place = case.arrival.node
        host = next((each for each in hosts[place:] + hosts[:place] if each.up), None)
        if host is None:
            self._clock.callLater(1.0, self._submit, case)
            return
        case.tries += 1
        key = f"{case.number}.{case.tries}"
        job_id = id_of(case.client, key)
        self._by_id[job_id], self._pending[job_id] = case, host.name
        submission = Submission(key, JobSpec(self._script.blob), (self._script,))
        submitted = maybeDeferred(_request, host.node.front_door, case.client, submission)
        submitted.addCallbacks(self._accepted, self._refused, callbackArgs=(host.name,), errbackArgs=(job_id,))
        submitted.addErrback(self._failed)

    def _accepted(self, receipt: Receipt, name: str) -> None:
        job_id = receipt.job.id
        del self._pending[job_id]
        self._checker.accepted(name, job_id)
        if self._hosts[name].disk.jobs[job_id].state.terminal:  # it ended before it was acknowledged
            self._close()

    def _refused(self, failure: Failure, job_id: JobId) -> None:
        failure.trap(CloudMyTaskError)
        del self._pending[job_id]
        self.refused += 1
        self._note("refused", type(failure.value).__name__, job_id)
        self._close()

    def _close(self) -> None:
        self.closed += 1
        if self.closed % max(1, len(self.cases) // 100) == 0:
            self._progress(self.closed, len(self.cases))


def _request(door: NodeFrontDoor, client: ClientId, submission: Submission) -> Deferred[Receipt]:
    """As a session does for its client, but for the pauses of those who are too fast."""
    door.admit(client, len(SCRIPT))
    return door.submit(client, submission)
