"""A disk so small that a test can fill it; skips the test, with the reason, if this machine or user cannot have one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from benchmarks.rude import surroundings


@contextmanager
def small_disk(directory: Path, mebibytes: int) -> Iterator[Path]:
    """Mount one of that size below ``directory``."""
    with ExitStack() as mounted:
        try:
            disk = mounted.enter_context(surroundings.small_disk(directory, mebibytes))
        except surroundings.Unavailable as problem:
            pytest.skip(str(problem))
        yield disk
