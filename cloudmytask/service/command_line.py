"""The command line of an instance under twistd and ``python -m twisted``, whatever its role.

Invariant: once the options are parsed, the reactor runs on monotonic time and the instance could start; otherwise the
process ended with code 1 and one line on standard error, while there still was a terminal to write it to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from twisted.logger import ILogObserver
from twisted.python.usage import Options as UsageOptions
from twisted.python.usage import UsageError

from cloudmytask import reactor as monotonic
from cloudmytask.config import InstanceConfig, Option, default_file, load, options
from cloudmytask.model.errors import ConfigurationError, StartFailed
from cloudmytask.service.logs import adapt_twist, observer_for
from cloudmytask.service.rehearsal import rehearse
from cloudmytask.version import VERSION

Config = TypeVar("Config", bound=InstanceConfig)

REPEATABLE = ("listen", "seeds")
"""Options that collect what each of their occurrences says."""


def sentence(option: Option) -> str:
    """An option for the help page."""
    limits = f", {option.limits}" if option.limits else ""
    return f"{option.help} ({option.kind.unit}{limits}) [default: {option.default}]"


def parameters(of: type[InstanceConfig]) -> list[list[Any]]:
    """``optParameters`` for a configuration class."""
    return [
        ["config", "c", None, f"The TOML file. [default: {default_file(of=of)}, which need not exist]"],
        *([each.flag, None, None, sentence(each)] for each in options(of) if each.key not in REPEATABLE),
    ]


def collector(of: type[InstanceConfig], key: str) -> Callable[[UsageOptions, str], None]:
    """The method for an option that, unlike the others, may be repeated."""
    [option] = [each for each in options(of) if each.key == key]

    def collect(self: UsageOptions, text: str) -> None:
        self[option.flag] = f"{self[option.flag]},{text}" if option.flag in self else text

    collect.__doc__ = sentence(option)
    return collect


class InstanceOptions(UsageOptions, Generic[Config]):
    """A subclass says which role it is for, and has a :func:`collector` for each of :data:`REPEATABLE`; :attr:`config`
    is set by :meth:`parseOptions`."""

    OF: ClassVar[type[InstanceConfig]]

    synopsis = "[options]"

    config: Config

    def opt_version(self) -> None:
        """Display the version of Cloud My Task and exit."""
        print(f"{self.OF.ROLE.program} {VERSION}")
        raise SystemExit(0)

    def parseOptions(self, options: Sequence[str] | None = None) -> None:  # noqa: N802 - Twisted's name
        """Parse, check, and rehearse the start.

        :raises SystemExit: with one line for standard error. A UsageError, which Twisted's own tools raise here, would
            end up on standard output below a page of twistd's options.
        """
        try:
            monotonic.install()
            UsageOptions.parseOptions(self, options)
        except (UsageError, ConfigurationError, StartFailed) as problem:
            raise SystemExit(f"{self.OF.ROLE.program}: {problem}") from None

    def postOptions(self) -> None:
        """:raises ConfigurationError, StartFailed, UsageError:"""
        runner = self.parent if self.parent is not None else {}
        if any(runner.get(each) is not None for each in ("uid", "gid", "chroot")):
            raise UsageError(
                f"A {self.OF.ROLE.word} does not change its user or its root directory;"
                " start it as the user it runs as."
            )
        given = {each.key: self[each.flag] for each in options(self.OF) if self.get(each.flag) is not None}
        file = Path(self["config"]) if self["config"] is not None else None
        config: Any = load(file, given, of=self.OF)
        self.config = config
        rehearse(config)
        if "fileLogObserverFactory" in runner:
            adapt_twist(config, runner)

    def observer(self) -> ILogObserver | None:
        """Where the log is to go.

        :raises SystemExit: it cannot be opened.
        """
        try:
            return observer_for(self.config, self.parent)
        except StartFailed as problem:
            raise SystemExit(f"{self.OF.ROLE.program}: {problem}") from None
