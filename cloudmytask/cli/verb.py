"""How a verb is declared: what it takes and says apart from what it does, so that help and completion are instant.

Invariant: the module that does a verb's work is imported when the verb is called, not before. Every verb has ``--json``
and ``-q``, and ends in an exit code; no declared failure gets past here.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from typing import Any

import click

from cloudmytask.cli import exit_codes
from cloudmytask.cli.failures import Interrupted, NoReader
from cloudmytask.cli.terminal.console import STDOUT, Console
from cloudmytask.model.errors import CloudMyTaskError, InternalError

JSON_KEY = "cloudmytask.json"
"""In a context's ``meta``: whether ``--json`` was seen."""


class Verb(click.Command):
    """A command whose work is a function ``(console, **options) -> exit code`` of its own name in :attr:`module`."""

    module: str
    ours: int | None = None
    """Exit code for all failures of ours; None: each failure has its own."""

    def function(self) -> Callable[..., int]:
        """What does the work. The first call imports it."""
        found: Callable[..., int] = getattr(import_module(self.module), str(self.name))
        return found

    def called(self, as_json: bool, quiet: bool, **values: Any) -> int:
        """The exit code of one call."""
        via = click.get_current_context().find_root().params.get("via")
        return outcome(
            Console(via, as_json, quiet, self.ours), lambda console: int(self.function()(console, **values))
        )


def verb(module: str, *, ours: int | None = None, **settings: Any) -> Callable[[Callable[[], None]], Verb]:
    """Make a verb of a function that has nothing but options, as decorators, and the help, as its docstring.

    :param module: the one in ``cloudmytask.cli.verbs`` that does the work.
    :param ours: exit code for all failures of ours; None: each failure has its own.
    :param settings: for ``click.command``.
    """

    def made(declared: Callable[[], None]) -> Verb:
        command = click.command(cls=Verb, **settings)(declared)
        command.module = f"cloudmytask.cli.verbs.{module}"
        command.ours = ours
        command.callback = command.called
        command.params += [
            # Eager: a usage error in another option is to be told as JSON too.
            click.Option(
                ["--json", "as_json"], is_flag=True, is_eager=True, callback=_noted, help="Answer with a JSON object."
            ),
            click.Option(["-q", "--quiet"], is_flag=True, help="Say nothing that is not asked for."),
        ]
        return command

    return made


def _noted(context: click.Context, _parameter: click.Parameter, value: bool) -> bool:
    context.meta[JSON_KEY] = value
    return value


def outcome(console: Console, function: Callable[[Console], int]) -> int:
    """Call a verb's function; the exit code, whatever happens that is foreseeable."""
    try:
        return function(console)
    except NoReader:
        return exit_codes.BROKEN_PIPE
    except CloudMyTaskError as error:
        return console.fail(error)
    except Interrupted as interrupted:
        return exit_codes.SIGNALED + interrupted.number
    except KeyboardInterrupt:
        return exit_codes.INTERRUPTED
    except BrokenPipeError:
        # click's own words are buffered, and Python would try once more to write them at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), STDOUT)
        return exit_codes.BROKEN_PIPE
    except OSError as error:
        what = f"{error.filename}: " if error.filename else ""
        return console.fail(InternalError(f"{what}{error.strerror or error}"))
