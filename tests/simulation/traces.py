"""Runs a simulation in processes of their own, each with another hash seed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cloudmytask

ROOT = Path(cloudmytask.__file__).parents[1]


def traces(program: str, *arguments: str) -> list[str]:
    """What each of three runs of ``program`` printed, once all have succeeded."""
    running = [
        subprocess.Popen(
            [sys.executable, "-c", program, *arguments],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for hash_seed in ("0", "1", "random")
    ]
    printed = [process.communicate(timeout=100)[0].strip() for process in running]
    assert {process.returncode for process in running} == {0}
    return printed
