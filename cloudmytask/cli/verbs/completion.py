"""``cmt completion``: shell code that completes verbs and options, offline."""

from __future__ import annotations

import os
from pathlib import PurePath

import click
from click.shell_completion import get_completion_class

from cloudmytask.cli.failures import UsageError
from cloudmytask.cli.terminal.console import Console
from cloudmytask.cli.verb import verb

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_CMT_COMPLETE"
"""The environment variable by which the shell's code asks ``cmt`` for completions."""


@verb(short_help="Print code that completes cmt in your shell.")
@click.argument("shell", type=click.Choice(SHELLS), required=False)
def completion(console: Console, shell: str | None) -> int:
    """Print code that makes your shell complete cmt's verbs and options.

    Without SHELL it is the one that $SHELL names.

    \b
    Example:  eval "$(cmt completion bash)"
    """
    name = shell if shell is not None else PurePath(os.environ.get("SHELL", "")).name
    made_for = get_completion_class(name)
    if made_for is None or name not in SHELLS:
        raise UsageError(f"$SHELL names none of {', '.join(SHELLS)}: say which one you mean")
    root = click.get_current_context().find_root().command
    source = made_for(root, {}, "cmt", VARIABLE).source()
    if console.as_json:
        console.document({"shell": name, "source": source})
    else:
        console.data(source)
    return 0
