"""Failures that only the command line knows.

Invariant: like every declared failure, each has a name, one sentence and an exit code.
"""

from __future__ import annotations

from cloudmytask.model.errors import CloudMyTaskError, ExitCode


class UsageError(CloudMyTaskError):
    """The command line makes no sense."""

    exit_code = ExitCode.USAGE


class ScriptNotFound(CloudMyTaskError):
    """There is no file of that name."""

    exit_code = ExitCode.USAGE


class FileUnreadable(CloudMyTaskError):
    """A file that was named cannot be read."""

    exit_code = ExitCode.USAGE


class FileUnwritable(CloudMyTaskError):
    """A file that was named cannot be written."""


class OutputFailed(CloudMyTaskError):
    """This program's standard output or standard error takes no more."""


class NoReader(OutputFailed):
    """The other end of our standard output is closed. Ends ``cmt`` as SIGPIPE would: without a word."""


class Interrupted(Exception):
    """A signal asked us to end; ``args[0]`` is its number."""

    @property
    def number(self) -> int:
        """The signal."""
        return int(self.args[0])
