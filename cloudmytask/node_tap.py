"""``cmt-node`` for twistd and ``python -m twisted``: its options, and the service made from them.

Invariant: see ``service.command_line``.
"""

from __future__ import annotations

from typing import Any, ClassVar, cast

from cloudmytask.config import InstanceConfig, NodeConfig
from cloudmytask.service.command_line import InstanceOptions, collector, parameters
from cloudmytask.service.instance_service import Reactor
from cloudmytask.service.node_service import NodeService


class Options(InstanceOptions[NodeConfig]):
    """The command line of ``cmt-node``; :attr:`config` is set by :meth:`parseOptions`."""

    OF: ClassVar[type[InstanceConfig]] = NodeConfig

    longdesc = (
        "Runs one node of Cloud My Task. Options stand here or, under the same names with underscores, in a TOML"
        " file; what stands here wins. With twistd -n it stays in the foreground."
    )
    optParameters: ClassVar[list[list[Any]]] = parameters(NodeConfig)
    opt_listen = collector(NodeConfig, "listen")
    opt_seeds = collector(NodeConfig, "seeds")


def makeService(options: Options) -> NodeService:
    """The service that the options describe; Twisted's plugin interface demands the name.

    :raises SystemExit: its log cannot be opened.
    """
    # Only here is it certain that ours, or one made monotonic, is installed.
    from twisted.internet import reactor

    return NodeService(options.config, cast(Reactor, reactor), options.observer())
