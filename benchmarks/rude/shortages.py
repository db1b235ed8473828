"""The rows in which something runs out: rows 3 to 8 of the table.

Invariant: as for :mod:`benchmarks.rude.floods`.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path

from benchmarks.daemons import HOST, Daemon, Daemons
from benchmarks.reporting import Figure
from benchmarks.rude.company import beside
from benchmarks.rude.surroundings import few_processes, fill, members, small_disk
from cloudmytask.client import Client, JobHandle
from cloudmytask.model.errors import CloudMyTaskError, JobFailed

NODE = ("--slots", "2")
ON_SMALL_DISK = ("--slots", "1", "--disk-min", "4M")
DISK = 64
"""MiB of a small disk."""
FILL = b"""
import os
with open('filler', 'wb', buffering=0) as file:
    try:
        while True: file.write(b'x' * 65536)
    except OSError as full: print(full)
"""
SAY_MUCH = b"""
import os
os.write(1, b'the first line\\n')
for _ in range(1500): os.write(1, b'x' * 65535 + b'\\n')
"""
BOMB = b"""
import os, sys, time
while True:
    try: pid = os.fork()
    except OSError: time.sleep(0.01); continue
    if pid == 0 and len(sys.argv) > 1: os.setsid()
"""
POISON = b"""
import os, time
os.kill(os.getppid(), 9)
time.sleep(60)
"""


def at(daemon: Daemon, client: str = "mallory") -> Client:
    """A client of that node alone."""
    return Client(f"unix:{daemon.socket}", client=client, failover=False)


def ended(job: JobHandle, seconds: float) -> bool:
    """Whether it has an outcome within that time."""
    with suppress(TimeoutError, CloudMyTaskError):
        job.wait(seconds)
    with suppress(CloudMyTaskError):
        return job.done()
    return False


def works(daemon: Daemon, seconds: float = 20.0) -> bool:
    """Whether a job succeeds there within that time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            with at(daemon, "legal") as cloud:
                job = cloud.submit(b"print(42)")
                return ended(job, deadline - time.monotonic()) and job.result(1).stdout == "42\n"
        except (CloudMyTaskError, JobFailed, OSError):
            time.sleep(0.5)
    return False


def needed(name: str, times: int, note: str) -> Figure:
    """How often a person was needed."""
    return Figure(f"{name}: times that a person is needed", times, "", "0", times == 0, note)


def filled_work_directory(directory: Path) -> list[Figure]:
    """Row 3: a script fills the disk and ends; then the same with kill -9 and a start in between."""
    with small_disk(directory, DISK) as disk, Daemons(disk, ON_SMALL_DISK, logs=directory) as daemons:
        [node] = daemons.start()
        with at(node) as cloud:
            began = time.monotonic()
            job = cloud.submit(FILL)
            over = ended(job, 30)
            note = f"outcome after {time.monotonic() - began:.1f} s" if over else "no outcome within 30 s"
            persons = not over
        found = [needed("row 3, a script fills the disk", int(persons or not works(node)), note)]
        if not persons:
            with at(node) as cloud:
                cloud.submit(FILL + b"\nimport time\ntime.sleep(60)\n")
                deadline = time.monotonic() + 20
                while os.statvfs(disk).f_bavail > 0 and time.monotonic() < deadline:
                    time.sleep(0.05)
        node.process.send_signal(signal.SIGKILL)
        node.process.wait()
        try:
            node = daemons.again(node)
        except TimeoutError:
            return [*found, needed("row 3, the same, killed and started", 1, "it does not come up")]
        serves = works(node)
        note = "it came up, and jobs run" if serves else "it came up, and no job runs within 20 s"
        return [*found, needed("row 3, the same, killed and started", int(not serves), note)]


def waiting_jobs(directory: Path) -> list[Figure]:
    """Row 4: jobs that were accepted wait while the disk is full."""
    with small_disk(directory, DISK) as disk, Daemons(disk, ON_SMALL_DISK, logs=directory) as daemons:
        [node] = daemons.start()
        with at(node, "legal") as cloud:
            jobs = [cloud.submit(b"import time; time.sleep(2)"), *(cloud.submit(b"print(42)" * 1) for _ in range(4))]
            filler = fill(disk)
            time.sleep(8)
            filler.unlink()
            done = [ended(job, 20) for job in jobs]
            failed = [job for job in jobs if job.status().state != "succeeded"]
        note = f"{len(jobs)} jobs; {sum(done)} ended; {', '.join(str(job.status().state) for job in failed)}"
        value = len(failed)
        return [Figure("row 4, the disk is full for 8 s: jobs of others not done", value, "", "0", value == 0, note)]


def output_that_does_not_fit(directory: Path) -> list[Figure]:
    """Row 5: an output meets a full disk; what was on the disk is to be shown."""
    with small_disk(directory, DISK) as disk, Daemons(disk, ON_SMALL_DISK, logs=directory) as daemons:
        [node] = daemons.start()
        free = os.statvfs(disk)
        room = free.f_bavail * free.f_frsize / 1024**2
        with at(node) as cloud:
            job = cloud.submit(SAY_MUCH)
            over = ended(job, 40)
            shown = first = 0
            if over:
                text = b""
                with suppress(CloudMyTaskError, JobFailed):
                    text = job.result(10).stdout.encode()
                if not text:
                    kept = directory / "kept"
                    with kept.open("wb") as file, suppress(CloudMyTaskError):
                        job.copy_output(file)
                    text = kept.read_bytes()
                shown, first = len(text), int(text.startswith(b"the first line\n"))
            state = str(job.status().state)
        met = bool(first) and shown / 1024**2 >= room / 2
        note = f"of 93.8 MiB, with {room:.0f} MiB of room; job {state}" + ("" if over else ", no outcome within 40 s")
        return [
            Figure(
                "row 5, output meets a full disk: shown of it", shown / 1024**2, "MiB", f">= {room / 2:.0f}", met, note
            )
        ]


def no_descriptors(directory: Path) -> list[Figure]:
    """Row 6: a thousand silent connections to a node that may open 1,024 files."""
    before = ["prlimit", "--nofile=1024:1024"]
    with Daemons(directory, NODE, before) as daemons:
        [node] = daemons.start()
        with beside(node.socket) as legal:
            silent: list[socket.socket] = []
            deadline = time.monotonic() + 15
            while time.monotonic() < deadline:
                while len(silent) < 1000:
                    try:
                        silent.append(socket.create_connection((HOST, node.port), timeout=0.2))
                    except OSError:
                        break
                time.sleep(0.5)
            for each in silent:
                each.close()
        value = len(legal.result.failed)
        alive = works(node)
        note = f"{legal.result}; afterwards it {'works' if alive else 'does not work'}"
        met = value == 0 and alive and bool(legal.result.jobs)
        return [
            Figure("row 6, 1,000 silent connections, nofile 1024: jobs of others failed", value, "", "0", met, note)
        ]


def fork_bomb(directory: Path) -> list[Figure]:
    """Row 7: a fork bomb with a timeout of 4 s in a cgroup of 400 processes, plain and with ``setsid``."""
    found: list[Figure] = []
    for name, arguments in (("a fork bomb", ()), ("the same with setsid", ("setsid",))):
        place = directory / str(len(found))
        place.mkdir()
        with few_processes(400) as (before, group), Daemons(place, NODE, before) as daemons:
            [node] = daemons.start()
            with beside(node.socket) as legal:
                time.sleep(1)
                with at(node) as cloud:
                    cloud.submit(BOMB, *arguments, timeout="4s", node=node.name)
                    time.sleep(10)
            left = len(members(group)) - 1
            serves = works(node)
            if not serves:
                with suppress(TimeoutError):
                    node.process.kill()
                    node = daemons.again(node)
                    serves = works(node)
            value = len(legal.result.failed)
            note = (
                f"{legal.result}; {left} processes left; it {'serves on or restarts' if serves else 'serves no more'}"
            )
            found.append(Figure(f"row 7, {name}: jobs of others failed", value, "", "0", value == 0 and serves, note))
    return found


def poison(directory: Path) -> list[Figure]:
    """Row 8: a job kills the daemon that runs it; all are started again at once."""
    with Daemons(directory, ("--slots", "1", "--placement", "reserve-pull")) as daemons:
        nodes = {node.name: node for node in daemons.start(3)}
        time.sleep(2)
        deaths = 0
        with at(nodes["n0"]) as cloud, suppress(CloudMyTaskError, OSError):
            cloud.submit(POISON, key="poison")
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            for name, node in list(nodes.items()):
                if node.process.poll() is not None:
                    deaths += 1
                    with suppress(TimeoutError):
                        nodes[name] = daemons.again(node)
            time.sleep(0.05)
        state = "unknown"
        with suppress(CloudMyTaskError, OSError), at(nodes["n0"]) as cloud:
            state = ", ".join(f"{job.status().state}" for job in cloud.jobs())
        note = f"3 nodes, 60 s, started again at once; the job: {state}"
        return [Figure("row 8, a job kills its parent: deaths of daemons", deaths, "", "<= 3", deaths <= 3, note)]
