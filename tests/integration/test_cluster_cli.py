"""Every verb about the cluster against real daemons: two nodes and a CSU on loopback."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.integration.commands import Commands
from tests.integration.daemons import PATIENCE, free_ports, node, until

QUICK = "print('done')\n"


@pytest.fixture(scope="module")
def addresses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Where the instances listen, by name; entered when all know each other."""
    directory = tmp_path_factory.mktemp("cluster")
    ports = dict(zip(("a", "b", "csu"), free_ports(3), strict=True))
    (group_port,) = free_ports(1)
    shared = ["--group", f"239.255.77.77:{group_port}", "--interface", "127.0.0.1", "--cluster", f"cli-{os.getpid()}"]
    with ExitStack() as stack:
        for name, port in ports.items():
            own = directory / name
            own.mkdir()
            plugin = ["cmt-csu"] if name == "csu" else ["cmt-node", "--slots", "2", "--load-source", "none"]
            where = ["--state", "state", "--name", name, "--listen", f"127.0.0.1:{port}"]
            stack.enter_context(node(["-n", "--pidfile=", *plugin, *where, *shared], own))
        found = {name: f"127.0.0.1:{port}" for name, port in ports.items()}
        for address in found.values():
            commands = Commands(directory, address)
            until(lambda commands=commands: commands.alive() == {"a", "b", "csu"})  # type: ignore[misc]
        yield found


@pytest.fixture
def cmt(addresses: dict[str, str], tmp_path: Path) -> Commands:
    """Each test is a client of its own, of node a."""
    return Commands(tmp_path, addresses["a"], {"CMT_CLIENT": f"tester-{os.urandom(6).hex()}", "LC_ALL": "C.UTF-8"})


def test_nodes(cmt: Commands, addresses: dict[str, str]) -> None:
    answer = cmt.json("nodes")
    by_name = {each["name"]: each for each in answer["nodes"]}
    assert {name: each["address"] for name, each in by_name.items()} == addresses
    assert (by_name["a"]["self"], by_name["b"]["self"]) == (True, False)
    assert (by_name["a"]["role"], by_name["csu"]["role"]) == ("node", "csu")
    assert (by_name["b"]["slots"], by_name["b"]["free"], by_name["b"]["waiting"]["total"]) == (2, 2, 0)
    assert cmt.text("nodes", "-q").splitlines() == ["a", "b", "csu"]
    done = cmt("nodes")
    header, first, *_ = done.stdout.decode().splitlines()
    assert header.split()[0] == "NAME"
    assert first.split()[:3] == ["a", "node", "alive"]
    assert b"single machine" in done.stderr
    code, shown = cmt.on_terminal("nodes")
    assert code == 0
    assert "\x1b[" in shown
    table = re.sub(r"\x1b\[[0-9;]*m", "", shown.partition("cmt: ")[0])
    assert all(len(line) <= 80 for line in table.splitlines())


def test_topology(cmt: Commands) -> None:
    until(lambda: len(cmt.json("topology")["roots"]) == 1)
    lines = cmt.text("topology", "-q").splitlines()
    assert sorted(re.sub(r"\W", "", line) for line in lines) == ["a", "b", "csu"]
    assert re.search("^└── [ab]$", "\n".join(lines), re.MULTILINE)
    assert cmt.text("topology", "--dot").startswith("graph cluster {")
    ascii_only = Commands(cmt.directory, cmt.environment["CMT_NODE"], {"LC_ALL": "C"})
    assert "`-- " in ascii_only.text("topology")
    assert cmt("topology", "--dot", "--json").returncode == 2


def test_top_once(cmt: Commands) -> None:
    job_id = cmt.submit(QUICK)
    cmt("wait", job_id)
    shown = cmt.text("top")
    assert "2 nodes, 1 CSU, 4 of 4 slots free" in shown.splitlines()[0]
    assert "script.py" in shown
    answer = cmt.json("top")
    assert [job["id"] for job in answer["jobs"]] == [job_id]
    assert {each["name"] for each in answer["nodes"]} == {"a", "b", "csu"}


@pytest.mark.parametrize(("keys", "code"), [(b"q", 0), (b"\x03", 0)])
def test_top_lives_until_it_is_told(cmt: Commands, keys: bytes, code: int) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    before = termios.tcgetattr(theirs)
    process = subprocess.Popen(
        cmt.line("top"),
        env={**cmt.environment, "TERM": "xterm"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    shown = b""
    try:
        while shown.count(b"slots free") < 2:  # the second frame
            assert select.select([ours], [], [], PATIENCE)[0], shown
            shown += os.read(ours, 65536)
        assert b"\x1b[?1049h" in shown
        os.write(ours, keys)
        while b"\x1b[?1049l" not in shown:
            assert select.select([ours], [], [], PATIENCE)[0], shown
            shown += os.read(ours, 65536)
        assert process.wait(PATIENCE) == code
        assert termios.tcgetattr(theirs) == before
    finally:
        process.kill()
        process.wait()
        os.close(ours)
        os.close(theirs)


def test_history_comes_from_the_csu(cmt: Commands, addresses: dict[str, str]) -> None:
    def known() -> set[str]:
        return {sample["node"] for sample in cmt.json("top", "--history", "10m")["samples"]}

    until(lambda: known() == {"a", "b"})
    assert [line.split()[0] for line in cmt.text("top", "--history", "10m").splitlines()] == ["NODE", "a", "b"]
    asked = Commands(cmt.directory, addresses["csu"])
    assert {sample["node"] for sample in asked.json("top", "--history", "10m")["samples"]} == {"a", "b"}
    assert cmt("top", "--history", "0").returncode == 2


def test_a_csu_can_be_asked_what_a_node_can(cmt: Commands, addresses: dict[str, str]) -> None:
    asked = Commands(cmt.directory, addresses["csu"])
    assert asked.alive() == {"a", "b", "csu"}
    assert "2 nodes, 1 CSU" in asked.text("top")
    assert asked("submit", asked.script(QUICK)).returncode == 6


def test_a_ban_is_obeyed_everywhere_explained_and_lifted(cmt: Commands, addresses: dict[str, str]) -> None:
    client = f"mallory-{os.urandom(4).hex()}"
    made = cmt.json("ban", "add", "--client", client, "--reason", "floods us", "--for", "1h")
    assert (made["client"], made["reason"], made["term"]) == (client, "floods us", 3600.0)
    assert 3500 < made["remaining"] <= 3600
    for address in (addresses["a"], addresses["b"]):
        banned = Commands(cmt.directory, address, {"CMT_CLIENT": client})
        script = banned.script(QUICK)
        until(lambda banned=banned, script=script: banned("submit", script).returncode == 6)  # type: ignore[misc]
        done = banned("submit", script)
        assert done.stderr.startswith(b"cmt: banned: ")
        assert b"floods us" in done.stderr
    assert client in cmt.text("ban", "ls")
    assert client in cmt.text("ban", "ls", "-q").splitlines()
    assert "floods us" in cmt.text("ban", "why", client)
    asked = Commands(cmt.directory, addresses["csu"])
    until(lambda: client in [each["client"] for each in asked.json("ban", "ls")["bans"]])
    assert cmt("ban", "rm", client).returncode == 0
    assert cmt("ban", "why", client).returncode == 1
    freed = Commands(cmt.directory, addresses["a"], {"CMT_CLIENT": client})
    assert freed("submit", freed.script(QUICK)).returncode == 0


@pytest.mark.parametrize(
    ("options", "code", "name"),
    [
        (["--client", "a b", "--reason", "x"], 2, "invalid-argument"),
        (["--client", "bob", "--reason", ""], 2, "invalid-argument"),
        (["--client", "bob", "--reason", "x", "--for", "0"], 2, "invalid-argument"),
        (["--client", "bob", "--reason", "x", "--for", "soon"], 2, "usage-error"),
        (["--client", "bob"], 2, "usage-error"),
    ],
)
def test_a_ban_that_cannot_be_meant(cmt: Commands, options: list[str], code: int, name: str) -> None:
    done = cmt("ban", "add", *options)
    assert (done.returncode, done.stdout) == (code, b"")
    assert done.stderr.startswith(f"cmt: {name}: ".encode())


def test_a_job_runs_where_it_is_wanted(cmt: Commands) -> None:
    def executor(*options: str) -> Any:
        job_id = cmt.submit(QUICK, *options)
        assert cmt("wait", job_id).returncode == 0
        return cmt.json("status", job_id)["executor"]

    assert executor("--node", "b") == "b"
    assert executor("--avoid", "a") == "b"
    assert executor("--local") == "a"
    assert cmt("submit", "--local", "--node", "b", cmt.script(QUICK)).returncode == 2
    assert cmt("run", "--node", "b", cmt.script(QUICK)).stdout == b"done\n"


def test_doctor_looks_at_the_network(cmt: Commands) -> None:
    checks = {check["name"]: check for check in cmt.json("doctor")["checks"]}
    assert "1 other node alive (b), CSU: csu" in checks["cluster"]["text"]
    assert checks["multicast"]["level"] == "ok", checks["multicast"]
    assert "single machine" in checks["security"]["text"]


BLOCKING = """
import json, sys
from cloudmytask import Client
from cloudmytask.model.errors import NoSuchBan
client = sys.argv[1]
with Client() as cloud:
    assert {each["name"] for each in cloud.nodes()} == {"a", "b", "csu"}
    json.dumps(cloud.nodes())
    assert cloud.ban(client, "a test", "10m").term == 600.0
    assert client in [each.client for each in cloud.bans()]
    assert cloud.lift_ban(client).lifted
    assert client not in [each.client for each in cloud.bans()]
    try:
        cloud.lift_ban(client)
    except NoSuchBan as problem:
        print(problem)
    print(cloud.submit(b"print(1)", node="b").result().status.executor)
"""


def test_the_blocking_client(cmt: Commands) -> None:
    client = f"eve-{os.urandom(4).hex()}"
    done = subprocess.run(
        [sys.executable, "-c", BLOCKING, client],
        env=cmt.environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.stderr, done.returncode) == ("", 0)
    assert done.stdout == f"client {client} is not banned\nb\n"
