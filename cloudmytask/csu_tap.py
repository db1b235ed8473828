"""``cmt-csu`` for twistd and ``python -m twisted``: its options, and the service made from them.

Invariant: see ``service.command_line``.
"""

from __future__ import annotations

from typing import Any, ClassVar, cast

from cloudmytask.config import CsuConfig, InstanceConfig
from cloudmytask.service.command_line import InstanceOptions, collector, parameters
from cloudmytask.service.csu_service import CsuService
from cloudmytask.service.instance_service import Reactor


class Options(InstanceOptions[CsuConfig]):
    """The command line of ``cmt-csu``; :attr:`config` is set by :meth:`parseOptions`."""

    OF: ClassVar[type[InstanceConfig]] = CsuConfig

    longdesc = (
        "Runs a Central Supervisory Unit of Cloud My Task, which keeps the blacklist, the registry of nodes and the"
        " history of their load. Options stand here or, under the same names with underscores, in a TOML file; what"
        " stands here wins. With twistd -n it stays in the foreground."
    )
    optParameters: ClassVar[list[list[Any]]] = parameters(CsuConfig)
    opt_listen = collector(CsuConfig, "listen")
    opt_seeds = collector(CsuConfig, "seeds")


def makeService(options: Options) -> CsuService:
    """The service that the options describe; Twisted's plugin interface demands the name.

    :raises SystemExit: its log cannot be opened.
    """
    # Only here is it certain that ours, or one made monotonic, is installed.
    from twisted.internet import reactor

    return CsuService(options.config, cast(Reactor, reactor), options.observer())
