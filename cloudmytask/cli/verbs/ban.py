"""``cmt ban``: who may not use the cluster, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cloudmytask.cli.option_types import duration
from cloudmytask.cli.terminal.console import Console
from cloudmytask.cli.terminal.escape import one_line
from cloudmytask.cli.verb import verb
from cloudmytask.core.units import format_duration, show_duration
from cloudmytask.model.errors import NoSuchBan

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from twisted.internet.defer import Deferred

    from cloudmytask.cli.invocation import Invocation
    from cloudmytask.client.node_session import NodeSession
    from cloudmytask.model.cluster import Ban

COLUMNS = ("CLIENT", "ENDS IN", "BY", "REASON")


@click.group(invoke_without_command=True, short_help="Ban clients, and see who is banned.")
@click.pass_context
def ban(context: click.Context) -> None:
    """Ban clients from the cluster, and see who is banned and why.

    Bans are made and lifted on the machine of a node or a CSU; any of them will do.

    \b
    Example:  cmt ban add --client mallory --reason "floods the queue" --for 1h
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@verb()
@click.option("--client", required=True, help="Whom.")
@click.option("--reason", required=True, help="Why; the client is told.")
@click.option("--for", "term", type=duration, metavar="DURATION", default="1h", help="How long. [default: 1h]")
def add(console: Console, client: str, reason: str, term: float) -> int:
    """Ban a client on all nodes.

    \b
    Example:  cmt ban add --client mallory --reason "floods the queue" --for 1h
    """

    async def work(_invocation: Invocation, node: NodeSession) -> int:
        made = await node.ask(lambda node: node.ban(client, reason, term))
        _answer(console, made, f"{one_line(made.client)} is banned for {show_duration(made.until)}")
        return 0

    return _conducted(console, work)


@verb()
def ls(console: Console) -> int:
    """List the bans in force. With -q only the clients.

    \b
    Example:  cmt ban ls
    """
    from cloudmytask.cli.terminal import tables
    from cloudmytask.client import ban_to_document

    async def work(_invocation: Invocation, node: NodeSession) -> int:
        bans = await node.ask(lambda node: node.bans())
        found = sorted(bans, key=lambda each: each.client)
        if console.as_json:
            console.document({"bans": [ban_to_document(each) for each in found]})
        elif console.quiet:
            if found:
                console.data("\n".join(one_line(each.client) for each in found))
        elif found:
            tables.show(console, COLUMNS, rows(found))
        else:
            console.note("nobody is banned")
        return 0

    return _conducted(console, work)


@verb()
@click.argument("client")
def rm(console: Console, client: str) -> int:
    """Lift a ban before it ends.

    \b
    Example:  cmt ban rm mallory
    """

    async def work(_invocation: Invocation, node: NodeSession) -> int:
        lifted = await node.ask(lambda node: node.lift_ban(client))
        _answer(console, lifted, f"{one_line(lifted.client)} is not banned any more")
        return 0

    return _conducted(console, work)


@verb()
@click.argument("client")
def why(console: Console, client: str) -> int:
    """Say why a client is banned, by whom and for how long. Exit code 1 if it is not.

    \b
    Example:  cmt ban why mallory
    """
    from cloudmytask.client import ban_to_document

    async def work(_invocation: Invocation, node: NodeSession) -> int:
        found = next((each for each in await node.ask(lambda node: node.bans()) if each.client == client), None)
        if found is None:
            raise NoSuchBan(f"{client} is not banned")
        if console.as_json:
            console.document(ban_to_document(found))
        else:
            console.data(sentence(found))
        return 0

    return _conducted(console, work)


for _each in (add, ls, rm, why):
    ban.add_command(_each)


def rows(bans: Sequence[Ban]) -> list[tuple[str, ...]]:
    """A line of ``cmt ban ls`` each."""
    return [(one_line(b.client), show_duration(b.until), one_line(b.by), one_line(b.reason)) for b in bans]


def sentence(found: Ban) -> str:
    """All about one ban."""
    said = (
        f"{found.client} is banned for another {show_duration(found.until)} (of {format_duration(found.term)})"
        f" by {found.by}: {found.reason}"
    )
    if found.reporters:
        said += f"; reported by {', '.join(found.reporters)}"
    return one_line(said)


def _answer(console: Console, changed: Ban, note: str) -> None:
    from cloudmytask.client import ban_to_document

    if console.as_json:
        console.document(ban_to_document(changed))
    else:
        console.note(note)


def _conducted(console: Console, work: Callable[[Any, NodeSession], Coroutine[Deferred[Any], Any, int]]) -> int:
    from cloudmytask.cli.invocation import conduct
    from cloudmytask.cli.reach import with_node

    return conduct(with_node(console, work))
