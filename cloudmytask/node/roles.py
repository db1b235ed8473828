"""What the roles of a node know of each other: protocols, so that no role imports another and ``node.py`` wires them.

Invariant: no logic.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from attrs import frozen

from cloudmytask.model import Content, Job, JobId, Outcome, Output, Reason
from cloudmytask.node.waiting import Signal


class Door(Protocol):
    """The gate, as other roles see it."""

    @property
    def draining(self) -> bool:
        """Whether the node is shutting down."""

    @property
    def closing(self) -> Signal:
        """Fired when draining begins, and again when it is cut short."""

    def admit_work(self) -> None:
        """:raises NodeDraining: no new work is accepted any more."""


@frozen
class Ended:
    """The result of one attempt; its output is sealed and, where small, still to be saved."""

    outcome: Outcome
    interrupted: bool
    """The node is shutting down: the outcome says nothing about the script."""
    stdout: Output
    stderr: Output
    contents: tuple[Content, ...]


class Slots(Protocol):
    """The executor, as the origin sees it; its docstrings say what each does."""

    @property
    def running(self) -> int: ...
    @property
    def free(self) -> bool: ...
    async def run(self, job: Job, before_start: Callable[[], Awaitable[None]], freed: Callable[[], None]) -> Ended: ...
    def stop(self, job_id: JobId, reason: Reason) -> None: ...
    def hurry(self, job_id: JobId) -> None: ...
    async def recover(self, job: Job) -> Ended: ...
    async def clean(self, job_id: JobId, attempt: int) -> None: ...
