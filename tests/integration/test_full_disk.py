"""A real node on a small disk that is full: when its scripts end, when it starts, when it is taken away."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.rude.surroundings import fill
from tests.integration.commands import Commands
from tests.integration.daemons import node, until
from tests.integration.small_disk import small_disk

MIB = 1024 * 1024
FILL = """
import os, sys
try:
    while True:
        with open("big", "ab", buffering=0) as file:
            file.write(b"x" * 65536)
except OSError as error:
    print(os.strerror(error.errno), flush=True)
"""


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    """A state directory on a disk of 32 MiB."""
    with small_disk(tmp_path, 32) as disk:
        yield disk / "state"


def arguments(state: Path, *more: str) -> list[str]:
    return ["-n", "--pidfile=", "cmt-node", "--state", str(state), "--load-source", "none", "--disk-min", "0", *more]


@pytest.fixture
def cmt(state: Path, tmp_path: Path) -> Commands:
    return Commands(tmp_path, f"unix:{state}/node.sock")


def test_row_03_a_script_that_fills_the_disk_in_its_directory_ends_as_any_other(
    state: Path, tmp_path: Path, cmt: Commands
) -> None:
    with node(arguments(state), tmp_path):
        for _ in range(3):
            assert cmt("run", cmt.script(FILL)).stdout == b"No space left on device\n"
        assert cmt("run", cmt.script("print(42)")).stdout == b"42\n"
        until(lambda: list((state / "work").iterdir()) == [])


def test_row_05_output_that_fills_the_disk_is_shown_as_far_as_it_was_written(
    state: Path, tmp_path: Path, cmt: Commands
) -> None:
    script = cmt.script("import sys\nfor n in range(60):\n    sys.stdout.write(f'{n:09}\\n' * 104858)")
    whole = b"".join(b"%09d\n" % n * 104858 for n in range(60))
    with node(arguments(state), tmp_path):
        job = cmt.submit(Path(script).read_text())
        assert cmt("wait", job).returncode == 0, "the exit code is the script's"
        read = cmt("result", job)
        assert len(read.stdout) > 12 * MIB and whole.startswith(read.stdout)
        missing = f"{len(whole) - len(read.stdout)} bytes of stdout are missing"
        told = rf"the disk of node \S+ was full after [0-9.]+ MiB: {missing}"
        for sentence in (read.stderr.decode(), cmt.text("why", job)):
            assert re.search(told, sentence) and "output_max" not in sentence
        assert read.returncode == 1
        document = cmt.json("status", job)
        assert document["exit_code"] == 0 and document["attempts"][-1]["stdout_lost"]["after"] == len(read.stdout)
        cmt.text("rm", job)
        assert cmt("run", cmt.script("print(42)")).stdout == b"42\n"


def test_a_node_starts_on_a_full_disk_cleans_and_serves_what_it_has(state: Path, tmp_path: Path, cmt: Commands) -> None:
    with node(arguments(state), tmp_path) as life:
        done = cmt.submit("print('kept')")
        assert cmt("wait", done).returncode == 0
        cmt.submit(FILL + "\nimport time; time.sleep(600)", "--at-most-once")
        until(lambda: not os.statvfs(state).f_bavail)
        life.process.kill()
        life.process.wait()
    with node(arguments(state), tmp_path):
        assert cmt("result", done).stdout == b"kept\n"
        assert cmt("run", cmt.script("print(42)")).stdout == b"42\n"


def test_a_node_starts_on_a_disk_that_others_fill(state: Path, tmp_path: Path, cmt: Commands) -> None:
    with node(arguments(state), tmp_path) as life:
        done = cmt.submit("print('kept')")
        assert cmt("wait", done).returncode == 0
        reserve = state / "reserve"
        until(lambda: reserve.exists() and reserve.stat().st_size == 8 * MIB)
        filler = fill(state.parent)
        life.process.kill()
        life.process.wait()
    with node(arguments(state), tmp_path):
        assert cmt("result", done).stdout == b"kept\n"
        filler.unlink()
        until(lambda: reserve.stat().st_size == 8 * MIB)
        assert cmt("run", cmt.script("print(42)")).stdout == b"42\n"


def test_row_20_an_upload_onto_a_small_disk_is_refused_with_its_word(
    state: Path, tmp_path: Path, cmt: Commands
) -> None:
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(64 * MIB)
    with node(arguments(state), tmp_path):
        refused = cmt("run", "--stdin", str(large), cmt.script("print(42)"))
        assert b"cmt: disk-short: " in refused.stderr and b"left on its disk" in refused.stderr
        assert list((state / "spool").iterdir()) == []
        assert cmt("run", cmt.script("print(42)")).stdout == b"42\n"


@pytest.mark.parametrize("what", ["", "jobs.sqlite"])
def test_row_22_a_node_whose_state_is_taken_away_ends_with_one_line(tmp_path: Path, what: str) -> None:
    state = tmp_path / "state"
    cmt = Commands(tmp_path, f"unix:{state}/node.sock")
    with node(arguments(state), tmp_path) as life:
        assert cmt("run", cmt.script("print(42)")).stdout == b"42\n"
        began = time.monotonic()
        if what:
            (state / what).unlink()
        else:
            shutil.rmtree(state)
        assert life.ended() == 1
        assert time.monotonic() - began < 10.0
    lines = [line for line in (tmp_path / "stderr").read_text().splitlines() if line.startswith("cmt-node: ")]
    [line] = lines
    assert line.endswith("was removed while it was in use: nothing can be stored any more.")
