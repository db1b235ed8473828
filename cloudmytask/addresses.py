"""Addresses as people write them: ``HOST:PORT``, and ``unix:PATH`` for an instance on this machine.

Invariant: what comes out has a host and a port within the limits, or it was a failure that names the address and what
is wrong with it. No name is resolved here.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address
from pathlib import Path
from typing import Any

from attrs import frozen
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint

from cloudmytask.model.errors import ConfigurationError

IpAddress = IPv4Address | IPv6Address

_LOOPBACK_V4 = IPv4Network("127.0.0.0/8")
_LOOPBACK_V6 = IPv6Address("::1")
_PORT = re.compile(r"[0-9]{1,5}", re.ASCII)
_HOST = re.compile(r"[A-Za-z0-9._:%-]{1,253}", re.ASCII)

CONNECT_TIMEOUT = 5.0
"""Seconds."""


@frozen
class Address:
    """Where an instance may be reached; ``source`` says who named it, for messages."""

    text: str
    source: str
    path: str | None = None
    host: str | None = None
    port: int = 0

    @classmethod
    def parse(cls, text: str, source: str) -> Address:
        """The address that ``text`` says.

        :raises ConfigurationError: neither ``unix:PATH`` nor ``HOST:PORT``; names source and value.
        """
        if text.startswith("unix:") and len(text) > len("unix:"):
            return cls(text, source, path=str(Path(text.removeprefix("unix:")).absolute()))
        host, colon, port = text.rpartition(":")
        if colon and host and port.isdecimal() and 0 < int(port) < 65536:
            return cls(text, source, host=host.strip("[]"), port=int(port))
        raise ConfigurationError(f"{source}: {text!r} is neither unix:PATH nor HOST:PORT")

    @property
    def key(self) -> str:
        """The same for every way to write the same address."""
        return f"unix:{self.path}" if self.path is not None else f"{(self.host or '').lower()}:{self.port}"

    def endpoint(self, reactor: Any) -> IStreamClientEndpoint:
        """How to connect to it."""
        if self.path is not None:
            return UNIXClientEndpoint(reactor, self.path, timeout=CONNECT_TIMEOUT)
        assert self.host is not None
        return HostnameEndpoint(reactor, self.host, self.port, timeout=CONNECT_TIMEOUT)


def split_address(address: str) -> tuple[str, int]:
    """Host, without the brackets of an IPv6 address, and port of ``HOST:PORT``. Port 0 is any free port.

    :raises ValueError: it is not of that form.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not host:
        raise ValueError(f"{address!r} is not of the form HOST:PORT, such as 127.0.0.1:7001")
    if not _PORT.fullmatch(port) or int(port) > 65_535:
        raise ValueError(f"{port!r} in {address!r} is not a port: give a number from 0 to 65535")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if not _HOST.fullmatch(host):
        raise ValueError(f"{host!r} in {address!r} is neither a host's name nor an IP address")
    return host, int(port)


def split_peer(address: str) -> tuple[str, int]:
    """Like :func:`split_address`, of somebody to connect to: a port 0 is wrong.

    :raises ValueError: it is not of that form.
    """
    host, port = split_address(address)
    if not port:
        raise ValueError(f"'0' in {address!r} is not a port to connect to: give a number from 1 to 65535")
    return host, port


def split_listen(address: str) -> tuple[IpAddress, int]:
    """IP address and port of ``HOST:PORT`` to listen on. ``localhost`` is 127.0.0.1; no resolver is asked.

    :raises ValueError: also if the host is a name.
    """
    host, port = split_address(address)
    if host.lower() == "localhost":
        return IPv4Address("127.0.0.1"), port
    try:
        return ip_address(host), port
    except ValueError:
        raise ValueError(
            f"{host!r} in {address!r} is not an IP address: give one of this host's, or localhost"
        ) from None


def split_group(group: str) -> tuple[str, int]:
    """Address and port of an IPv4 multicast group.

    :raises ValueError: it is none.
    """
    host, port = split_peer(group)
    try:
        found = IPv4Address(host)
    except ValueError:
        found = None
    if found is None or not found.is_multicast:
        raise ValueError(f"{host!r} in {group!r} is not an IPv4 multicast address: give one from 224.0.0.0/4")
    return str(found), port


def is_loopback(address: IpAddress) -> bool:
    """Whether nobody on another host reaches it."""
    return address in _LOOPBACK_V4 if isinstance(address, IPv4Address) else address == _LOOPBACK_V6


def check_loopback(address: str) -> None:
    """Check that only this host can reach ``HOST:PORT``.

    :raises ValueError: somebody on another host could, and might then run scripts.
    """
    try:
        safe = is_loopback(split_listen(address)[0])
    except ValueError:
        safe = False
    if not safe:
        raise ValueError(
            f"{address!r} is not a loopback address: until instances have certificates, they listen only on"
            " 127.0.0.0/8, ::1 or localhost, as anybody who reaches one may run scripts; insecure_lan = true"
            " (--insecure-lan true) lifts this where everybody on the network is trusted"
        )


def join_address(host: IpAddress | str, port: int) -> str:
    """``HOST:PORT``, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"
