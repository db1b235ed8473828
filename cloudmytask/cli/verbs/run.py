"""``cmt run``: the verb; what it does while it runs is in ``foreground``."""

from __future__ import annotations

import click

from cloudmytask.cli import exit_codes
from cloudmytask.cli.failures import ScriptNotFound, UsageError
from cloudmytask.cli.job_options import SETTINGS, JobOptions, job_options
from cloudmytask.cli.terminal.console import Console
from cloudmytask.cli.verb import verb


@verb(ours=exit_codes.OURS, short_help="Run a script as if it ran here.", context_settings=SETTINGS)
@click.option("--stdin", metavar="FILE", help="The script's standard input. [default: ours, unless it is a terminal]")
@click.option("--no-stdin", is_flag=True, help="Empty standard input, whatever ours is.")
@click.option("--raw", is_flag=True, help="Show control sequences in the output as they are, on a terminal too.")
@job_options
def run(console: Console, options: JobOptions, no_stdin: bool, raw: bool) -> int:
    """Run SCRIPT as "python SCRIPT" would: same output, same input, same exit code, same Ctrl-C.

    SCRIPT may be - for a script on standard input. What stands behind it belongs to it. Standard input is read to its
    end before the script starts. The first Ctrl-C asks the script to end, the second kills it. Without a node within
    reach, one is started for the time being. With --json the output is part of the answer instead.

    \b
    Example:  seq 5 | cmt run --timeout 90s sum.py --verbose
    """
    from cloudmytask.cli.invocation import conduct
    from cloudmytask.cli.submission import check_script
    from cloudmytask.cli.verbs.foreground import Foreground

    if no_stdin and options.stdin is not None:
        raise UsageError("--stdin and --no-stdin exclude each other")
    try:
        check_script(options.script)
        return conduct(lambda invocation: Foreground(console, options, invocation, raw, not no_stdin).run())
    except ScriptNotFound as problem:
        console.fail(problem)
        return exit_codes.SCRIPT_NOT_FOUND
