"""The documentation's examples are run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration import daemons

ROOT = Path(__file__).parents[2]


def blocks(name: str, language: str) -> list[str]:
    """The code blocks of a language in one of the project's documents."""
    return re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / name).read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory with the examples, and a node whose state is in ``state``."""
    directory = tmp_path_factory.mktemp("docs")
    (directory / "examples").symlink_to(ROOT / "examples")
    with daemons.node(["-n", "--pidfile=", "cmt-node", "--state", "state", "--name", "a"], directory):
        yield directory


def run(command: list[str], place: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        command,
        cwd=place,
        env={**os.environ, "PATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        stdin=subprocess.DEVNULL,
    )


@pytest.mark.parametrize("name", ["README.md", "docs/guide.md", "docs/protocol.md"])
def test_python_examples_run(place: Path, name: str) -> None:
    examples = blocks(name, "python")
    assert examples
    for example in examples:
        done = run([sys.executable, "-c", example], place, CMT_NODE="unix:state/node.sock")
        assert (done.returncode, done.stderr) == (0, ""), example
        assert done.stdout


def test_the_guides_commands_work(place: Path) -> None:
    script = "\n".join(["set -e", *(b for b in blocks("docs/guide.md", "sh") if "cancel" not in b)])
    done = run(["bash", "-c", script], place, CMT_NODE="unix:state/node.sock")
    assert done.returncode == 0, done.stderr
    assert "5133 primes below 50000" in done.stdout
    assert "\n15\n" in done.stdout
    assert done.stdout.count("2 of 2 seconds") == 2  # in logs -f, and in result


def test_the_readmes_ten_lines(tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    [tour] = blocks("README.md", "sh")
    activate, *lines = tour.splitlines()
    assert activate == ". .venv/bin/activate"
    done = run(["bash", "-c", "\n".join(lines)], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "\n15\n" in f"\n{done.stdout}"
    assert "3\n" in done.stdout
    assert done.stdout.count("5 of 5 seconds") == 2
    assert "It was cancelled by" in done.stdout
