"""Waiting for what will hold at some time, instead of for time to pass.

Invariant: what never holds fails the test, with the last reason why it did not.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Event
from typing import TypeVar

PATIENCE = 30.0
"""Seconds until something that never happens fails a test."""
_PAUSE = 0.05
"""Seconds between two looks."""

T = TypeVar("T")


def until(condition: Callable[[], T], patience: float = PATIENCE) -> T:
    """Look again and again until ``condition`` raises no AssertionError; what it returned then.

    :param patience: seconds.
    :raises AssertionError: the last one, when patience ends.
    """
    pause = Event()
    deadline = time.monotonic() + patience
    while True:
        try:
            return condition()
        except AssertionError:
            if time.monotonic() >= deadline:
                raise
        pause.wait(_PAUSE)
