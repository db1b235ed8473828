"""``cmt``: the command line (design section 8).

Invariant: data goes to standard output, words to standard error; what is foreseeable ends in one line and an exit
code, never in a traceback. Help and completion import neither Twisted nor rich.
"""

import signal


def main() -> None:
    """Run the command ``cmt``."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Until a verb has its own way: Ctrl-C while modules are imported ends us, without a traceback.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    # Not before Ctrl-C has its way: the modules take a moment.
    from cloudmytask.cli.main import main as run

    run()


__all__ = ["main"]
