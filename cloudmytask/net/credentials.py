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
    option = getattr(socket, "SO_PEERCRED", None)
    handle = transport.getHandle() if hasattr(transport, "getHandle") else None
    if option is None or handle is None or handle.family != socket.AF_UNIX:
        return None
    _, uid, _ = _CREDENTIALS.unpack(handle.getsockopt(socket.SOL_SOCKET, option, _CREDENTIALS.size))
    return int(uid)
