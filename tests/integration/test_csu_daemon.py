"""The Central Supervisory Unit as people start it, among nodes on one machine: by multicast, and by seeds."""

from __future__ import annotations

import json
import socket
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from attrs import define, field

from tests.integration.commands import Commands
from tests.integration.daemons import ROOT, TWIST, TWISTD, Node, node, run

QUICK = "print('hello')\n"


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """A port that nobody uses now."""
    with socket.socket(socket.AF_INET, kind) as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@define(eq=False)
class Lan:
    """A CSU and nodes on loopback; ``options`` are what all are started with."""

    directory: Path
    options: list[str]
    csu_port: int = field(factory=free_port)
    _ends: ExitStack = field(factory=ExitStack)

    @contextmanager
    def csu(self, *arguments: str) -> Iterator[Node]:
        """One, in the foreground."""
        with self._started(
            "cmt-csu", "csu", self.csu_port, "--history-interval", "1s", *self.options, *arguments
        ) as it:
            yield it

    @contextmanager
    def node(self, name: str, *arguments: str) -> Iterator[Node]:
        """One, in the foreground."""
        with self._started(
            "cmt-node", name, free_port(), "--slots", "2", "--load-source", "none", *self.options, *arguments
        ) as it:
            yield it

    @contextmanager
    def _started(self, plugin: str, name: str, port: int, *arguments: str) -> Iterator[Node]:
        place = self.directory / name
        place.mkdir(exist_ok=True)
        line = ["-n", "--pidfile=", plugin, "--state", "state", "--name", name, "--listen", f"127.0.0.1:{port}"]
        with node([*line, *arguments], place) as it:
            yield it

    def commands(self, name: str, client: str = "tester") -> Commands:
        """``cmt`` against one of them, over its unix socket."""
        role = "csu" if name == "csu" else "node"
        address = f"unix:{self.directory / name / 'state' / role}.sock"
        return Commands(self.directory, address, {"CMT_CLIENT": client})


@pytest.fixture
def lan(tmp_path: Path) -> Lan:
    group = f"239.255.77.78:{free_port(socket.SOCK_DGRAM)}"
    return Lan(tmp_path, ["--group", group, "--interface", "127.0.0.1"])


def until(condition: Callable[[], bool], commands: Commands) -> None:
    """Ask again and again; each question takes its time, so nothing sleeps."""
    for _ in range(100):
        if condition():
            return
    pytest.fail(f"it never happened; now: {commands.json('nodes')}")


def states(commands: Commands) -> dict[str, str]:
    return {each["name"]: each["state"] for each in commands.json("nodes")["nodes"]}


def alive(commands: Commands, *names: str) -> Callable[[], bool]:
    return lambda: states(commands) == dict.fromkeys(names, "alive")


def test_it_supervises_and_its_death_changes_nothing_for_clients(lan: Lan) -> None:
    with lan.node("a"), lan.node("b"):
        at_csu, at_a, at_b = (lan.commands(name) for name in ("csu", "a", "b"))
        with lan.csu() as csu:
            for commands in (at_csu, at_a, at_b):
                until(alive(commands, "a", "b", "csu"), commands)
            refused = at_csu("submit", at_csu.script(QUICK))
            assert refused.returncode == 6
            assert b"csu is a CSU and takes no jobs; ask a node, such as " in refused.stderr

            made = at_csu("ban", "add", "--client", "mallory", "--reason", "test", "--for", "1h")
            assert made.returncode == 0, made
            until(lambda: bool(at_b.json("ban", "ls")["bans"]), at_b)
            denied = lan.commands("b", "mallory")("submit", at_b.script(QUICK))
            assert denied.returncode == 6
            assert b"client mallory is banned by tester for another " in denied.stderr
            assert b": test" in denied.stderr
            csu.process.kill()
            csu.ended()
            assert lan.commands("b", "mallory")("submit", at_b.script(QUICK)).returncode == 6
            assert at_b("run", at_b.script(QUICK)).stdout == b"hello\n"
            until(lambda: states(at_a)["csu"] == "dead", at_a)
        with lan.csu():
            until(alive(at_a, "a", "b", "csu"), at_a)
            assert [ban["client"] for ban in at_csu.json("ban", "ls")["bans"]] == ["mallory"]
            lifted = at_a("ban", "rm", "mallory")
            assert lifted.returncode == 0, lifted
            until(lambda: not at_csu.json("ban", "ls")["bans"], at_csu)


def test_it_keeps_the_history_across_a_restart_and_says_goodbye(lan: Lan) -> None:
    with lan.node("a"):
        at_a, at_csu = lan.commands("a"), lan.commands("csu")

        def samples() -> int:
            with sqlite3.connect(lan.directory / "csu" / "state" / "csu.sqlite") as connection:
                [count] = connection.execute("SELECT count(*) FROM samples WHERE node = 'a'").fetchone()
            connection.close()
            return int(count)

        with lan.csu() as csu:
            until(lambda: bool(states(at_csu)) and samples() >= 2, at_csu)
            assert b"a" in at_a("top", "--history", "1m", "--json").stdout
            csu.terminate()
            assert csu.ended() == 0
        assert not (lan.directory / "csu" / "state" / "csu.sock").exists()
        until(lambda: states(at_a)["csu"] == "left", at_a)
        kept = samples()
        with lan.csu():
            until(lambda: bool(states(at_csu)) and samples() > kept, at_csu)
    lines = [json.loads(line) for line in (lan.directory / "csu" / "stderr").read_text().splitlines()]
    assert {line["level"] for line in lines} == {"info"}
    assert any(line["event"].startswith("CSU csu ") and "serves" in line["event"] for line in lines)


def test_seeds_do_where_there_is_no_multicast(tmp_path: Path) -> None:
    lan = Lan(tmp_path, ["--group", ""])
    with lan.csu(), lan.node("a", "--seeds", f"127.0.0.1:{lan.csu_port}"):
        at_csu, at_a = lan.commands("csu"), lan.commands("a")
        until(alive(at_a, "a", "csu"), at_a)
        until(alive(at_csu, "a", "csu"), at_csu)
        assert at_csu("ban", "add", "--client", "mallory", "--reason", "test").returncode == 0
        until(lambda: bool(at_a.json("ban", "ls")["bans"]), at_a)


@pytest.mark.parametrize(
    ("runner", "arguments"),
    [
        (TWISTD, ["-n", "--pidfile=", "cmt-csu", "--state", "state"]),
        (TWIST, ["cmt-csu", "--state", "state"]),
        (TWISTD, ["-ny", "cmt-csu.tac", "--pidfile="]),
    ],
    ids=["twistd", "twist", "tac"],
)
def test_the_ways_to_start_it(tmp_path: Path, runner: str, arguments: list[str]) -> None:
    text = (ROOT / "tac" / "cmt-csu.tac").read_text()
    (tmp_path / "cmt-csu.tac").write_text(text.replace("parseOptions([])", "parseOptions(['--state', 'state'])"))
    with node(arguments, tmp_path, runner=runner) as it:
        assert (tmp_path / "state" / "csu.sock").is_socket()
        it.terminate()
        assert it.ended() == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--listen", "192.0.2.1:7009"], "listen"),
        (["--history", "5s"], "--history"),
        (["--slots", "2"], "slots"),
        (["--listen", "127.0.0.1:0", "--cluster-key-file", "missing.key"], "missing.key"),
    ],
)
def test_bad_options_are_one_line(tmp_path: Path, arguments: list[str], words: str) -> None:
    done = run(["-n", "--pidfile=", "cmt-csu", "--state", "state", *arguments], tmp_path)
    assert done.returncode == 1
    [line] = [each for each in done.stderr.splitlines() if each.startswith("cmt-csu: ")]
    assert words in line


def test_it_does_not_start_on_what_belongs_to_others(tmp_path: Path) -> None:
    line = ["-n", "--pidfile=", "cmt-csu", "--state", "state"]
    with node(line, tmp_path) as it:
        done = run(line, tmp_path)
        assert done.returncode == 1
        assert f"in use by another CSU (process {it.process.pid})" in done.stderr
    with sqlite3.connect(tmp_path / "state" / "csu.sqlite") as connection:
        connection.execute("PRAGMA application_id = 7")
    connection.close()
    done = run(line, tmp_path)
    assert done.returncode == 1
    assert "csu.sqlite is not a database of Cloud My Task" in done.stderr


def test_the_help_page_has_its_options(tmp_path: Path) -> None:
    done = run(["cmt-csu", "--help"], tmp_path)
    assert done.returncode == 0
    for words in ("--history=", "--history-interval=", "--group=", "--seeds=", "--listen=", "csu.toml"):
        assert words in done.stdout
    assert "--slots" not in done.stdout
