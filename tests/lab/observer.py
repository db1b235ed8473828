"""Looks at nodes for the tests, over and over, without a new process for each look.

It takes one JSON object a line, ``{"node": ADDRESS, "client": CLIENT, "what": "nodes" | "jobs"}``, and answers each
with one: ``{"answer": ...}``, the same as ``cmt nodes --json`` and ``cmt ps --all --json`` list, or
``{"failed": WHY}``. It ends with its standard input.

Invariant: it only looks.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from cloudmytask import Client
from cloudmytask.model.errors import CloudMyTaskError


def _look(client: Client, what: str) -> list[Any]:
    if what == "nodes":
        return client.nodes()
    return [job.status().document for job in client.jobs(limit=None)]


def main() -> None:
    """Answer until standard input ends."""
    clients: dict[tuple[str, str], Client] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        place = asked["node"], asked["client"]
        client = clients.setdefault(place, Client(asked["node"], client=asked["client"]))
        try:
            answer: dict[str, Any] = {"answer": _look(client, asked["what"])}
        except CloudMyTaskError as problem:
            answer = {"failed": f"{type(problem).__name__}: {problem}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
