"""``cmt completion``: shell code that completes verbs, options and files, offline.

Invariant: nothing of Twisted is imported here: a shell may ask for this code each time it starts.
"""

from __future__ import annotations

import os
from pathlib import PurePath

import click
from click.shell_completion import get_completion_class

from cloudmytask.cli.commands import SHELLS
from cloudmytask.cli.failures import UsageError
from cloudmytask.cli.terminal.console import Console

VARIABLE = "_CMT_COMPLETE"
"""The environment variable by which the shell's code asks ``cmt`` for completions."""


def completion(console: Console, shell: str | None) -> int:
    """Print code that completes cmt in a shell.

    :param shell: None for the one that ``$SHELL`` names.
    :raises UsageError: that is none of those known.
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
