"""What a script has otherwise than the daemon that starts it: its soft limit of descriptors, and its place in the order
in which the system kills when memory is short.

Invariant: it is given within a millisecond of the start, long before an interpreter runs a script's first line, and
costs some microseconds. ``posix_spawn`` cannot give it, and a process in between would cost more.
"""

from __future__ import annotations

import os
import resource
from pathlib import Path

from attrs import frozen

_OOM_MORE = 500
"""By how much a script's ``oom_score_adj`` is above the daemon's: it counts like half of the machine's memory."""
_OOM_MAX = 1000


@frozen
class Endowment:
    """The same for all scripts of a node.

    :ivar open_files: the limits of descriptors, soft and hard; None if they are the daemon's own.
    :ivar oom_score_adj: as the system wants it written, see proc_pid_oom_score_adj(5).
    """

    open_files: tuple[int, int] | None
    oom_score_adj: bytes

    @classmethod
    def of(cls, open_files: int | None) -> Endowment:
        """For scripts of this process.

        :param open_files: their soft limit of descriptors; None if it is this process's own.
        """
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        own = int(Path("/proc/self/oom_score_adj").read_text())
        return cls(None if open_files is None else (open_files, hard), b"%d" % min(_OOM_MAX, own + _OOM_MORE))

    def give(self, pid: int, *, own_limits: bool) -> bool:
        """Give it to a process that was just started and has not been reaped.

        :param own_limits: whether its limits of descriptors are its job's.
        :returns: False if it has not all of it, and this should be tried again: for a moment after ``execve`` a new
            process is as closed to others of its user as the daemon is.
        """
        try:
            if self.open_files is not None and not own_limits:
                resource.prlimit(pid, resource.RLIMIT_NOFILE, self.open_files)
            descriptor = os.open(f"/proc/{pid}/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
        except (FileNotFoundError, ProcessLookupError):
            return True
        except OSError:
            return False
        try:
            os.write(descriptor, self.oom_score_adj)
        except OSError:
            return True  # it has ended, or the system does not let us
        finally:
            os.close(descriptor)
        return True
