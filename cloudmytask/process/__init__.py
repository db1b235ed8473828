"""The process shell: scripts as child processes of this one, in sessions and process groups of their own.

Invariant: a script that was started is either watched by a :class:`~cloudmytask.process.runner.ProcessRunner`
or found by its tag (:mod:`cloudmytask.process.sweep`). Needs Linux 5.3 or later (``pidfd_open(2)``).
"""

from cloudmytask.process.runner import ProcessRunner

__all__ = ["ProcessRunner"]
