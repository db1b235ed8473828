"""``cmt nodes``: who is there, and how busy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudmytask.cli.terminal.console import Console
from cloudmytask.cli.verb import verb

if TYPE_CHECKING:
    from cloudmytask.cli.invocation import Invocation
    from cloudmytask.client.node_session import NodeSession


@verb(short_help="List the nodes of the cluster.")
def nodes(console: Console) -> int:
    """List the nodes of the cluster as the one that you talk to sees them. With -q only their names.

    LOAD is the share of a machine's CPU that others than our jobs use, FREE how many scripts a node would start at
    once and how many slots it has.

    \b
    Example:  cmt nodes
    """
    from cloudmytask.cli.invocation import conduct
    from cloudmytask.cli.reach import with_node
    from cloudmytask.cli.terminal import cluster as cluster_rendering
    from cloudmytask.cli.terminal import tables
    from cloudmytask.client import view_to_document

    async def work(_invocation: Invocation, node: NodeSession) -> int:
        view = await node.ask(lambda client: client.cluster())
        if console.as_json:
            console.document(view_to_document(view))
        elif console.quiet:
            console.data("\n".join(map(cluster_rendering.name_of, cluster_rendering.ordered(view))))
        else:
            tables.show(console, cluster_rendering.COLUMNS, cluster_rendering.rows(view), cluster_rendering.NUMBERS)
            for notice in cluster_rendering.notices(view):
                console.note(notice)
        return 0

    return conduct(with_node(console, work))
