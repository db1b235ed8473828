"""What went wrong with a script that would have worked in its own directory.

Invariant: a hint is given only where both halves are there: the failing import, and the file that would have
satisfied it.
"""

from __future__ import annotations

import re
from pathlib import Path

_MISSING = re.compile(rb"^ModuleNotFoundError: No module named '([A-Za-z_][A-Za-z0-9_]*)", re.MULTILINE)


def missing_neighbor(script: str, stderr: bytes) -> str | None:
    """The file beside ``script`` that the script could not import.

    :param stderr: the end of the script's standard error.
    """
    found = _MISSING.findall(stderr)
    if not found:
        return None
    name = found[-1].decode()
    beside = Path(script).absolute().parent
    for candidate in (beside / f"{name}.py", beside / name):
        if candidate.exists():
            return candidate.name
    return None
