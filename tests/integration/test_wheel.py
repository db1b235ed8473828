"""What is shipped: a wheel that, installed into a fresh environment, brings ``cmt-node`` to twistd."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.integration.daemons import PATIENCE, ROOT, environment

PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]


def done(*command: str | Path, cwd: Path = Path("/")) -> str:
    """Standard output of a command that must succeed; as a rule away from the checkout, to find what is installed."""
    result = subprocess.run(
        [str(each) for each in command],
        cwd=cwd,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=4 * PATIENCE,
        check=False,
    )
    assert result.returncode == 0, result
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    # Where the build tool is installed, no package index is needed.
    isolation = ["--no-build-isolation"] if find_spec("hatchling") is not None else []
    done(*PIP, "wheel", "--no-deps", *isolation, "--wheel-dir", directory, ROOT)
    [built] = directory.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a fresh environment that holds the wheel, and finds its dependencies where we have them."""
    home = tmp_path_factory.mktemp("venv")
    done(sys.executable, "-m", "venv", "--without-pip", home)
    python = home / "bin" / "python"
    done(*PIP, "--python", python, "install", "--no-deps", "--no-index", wheel)
    purelib = Path(done(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    # Path files in a directory named by a path file are not read: an editable install of ours is not found this way.
    (purelib / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    where = done(python, "-c", "import cloudmytask; print(cloudmytask.__file__)").strip()
    assert Path(where).is_relative_to(home)
    return python


def test_twistd_knows_cmt_node_from_anywhere(python: Path) -> None:
    twistd: list[str | Path] = [python, "-c", "from twisted.scripts.twistd import run; run()"]
    assert "cmt-node" in done(*twistd, "--help")
    assert "--drain-timeout=" in done(*twistd, "cmt-node", "--help")


def test_every_module_that_is_shipped_can_be_imported(python: Path) -> None:
    program = (
        "import importlib, pkgutil, cloudmytask\n"
        "names = [m.name for m in pkgutil.walk_packages(cloudmytask.__path__, 'cloudmytask.')]\n"
        "for name in names:\n"
        "    if not name.endswith('__main__'):\n"
        "        importlib.import_module(name)\n"
        "print(len(names))\n"
    )
    assert int(done(python, "-c", program)) > 20


def test_the_wheel_holds_what_it_should_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert any(name.endswith("licenses/LICENSE") for name in names)
    ours = [name for name in names if ".dist-info/" not in name]
    assert "twisted/plugins/cloudmytask_plugins.py" in ours
    # A package file there would hide Twisted itself.
    assert not {"twisted/__init__.py", "twisted/plugins/__init__.py"} & set(ours)
    for name in ours:
        assert name.startswith("cloudmytask/") or name == "twisted/plugins/cloudmytask_plugins.py"
        assert not name.endswith((".pyc", "dropin.cache"))
