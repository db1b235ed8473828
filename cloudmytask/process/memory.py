"""How much memory a script used at most, from two sources that are each blind in a different place.

Invariant: a number is reported only where it is known to be the script's own.

``ru_maxrss`` (getrusage(2)) is exact and covers the script's children, but ``execve`` carries over the high-water
mark of the address space that it leaves behind, and right after ``posix_spawn`` that is the daemon's: it says
nothing about scripts that stay below. ``VmHWM`` (proc(5)) starts afresh with the interpreter, but is gone once the
process has exited, so the last reading before that has to do.
"""

from __future__ import annotations

import resource
from pathlib import Path

from attrs import define, field

_KIB = 1024
_COUNTER_SLACK = 4 * 1024 * _KIB
"""Bytes by which two readings of the same high-water mark may differ: the kernel counts pages in per-CPU batches."""


@define
class PeakMemory:
    """The peak of one script, from its start on."""

    inherited: int = field(factory=lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KIB)
    """This process's high-water mark when the script was started, bytes."""
    sampled: int | None = None

    def sample(self, pid: int) -> None:
        """Read the mark of a process that has not been reaped."""
        high = resident_high_water(pid)
        if high is not None:
            self.sampled = high

    def conclude(self, maxrss: int) -> int | None:
        """The peak, bytes.

        :param maxrss: ``ru_maxrss`` of the reaped script, KiB.
        """
        exact = maxrss * _KIB
        return exact if exact > self.inherited + _COUNTER_SLACK else self.sampled


def resident_high_water(pid: int) -> int | None:
    """``VmHWM`` of a process, bytes; None once it has exited, or if it cannot be read now."""
    try:
        status = Path(f"/proc/{pid}/status").read_bytes()
    except OSError:  # it is gone, or there is no descriptor left to look with
        return None
    _, found, rest = status.partition(b"\nVmHWM:")
    return int(rest.split(maxsplit=1)[0]) * _KIB if found else None
