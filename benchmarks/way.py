"""The way of one job through the package: which modules it enters, how many calls of ours it takes, how deep they go.

A small script is submitted, awaited and its output read by the Deferred client of the library, in the shipped
simulation: once so that it runs on the node that accepted it, once so that it is forwarded, and once more like that
with its outcome and output pushed, as for ``submit(...).result()``. Counted are calls of functions of the package from
the client to the script and back; a coroutine that is resumed counts as a call. Left out are the simulation itself and
gossip: what timers and the multicast group set off among instances.

    python -m benchmarks.way [--steps]
"""

from __future__ import annotations

import gc
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred

import cloudmytask
from cloudmytask.client.node_client import NodeClient
from cloudmytask.client.sources import Source
from cloudmytask.model.job import JobSpec, StreamName
from cloudmytask.simulation.runner import ScriptPlan
from tests.virtual_cluster import Company

MODULES_MAX = 40
CALLS_MAX = 1200
"""The goals for a forwarded job."""
PACKAGE = str(Path(cloudmytask.__file__).parent) + "/"
GOSSIP = frozenset(
    {"announcer", "announcing", "failure_detector", "membership", "relaying", "ban_exchange", "neighborhood", "overlay"}
)
"""Modules that are about gossip alone; what they call is not counted either."""
SCRIPT = ScriptPlan(duration=0.05, output=((0.01, StreamName.STDOUT, b"a line of output\n"),))


@define
class Way:
    """What was called, in order."""

    steps: list[tuple[str, str]] = field(factory=list)
    """Module and function of each call."""
    deepest: int = 0
    """Functions of ours on the stack at most."""

    @property
    def modules(self) -> Counter[str]:
        """Calls by module."""
        return Counter(module for module, _ in self.steps)

    @property
    def changes(self) -> int:
        """How often the next call is in another module."""
        return sum(1 for one, next_one in zip(self.steps, self.steps[1:], strict=False) if one[0] != next_one[0])

    def first_entries(self) -> list[str]:
        """``module:function`` of the first call into each module, in order."""
        entered: dict[str, str] = {}
        for module, function in self.steps:
            entered.setdefault(module, f"{module}:{function}")
        return list(entered.values())


class Tracer:
    """Notes each call of the package while it is active (``sys.setprofile``)."""

    def __init__(self) -> None:
        self.way = Way()
        self._places: dict[CodeType, tuple[str, str] | None] = {}
        self._stack: list[bool] = []
        """Of the functions of ours that have not returned: whether each is counted."""

    def __enter__(self) -> Way:
        gc.disable()
        sys.setprofile(self._event)
        return self.way

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        gc.enable()

    def _event(self, frame: FrameType, event: str, _argument: Any) -> None:
        if event not in ("call", "return"):
            return
        code = frame.f_code
        if code not in self._places:
            self._places[code] = _place(code)
        place = self._places[code]
        if place is None:
            return
        if event == "return":
            if self._stack:
                self._stack.pop()
            return
        counted = (not self._stack or self._stack[-1]) and place[0].rpartition(".")[2] not in GOSSIP
        self._stack.append(counted)
        if counted:
            self.way.steps.append(place)
            self.way.deepest = max(self.way.deepest, len(self._stack))


def _place(code: CodeType) -> tuple[str, str] | None:
    if not code.co_filename.startswith(PACKAGE):
        return None
    module = code.co_filename[len(PACKAGE) :].removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    return None if module.split(".")[0] == "simulation" else (module, code.co_qualname)


def way_of(options: dict[str, Any], *, pushed: bool = False) -> Way:
    """The way of one job whose spec has ``options``, after another one of the same kind.

    :param pushed: whether the node tells the outcome and the output by itself.
    """
    among = Company(2)
    among.acquainted()
    ann = among.connect("a")
    one_job = _one_pushed if pushed else _one_job
    one_job(among, ann, options)
    with Tracer() as way:
        one_job(among, ann, options)
    return way


def _one_pushed(among: Company, ann: NodeClient, options: dict[str, Any]) -> None:
    source = Source.of_bytes(b"pushed")
    spec = JobSpec(script=source.blob, script_name="pushed.py", **options)
    among.plans["pushed.py"] = (SCRIPT,)
    watched = among.result(ann.submit_watched(spec, source, output=True)).watched
    assert watched is not None
    ended = among.result(Deferred.fromCoroutine(watched.until(lambda _: False)))
    assert ended.exit_code == 0 and watched.output is not None
    assert watched.output[StreamName.STDOUT] == SCRIPT.output[0][2]


def _one_job(among: Company, ann: NodeClient, options: dict[str, Any]) -> None:
    job = among.submit(ann, SCRIPT, **options)
    ended = among.wait(ann, job)
    stdout = among.read(ann, job)[0]
    assert ended.exit_code == 0 and stdout == SCRIPT.output[0][2], ended


LOCAL: dict[str, Any] = {"local": True}
FORWARDED: dict[str, Any] = {"node": "b"}


def main(arguments: list[str], write: Callable[[str], object]) -> None:
    """Print the ways beside their goals; with ``--steps`` the first entry into each module as well."""
    ways = {"local": way_of(LOCAL), "forwarded": way_of(FORWARDED), "pushed": way_of(FORWARDED, pushed=True)}
    write(f"{'':20}{'local':>10}{'forwarded':>12}{'pushed':>10}{'goal':>8}\n")
    rows: tuple[tuple[str, Callable[[Way], int], str], ...] = (
        ("modules entered", lambda way: len(way.modules), str(MODULES_MAX)),
        ("changes of module", lambda way: way.changes, ""),
        ("own calls", lambda way: len(way.steps), str(CALLS_MAX)),
        ("deepest own stack", lambda way: way.deepest, ""),
    )
    for name, figure, goal in rows:
        write(
            f"{name:20}{figure(ways['local']):>10,}{figure(ways['forwarded']):>12,}{figure(ways['pushed']):>10,}{goal:>8}\n"
        )
    if "--steps" in arguments:
        for name, way in ways.items():
            write(f"\n{name}:\n" + "".join(f"  {place}\n" for place in way.first_entries()))
            write("".join(f"  {count:6,} {module}\n" for module, count in way.modules.most_common()))


if __name__ == "__main__":
    main(sys.argv[1:], sys.stdout.write)
