"""What a shortage needs: a small file system, a group of processes with a bound. Both need root.

Invariant: what was mounted or made is gone afterwards, with every process in it.
"""

from __future__ import annotations

import errno
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PIDS = Path("/sys/fs/cgroup/pids")
"""Where the controller of cgroup v1 is mounted; with v2 alone it is below the parent."""


class Unavailable(Exception):
    """This machine, or this user, cannot have that; ``str()`` of it says why."""


@contextmanager
def small_disk(directory: Path, mebibytes: int) -> Iterator[Path]:
    """A tmpfs of that size below ``directory``.

    :raises Unavailable: we are not root, or may not mount.
    """
    if os.geteuid() != 0:
        raise Unavailable("needs root, for a tmpfs")
    place = directory / "disk"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m,mode=700", "none", str(place)],
        capture_output=True,
        check=False,
    )
    if done.returncode != 0:
        raise Unavailable(f"a tmpfs cannot be mounted: {done.stderr.decode().strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)
        place.rmdir()


def fill(place: Path) -> Path:
    """Take all room that is left there, to the last byte; remove the file to give it back."""
    taken = place / "filler"
    with taken.open("ab", buffering=0) as file:
        for size in (1024 * 1024, 4096, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError as error:
                assert error.errno == errno.ENOSPC
    return taken


@contextmanager
def few_processes(most: int) -> Iterator[tuple[list[str], Path]]:
    """A cgroup for so many processes and threads: the command line that has a program begin in it, and its directory.

    :raises Unavailable: we are not root, or there is no such controller.
    """
    if os.geteuid() != 0:
        raise Unavailable("needs root, for a cgroup")
    place = (PIDS if PIDS.is_dir() else Path("/sys/fs/cgroup")) / f"cmt-rude-{os.getpid()}"
    try:
        place.mkdir()
        (place / "pids.max").write_text(str(most))
    except OSError as error:
        with suppress(OSError):
            place.rmdir()
        raise Unavailable(f"there is no pids cgroup to be had: {error}") from None
    try:
        yield ["sh", "-c", f'echo $$ > {place}/cgroup.procs && exec "$@"', "sh"], place
    finally:
        deadline = time.monotonic() + 20
        while members(place) and time.monotonic() < deadline:
            for pid in members(place):
                with suppress(ProcessLookupError):
                    os.kill(pid, 9)
            time.sleep(0.05)
        place.rmdir()


def members(place: Path) -> list[int]:
    """The processes in a cgroup."""
    return [int(line) for line in (place / "cgroup.procs").read_text().split()]
