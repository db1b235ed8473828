"""Where the values come from: defaults, then the TOML file, then the command line; the later wins. And that file with
every option explained.

Invariant: nothing that was written is ignored. An unknown key or a malformed value is an error that names its place.
The explained file depends on nothing but the code, so that documentation can be checked against it.
"""

from __future__ import annotations

import os
import textwrap
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, overload

from cloudmytask.config.instance import InstanceConfig
from cloudmytask.config.node import NodeConfig
from cloudmytask.config.options import Option
from cloudmytask.model.errors import ConfigurationError

Config = TypeVar("Config", bound=InstanceConfig)
Values = dict[str, tuple[str, Any]]
"""Option key → where the value was written, and the value."""


def default_file(
    environ: Mapping[str, str] | None = None, *, root: bool | None = None, of: type[InstanceConfig] = NodeConfig
) -> Path:
    """Name the file that is read unless another one is given; it need not exist."""
    name = f"{of.ROLE}.toml"
    if os.geteuid() == 0 if root is None else root:
        return Path("/etc/cloudmytask") / name
    named = Path((os.environ if environ is None else environ).get("XDG_CONFIG_HOME", ""))
    return (named if named.is_absolute() else Path.home() / ".config") / "cloudmytask" / name


@overload
def load(
    file: Path | None = None, arguments: Mapping[str, str] | None = None, *, default: Path | None = None
) -> NodeConfig: ...
@overload
def load(
    file: Path | None = None,
    arguments: Mapping[str, str] | None = None,
    *,
    default: Path | None = None,
    of: type[Config],
) -> Config: ...
def load(
    file: Path | None = None,
    arguments: Mapping[str, str] | None = None,
    *,
    default: Path | None = None,
    of: type[InstanceConfig] = NodeConfig,
) -> InstanceConfig:
    """Make the configuration of a node, or of the class given.

    :param file: a TOML file, which must exist; None reads ``default`` if that exists.
    :param arguments: option key (with underscores) → text from the command line.
    :param default: :func:`default_file` if None.
    :raises ConfigurationError: a value is not accepted, or the file cannot be read; the sentence names the file or
        option, the value and the limit.
    """
    source = file if file is not None else default if default is not None else default_file(of=of)
    known = {option.key: option for option in of.options()}
    values = _from_file(source, known, required=file is not None)
    values.update(_from_arguments(arguments or {}, known))
    try:
        return of(**{key: value for key, (_place, value) in values.items()})
    except ConfigurationError as error:
        # what concerns more than one value names the key, but cannot know where it was written
        key, colon, rest = str(error).partition(": ")
        if colon and key in values:
            raise ConfigurationError(f"{values[key][0]}: {rest}") from None
        raise


def _from_file(file: Path, known: Mapping[str, Option], *, required: bool) -> Values:
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
    return {
        key: _parse(f"{file}: {key}", _named(key, known, f"{file}: "), value, base) for key, value in document.items()
    }


def _from_arguments(arguments: Mapping[str, str], known: Mapping[str, Option]) -> Values:
    values = {}
    for key, text in arguments.items():
        option = _named(key, known, "")
        values[key] = _parse(f"--{option.flag}", option, option.kind.read(text), Path.cwd())
    return values


def _named(key: str, known: Mapping[str, Option], place: str) -> Option:
    if key in known:
        return known[key]
    close = get_close_matches(key.lower().replace("-", "_"), known, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(known)}."
    raise ConfigurationError(f"{place}unknown option {key!r}{hint}")


def _parse(place: str, option: Option, value: object, base: Path) -> tuple[str, Any]:
    try:
        return place, option.parse(value, base)
    except ValueError as error:
        raise ConfigurationError(f"{place}: {error}.") from None


def reference(of: type[InstanceConfig] = NodeConfig) -> str:
    """Write a TOML file with every option commented out: what it is for, what is accepted, and its default."""
    return "\n".join(map(_paragraph, of.options()))


def _paragraph(option: Option) -> str:
    lines = [
        *textwrap.wrap(option.help, 98),
        f"Value: {option.kind.unit}" + (f" ({option.limits})" if option.limits else ""),
        f"Default: {option.default}",
    ]
    return "".join(f"# {line}\n" for line in lines) + f"#{option.key} = {option.example}\n"
