"""docs/architecture.md says what the code is: its hops, its files, its packages."""

from __future__ import annotations

import ast
import re
from configparser import ConfigParser
from pathlib import Path

import pytest

from benchmarks.way import FORWARDED, way_of

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "cloudmytask"
TEXT = (ROOT / "docs/architecture.md").read_text()
HOPS = re.findall(r"^\d+\. \w+: `([\w/]+\.py):([\w.]+)`", TEXT, re.MULTILINE)


def functions(file: str) -> set[str]:
    """The functions of a file, those of classes with the class's name."""
    body = ast.parse((PACKAGE / file).read_text()).body
    classes = [node for node in body if isinstance(node, ast.ClassDef)]
    scopes = [("", body), *((f"{node.name}.", node.body) for node in classes)]
    return {
        prefix + node.name
        for prefix, scope in scopes
        for node in scope
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def test_it_opens_with_twelve_hops() -> None:
    opening = TEXT.split("\n## ")[1]
    assert re.findall(r"^(\d+)\. ", opening, re.MULTILINE) == [str(number) for number in range(1, 13)]
    assert len(HOPS) == 12


@pytest.mark.parametrize(("file", "function"), re.findall(r"`([\w/]+\.py):([\w.]+)`", TEXT))
def test_each_function_that_is_named_exists(file: str, function: str) -> None:
    assert function in functions(file)


def test_a_forwarded_job_passes_the_hops_in_their_order() -> None:
    first: dict[tuple[str, str], int] = {}
    for index, step in enumerate(way_of(FORWARDED).steps):
        first.setdefault(step, index)
    passed = [first.get((file.removesuffix(".py").replace("/", "."), function)) for file, function in HOPS]
    known = [index for index in passed if index is not None]
    assert len(known) == len(HOPS), f"not passed: {[hop for hop, at in zip(HOPS, passed, strict=True) if at is None]}"
    assert known == sorted(known)


@pytest.mark.parametrize("file", sorted(set(re.findall(r"`([\w/]+\.py)(?::[\w.]+)?`", TEXT))))
def test_each_file_that_is_named_exists(file: str) -> None:
    assert any((base / file).is_file() for base in (PACKAGE, PACKAGE / "node", ROOT))


def test_each_module_of_a_node_is_named() -> None:
    modules = {
        str(path.relative_to(PACKAGE / "node")) for path in (PACKAGE / "node").rglob("*.py") if path.stem != "__init__"
    }
    assert {module for module in modules if f"{module}`" not in TEXT and f"{module}:" not in TEXT} == set()


def test_packages_are_drawn_as_the_import_contracts_have_them() -> None:
    contracts = ConfigParser()
    contracts.read(ROOT / ".importlinter")
    drawings = re.findall(r"^```\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    for drawing, contract in zip(drawings, ("layers", "node-layers"), strict=True):
        layers = contracts[f"importlinter:contract:{contract}"]["layers"].split("\n")
        drawn = [re.split(r"  +", line)[0] for line in drawing.splitlines() if not line.startswith(" ")]
        assert drawn == [layer for layer in layers if layer]
