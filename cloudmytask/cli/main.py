"""The one place where ``cmt`` begins and ends.

Invariant: a usage error is one line too, and in ``run`` and ``wait`` it is a failure of ours like any other.
"""

from __future__ import annotations

import os
import sys

import click

from cloudmytask.cli.commands import verbs
from cloudmytask.cli.exit_codes import INTERRUPTED
from cloudmytask.cli.failures import UsageError
from cloudmytask.cli.terminal.console import STDERR, Console
from cloudmytask.cli.verb import JSON_KEY, outcome


def main() -> None:
    """Run ``cmt``, and exit."""
    _open_standard_descriptors()
    sys.exit(outcome(Console(), _call))


def _open_standard_descriptors() -> None:
    """If one was closed (``cmt … <&-``), the next file opened would be taken for it."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= STDERR:
        pass
    os.close(descriptor)


def _call() -> int:
    try:
        return int(verbs.main(prog_name="cmt", standalone_mode=False) or 0)
    except click.Abort:
        return INTERRUPTED
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        sentence = error.format_message()
        if context is None:
            return Console().fail(UsageError(sentence))
        console = Console(
            # If the options could not be told apart at all, the word alone has to do.
            as_json=bool(context.meta.get(JSON_KEY, "--json" in sys.argv)),
            ours=getattr(context.command, "ours", None),
        )
        return console.fail(UsageError(f"{sentence} (see {context.command_path} --help)"))
