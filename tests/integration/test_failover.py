"""Two real nodes, and the one that ``$CMT_NODE`` names is killed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from attrs import frozen

from tests.integration.commands import Commands
from tests.integration.daemons import PATIENCE, Node, free_ports, node, until

QUICK = "print('done')\n"


@frozen
class Pair:
    """Nodes a and b, and where they listen."""

    a: Node
    address_a: str
    address_b: str
    cmt: Commands
    """Talks to a."""

    def kill_a(self) -> None:
        self.a.process.kill()
        self.a.ended()

    def moved(self) -> str:
        """What a verb says that talks to b instead."""
        return f"cmt: {self.cmt.environment['CMT_NODE']} does not answer; talking to b at {self.address_b}\n"


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    """Entered when each knows the other."""
    port_a, port_b, group_port = free_ports(3)
    shared = ["--group", f"239.255.77.78:{group_port}", "--interface", "127.0.0.1", "--load-source", "none"]
    shared += ["--cluster", f"failover-{os.getpid()}"]
    nodes = {}
    with ExitStack() as stack:
        for name, port in (("a", port_a), ("b", port_b)):
            own = tmp_path / name
            own.mkdir()
            where = ["--state", "state", "--name", name, "--listen", f"127.0.0.1:{port}", "--slots", "2"]
            nodes[name] = stack.enter_context(node(["-n", "--pidfile=", "cmt-node", *where, *shared], own))
        cmt = Commands(tmp_path, f"127.0.0.1:{port_a}")
        until(lambda: cmt.alive() == {"a", "b"})
        yield Pair(nodes["a"], f"127.0.0.1:{port_a}", f"127.0.0.1:{port_b}", cmt)


def _remembers(pair: Pair) -> None:
    """Have verbs talk to a until one was told of b in time. The file's entry counts as fresh for a minute, so it goes
    first."""
    file = pair.cmt.directory / "xdg" / "cloudmytask" / "nodes.json"
    file.unlink(missing_ok=True)

    def told() -> bool:
        pair.cmt.text("nodes", "-q")
        return file.exists() and pair.address_b in file.read_text()

    until(told)


def test_new_work_goes_to_the_other_node(pair: Pair) -> None:
    cmt, moved = pair.cmt, pair.moved()
    _remembers(pair)
    old = cmt.submit(QUICK, "--local")
    assert cmt("wait", old).returncode == 0
    pair.kill_a()

    submitted = cmt("submit", cmt.script(QUICK))
    assert (submitted.returncode, submitted.stderr.decode()) == (0, moved)
    job = submitted.stdout.decode().strip()
    waited = cmt("wait", job)
    assert (waited.returncode, waited.stderr.decode()) == (0, moved)
    assert cmt.json("status", job)["executor"] == "b"
    assert cmt("wait", "-q", job).stderr == b""

    ran = cmt("run", cmt.script(QUICK))
    assert (ran.returncode, ran.stdout, ran.stderr.decode()) == (0, b"done\n", moved)

    lost = cmt("status", old)
    assert lost.returncode == 5
    assert f"{pair.address_a} does not answer" in lost.stderr.decode().splitlines()[1]
    assert cmt("wait", old).returncode == 125

    last = cmt("cancel", "last")
    assert last.returncode == 5
    assert "name it by its id" in last.stderr.decode()
    assert cmt("rm", job).returncode == 0

    said = cmt("--via", pair.address_a, "submit", cmt.script(QUICK))
    assert (said.returncode, said.stdout) == (5, b"")
    assert b"talking to" not in said.stderr


def test_the_local_nodes_socket(pair: Pair) -> None:
    """Neither an embedded node nor a failure while another node is known."""
    local = Commands(pair.cmt.directory, f"unix:{pair.cmt.directory}/a/state/node.sock")
    there = Pair(pair.a, pair.address_a, pair.address_b, local)
    _remembers(there)
    pair.kill_a()
    ran = local("run", local.script(QUICK))
    assert (ran.returncode, ran.stdout, ran.stderr.decode()) == (0, b"done\n", there.moved())


BLOCKING = """
import sys
from cloudmytask import Client
from cloudmytask.model.errors import NoNode, ConnectionInterrupted
cloud = Client(failover=sys.argv[1] == "True")
old = cloud.submit(b"import time; time.sleep(3600)", local=True)
cloud.nodes()
print("ready", flush=True)
input()
try:
    print(cloud.submit(b"print(1)").result().status.executor)
    old.status()
except (NoNode, ConnectionInterrupted) as problem:
    print("unreachable")
"""


@pytest.mark.parametrize(("failover", "answers"), [(True, "b\nunreachable\n"), (False, "unreachable\n")])
def test_the_blocking_client(pair: Pair, failover: bool, answers: str) -> None:
    program = subprocess.Popen(
        [sys.executable, "-c", BLOCKING, str(failover)],
        env=pair.cmt.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
        pair.kill_a()
        said, complaints = program.communicate("\n", timeout=PATIENCE)
        assert (said, complaints, program.returncode) == (answers, "", 0)
    finally:
        program.kill()
        program.communicate()
