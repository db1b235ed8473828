"""Verbs about the cluster: ``cmt nodes``, ``topology``, ``ban``.

Invariant: text that another instance or client said is escaped before it gets into a line of ours.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from cloudmytask.cli.failures import UsageError
from cloudmytask.cli.reach import at_node
from cloudmytask.cli.terminal import cluster as shown_cluster
from cloudmytask.cli.terminal import tables, tree
from cloudmytask.cli.terminal.console import Console
from cloudmytask.cli.terminal.escape import one_line
from cloudmytask.client import ban_to_document, view_to_document
from cloudmytask.client.node_session import NodeSession
from cloudmytask.core.units import format_duration, show_duration
from cloudmytask.model.cluster import Ban
from cloudmytask.model.errors import NoSuchBan

BAN_COLUMNS = ("CLIENT", "ENDS IN", "BY", "REASON")


def nodes(console: Console) -> int:
    """List the instances of the cluster."""

    async def work(_invocation: object, node: NodeSession) -> int:
        view = await node.ask(lambda client: client.cluster())
        if console.as_json:
            console.document(view_to_document(view))
        elif console.quiet:
            console.data("\n".join(map(shown_cluster.name_of, shown_cluster.ordered(view))))
        else:
            tables.show(console, shown_cluster.COLUMNS, shown_cluster.rows(view), shown_cluster.NUMBERS)
            for notice in shown_cluster.notices(view):
                console.note(notice)
        return 0

    return at_node(console, work)


def topology(console: Console, dot: bool) -> int:
    """Draw the tree that links the nodes."""
    if dot and console.as_json:
        raise UsageError("--dot and --json exclude each other")

    async def work(_invocation: object, node: NodeSession) -> int:
        view = await node.ask(lambda client: client.cluster())
        if console.as_json:
            console.document(tree.document(view))
        elif dot:
            console.data(tree.dot(view))
        else:
            console.data(tree.text(view, tree.strokes_for(os.environ), bare=console.quiet))
        return 0

    return at_node(console, work)


def ban_add(console: Console, client: str, reason: str, term: float) -> int:
    """Ban a client on all nodes."""

    async def work(_invocation: object, node: NodeSession) -> int:
        made = await node.ask(lambda node: node.ban(client, reason, term))
        _answer(console, made, f"{one_line(made.client)} is banned for {show_duration(made.until)}")
        return 0

    return at_node(console, work)


def ban_ls(console: Console) -> int:
    """List the bans in force."""

    async def work(_invocation: object, node: NodeSession) -> int:
        bans = await node.ask(lambda node: node.bans())
        found = sorted(bans, key=lambda each: each.client)
        if console.as_json:
            console.document({"bans": [ban_to_document(each) for each in found]})
        elif console.quiet:
            if found:
                console.data("\n".join(one_line(each.client) for each in found))
        elif found:
            tables.show(console, BAN_COLUMNS, ban_rows(found))
        else:
            console.note("nobody is banned")
        return 0

    return at_node(console, work)


def ban_rm(console: Console, client: str) -> int:
    """Lift a ban before it ends."""

    async def work(_invocation: object, node: NodeSession) -> int:
        lifted = await node.ask(lambda node: node.lift_ban(client))
        _answer(console, lifted, f"{one_line(lifted.client)} is not banned any more")
        return 0

    return at_node(console, work)


def ban_why(console: Console, client: str) -> int:
    """Say why a client is banned."""

    async def work(_invocation: object, node: NodeSession) -> int:
        found = next((each for each in await node.ask(lambda node: node.bans()) if each.client == client), None)
        if found is None:
            raise NoSuchBan(f"{client} is not banned")
        if console.as_json:
            console.document(ban_to_document(found))
        else:
            console.data(ban_sentence(found))
        return 0

    return at_node(console, work)


def ban_rows(bans: Sequence[Ban]) -> list[tuple[str, ...]]:
    """Make a line of ``cmt ban ls`` for each ban."""
    return [(one_line(b.client), show_duration(b.until), one_line(b.by), one_line(b.reason)) for b in bans]


def ban_sentence(found: Ban) -> str:
    """Tell all about one ban."""
    said = (
        f"{found.client} is banned for another {show_duration(found.until)} (of {format_duration(found.term)})"
        f" by {found.by}: {found.reason}"
    )
    if found.reporters:
        said += f"; reported by {', '.join(found.reporters)}"
    return one_line(said)


def _answer(console: Console, changed: Ban, note: str) -> None:
    if console.as_json:
        console.document(ban_to_document(changed))
    else:
        console.note(note)
