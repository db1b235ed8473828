"""The group of verbs, and the one place where ``cmt`` begins and ends.

Invariant: a usage error is one line too, and in ``run`` and ``wait`` it is a failure of ours like any other.
"""

from __future__ import annotations

import os
import sys

import click

from cloudmytask.cli import exit_codes
from cloudmytask.cli.commands import VERBS
from cloudmytask.cli.failures import UsageError
from cloudmytask.cli.terminal.console import STDERR, Console
from cloudmytask.cli.verb import JSON_KEY, outcome
from cloudmytask.version import VERSION


class Verbs(click.Group):
    """Lists the verbs in the order of a job's life instead of the alphabet's."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's interface
        return list(self.commands)


@click.group(
    cls=Verbs,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(VERSION, prog_name="cmt", message="%(prog)s %(version)s")
@click.option(
    "--via",
    metavar="ADDRESS",
    help="The node to talk to: unix:PATH or HOST:PORT. [default: $CMT_NODE, or the local one]",
)
@click.pass_context
def verbs(context: click.Context, via: str | None) -> None:  # noqa: ARG001 - the verbs read it
    """Run Python scripts on whichever machine of your network is not busy.

    A SELECTOR is a job's id, its beginning, or "last", the job that you submitted last.

    \b
    Example:  cmt run examples/primes.py
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


for _each in VERBS:
    verbs.add_command(_each)


def main() -> None:
    """The entry point ``cmt``."""
    _open_standard_descriptors()
    sys.exit(outcome(Console(), lambda _console: _called()))


def _open_standard_descriptors() -> None:
    """Where one was closed (``cmt … <&-``), the next file opened would be taken for it."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= STDERR:
        pass
    os.close(descriptor)


def _called() -> int:
    try:
        return int(verbs.main(prog_name="cmt", standalone_mode=False) or 0)
    except click.Abort:
        return exit_codes.INTERRUPTED
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        sentence = error.format_message()
        if context is not None:
            sentence += f" (see {context.command_path} --help)"
        console = Console(
            # Where the options could not be told apart at all, the word alone has to do.
            as_json=bool(context.meta.get(JSON_KEY, "--json" in sys.argv)) if context is not None else False,
            ours=getattr(context.command, "ours", None) if context is not None else None,
        )
        return console.fail(UsageError(sentence))
