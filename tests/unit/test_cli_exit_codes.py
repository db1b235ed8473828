"""The codes that ``run`` and ``wait`` end with (design section 8)."""

from __future__ import annotations

import pytest

from cloudmytask.cli.exit_codes import of_interrupted, of_job
from cloudmytask.model.errors import (
    Banned,
    CloudMyTaskError,
    DiskShort,
    JobExpired,
    JobNotFinished,
    NodeDraining,
    NoNode,
    NoSuchJob,
    NoSuchNode,
    QueueFull,
    TooManyRequests,
)
from cloudmytask.model.job import TERMINAL_STATES, JobState, Reason


@pytest.mark.parametrize(
    ("state", "reason", "exit_code", "signal", "code"),
    [
        (JobState.SUCCEEDED, Reason.EXIT, 0, None, 0),
        (JobState.FAILED, Reason.EXIT, 3, None, 3),
        (JobState.FAILED, Reason.EXIT, 255, None, 255),
        (JobState.FAILED, Reason.SIGNAL, None, 9, 137),
        (JobState.FAILED, Reason.MEMORY, None, 9, 137),
        (JobState.FAILED, Reason.MEMORY, None, None, 125),
        (JobState.FAILED, Reason.ENVIRONMENT, None, None, 126),
        (JobState.FAILED, Reason.LAUNCH, None, None, 125),
        (JobState.TIMED_OUT, Reason.TIMEOUT, None, 15, 124),
        (JobState.TIMED_OUT, Reason.TIMEOUT, 0, None, 124),
        (JobState.CANCELLED, Reason.CANCELLED, 0, None, 143),
        (JobState.CANCELLED, None, None, None, 143),
        (JobState.LOST, Reason.LOST, None, None, 125),
        (JobState.EXPIRED, Reason.EXIT, 0, None, 125),
    ],
)
def test_each_end_has_its_code(
    state: JobState, reason: Reason | None, exit_code: int | None, signal: int | None, code: int
) -> None:
    assert of_job(state, reason, exit_code, signal) == code


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (NoSuchJob, 3),
        (JobExpired, 3),
        (JobNotFinished, 4),
        (NoNode, 5),
        (NoSuchNode, 5),
        (Banned, 6),
        (QueueFull, 7),
        (DiskShort, 7),
        (TooManyRequests, 7),
        (NodeDraining, 7),
    ],
)
def test_the_guides_table_of_the_other_verbs(failure: type[CloudMyTaskError], code: int) -> None:
    assert failure.exit_code == code


def test_only_success_is_zero() -> None:
    for state in TERMINAL_STATES - {JobState.SUCCEEDED}:
        for reason in (*Reason, None):
            for code in (None, 1, 2):
                for signal in (None, 9):
                    assert of_job(state, reason, code, signal) != 0


def test_a_script_that_was_interrupted_keeps_its_own_code_if_it_has_one() -> None:
    assert of_interrupted(2, 7) == 7
    assert of_interrupted(2, 0) == 0
    assert of_interrupted(2, None) == 130
    assert of_interrupted(15, None) == 143
