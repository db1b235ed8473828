"""How a verb is declared: what it takes and says, apart from what it does, so that help and completion are instant.

Invariant: the module that does a verb's work is imported when the verb is called, not before. Every verb has ``--json``
and ``-q``, and ends with an exit code: no declared failure gets past :func:`outcome`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from typing import Any

import click

from cloudmytask.cli.exit_codes import BROKEN_PIPE, INTERRUPTED, SIGNALED
from cloudmytask.cli.failures import Interrupted, NoReader
from cloudmytask.cli.options import Declared
from cloudmytask.cli.terminal.console import STDOUT, Console
from cloudmytask.model.errors import CloudMyTaskError, InternalError

JSON_KEY = "cloudmytask.json"
"""In a context's ``meta``: whether ``--json`` was seen."""


class Verb(click.Command):
    """A command whose work is a function ``(console, **options) -> exit code`` of a module in ``cli.verbs``."""

    module: str
    work: str
    """The function's name."""
    ours: int | None = None
    """Exit code for all failures of ours; None: each failure has its own."""

    def function(self) -> Callable[..., int]:
        """Find the function that does the work; the first call imports its module."""
        found: Callable[..., int] = getattr(import_module(f"cloudmytask.cli.verbs.{self.module}"), self.work)
        return found

    def call(self, as_json: bool, quiet: bool, **values: Any) -> int:
        """Do the work; the exit code."""
        via = click.get_current_context().find_root().params.get("via")
        console = Console(via, as_json, quiet, self.ours)
        return outcome(console, lambda: self.function()(console, **values))


class Verbs(click.Group):
    """A group that lists its verbs in the order of their declaration, instead of the alphabet's."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's interface
        return list(self.commands)


def verb(group: click.Group, module: str, *, ours: int | None = None, **settings: Any) -> Callable[[Declared], Verb]:
    """Make a verb of a function that has nothing but options, as decorators, and help, as its docstring.

    :param module: the module in ``cli.verbs`` with the function, of the same name, that does the work.
    :param ours: exit code for all failures of ours; None: each failure has its own.
    :param settings: for ``click.command``.
    """

    def made(declared: Declared) -> Verb:
        command = click.command(cls=Verb, **settings)(declared)
        command.module, command.work, command.ours, command.callback = module, declared.__name__, ours, command.call
        command.params += [
            # Eager: a usage error in another option is to be told as JSON too.
            click.Option(
                ["--json", "as_json"], is_flag=True, is_eager=True, callback=_noted, help="Answer with a JSON object."
            ),
            click.Option(["-q", "--quiet"], is_flag=True, help="Say nothing that is not asked for."),
        ]
        group.add_command(command)
        return command

    return made


def _noted(context: click.Context, _parameter: click.Parameter, value: bool) -> bool:
    context.meta[JSON_KEY] = value
    return value


def outcome(console: Console, function: Callable[[], int]) -> int:
    """Call a function; its exit code, or that of a foreseeable failure, of which one line tells."""
    try:
        return function()
    except NoReader:
        return BROKEN_PIPE
    except CloudMyTaskError as error:
        return console.fail(error)
    except Interrupted as interrupted:
        return SIGNALED + interrupted.number
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # click's own words are buffered, and Python would try once more to write them at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), STDOUT)
        return BROKEN_PIPE
    except OSError as error:
        what = f"{error.filename}: " if error.filename else ""
        return console.fail(InternalError(f"{what}{error.strerror or error}"))
