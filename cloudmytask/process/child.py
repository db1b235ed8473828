"""A child process as a Twisted transport: its output pipes, and the news that it has exited.

Invariant: a child is reaped in one place, :meth:`ScriptProcess.reapProcess`, after its process group was killed;
nothing of its group outlives it, and what it used is known.

``reactor.spawnProcess`` cannot be had with ``setsid`` and without ``fork``, and it reaps with ``waitpid``, at times
before it returns, which loses the resource usage. So :class:`ScriptProcess` replaces how Twisted's ``Process`` is
born and buried and keeps the rest. The exit is announced by a pidfd, a descriptor like any other, rather than by
SIGCHLD: that also works in a reactor that does not run in the main thread, as that of an embedded node.
"""

from __future__ import annotations

import array
import fcntl
import os
import signal
import termios
from collections.abc import Callable
from contextlib import ExitStack, suppress
from resource import struct_rusage

from twisted.internet import process
from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from cloudmytask.process.group import command_name, signal_group
from cloudmytask.process.program import SHELL_FAILURES, Program
from cloudmytask.process.spawn import spawn

_log = Logger()

STDIN, STDOUT, STDERR = range(3)
_READ_SIZE = 64 * 1024
"""Bytes that a pipe holds (pipe(7)): more would not come at once, less would cost more turns of the reactor."""
_UNKNOWN_STATUS = int(signal.SIGKILL)
"""Stands in, as a status of wait(2), where somebody else has taken the real one."""


class OutputPipe(process.ProcessReader):
    """Our end of a script's stdout or stderr."""

    def doRead(self) -> Exception | None:  # noqa: N802 - Twisted's name
        return self._read(_READ_SIZE)

    def drain(self) -> None:
        """Deliver what the pipe holds at this moment, and not what may still be written to it."""
        held = array.array("i", [0])
        fcntl.ioctl(self.fd, termios.FIONREAD, held)
        remaining = held[0]
        while remaining > 0 and self._read(min(remaining, _READ_SIZE)) is None:
            remaining -= _READ_SIZE

    def _read(self, size: int) -> Exception | None:
        try:
            data = os.read(self.fd, size)
        except BlockingIOError:
            return None
        except OSError:
            return CONNECTION_LOST
        if not data:
            return CONNECTION_DONE
        self.proc.childDataReceived(self.name, data)
        return None


@implementer(IReadDescriptor)
class ExitNotice:
    """Calls ``exited`` as soon as a child has exited, and again until it is closed."""

    def __init__(self, reactor: IReactorFDSet, pid: int, exited: Callable[[], None]) -> None:
        self._reactor = reactor
        self._exited = exited
        self._descriptor = os.pidfd_open(pid)
        reactor.addReader(self)

    def fileno(self) -> int:
        return self._descriptor

    def logPrefix(self) -> str:  # noqa: N802 - Twisted's name
        return "script"

    def doRead(self) -> None:  # noqa: N802 - Twisted's name
        self._exited()

    def connectionLost(self, reason: Failure) -> None:  # noqa: ARG002 - Twisted's signature
        """The reactor gives its descriptors up as it stops."""
        self.close()

    def close(self) -> None:
        """Idempotent."""
        if self._descriptor >= 0:
            self._reactor.removeReader(self)
            os.close(self._descriptor)
            self._descriptor = -1


class ScriptProcess(process.Process):
    """One running program. Its protocol gets ``childDataReceived``, ``processExited`` and ``processEnded``.

    :ivar executed: whether the program got as far as the interpreter; known at the end.
    :ivar pid: None once the child has been reaped.
    :ivar resources: what it used (getrusage(2)); None until it is reaped, and None afterwards if another part of this
        process reaped it, in which case its exit status is unknown.
    """

    pid: int | None
    resources: struct_rusage | None = None
    executed: bool = True

    def __init__(self, reactor: IReactorFDSet, program: Program, stdin: int, protocol: ProcessProtocol) -> None:
        """Start the program; Twisted's own constructor, which would do it in its way, is deliberately not called.

        :param stdin: an open descriptor that becomes the program's standard input; it stays the caller's.
        :raises OSError: nothing was started.
        """
        self._reactor = reactor
        self._launchers = program.launchers
        self.proto = protocol
        self.pipes = {}
        with ExitStack() as theirs, ExitStack() as undo:
            ends: dict[int, int] = {}
            descriptors = {STDIN: stdin}
            for stream in (STDOUT, STDERR):
                ends[stream], descriptors[stream] = os.pipe()
                theirs.callback(os.close, descriptors[stream])
                undo.callback(os.close, ends[stream])
            self.pid = spawn(program, descriptors)
            undo.callback(self._abandon, self.pid)
            self._notice = ExitNotice(reactor, self.pid, self.reapProcess)
            undo.pop_all()
        for stream, end in ends.items():
            pipe = OutputPipe(reactor, self, stream, end)  # type: ignore[no-untyped-call]  # Twisted has no annotations
            self.pipes[stream] = pipe
        protocol.makeConnection(self)

    def signal_group(self, number: int) -> None:
        """Send a signal to the child's whole process group; after its end this does nothing."""
        if self.pid is not None:
            signal_group(self.pid, number)

    def close_pipes(self) -> None:
        """Deliver what the pipes hold, then close them, even if others hold their other ends."""
        for pipe in self.pipes.values():
            assert isinstance(pipe, OutputPipe)
            pipe.drain()
        self.loseConnection()  # type: ignore[no-untyped-call]  # Twisted has no annotations here

    def reapProcess(self) -> None:
        """If the child has exited: kill what is left of its group, and only then let go of its pid."""
        pid = self.pid
        if pid is None:
            return
        try:
            end = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if end is None:
                return
            if self._launchers and end.si_code == os.CLD_EXITED and end.si_status in SHELL_FAILURES:
                self.executed = command_name(pid) not in self._launchers
            signal_group(pid, signal.SIGKILL)
            _, status, self.resources = os.wait4(pid, 0)
        except ChildProcessError:
            _log.error("the exit status of script process {pid} was taken by another part of this process", pid=pid)
            status = _UNKNOWN_STATUS
        self._notice.close()
        self.processEnded(status)

    @staticmethod
    def _abandon(pid: int) -> None:
        with suppress(ChildProcessError):
            signal_group(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
