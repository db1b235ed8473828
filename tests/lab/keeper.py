"""The first process of the lab: it makes a switch and hosts in its namespaces, then starts in them what it is told to.

Run by :mod:`tests.lab.lan`, with the number of hosts, as process 1 of a pid namespace. It takes one JSON object a line,
``{"start": ID, "host": NAME, "line": [...], "environment": {...}, "directory": PATH}`` or
``{"kill": ID, "signal": N}``; it says ``{"ready": true}`` or ``{"failed": WHY}`` once, and then
``{"ended": ID, "code": N}`` for each process.

Invariant: nothing in the lab outlives it, and it ends with its standard input, which ends with the tests however they
end. Only the standard library is used, and nothing of the project.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

SWITCH = "switch"
ROOM = Path("/run/lab")
"""All files of the lab: on a file system that ends with it."""

MULTICAST_ROUTE = "224.0.0.0/4 dev eth0"
"""Other hosts have a default route for it."""


def say(**fields: object) -> None:
    """Tell the tests."""
    os.write(1, json.dumps(fields).encode() + b"\n")


def build(hosts: int) -> None:
    """A bridge in a namespace of its own, and ``hosts`` namespaces h1, h2 … with one leg each on it.

    :raises subprocess.CalledProcessError: a command failed.
    """
    _do("mount -t tmpfs -o mode=0755 lab /run")
    Path("/run/netns").mkdir()
    ROOM.mkdir()
    _do(f"ip netns add {SWITCH}")
    # Without snooping multicast goes everywhere, as in a switch for the home.
    _do(f"ip -n {SWITCH} link add br0 type bridge mcast_snooping 0")
    _do(f"ip -n {SWITCH} link set br0 up")
    for number in range(1, hosts + 1):
        name, port = f"h{number}", f"p{number}"
        (ROOM / name).mkdir()
        _do(f"ip netns add {name}")
        _do(f"ip -n {name} link add eth0 type veth peer name {port} netns {SWITCH}")
        _do(f"ip -n {SWITCH} link set {port} master br0 up")
        _do(f"ip -n {name} address add 10.77.0.{number}/24 dev eth0")
        _do(f"ip -n {name} link set lo up")
        _do(f"ip -n {name} link set eth0 up")
        _do(f"ip -n {name} route add {MULTICAST_ROUTE}")


def _do(line: str) -> None:
    subprocess.run(line.split(), check=True, stdin=subprocess.DEVNULL, capture_output=True, text=True)


def serve() -> None:
    """Obey until standard input ends."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    processes: dict[int, int] = {}
    pending = b""
    while True:
        ready, _, _ = select.select([0, reading], [], [])
        if reading in ready:
            os.read(reading, 4096)
            _reap(processes)
        if 0 in ready:
            piece = os.read(0, 65536)
            if not piece:
                return
            *lines, pending = (pending + piece).split(b"\n")
            for line in lines:
                _obey(json.loads(line), processes)


def _obey(order: dict[str, Any], processes: dict[int, int]) -> None:
    if "start" in order:
        processes[_start(**order)] = order["start"]
    else:
        for pid in [pid for pid, number in processes.items() if number == order["kill"]]:
            os.kill(pid, order["signal"])


def _start(start: int, host: str, line: list[str], environment: dict[str, str], directory: str) -> int:
    """Its standard output and standard error are the files ``START.out`` and ``START.err``."""
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        # What Python ignores would stay ignored.
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        os.chdir(directory)
        files = Path(os.devnull), ROOM / f"{start}.out", ROOM / f"{start}.err"
        for descriptor, file in enumerate(files):
            os.dup2(os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), descriptor)
        os.execvpe("ip", ["ip", "netns", "exec", host, *line], environment)
    finally:
        os._exit(127)


def _reap(processes: dict[int, int]) -> None:
    """Everybody whose parent died is ours, as those whom we started."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        number = processes.pop(pid, None)
        if number is not None:
            say(ended=number, code=os.waitstatus_to_exitcode(status))


def main() -> None:
    """Build, then serve."""
    try:
        build(int(sys.argv[1]))
    except subprocess.CalledProcessError as error:
        say(failed=f"{' '.join(error.cmd)}: {error.stderr.strip()}")
        sys.exit(1)
    say(ready=True)
    serve()


if __name__ == "__main__":
    main()
