"""Where the values come from: defaults, then the TOML file, then the command line; the later wins.

Invariant: nothing that was written is ignored. An unknown key or a malformed value is an error that names its place.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from cloudmytask.config.node import NodeConfig, options
from cloudmytask.config.option import Option
from cloudmytask.errors import ConfigurationError


def default_file(environ: Mapping[str, str] | None = None, *, root: bool | None = None) -> Path:
    """The file that is read unless another one is named; it need not exist."""
    if os.geteuid() == 0 if root is None else root:
        return Path("/etc/cloudmytask/node.toml")
    named = Path((os.environ if environ is None else environ).get("XDG_CONFIG_HOME", ""))
    return (named if named.is_absolute() else Path.home() / ".config") / "cloudmytask" / "node.toml"


def load(
    file: Path | None = None, arguments: Mapping[str, str] | None = None, *, default: Path | None = None
) -> NodeConfig:
    """The configuration of a node.

    :param file: a TOML file, which must exist; None reads ``default`` if that exists.
    :param arguments: option key (with underscores) → text from the command line.
    :param default: :func:`default_file` if None.
    :raises ConfigurationError: with one sentence that names the file or option, the value and the limit.
    """
    source = file if file is not None else default if default is not None else default_file()
    values = _from_file(source, required=file is not None)
    values.update(_from_arguments(arguments or {}))
    return NodeConfig(**values)


def _from_file(file: Path, *, required: bool) -> dict[str, Any]:
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if required:
            raise ConfigurationError(f"{file}: there is no such file.") from None
        return {}
    except OSError as error:
        raise ConfigurationError(f"{file}: cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{file}: is not UTF-8 text.") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{file}: is not TOML: {error}.") from None
    base = file.absolute().parent
    return {key: _parse(f"{file}: {key}", _named(key, f"{file}: "), value, base) for key, value in document.items()}


def _from_arguments(arguments: Mapping[str, str]) -> dict[str, Any]:
    values = {}
    for key, text in arguments.items():
        option = _named(key, "")
        values[key] = _parse(f"--{option.flag}", option, option.kind.read(text), Path.cwd())
    return values


def _named(key: str, place: str) -> Option:
    known = {option.key: option for option in options()}
    if key in known:
        return known[key]
    close = get_close_matches(key.lower().replace("-", "_"), known, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(known)}."
    raise ConfigurationError(f"{place}unknown option {key!r}{hint}")


def _parse(place: str, option: Option, value: object, base: Path) -> Any:
    try:
        return option.parse(value, base)
    except ValueError as error:
        raise ConfigurationError(f"{place}: {error}.") from None
