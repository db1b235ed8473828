"""Where the files of this program lie unless told otherwise: the XDG base directories, and root's own places.

Invariant: nothing is created or read here. A relative path in a variable is ignored, as the specification has it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from cloudmytask.model.cluster import Role


def default_state(
    environ: Mapping[str, str] | None = None, *, root: bool | None = None, directory: str = "cloudmytask"
) -> Path:
    """Where an instance keeps its state unless told otherwise."""
    if os.geteuid() == 0 if root is None else root:
        return Path("/var/lib") / directory
    named = Path((os.environ if environ is None else environ).get("XDG_STATE_HOME", ""))
    return (named if named.is_absolute() else Path.home() / ".local" / "state") / directory


def socket_path(state: Path, role: Role = Role.NODE) -> Path:
    """The unix socket of the instance whose state directory is ``state``."""
    return state / f"{role}.sock"


def client_file(environ: Mapping[str, str]) -> Path:
    """The client's configuration: ``cloudmytask/client.toml`` in the configuration directory."""
    return _of_client(environ.get("XDG_CONFIG_HOME", ""), "/etc", ".config") / "client.toml"


def known_nodes_file(environ: Mapping[str, str]) -> Path:
    """The nodes that a client was told of: ``cloudmytask/nodes.json`` in the cache directory."""
    return _of_client(environ.get("XDG_CACHE_HOME", ""), "/var/cache", ".cache") / "nodes.json"


def _of_client(named: str, of_root: str, at_home: str) -> Path:
    if Path(named).is_absolute():
        return Path(named) / "cloudmytask"
    return (Path(of_root) if os.geteuid() == 0 else Path.home() / at_home) / "cloudmytask"
