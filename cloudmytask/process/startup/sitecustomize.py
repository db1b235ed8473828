"""Makes a script's standard output line-buffered, as on a terminal, before the script begins; standard library only.

Python imports it at the start of the interpreter (``site``), because its directory stands first in ``PYTHONPATH``.
``-u`` would make output as live, but takes the buffered layer away, and with it the one that finishes a write which a
signal handler or a full pipe has cut short: output is lost without a word.

Invariant: the script, and what it starts, find no trace of it: neither in ``sys.path`` nor in the environment; a
``sitecustomize`` of the interpreter's own is imported as ever.
"""

import io
import os
import sys


def _step_aside() -> None:
    here = __file__.rpartition("/")[0]
    sys.path[:] = [entry for entry in sys.path if entry != here]
    sys.path_importer_cache.pop(here, None)
    first, _, rest = os.environ.get("PYTHONPATH", "").partition(os.pathsep)
    if first == here:  # not in a subinterpreter: its environment is the one that was left
        del os.environ["PYTHONPATH"]
        if rest:
            os.environ["PYTHONPATH"] = rest


def _import_their_own() -> None:
    ours = sys.modules.pop("sitecustomize")
    try:
        __import__("sitecustomize")
    except ModuleNotFoundError as missing:
        if missing.name != "sitecustomize":
            raise
    finally:
        # the import system looks for the module that it has just executed
        sys.modules.setdefault("sitecustomize", ours)


if isinstance(sys.stdout, io.TextIOWrapper):
    sys.stdout.reconfigure(line_buffering=True)
_step_aside()
_import_their_own()
