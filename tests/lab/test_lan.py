"""The lab itself: its hosts reach each other, faults do what they say, healing undoes them, nothing stays behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from tests.integration.daemons import PATIENCE, ROOT
from tests.lab.lan import KILLED, Lan, Running
from tests.lab.waiting import until

ALL = {1, 2, 3, 4, 5}

STATION = """
import json, select, socket, sys, time

me, last, GROUP = int(sys.argv[1]), int(sys.argv[2]), ("239.255.77.77", 7700)
address = "10.77.0.{}".format

bus = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
bus.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
bus.bind(GROUP)
own = socket.inet_aton(address(me))
bus.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(GROUP[0]) + own)
bus.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, own)
direct = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
direct.bind((address(me), 7701))

rounds = words = 0
heard = {kind: {} for kind in ("multicast", "unicast")}
while True:
    rounds += 1
    for _ in range(5):
        words += 1
        word = json.dumps([me, words]).encode()
        bus.sendto(word, GROUP)
        for other in range(1, last + 1):
            direct.sendto(word, (address(other), 7701))
    ends = time.monotonic() + 0.05
    while ready := select.select([bus, direct], [], [], max(0, ends - time.monotonic()))[0]:
        for each in ready:
            sender, number = json.loads(each.recv(100))
            numbers = heard["multicast" if each is bus else "unicast"].setdefault(sender, [])
            numbers.append(number)
    print(json.dumps({"round": rounds, "heard": heard}), flush=True)
    heard = {kind: {} for kind in heard}
"""
"""Says words to all, by multicast and to each of them, and writes down what it hears."""


LISTENER = """
import socket
server = socket.create_server(("10.77.0.5", 7702))
print("up", flush=True)
while server.accept():
    pass
"""


Round = dict[str, dict[str, list[int]]]
"""The numbers of the words that were heard, by sender, by kind of traffic."""


class Stations:
    """One on each host."""

    def __init__(self, lan: Lan) -> None:
        self._lan = lan
        self._running = {
            host: lan.start(host, sys.executable, "-c", STATION, str(host), str(lan.hosts))
            for host in range(1, lan.hosts + 1)
        }
        self._known: dict[int, list[Round]] = {host: [] for host in self._running}

    def heard(self, kind: str) -> dict[int, set[int]]:
        """By each host: from whom it hears now.

        Everybody speaks in whole rounds that begin after the call, and is listened to for a round more.
        """
        first = {host: count + 1 for host, count in self._counts().items()}
        self._all_reach({host: count + 2 for host, count in first.items()})
        self._all_reach({host: count + 1 for host, count in self._counts().items()})
        return {
            host: {int(sender) for each in self._rounds(host)[first[host] :] for sender in each[kind]}
            for host in self._running
        }

    def _counts(self) -> dict[int, int]:
        return {host: len(self._rounds(host)) for host in self._running}

    def _all_reach(self, counts: dict[int, int]) -> None:
        def reached() -> None:
            now = self._counts()
            assert all(now[host] >= count for host, count in counts.items()), [
                each.stderr for each in self._running.values()
            ]

        until(reached)

    def words(self, host: int, sender: int, kind: str) -> list[int]:
        """The numbers of all words that a host ever heard from a sender."""
        return [number for each in self._rounds(host) for number in each[kind].get(str(sender), [])]

    def _rounds(self, host: int) -> list[Round]:
        lines = self._running[host].stdout.rpartition("\n")[0].splitlines()
        known = self._known[host]
        known.extend(json.loads(line)["heard"] for line in lines[len(known) :])
        return known


@pytest.fixture(scope="module")
def stations(lan: Lan) -> Stations:
    made = Stations(lan)
    until(lambda: _hear(made, "multicast", _among(ALL)))
    return made


@pytest.fixture
def pair() -> Iterator[Lan]:
    """Two hosts on which nothing runs."""
    with Lan(2) as made:
        yield made


@pytest.fixture(autouse=True)
def healed(lan: Lan) -> Iterator[None]:
    yield
    lan.switch.heal()


def _among(*groups: set[int]) -> dict[int, set[int]]:
    """In each group everybody hears everybody."""
    return {host: group for group in groups for host in group}


def _hear(stations: Stations, kind: str, expected: dict[int, set[int]]) -> None:
    assert stations.heard(kind) == expected


def _connects(lan: Lan, host: int, to: int) -> bool:
    """By TCP, within a second."""
    program = f"import socket; socket.create_connection(('{lan.address(to)}', 7702), 1)"
    done = lan.run(host, sys.executable, "-c", program)
    assert done.code == 0 or "Error" in done.stderr, done
    return done.code == 0


@pytest.fixture
def listener(lan: Lan) -> Iterator[Running]:
    """On host 5."""
    program = (
        "import socket; s = socket.create_server(('10.77.0.5', 7702)); print('up', flush=True)\nwhile s.accept(): pass"
    )
    running = lan.start(5, sys.executable, "-c", program)

    def listens() -> None:
        assert running.stdout, running.stderr

    until(listens)
    yield running
    running.signal(signal.SIGKILL)
    assert running.ended() == KILLED


def test_all_hear_all(stations: Stations) -> None:
    assert stations.heard("multicast") == _among(ALL)
    assert stations.heard("unicast") == _among(ALL)


@pytest.mark.usefixtures("listener")
def test_tcp_connects_until_the_network_is_split_and_again_when_it_is_whole(lan: Lan) -> None:
    assert _connects(lan, 1, 5)
    lan.switch.split({1, 2, 3}, {4, 5})
    assert not _connects(lan, 1, 5)
    assert _connects(lan, 4, 5)
    lan.switch.heal()
    assert _connects(lan, 1, 5)


def test_an_isolated_host_hears_itself_alone_and_its_sends_do_not_fail(lan: Lan, stations: Stations) -> None:
    lan.switch.isolate(5)
    apart = _among(ALL - {5}, {5})
    for kind in ("multicast", "unicast"):
        until(lambda kind=kind: _hear(stations, kind, apart))  # type: ignore[misc]
    lan.switch.heal()
    for kind in ("multicast", "unicast"):
        until(lambda kind=kind: _hear(stations, kind, _among(ALL)))  # type: ignore[misc]


def test_a_split_network_is_two_networks(lan: Lan, stations: Stations) -> None:
    lan.switch.split({1, 2, 3}, {4, 5})
    halves = _among({1, 2, 3}, {4, 5})
    until(lambda: _hear(stations, "multicast", halves))
    until(lambda: _hear(stations, "unicast", halves))
    lan.switch.heal()
    until(lambda: _hear(stations, "unicast", _among(ALL)))


def test_one_way_loss_leaves_the_other_way(lan: Lan, stations: Stations) -> None:
    lan.switch.lose(senders=[1], receivers=[2, 3])
    deaf = {**_among(ALL), 2: ALL - {1}, 3: ALL - {1}}
    until(lambda: _hear(stations, "multicast", deaf))
    until(lambda: _hear(stations, "unicast", deaf))


def test_loss_of_multicast_leaves_unicast(lan: Lan, stations: Stations) -> None:
    lan.switch.lose(traffic="multicast")
    until(lambda: _hear(stations, "multicast", _among({1}, {2}, {3}, {4}, {5})))
    assert stations.heard("unicast") == _among(ALL)


def test_loss_of_a_share(lan: Lan, stations: Stations) -> None:
    lan.switch.lose(50, senders=[1], receivers=[2])
    before = {host: len(stations.words(host, 1, "multicast")) for host in (2, 3)}

    def enough() -> tuple[int, int]:
        heard, all_words = (stations.words(host, 1, "multicast")[before[host] + 5 :] for host in (2, 3))
        assert len(heard) >= 50
        # Who is not concerned misses none.
        assert all_words == list(range(all_words[0], all_words[0] + len(all_words)))
        return len(heard), heard[-1] - heard[0] + 1

    heard, said = until(enough)
    # Of a hundred that were said, give or take nine standard deviations.
    assert heard + 5 < said < heard + 200


def test_faults_add_up(lan: Lan, stations: Stations) -> None:
    lan.switch.lose(senders=[1], receivers=[2])
    lan.switch.isolate(4)
    both = {**_among(ALL - {4}, {4}), 2: {2, 3, 5}}
    until(lambda: _hear(stations, "multicast", both))


SENDER = """
import errno, socket
bus = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
bus.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("10.77.0.2"))
try:
    bus.sendto(b"x", ("239.255.77.77", 7703))
except OSError as error:
    print(errno.errorcode[error.errno])
"""


def test_a_host_without_an_interface_cannot_send(pair: Lan) -> None:
    assert pair.run(2, sys.executable, "-c", SENDER).stdout == ""
    pair.interface_down(2)
    assert pair.run(2, sys.executable, "-c", SENDER).stdout == "ENETUNREACH\n"
    pair.interface_up(2)
    assert pair.run(2, sys.executable, "-c", SENDER).stdout == ""


def test_a_command_has_its_exit_code_its_output_and_an_environment(lan: Lan) -> None:
    program = "import os, sys; print(os.environ['WORD'], os.getcwd()); print('e', file=sys.stderr); sys.exit(7)"
    done = lan.run(2, sys.executable, "-c", program, extra={"WORD": "hello"})
    assert (done.code, done.stdout, done.stderr) == (7, f"hello {lan.directory(2)}\n", "e\n")


def test_a_stopped_process_goes_on_when_it_may(pair: Lan) -> None:
    running = pair.start(1, "sh", "-c", "while :; do echo x; sleep 0.01; done")

    def grown(size: int) -> int:
        now = len(running.stdout)
        assert now > size
        return now

    size = until(lambda: grown(0))
    running.signal(signal.SIGSTOP)
    [inside] = [each for each in pair.processes(1) if each.name() == "sh"]

    def stopped() -> None:
        assert inside.status() == psutil.STATUS_STOPPED

    until(stopped)
    size = len(running.stdout)
    running.signal(signal.SIGCONT)
    until(lambda: grown(size))
    running.signal(signal.SIGKILL)
    assert running.ended() == KILLED


def test_power_off_ends_all_processes_of_one_host_only(pair: Lan) -> None:
    # The child has a group of its own and outlives its parent.
    alone = pair.start(2, "sh", "-c", "setsid sleep 1000 & sleep 1000")
    other = pair.start(1, "sleep", "1000")

    def up() -> None:
        assert len(pair.processes(2)) == 3, pair.processes(2)

    until(up)
    pair.power_off(2)
    assert alone.ended() == KILLED

    def down() -> None:
        assert pair.processes(2) == []

    until(down)
    assert other.code is None
    assert len(pair.processes(1)) == 1
    other.signal(signal.SIGTERM)
    assert other.ended() == -signal.SIGTERM


def test_the_lab_leaves_nothing_behind_when_the_tests_are_killed() -> None:
    program = """
import signal, sys
from tests.lab.lan import Lan
from tests.lab.waiting import until

def found(count):
    processes = lan.processes(1) + lan.processes(2)
    assert len(processes) == count
    return processes

with Lan(2) as lan:
    stopped = lan.start(1, "sleep", "1000")
    lan.start(2, "sh", "-c", "setsid sleep 1000 & sleep 1000")
    processes = until(lambda: found(4))
    stopped.signal(signal.SIGSTOP)
    print(*(each.pid for each in processes), lan.keeper, flush=True)
    sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as tests:
        assert tests.stdout is not None
        pids = [int(pid) for pid in tests.stdout.readline().split()]
        assert len(pids) == 5
        assert all(psutil.pid_exists(pid) for pid in pids)
        tests.kill()
        assert tests.wait(PATIENCE) == KILLED

    def gone() -> None:
        assert not [pid for pid in pids if psutil.pid_exists(pid)]

    until(gone)
