"""``cmt nodes``: who is there, and how busy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudmytask.cli.terminal.console import Console
from cloudmytask.cli.verb import verb

if TYPE_CHECKING:
    from cloudmytask.cli.link import Link
    from cloudmytask.cli.session import Session


@verb(short_help="List the nodes of the cluster.")
def nodes(console: Console) -> int:
    """List the nodes of the cluster as the one that you talk to sees them. With -q only their names.

    LOAD is the share of a machine's CPU that others than our jobs use, FREE how many scripts a node would start at
    once and how many slots it has.

    \b
    Example:  cmt nodes
    """
    from cloudmytask.cli.link import with_node
    from cloudmytask.cli.session import conduct
    from cloudmytask.cli.terminal import cluster as cluster_rendering
    from cloudmytask.cli.terminal import tables
    from cloudmytask.codec.people import view_to_document

    async def work(_session: Session, link: Link) -> int:
        view = await link.ask(lambda client: client.cluster())
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
