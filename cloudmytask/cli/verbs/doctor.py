"""``cmt doctor``: what is needed on this machine, and how to mend what is missing.

Invariant: a check never fails, it reports; a problem is something that keeps a node or a client from working here, a
note something that one may want to know or install. Nothing is left behind.
"""

from __future__ import annotations

import os
import shutil
import stat
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from twisted.internet.threads import deferToThreadPool

import cloudmytask
from cloudmytask.addresses import Address
from cloudmytask.cli.invocation import Invocation, conduct
from cloudmytask.cli.reach import START_A_NODE, reach_one
from cloudmytask.cli.terminal import tables
from cloudmytask.cli.terminal.console import Console
from cloudmytask.cli.verbs.network_checks import Check, check_network
from cloudmytask.client.known_nodes import candidates
from cloudmytask.client.node_session import NodeSession
from cloudmytask.directories import default_state, socket_path
from cloudmytask.model.cluster import Role
from cloudmytask.model.errors import CloudMyTaskError, ExitCode, NoNode
from cloudmytask.version import VERSION

PYTHON_MIN = (3, 11)
FSYNCS = 5
SLOW_FSYNC = 0.05
"""Seconds for one fsync(2), beyond which every submission is felt to be slow."""

TOOLS = (
    ("bwrap", "bubblewrap", "keeping scripts apart from the rest of the machine"),
    ("nft", "nftables", "keeping scripts from the network"),
    ("ip", "iproute2", "networks of scripts, and of tests with several hosts"),
    ("chromium", "chromium", "tests of the web pages"),
    ("systemd-notify", "systemd", "telling systemd when a node is ready"),
)
"""Optional programs: name, Debian package, what for."""


def doctor(console: Console) -> int:
    """Check what is needed on this machine."""

    async def work(invocation: Invocation) -> int:
        checks = await check_all(invocation.reactor, console.via, os.environ)
        healthy = all(check.level != "problem" for check in checks)
        shown = [check for check in checks if not console.quiet or check.level == "problem"]
        if console.as_json:
            console.document({"ok": healthy, "checks": [check.document() for check in checks]})
        elif shown:
            rows = [(check.level, check.name, check.text) for check in shown]
            tables.show(console, (tables.STATE, "CHECK", "FINDING"), rows, prose=True)
        return ExitCode.OK if healthy else ExitCode.FAILED

    return conduct(work)


async def check_all(reactor: Any, via: str | None, environment: Mapping[str, str]) -> list[Check]:
    """Check everything, in the order in which a person would look."""

    async def in_thread(function: Callable[..., Check], *arguments: Any) -> Check:
        return await deferToThreadPool(reactor, reactor.getThreadPool(), function, *arguments)

    answering, of_node = await check_node(reactor, via, environment)
    state = state_of(answering, environment)
    return [
        check_python(sys.version_info[:3]),
        check_reactor(reactor),
        check_clock(time.time(), Path(cloudmytask.__file__).stat().st_mtime),
        check_state(state),
        await in_thread(check_disk, state),
        *of_node,
        *(check_tool(*tool) for tool in TOOLS),
    ]


def state_of(node: Address | None, environment: Mapping[str, str]) -> Path:
    """The state directory of the node at that address, if the address tells; otherwise that of a node of this user."""
    if node is not None and node.path is not None:
        socket = Path(node.path)
        if socket in [socket_path(socket.parent, role) for role in Role]:
            return socket.parent
    return default_state(environment)


def check_python(version: tuple[int, ...]) -> Check:
    """Look at the interpreter."""
    text = f"{'.'.join(map(str, version))} ({sys.executable})"
    if version[:2] < PYTHON_MIN:
        return Check("python", "problem", f"{text}: too old, {'.'.join(map(str, PYTHON_MIN))} is needed")
    return Check("python", "ok", text)


def check_reactor(reactor: Any) -> Check:
    """Look whether timers follow the monotonic clock."""
    name = type(reactor).__name__
    if abs(reactor.seconds() - time.monotonic()) > 1:
        return Check("reactor", "problem", f"{name} follows the wall clock: a clock step would fire or freeze timers")
    return Check("reactor", "ok", f"{name}, on monotonic time")


def check_clock(now: float, installed: float) -> Check:
    """Look at the wall clock, by the only thing that we know of it.

    :param installed: when this program was installed, UTC seconds.
    """
    text = f"{datetime.fromtimestamp(now, UTC):%Y-%m-%d %H:%M:%S} UTC"
    if now < installed:
        return Check("clock", "problem", f"{text}: that is before this program was installed; set the clock")
    return Check("clock", "ok", text)


def check_state(state: Path) -> Check:
    """Look whether a node of this user can keep its state there."""
    try:
        found = state.stat()
    except FileNotFoundError:
        parent = next(each for each in state.parents if each.exists())
        if not os.access(parent, os.W_OK | os.X_OK):
            return Check("state", "problem", f"{state} cannot be made: {parent} is not ours to write to")
        return Check("state", "ok", f"{state} is not there yet; a node will make it")
    except OSError as error:
        return Check("state", "problem", f"{state}: {error.strerror}")
    if not stat.S_ISDIR(found.st_mode):
        return Check("state", "problem", f"{state} is not a directory")
    if found.st_uid != os.geteuid():
        return Check("state", "problem", f"{state} belongs to another user (uid {found.st_uid})")
    if found.st_mode & 0o077:
        return Check("state", "problem", f"others may look into {state}: chmod 700 {state}")
    free = shutil.disk_usage(state).free
    return Check("state", "ok", f"{state}, private, {free / 1024**3:.1f}G free")


def check_disk(state: Path) -> Check:
    """Measure how long a commit takes: the time of one fsync(2). Blocks."""
    place = next((each for each in (state, *state.parents) if os.access(each, os.W_OK | os.X_OK)), None)
    if place is None:
        return Check("disk", "note", f"nothing can be written near {state}, so it was not measured")
    times = []
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            for _ in range(FSYNCS):
                file.write(b"\0" * 4096)
                file.flush()
                began = time.monotonic()
                os.fsync(file.fileno())
                times.append(time.monotonic() - began)
    except OSError as error:
        return Check("disk", "problem", f"{place} cannot be written to: {error.strerror}")
    median = statistics.median(times)
    text = f"fsync takes {median * 1000:.1f} ms in {place}"
    if median > SLOW_FSYNC:
        return Check("disk", "note", f"{text}: each submission waits for one; a faster disk helps")
    return Check("disk", "ok", text)


async def check_node(
    reactor: Any, via: str | None, environment: Mapping[str, str]
) -> tuple[Address | None, list[Check]]:
    """Look whether a node can be reached, and where; how it is, and how its network is. That there is none is a problem
    only if one was named."""
    try:
        node = await reach_one(reactor, candidates(via, environment))
    except NoNode as problem:
        named = via is not None or environment.get("CMT_NODE")
        return None, [Check("node", "problem" if named else "note", f"{problem}; {START_A_NODE}")]
    except CloudMyTaskError as problem:
        return None, [Check("node", "problem", f"{problem.name}: {problem}")]
    where, found = node.address, [described(node)]
    try:
        found += check_network(await node.ask(lambda client: client.cluster()))
    except CloudMyTaskError as problem:
        found.append(Check("cluster", "problem", f"{problem.name}: {problem}"))
    finally:
        node.close()
    return where, found


def described(reached: NodeSession) -> Check:
    """Describe the node that answered."""
    node = reached.client.node
    waiting = sum((node.get("waiting") or {}).values())
    text = (
        f"{node.get('name')} {node.get('version')} at {reached.address.text}: {node.get('state')}, "
        f"{node.get('running')} of {node.get('slots')} slots taken, {waiting} jobs waiting"
    )
    if node.get("version") != VERSION:
        return Check("node", "note", f"{text}; this client is {VERSION}")
    return Check("node", "ok", text)


def check_tool(program: str, package: str, purpose: str) -> Check:
    """Look for a program that is not needed but of use."""
    found = shutil.which(program)
    if found is None:
        return Check(program, "note", f"not installed, for {purpose}: apt-get install {package}")
    return Check(program, "ok", f"{found}, for {purpose}")
