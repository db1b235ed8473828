"""Fail on purpose: the exit code of a script is the exit code of `cmt run`."""

import sys

print("about to fail", file=sys.stderr)
sys.exit(3)
