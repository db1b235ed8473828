"""TCP addresses as people write them: ``HOST:PORT``.

Invariant: only addresses of the loopback interface come out, because a node without a cluster key trusts whoever
reaches it.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address

_LOOPBACK_V4 = IPv4Network("127.0.0.0/8")
_LOOPBACK_V6 = IPv6Address("::1")
_PORT = re.compile(r"[0-9]{1,5}", re.ASCII)


def split_loopback(address: str) -> tuple[IPv4Address | IPv6Address, int]:
    """Host and port of ``HOST:PORT``, where HOST is in 127.0.0.0/8, ``::1``, ``[::1]`` or ``localhost``.

    ``localhost`` is 127.0.0.1, whatever a resolver says. Port 0 is any free port.

    :raises ValueError: with a sentence that names the address and what is wrong with it.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not host:
        raise ValueError(f"{address!r} is not of the form HOST:PORT, such as 127.0.0.1:7001")
    if not _PORT.fullmatch(port) or int(port) > 65_535:
        raise ValueError(f"{port!r} in {address!r} is not a port: give a number from 0 to 65535")
    return _loopback(host.removeprefix("[").removesuffix("]"), address), int(port)


def _loopback(host: str, address: str) -> IPv4Address | IPv6Address:
    if host.lower() == "localhost":
        return IPv4Address("127.0.0.1")
    try:
        found = ip_address(host)
    except ValueError:
        found = None
    if found is not None and (found in _LOOPBACK_V4 if isinstance(found, IPv4Address) else found == _LOOPBACK_V6):
        return found
    raise ValueError(
        f"{address!r} is not a loopback address: until a cluster key exists, a node listens only on"
        " 127.0.0.0/8, ::1 or localhost, as anybody who reaches it may run scripts"
    )
