"""``cmt``: the command line (design section 8).

Invariant: data goes to standard output, words to standard error; whatever is foreseeable ends in one line and an exit
code, never in a traceback. Nothing here imports Twisted or rich before it needs them, so that help is instant.
"""

import signal


def main() -> None:
    """The command ``cmt``."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Until a verb has its own way: Ctrl-C while modules are imported ends us, without a traceback.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from cloudmytask.cli.main import main as run

    run()


__all__ = ["main"]
