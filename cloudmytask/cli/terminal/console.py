"""What ``cmt`` itself says, and how a verb was asked to say it.

Invariant: nothing stays in a buffer, so nothing is lost or complained about when the process ends.
"""

from __future__ import annotations

import json
import os
import select
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from cloudmytask.cli.failures import NoReader, OutputFailed
from cloudmytask.cli.terminal.escape import one_line
from cloudmytask.model.errors import CloudMyTaskError

STDOUT = 1
STDERR = 2

CLEAR = b"\r\x1b[2K"
"""To the line's beginning, and erase it (ECMA-48 EL)."""


class Console(NamedTuple):
    """How one verb was called."""

    via: str | None = None
    """``--via``, if given."""
    as_json: bool = False
    quiet: bool = False
    ours: int | None = None
    """Exit code for every failure of ours; None: each failure has its own."""

    def data(self, text: str) -> None:
        """Write a result to standard output.

        :raises OutputFailed: it cannot be written.
        """
        write(STDOUT, f"{text}\n".encode("utf-8", "backslashreplace"))

    def document(self, document: Mapping[str, Any]) -> None:
        """Write a result as JSON.

        :raises OutputFailed: it cannot be written.
        """
        self.data(json.dumps(document, indent=2 if os.isatty(STDOUT) else None))

    def note(self, text: str) -> None:
        """Tell a person something, unless they want to hear nothing."""
        if not self.quiet:
            say(text)

    def report(self, error: CloudMyTaskError) -> None:
        """Tell of a failure, also those who want to hear nothing else."""
        say(f"{error.name}: {error}")

    def fail(self, error: CloudMyTaskError) -> int:
        """Report what ends the verb; the exit code."""
        self.report(error)
        if self.as_json:
            with suppress(OutputFailed):  # it was said already
                self.document({"error": {"name": error.name, "message": str(error)}})
        return int(error.exit_code) if self.ours is None else self.ours


def columns(descriptor: int) -> int:
    """The width of the terminal behind a descriptor; 80 if it does not tell."""
    return os.get_terminal_size(descriptor).columns or 80


def say(text: str) -> None:
    """Write one line to standard error. If that is closed there is nobody left to tell, and that is no failure."""
    with suppress(OutputFailed):
        write(STDERR, f"cmt: {one_line(text)}\n".encode())


def write(descriptor: int, data: bytes) -> None:
    """Write all of ``data``, unbuffered, also if the descriptor is in non-blocking mode.

    :raises NoReader: nobody reads it any more. :raises OutputFailed: it cannot be written.
    """
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:
            select.select([], [descriptor], [])
        except BrokenPipeError as error:
            raise NoReader("nobody reads our output any more") from error
        except OSError as error:
            name = {STDOUT: "standard output", STDERR: "standard error"}.get(descriptor, "output")
            raise OutputFailed(f"{name} cannot be written: {error.strerror}") from error
