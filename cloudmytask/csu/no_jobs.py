"""What a CSU answers to a client who takes it for a node: that it is none, and where a node is.

Invariant: every call about jobs fails with one sentence and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NoReturn

from attrs import define
from twisted.internet.defer import Deferred

from cloudmytask.boundaries import OutputReader, Receipt, Submission, Upload, Watch
from cloudmytask.model.errors import NotPermitted
from cloudmytask.model.job import Blob, ClientId, Explanation, Job, JobId, JobPage, JobQuery, StreamName


@define(eq=False)
class NoJobs:
    """The part of ``boundaries.FrontDoor`` that is about jobs.

    :ivar sentence: makes what is said.
    """

    _sentence: Callable[[], str]

    def submit(self, client: ClientId, submission: Submission) -> Deferred[Receipt]:  # noqa: ARG002
        self._refuse()

    def status(self, client: ClientId, job_id: JobId) -> Deferred[Job]:  # noqa: ARG002
        self._refuse()

    def cancel(self, client: ClientId, job_id: JobId, note: str) -> Deferred[Job]:  # noqa: ARG002
        self._refuse()

    def retry(self, client: ClientId, job_id: JobId, key: str) -> Deferred[Receipt]:  # noqa: ARG002
        self._refuse()

    def remove(self, client: ClientId, job_id: JobId) -> Deferred[Job]:  # noqa: ARG002
        self._refuse()

    def jobs(self, client: ClientId, query: JobQuery) -> Deferred[JobPage]:  # noqa: ARG002
        self._refuse()

    def explain(self, client: ClientId, job_id: JobId) -> Deferred[Explanation]:  # noqa: ARG002
        self._refuse()

    def watch(
        self,
        client: ClientId,  # noqa: ARG002
        job_id: JobId,  # noqa: ARG002
        changed: Callable[[Job], None],  # noqa: ARG002
    ) -> Deferred[tuple[Job, Watch]]:
        self._refuse()

    def output(
        self,
        client: ClientId,  # noqa: ARG002
        job_id: JobId,  # noqa: ARG002
        attempt: int,  # noqa: ARG002
        offsets: Mapping[StreamName, int],  # noqa: ARG002
        follow: bool,  # noqa: ARG002
    ) -> Deferred[OutputReader]:
        self._refuse()

    def upload(self, client: ClientId, blob: Blob) -> Deferred[Upload | None]:  # noqa: ARG002
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise NotPermitted(self._sentence())
