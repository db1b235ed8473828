"""The prose of the package: its words, its docstrings, its names, the size of its modules."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "cloudmytask"

ROOMS = ("cluster", "codec", "csu", "model", "process", "simulation", "store")
"""The packages whose prose is held to the rules."""

WORDS = {
    r"whoever|whomever": "name who it is: a client, a peer, a caller",
    r"whatever": "name what it is, or say what it does not depend on",
    r"anew": "again, once more, from the beginning",
    r"our own": "this node's, this process's",
    r"see the module": "the first line of a docstring says what the thing does",
}
"""What is not written, and what is instead."""

SMALL: dict[str, str] = {
    "config/options.py": "imported by every declaration of an option, and imports nothing",
    "core/policies.py": "names only, so that a command line can offer them and load nothing else",
    "service/entropy.py": "the one place where real randomness comes in",
    "version.py": "read by the build, which must not import the package",
}
"""Modules under 25 lines, and why they stand alone. ``__init__`` files are free."""

MODULES = sorted(PACKAGE.rglob("*.py"))
CHECKED = [path for path in MODULES if path.relative_to(PACKAGE).parts[0] in ROOMS]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE if PACKAGE in path.parents else ROOT))


def violations(text: str) -> list[str]:
    """The lines of ``text`` that have one of the words, with the advice."""
    return [
        f"line {number}: {found[0]!r} ({advice})"
        for number, line in enumerate(text.splitlines(), 1)
        for words, advice in WORDS.items()
        if (found := re.search(rf"\b(?:{words})\b", line, re.IGNORECASE)) is not None
    ]


def docstrings(path: Path) -> Iterator[tuple[Documented, str]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, Documented) and (text := ast.get_docstring(node)) is not None:
            yield node, text


def test_the_rooms_exist() -> None:
    assert {path.relative_to(PACKAGE).parts[0] for path in CHECKED} == set(ROOMS)
    assert DOCUMENTS[1:], "docs/ has documents"


@pytest.mark.parametrize(
    "text", ["to Whoever asks", "whatever\n", "it begins anew.", "our own id", '"""See the module."""']
)
def test_each_word_is_found(text: str) -> None:
    assert violations(text)


@pytest.mark.parametrize("path", CHECKED, ids=name_of)
def test_the_words(path: Path) -> None:
    assert violations(path.read_text()) == []


@pytest.mark.parametrize("path", CHECKED, ids=name_of)
def test_a_docstring_opens_with_what_the_thing_does(path: Path) -> None:
    openings = [getattr(node, "name", "the module") for node, text in docstrings(path) if text.startswith(":")]
    assert openings == []


@pytest.mark.parametrize("path", CHECKED, ids=name_of)
def test_a_docstring_says_when_an_error_is_raised(path: Path) -> None:
    bare = [
        getattr(node, "name", "the module")
        for node, text in docstrings(path)
        if re.search(r":raises [\w., ]+:\s*$", text)
    ]
    assert bare == []


def test_each_module_has_a_docstring() -> None:
    assert [name_of(path) for path in MODULES if not ast.get_docstring(ast.parse(path.read_text()))] == []


def test_no_module_is_too_small_to_stand_alone() -> None:
    small = {
        name_of(path) for path in MODULES if path.name != "__init__.py" and len(path.read_text().splitlines()) < 25
    }
    assert small <= set(SMALL), "fold it into its user, or say why it stands alone"


def test_no_class_name_is_used_twice() -> None:
    places: defaultdict[str, list[str]] = defaultdict(list)
    for path in CHECKED:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(name_of(path))
    assert {name: there for name, there in places.items() if len(there) > 1} == {}


def test_logs_are_named_after_their_modules() -> None:
    # a name of its own goes stale when the module is renamed
    assert [name_of(path) for path in MODULES if "Logger(namespace=" in path.read_text()] == []
