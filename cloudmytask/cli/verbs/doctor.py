"""``cmt doctor``: the verb; the checks are in ``checks``."""

from __future__ import annotations

import os

from cloudmytask.cli.terminal.console import STDOUT, Console
from cloudmytask.cli.verb import verb
from cloudmytask.model.errors import ExitCode

_COLORS = {"ok": "32", "note": "33", "problem": "31"}


@verb(short_help="Check what is needed on this machine.")
def doctor(console: Console) -> int:
    """Check what Cloud My Task needs on this machine, and say how to mend what is missing.

    Exit code 1 if there is a problem; a note is none. With -q it shows problems only.

    \b
    Example:  cmt doctor
    """
    from cloudmytask.cli.invocation import Invocation, conduct
    from cloudmytask.cli.terminal.jobs import aligned
    from cloudmytask.cli.verbs.check import Check
    from cloudmytask.cli.verbs.machine_checks import check_all

    async def work(invocation: Invocation) -> int:
        checks = await check_all(invocation.reactor, console.via, os.environ)
        healthy = all(check.level != "problem" for check in checks)
        if console.as_json:
            console.document({"ok": healthy, "checks": [check.document() for check in checks]})
            return ExitCode.OK if healthy else ExitCode.FAILED
        shown: list[Check] = [check for check in checks if not console.quiet or check.level == "problem"]
        if shown:
            console.data(_colored(aligned([(check.level, check.name, check.text) for check in shown])))
        return ExitCode.OK if healthy else ExitCode.FAILED

    return conduct(work)


def _colored(text: str) -> str:
    """The first word of each line in the color of what it says, on a terminal that has not refused colors."""
    if not os.isatty(STDOUT) or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    lines = []
    for line in text.split("\n"):
        level, space, rest = line.partition(" ")
        lines.append(f"\x1b[{_COLORS[level]}m{level}\x1b[0m{space}{rest}")
    return "\n".join(lines)
