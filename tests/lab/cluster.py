"""A cluster in the lab: a node on every host, perhaps a CSU on the last, and people who use ``cmt`` there.

Invariant: daemons are started, asked and killed as people do it, by ``cmt`` or by the client library; nothing is looked
up in their state.
"""

from __future__ import annotations

import json
import signal
import socket
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from attrs import define, field

from cloudmytask.model.errors import ExitCode
from tests.integration.commands import CMT
from tests.integration.daemons import command
from tests.lab.lan import KILLED, Completed, Lan, Running
from tests.lab.looking import Observer
from tests.lab.waiting import PATIENCE, until

NODE_PORT = 7001
CSU_PORT = 7009
SLOTS = 2

View = Mapping[str, Mapping[str, Any]]
"""What ``cmt nodes`` says, by node."""


class DaemonEnded(Exception):
    """It cannot be waited for any more."""


@define(eq=False)
class Daemon:
    """A node or a CSU, and what it tells its service manager."""

    name: str
    running: Running
    _manager: socket.socket

    @classmethod
    def start(cls, lan: Lan, host: int, name: str, *arguments: str) -> Daemon:
        """Begin to start it; :meth:`ready` waits until it serves."""
        manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        inside = lan.directory(host) / f"{name}.notify"
        lan.outside(inside).unlink(missing_ok=True)
        manager.setblocking(False)
        manager.bind(str(lan.outside(inside)))
        line = command(["-n", "--pidfile=", *arguments])
        return cls(name, lan.start(host, *line, extra={"NOTIFY_SOCKET": str(inside)}), manager)

    def ready(self) -> None:
        """Wait until it serves. :raises AssertionError, DaemonEnded: it does not, with the end of its log."""
        until(self._serves)

    def _serves(self) -> None:
        try:
            told = self._manager.recv(4096)
        except BlockingIOError:
            told = b""
        if self.running.over:
            raise DaemonEnded(f"{self.name} has ended: {self.running.stderr[-4000:]}")
        assert b"READY=1" in told, f"{self.name} does not serve: {self.running.stderr[-4000:]}"

    def kill(self) -> None:
        """``kill -9``, of the daemon alone: its scripts run on."""
        self.running.signal(signal.SIGKILL)
        assert self.running.ended() == KILLED
        self.close()

    def terminate(self) -> None:
        """Ask it to end, and wait for that."""
        self.running.signal(signal.SIGTERM)
        assert self.running.ended() == 0, self.running.stderr[-4000:]
        self.close()

    def close(self) -> None:
        """Listen to it no longer."""
        self._manager.close()

    def complaints(self) -> list[str]:
        """What it logged as an error."""
        lines = [line for line in self.running.stderr.splitlines() if line]
        return [line for line in lines if _level(line) not in ("debug", "info", "warn")]


def _level(line: str) -> object:
    try:
        return json.loads(line)["level"]
    except (ValueError, TypeError, KeyError):
        return None


@define(eq=False)
class Cluster:
    """Nodes h1, h2 … of one LAN, and its CSU.

    :ivar options: further options of all nodes.
    :ivar daemons: those that run, by name.
    :ivar ended: those that were killed.
    """

    lan: Lan
    options: tuple[str, ...] = ()
    daemons: dict[str, Daemon] = field(factory=dict)
    ended: list[Daemon] = field(factory=list)
    observer: Observer = field(init=False, factory=Observer)

    @property
    def names(self) -> set[str]:
        """Of the nodes that run."""
        return {name for name in self.daemons if name != "csu"}

    def start(self, *hosts: int, csu: bool = False) -> None:
        """Start nodes on these hosts, and the CSU, all at once; returns when they serve."""
        begun = [self._node(host) for host in hosts] + ([self._csu()] if csu else [])
        for daemon in begun:
            self.daemons[daemon.name] = daemon
        for daemon in begun:
            daemon.ready()

    def kill(self, name: str) -> None:
        """``kill -9``."""
        daemon = self.daemons.pop(name)
        daemon.kill()
        self.ended.append(daemon)

    def complete(self) -> None:
        """Start again whatever was killed; no fault any more."""
        self.lan.switch.heal()
        for host in range(1, self.lan.hosts + 1):
            self.lan.interface_up(host)
        missing = [host for host in range(1, self.lan.hosts + 1) if self.lan.name(host) not in self.daemons]
        self.start(*missing, csu=any(each.name == "csu" for each in self.ended) and "csu" not in self.daemons)

    def complaints(self) -> list[str]:
        """What the daemons logged as errors."""
        everybody = [*self.daemons.values(), *self.ended]
        return [f"{each.name}: {line}" for each in everybody for line in each.complaints()]

    def logs(self) -> str:
        """The end of everybody's log."""
        everybody = [*self.ended, *self.daemons.values()]
        return "\n\n".join(f"{each.name}:\n{each.running.stderr[-3000:]}" for each in everybody)

    def begin(self, host: int, *arguments: str, client: str = "tester") -> Running:
        """Begin to run ``cmt`` on a host, against the node there."""
        place = self.lan.directory(host)
        extra = {
            "CMT_NODE": f"unix:{place}/state/node.sock",
            "CMT_CLIENT": client,
            "XDG_STATE_HOME": f"{place}/xdg",
            "XDG_CONFIG_HOME": f"{place}/xdg",
            "XDG_CACHE_HOME": f"{place}/xdg",
        }
        return self.lan.start(host, sys.executable, "-c", CMT, *arguments, extra=extra)

    def cmt(self, host: int, *arguments: str, client: str = "tester", patience: float = PATIENCE) -> Completed:
        """Run ``cmt`` to the end."""
        return self.begin(host, *arguments, client=client).completed(patience)

    def text(self, host: int, *arguments: str, client: str = "tester", patience: float = PATIENCE) -> str:
        """Standard output of a ``cmt`` that succeeds."""
        return _succeeded(self.cmt(host, *arguments, client=client, patience=patience))

    def json(self, host: int, *arguments: str, client: str = "tester") -> Any:
        """The JSON answer of a ``cmt`` that succeeds."""
        return json.loads(self.text(host, *arguments, "--json", client=client))

    def script(self, host: int, source: str) -> str:
        """Write a script on a host; its path there."""
        path = self.lan.directory(host) / "script.py"
        self.lan.outside(path).write_text(source)
        return str(path)

    def submit(
        self, host: int, source: str, *options: str, arguments: tuple[str, ...] = (), count: int = 1
    ) -> list[str]:
        """Submit a script so often, at once, with its number as last argument; the ids."""
        path = self.script(host, source)
        begun = [self.begin(host, "submit", *options, path, *arguments, str(number)) for number in range(count)]
        return [_succeeded(each.completed()).strip() for each in begun]

    def job(self, host: int, job_id: str) -> Mapping[str, Any]:
        """What the node on a host says about a job."""
        [found] = [job for job in self._look("jobs", host) if job["id"] == job_id]
        return found

    def views(self, hosts: Iterable[int] | None = None) -> dict[int, View]:
        """The nodes as the node on each of these hosts sees them, or on all on which a node runs."""
        chosen = hosts if hosts is not None else [int(name[1:]) for name in sorted(self.names)]
        return {
            host: {node["name"]: node for node in self._look("nodes", host) if node["role"] == "node"}
            for host in chosen
        }

    def _look(self, what: str, host: int) -> list[dict[str, Any]]:
        path = self.lan.outside(self.lan.directory(host) / "state" / "node.sock")
        return self.observer.look(what, f"unix:{path}", "tester")

    def _node(self, host: int) -> Daemon:
        name = self.lan.name(host)
        listen = f"{self.lan.address(host)}:{NODE_PORT}"
        return Daemon.start(
            *(self.lan, host, name, "cmt-node", "--state", f"{self.lan.directory(host)}/state", "--name", name),
            *("--listen", listen, "--slots", str(SLOTS), "--insecure-lan", "true", "--load-source", "none"),
            *self.options,
        )

    def _csu(self) -> Daemon:
        host = self.lan.hosts
        listen = f"{self.lan.address(host)}:{CSU_PORT}"
        return Daemon.start(
            *(self.lan, host, "csu", "cmt-csu", "--state", f"{self.lan.directory(host)}/csu", "--name", "csu"),
            *("--listen", listen, "--insecure-lan", "true"),
        )


@contextmanager
def serving(lan: Lan, *options: str) -> Iterator[Cluster]:
    """A node on every host and a CSU on the last, which know nothing of each other at first; none logs an error."""
    made = Cluster(lan, options)
    try:
        made.start(*range(1, lan.hosts + 1), csu=True)
        yield made
        assert made.complaints() == []
    finally:
        made.observer.close()
        for daemon in made.daemons.values():
            daemon.close()


def _succeeded(done: Completed) -> str:
    assert done.code == 0, done
    return done.stdout


def check_whole(views: Mapping[int, View], names: set[str]) -> None:
    """In every view exactly these nodes are there and form one tree with at most five neighbors each.

    :raises AssertionError: not so, yet.
    """
    for host, view in views.items():
        alive = {name for name, node in view.items() if node["state"] == "alive"}
        assert alive == names, f"seen from h{host}: {_states(view)}"
        _check_tree([view[name] for name in names])


def _check_tree(nodes: list[Mapping[str, Any]]) -> None:
    neighbors = {node["id"]: set(node["neighbors"]) for node in nodes}
    assert all(len(each) <= 5 for each in neighbors.values()), neighbors
    assert all(node in neighbors.get(other, ()) for node, each in neighbors.items() for other in each), neighbors
    roots = [node["id"] for node in nodes if node["parent"] is None]
    assert len(roots) == 1, f"roots: {roots}"
    assert {node["root"] for node in nodes} == set(roots)
    # As many links as a tree has, and all reached from the root.
    assert sum(map(len, neighbors.values())) == 2 * (len(nodes) - 1), neighbors
    reached, new = set[str](), set(roots)
    while new:
        reached |= new
        new = {other for node in new for other in neighbors[node]} - reached
    assert reached == set(neighbors), neighbors


def _states(view: View) -> dict[str, Any]:
    return {name: node["state"] for name, node in view.items()}


def check_banned(cluster: Cluster, client: str, reason: str, hosts: Iterable[int]) -> None:
    """Each of these hosts' nodes refuses the client's jobs and says why. :raises AssertionError: not so, yet."""
    begun = {host: cluster.begin(host, "submit", cluster.script(host, "pass"), client=client) for host in hosts}
    answers = {host: each.completed() for host, each in begun.items()}
    for host, done in answers.items():
        assert (done.code, done.stdout) == (ExitCode.DENIED, ""), (host, done)
        assert done.stderr.startswith("cmt: banned: "), (host, done)
        assert reason in done.stderr, (host, done)
