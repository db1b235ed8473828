"""What a job that succeeded left behind.

Invariant: the bytes are exactly those that the script wrote; text is what one can read of them.
"""

from __future__ import annotations

from attrs import frozen

from cloudmytask.codec.people import JobStatus


@frozen
class Result:
    """What a successful job left."""

    status: JobStatus
    stdout_bytes: bytes
    stderr_bytes: bytes

    @property
    def stdout(self) -> str:
        """Standard output as text; bytes that are not UTF-8 are replaced."""
        return self.stdout_bytes.decode("utf-8", "replace")

    @property
    def stderr(self) -> str:
        """Standard error as text."""
        return self.stderr_bytes.decode("utf-8", "replace")
