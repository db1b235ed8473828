"""The names of the policies that place jobs; ``placement`` says what each does.

Invariant: nothing but names, so that the command line, which offers them, loads nothing else.
"""

from __future__ import annotations

PAPER = "paper"
RESERVE_PULL = "reserve-pull"
LOCAL = "local"
POLICIES = (RESERVE_PULL, PAPER, LOCAL)
"""The default first."""
