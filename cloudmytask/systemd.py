"""What systemd is told about the daemon, as sd_notify(3) describes.

Invariant: nothing here fails or blocks the daemon. Without ``$NOTIFY_SOCKET`` nothing is sent, and a notification
that cannot be delivered is logged and forgotten.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

from attrs import field, frozen
from twisted.logger import Logger

_log = Logger()

MICROSECONDS = 1_000_000


@frozen
class Notifier:
    """A way to talk to the service manager, if there is one."""

    address: str | None = None
    """The manager's datagram socket: a path, or a name in the abstract namespace that begins with ``@``."""
    watchdog_interval: float | None = field(default=None)
    """Seconds between two :meth:`watchdog` calls: half of what systemd tolerates. None: no watchdog."""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None, pid: int | None = None) -> Notifier:
        """Read ``$NOTIFY_SOCKET``, ``$WATCHDOG_USEC`` and ``$WATCHDOG_PID`` (sd_watchdog_enabled(3))."""
        environ = os.environ if environ is None else environ
        address = environ.get("NOTIFY_SOCKET") or None
        usec = environ.get("WATCHDOG_USEC", "")
        meant = environ.get("WATCHDOG_PID", "") in ("", str(os.getpid() if pid is None else pid))
        if address is None or not meant or not (usec.isascii() and usec.isdecimal()) or int(usec) == 0:
            return cls(address)
        return cls(address, int(usec) / MICROSECONDS / 2)

    def ready(self, status: str) -> None:
        """The daemon serves."""
        self._send("READY=1", _status(status))

    def status(self, status: str) -> None:
        """One line for ``systemctl status``."""
        self._send(_status(status))

    def stopping(self, status: str, seconds: float) -> None:
        """The daemon shuts down, and may take ``seconds`` for it, also if the unit's ``TimeoutStopSec`` is less."""
        self._send("STOPPING=1", f"EXTEND_TIMEOUT_USEC={round(seconds * MICROSECONDS)}", _status(status))

    def watchdog(self) -> None:
        """The daemon is alive."""
        self._send("WATCHDOG=1")

    def _send(self, *lines: str) -> None:
        if self.address is None:
            return
        address = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        try:
            with socket.socket(
                socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
            ) as sender:
                sender.sendto("\n".join(lines).encode(), address)
        except OSError as error:
            _log.warn("systemd was not told {lines}: {error}", lines=list(lines), error=str(error))


def _status(text: str) -> str:
    return "STATUS=" + " ".join(text.split())
