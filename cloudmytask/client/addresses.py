"""In which order a node is looked for (design section 8): the caller's argument, ``$CMT_NODE``, the local node's
socket, the client's configuration file.

Invariant: an address that was named ends the list: nothing else was meant.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path

from cloudmytask.addresses import Address
from cloudmytask.directories import client_file, default_state, socket_path
from cloudmytask.model.errors import ConfigurationError


def candidates(argument: str | None, environment: Mapping[str, str]) -> list[Address]:
    """The addresses to try, in order.

    :raises ConfigurationError: one makes no sense, or the configuration file does not.
    """
    if argument is not None:
        return [Address.parse(argument, "--via")]
    if environment.get("CMT_NODE"):
        return [Address.parse(environment["CMT_NODE"], "$CMT_NODE")]
    found: list[Address] = []
    local = socket_path(default_state(environment))
    if local.exists():
        found.append(Address.parse(f"unix:{local}", "local node"))
    configured = _configured(client_file(environment))
    if configured is not None:
        found.append(configured)
    return found


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
