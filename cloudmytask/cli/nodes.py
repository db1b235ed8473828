"""``cmt nodes``: who is there, and how busy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudmytask.cli.verb import verb
from cloudmytask.cli.words import Manner

if TYPE_CHECKING:
    from cloudmytask.cli.link import Link
    from cloudmytask.cli.session import Session


@verb(short_help="List the nodes of the cluster.")
def nodes(manner: Manner) -> int:
    """List the nodes of the cluster as the one that you talk to sees them. With -q only their names.

    LOAD is the share of a machine's CPU that others than our jobs use, FREE how many scripts a node would start at
    once and how many slots it has.

    \b
    Example:  cmt nodes
    """
    from cloudmytask.cli import cluster_rendering, tables
    from cloudmytask.cli.link import with_node
    from cloudmytask.cli.session import conduct
    from cloudmytask.codec.people import view_to_document

    async def work(_session: Session, link: Link) -> int:
        view = await link.ask(lambda client: client.cluster())
        if manner.as_json:
            manner.document(view_to_document(view))
        elif manner.quiet:
            manner.data("\n".join(map(cluster_rendering.name_of, cluster_rendering.ordered(view))))
        else:
            tables.show(manner, cluster_rendering.COLUMNS, cluster_rendering.rows(view), cluster_rendering.NUMBERS)
            for notice in cluster_rendering.notices(view):
                manner.note(notice)
        return 0

    return conduct(with_node(manner, work))
