"""Where a node may be reached, and in which order to look for one.

Addresses are ``unix:PATH`` or ``HOST:PORT``. Order (design section 8): the caller's argument, ``$CMT_NODE``, the local
node's socket, the client's configuration file.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import frozen
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint

from cloudmytask.config import default_state, socket_path
from cloudmytask.model.errors import ConfigurationError

CONNECT_TIMEOUT = 5.0
"""Seconds."""


@frozen
class Address:
    """One place to look; ``source`` says where it was named, for messages."""

    text: str
    source: str
    path: str | None = None
    host: str | None = None
    port: int = 0

    @classmethod
    def parse(cls, text: str, source: str) -> Address:
        """:raises ConfigurationError: neither form; names source and value."""
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


def candidates(argument: str | None, environment: Mapping[str, str]) -> list[Address]:
    """The addresses to try, in order. An address that is named ends the list: nothing else was meant.

    :raises ConfigurationError:
    """
    if argument is not None:
        return [Address.parse(argument, "--via")]
    if environment.get("CMT_NODE"):
        return [Address.parse(environment["CMT_NODE"], "$CMT_NODE")]
    found: list[Address] = []
    local = socket_path(default_state(environment))
    if local.exists():
        found.append(Address.parse(f"unix:{local}", "local node"))
    configured = _configured(configuration_file(environment))
    if configured is not None:
        found.append(configured)
    return found


def configuration_file(environment: Mapping[str, str]) -> Path:
    """``cloudmytask/client.toml`` in the configuration directory."""
    if environment.get("XDG_CONFIG_HOME"):
        return Path(environment["XDG_CONFIG_HOME"]) / "cloudmytask" / "client.toml"
    if os.geteuid() == 0:
        return Path("/etc/cloudmytask/client.toml")
    return Path.home() / ".config" / "cloudmytask" / "client.toml"


def _configured(path: Path) -> Address | None:
    try:
        settings = tomllib.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as problem:
        raise ConfigurationError(f"{path}: {problem}") from None
    unknown = sorted(set(settings) - {"node"})
    if unknown:
        raise ConfigurationError(f"{path}: unknown key {unknown[0]!r}; the only one is 'node'")
    node = settings.get("node")
    if node is None:
        return None
    if not isinstance(node, str):
        raise ConfigurationError(f"{path}: node: {node!r} is not a string")
    return Address.parse(node, str(path))
