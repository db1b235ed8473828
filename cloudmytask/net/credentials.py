"""What the kernel says of who is at the other end of a unix socket.

Invariant: it is asked of the socket itself, so that nobody can claim to be another user; what it does not say is None.
"""

from __future__ import annotations

import socket
import struct
from typing import Any

_CREDENTIALS = struct.Struct("3i")
"""pid, uid, gid: ``struct ucred`` of Linux."""


def peer_uid(transport: Any) -> int | None:
    """The id of the user who connected; None if it is no unix socket, or this system does not tell.

    :param transport: of a connection.
    """
    found = _credentials(transport)
    return None if found is None else found[1]


def peer_pid(transport: Any) -> int | None:
    """The process that connected, which may have ended since; None as for :func:`peer_uid`."""
    found = _credentials(transport)
    return None if found is None else found[0]


def _credentials(transport: Any) -> tuple[int, int, int] | None:
    option = getattr(socket, "SO_PEERCRED", None)
    handle = transport.getHandle() if hasattr(transport, "getHandle") else None
    if option is None or handle is None or handle.family != socket.AF_UNIX:
        return None
    pid, uid, gid = _CREDENTIALS.unpack(handle.getsockopt(socket.SOL_SOCKET, option, _CREDENTIALS.size))
    return pid, uid, gid
