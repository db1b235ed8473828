"""Repeated looks at the nodes of the lab, through one process that stays (:mod:`tests.lab.observer`).

Invariant: a node that does not tell is an assertion that fails, for whoever waits until it does.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from attrs import define, field

from tests.integration.daemons import ROOT, environment
from tests.lab import observer


@define(eq=False)
class Observer:
    """The client library in a process of its own, for looks that are repeated (see :mod:`tests.lab.observer`)."""

    _process: subprocess.Popen[str] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, observer.__file__],
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def look(self, what: str, node: str, client: str) -> list[dict[str, Any]]:
        """The nodes, or the jobs. :raises AssertionError: the node does not tell."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps({"what": what, "node": node, "client": client}), file=self._process.stdin, flush=True)
        told = json.loads(self._process.stdout.readline())
        assert "answer" in told, f"{node}: {told}"
        return list(told["answer"])

    def close(self) -> None:
        """End it."""
        with self._process:
            self._process.kill()
