"""``cmt run``: the script is looked for, then ``foreground`` does the rest.

Invariant: a script that is not there has an exit code of its own, as it has in a shell.
"""

from __future__ import annotations

from typing import Any

from cloudmytask.cli.exit_codes import SCRIPT_NOT_FOUND
from cloudmytask.cli.failures import ScriptNotFound
from cloudmytask.cli.invocation import conduct
from cloudmytask.cli.terminal.console import Console
from cloudmytask.cli.verbs.foreground import Foreground
from cloudmytask.cli.verbs.submit import JobOptions, check_script


def run(console: Console, raw: bool, **given: Any) -> int:
    """Run a script as if it ran here.

    :param given: what :meth:`~cloudmytask.cli.verbs.submit.JobOptions.of` sorts.
    """
    options = JobOptions.of(given)
    try:
        check_script(options.script)
        return conduct(lambda invocation: Foreground(console, options, invocation, raw, not options.no_stdin).run())
    except ScriptNotFound as problem:
        console.fail(problem)
        return SCRIPT_NOT_FOUND
