"""``cmt topology``: the tree of links between the nodes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from cloudmytask.cli.failures import UsageError
from cloudmytask.cli.terminal.console import Console
from cloudmytask.cli.verb import verb

if TYPE_CHECKING:
    from cloudmytask.cli.invocation import Invocation
    from cloudmytask.client.node_session import NodeSession


@verb(short_help="Draw the tree that links the nodes.")
@click.option("--dot", is_flag=True, help="As a graph for Graphviz.")
def topology(console: Console, dot: bool) -> int:
    """Draw the tree that links the nodes, as the node that you talk to sees it. With -q names only.

    \b
    Example:  cmt topology --dot | dot -Tsvg > cluster.svg
    """
    from cloudmytask.cli.invocation import conduct
    from cloudmytask.cli.reach import with_node
    from cloudmytask.cli.terminal import tree as tree_drawing

    if dot and console.as_json:
        raise UsageError("--dot and --json exclude each other")

    async def work(_invocation: Invocation, node: NodeSession) -> int:
        view = await node.ask(lambda client: client.cluster())
        if console.as_json:
            console.document(tree_drawing.document(view))
        elif dot:
            console.data(tree_drawing.dot(view))
        else:
            console.data(tree_drawing.text(view, tree_drawing.strokes_for(os.environ), bare=console.quiet))
        return 0

    return conduct(with_node(console, work))
