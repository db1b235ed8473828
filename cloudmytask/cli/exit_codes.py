"""The exit codes of ``cmt run`` and ``cmt wait`` (design section 8).

Invariant: the script's own code if it ended by itself; everything else has a code that no one takes for success.
"""

from __future__ import annotations

from cloudmytask.model.words import JobState, Reason

TIMED_OUT = 124
"""As of timeout(1)."""
OURS = 125
"""Any failure of ours."""
ENVIRONMENT = 126
SCRIPT_NOT_FOUND = 127
SIGNALED = 128
"""Plus the signal's number, as of a shell."""
INTERRUPTED = 130
"""Ctrl-C: 128 + SIGINT."""
BROKEN_PIPE = 141
"""Nobody reads our output any more: 128 + SIGPIPE, which Python otherwise ignores."""
CANCELLED = 143
"""Ended by somebody's ``cancel``: 128 + SIGTERM."""


def of_job(state: JobState, reason: Reason | None, exit_code: int | None, signal: int | None) -> int:
    """The code for a job that has ended."""
    match state:
        case JobState.SUCCEEDED:
            return 0
        case JobState.TIMED_OUT:
            return TIMED_OUT
        case JobState.CANCELLED:
            return CANCELLED
        case JobState.FAILED:
            return _of_failure(reason, exit_code, signal)
        case _:
            return OURS


def of_interrupted(signal: int, exit_code: int | None) -> int:
    """The code for a script that was cancelled because ``cmt run`` received ``signal``: its own, if it handled SIGTERM
    and exited by itself."""
    return exit_code if exit_code is not None else SIGNALED + signal


def _of_failure(reason: Reason | None, exit_code: int | None, signal: int | None) -> int:
    if reason is Reason.ENVIRONMENT:
        return ENVIRONMENT
    if signal is not None and reason in (Reason.SIGNAL, Reason.MEMORY):
        return SIGNALED + signal
    if reason is Reason.EXIT and exit_code is not None:
        return exit_code
    return OURS
