"""``cmt``: the command line (design section 8).

Invariant: data goes to standard output, words to standard error; whatever is foreseeable ends in one line and an exit
code, never in a traceback. Nothing here imports Twisted or rich before it needs them, so that help is instant.
"""

from cloudmytask.cli.main import main

__all__ = ["main"]
