"""How a verb is declared: ``--json`` and ``-q`` everywhere, and every failure as one line and an exit code.

Invariant: a verb's function returns its exit code or raises a declared failure; no declared failure gets past here.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

import click

from cloudmytask.cli import exit_codes
from cloudmytask.cli.failures import Interrupted, NoReader
from cloudmytask.cli.terminal.console import STDOUT, Console
from cloudmytask.model.errors import CloudMyTaskError, InternalError

JSON_KEY = "cloudmytask.json"
"""In a context's ``meta``: whether ``--json`` was seen."""


class Verb(click.Command):
    """A command that knows the exit code of our own failures, if they all have the same."""

    ours: int | None = None


def verb(*, ours: int | None = None, **settings: Any) -> Callable[[Callable[..., int]], click.Command]:
    """Make a command of a function ``(console, **options) -> exit code``.

    :param ours: exit code for all failures of ours; None: each failure has its own.
    :param settings: for ``click.command``.
    """

    def made(function: Callable[..., int]) -> click.Command:
        @functools.wraps(function)
        def called(as_json: bool, quiet: bool, **values: Any) -> int:
            via = click.get_current_context().find_root().params.get("via")
            return outcome(Console(via, as_json, quiet, ours), functools.partial(function, **values))

        command = click.command(cls=Verb, **settings)(called)
        command.ours = ours
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
