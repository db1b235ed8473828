"""The words for a job: how urgent it is, its states, why an attempt ended, its streams, by which policy it is placed.

Invariant: nothing but words, so that a command line which offers them for choice loads nothing else.
"""

from __future__ import annotations

import enum


class QoS(enum.StrEnum):
    """The paper's "QoS type": how urgent a job is (paper 3.1.1; design section 4)."""

    INTERACTIVE = "interactive"
    BATCH = "batch"
    IDLE = "idle"


class JobState(enum.StrEnum):
    """The states of design section 2."""

    terminal: bool
    """Whether the job has its one outcome."""

    PENDING = "pending"
    WAITING = "waiting"
    STAGING = "staging"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    LOST = "lost"
    EXPIRED = "expired"

    def __init__(self, value: str) -> None:
        self.terminal = value not in ("pending", "waiting", "staging", "running")


TERMINAL_STATES = frozenset(state for state in JobState if state.terminal)


class Reason(enum.StrEnum):
    """Why an attempt ended (design section 4.4)."""

    EXIT = "exit"
    SIGNAL = "signal"
    TIMEOUT = "timeout"
    MEMORY = "memory"
    CANCELLED = "cancelled"
    ENVIRONMENT = "environment"
    LOST = "lost"
    LAUNCH = "launch"


class StreamName(enum.StrEnum):
    """The two output streams of a script."""

    STDOUT = "stdout"
    STDERR = "stderr"


class Interruption(enum.StrEnum):
    """What is known of an attempt that did not end by itself, beyond that."""

    UNSTARTED = "unstarted"
    """Its script was certainly never started."""
    NODE_DIED = "node-died"
    """Its node died during it, perhaps by it."""


class Resource(enum.StrEnum):
    """What a node may be short of; announcements name them by their places here."""

    DISK = "disk"
    DESCRIPTORS = "descriptors"
    PROCESSES = "processes"
    MEMORY = "memory"
    INTERPRETER = "interpreter"

    @property
    def words(self) -> str:
        """What people call it."""
        return _RESOURCES[self]


_RESOURCES = {
    Resource.DISK: "room on its disk",
    Resource.DESCRIPTORS: "file descriptors",
    Resource.PROCESSES: "processes",
    Resource.MEMORY: "memory",
    Resource.INTERPRETER: "a Python interpreter",
}


PAPER = "paper"
RESERVE_PULL = "reserve-pull"
LOCAL = "local"
POLICIES = (RESERVE_PULL, PAPER, LOCAL)
"""The names of the policies that place jobs, the default first; ``core.placement`` says what each does."""
