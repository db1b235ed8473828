"""``cmt-node`` for twistd and ``python -m twisted``: its options, and the service made from them.

Invariant: once the options are parsed, the reactor runs on monotonic time and the node could start; otherwise the
process ended with code 1 and one line on standard error, while there still was a terminal to write it to.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

from twisted.python.usage import Options as UsageOptions
from twisted.python.usage import UsageError

from cloudmytask import reactor as monotonic
from cloudmytask.config import NodeConfig, Option, default_file, load, options
from cloudmytask.errors import ConfigurationError, StartFailed
from cloudmytask.service.logs import adapt_twist, observer_for
from cloudmytask.service.node_service import NodeService, Reactor
from cloudmytask.service.rehearsal import rehearse
from cloudmytask.version import VERSION


def _sentence(option: Option) -> str:
    limits = f", {option.limits}" if option.limits else ""
    return f"{option.help} ({option.kind.unit}{limits}) [default: {option.default}]"


_OPTIONS = {option.flag: option for option in options()}


class Options(UsageOptions):
    """The command line of ``cmt-node``; :attr:`config` is set by :meth:`parseOptions`."""

    synopsis = "[options]"
    longdesc = (
        "Runs one node of Cloud My Task. Options stand here or, under the same names with underscores, in a TOML"
        " file; what stands here wins. With twistd -n it stays in the foreground."
    )
    optParameters: ClassVar[list[list[Any]]] = [
        ["config", "c", None, f"The TOML file. [default: {default_file()}, which need not exist]"],
        *([flag, None, None, _sentence(option)] for flag, option in _OPTIONS.items() if flag != "listen"),
    ]

    config: NodeConfig

    def opt_listen(self, addresses: str) -> None:
        """Collects: unlike the other options, this one may be repeated."""
        self["listen"] = f"{self['listen']},{addresses}" if "listen" in self else addresses

    opt_listen.__doc__ = _sentence(_OPTIONS["listen"])

    def opt_version(self) -> None:
        """Display the version of Cloud My Task and exit."""
        print(f"cmt-node {VERSION}")
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
            raise SystemExit(f"cmt-node: {problem}") from None

    def postOptions(self) -> None:
        """:raises ConfigurationError, StartFailed, UsageError:"""
        runner = self.parent if self.parent is not None else {}
        if any(runner.get(each) is not None for each in ("uid", "gid", "chroot")):
            raise UsageError("A node does not change its user or its root directory; start it as the user it runs as.")
        given = {option.key: self[flag] for flag, option in _OPTIONS.items() if self.get(flag) is not None}
        self.config = load(Path(self["config"]) if self["config"] is not None else None, given)
        rehearse(self.config)
        if "fileLogObserverFactory" in runner:
            adapt_twist(self.config, runner)


def makeService(options: Options) -> NodeService:
    """The service that the options describe; Twisted's plugin interface demands the name.

    :raises SystemExit: its log cannot be opened.
    """
    # Only here is it certain that ours, or one made monotonic, is installed.
    from twisted.internet import reactor

    try:
        observer = observer_for(options.config, options.parent)
    except StartFailed as problem:
        raise SystemExit(f"cmt-node: {problem}") from None
    return NodeService(options.config, cast(Reactor, reactor), observer)
