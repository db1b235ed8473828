"""Running ``cmt`` as people do: in a pipe, in the foreground of a terminal, with Ctrl-C."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.integration.daemons import PATIENCE, environment

# Whoever runs the tests may ignore SIGINT, and what is ignored stays ignored.
CMT = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
from cloudmytask.cli import main
main()
"""


class Commands:
    """``cmt`` against one node, in one directory.

    :param node: ``$CMT_NODE``; None for an environment in which there is no node.
    :param before: Python that is run in the same process before ``cmt``, to change what it is not to be asked for.
    """

    def __init__(
        self, directory: Path, node: str | None, extra: Mapping[str, str] | None = None, *, before: str = ""
    ) -> None:
        self.directory = directory
        self._program = before + CMT
        named = {} if node is None else {"CMT_NODE": node}
        home = {f"XDG_{kind}_HOME": str(directory / "xdg") for kind in ("STATE", "CONFIG", "CACHE")}
        self.environment = environment({**home, **named, "CMT_CLIENT": "tester", **(extra or {})})
        self.environment.pop("NO_COLOR", None)

    def script(self, source: str, name: str = "script.py") -> str:
        """Write a script; its path."""
        path = self.directory / name
        path.write_text(source)
        return str(path)

    def __call__(self, *arguments: str, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
        """Run to the end."""
        return subprocess.run(
            self.line(*arguments),
            cwd=self.directory,
            env=self.environment,
            input=b"" if stdin is None else stdin,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )

    def alive(self) -> set[str]:
        """The names of the instances that are alive, as the node sees it."""
        return {each["name"] for each in self.json("nodes")["nodes"] if each["state"] == "alive"}

    def line(self, *arguments: str) -> list[str]:
        """The command line."""
        return [sys.executable, "-c", self._program, *arguments]

    def text(self, *arguments: str) -> str:
        """Standard output of a command that succeeds."""
        done = self(*arguments)
        assert done.returncode == 0, done
        return done.stdout.decode().strip()

    def json(self, *arguments: str) -> Any:
        """The JSON answer of a command, whatever its exit code."""
        return json.loads(self(*arguments, "--json").stdout)

    def submit(self, source: str, *options: str, arguments: tuple[str, ...] = ()) -> str:
        """Submit a script; the id."""
        return self.text("submit", *options, self.script(source), *arguments)

    @contextmanager
    def started(self, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        """In the background, with an empty standard input; killed if it still runs at the end."""
        process = subprocess.Popen(
            self.line(*arguments),
            cwd=self.directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    def on_terminal(
        self, *arguments: str, columns: int = 80, extra: Mapping[str, str] | None = None
    ) -> tuple[int, str]:
        """Run with a terminal as input, output and error; exit code and all that was shown."""
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        process = subprocess.Popen(
            self.line(*arguments),
            cwd=self.directory,
            env={**self.environment, "TERM": "xterm", **(extra or {})},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        shown = b""
        try:
            while piece := _read(ours):
                shown += piece
            return process.wait(PATIENCE), shown.decode()
        finally:
            os.close(ours)
            process.kill()
            process.wait()


def _read(terminal: int) -> bytes:
    """Empty at the end: a terminal whose other end is closed fails with EIO."""
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""
