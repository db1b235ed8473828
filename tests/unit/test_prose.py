"""The prose of the package: its words, its docstrings, its names, the size of its modules."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "cloudmytask"

WAITING: tuple[str, ...] = ()
"""Rooms whose prose is still to be mended; all others are held to the rules."""

WORDS = {
    r"whoever|whomever": "name who it is: a client, a peer, a caller",
    r"whatever": "name what it is, or say what it does not depend on",
    r"anew": "again, once more, from the beginning",
    r"our own": "this node's, this process's",
    r"see the module": "the first line of a docstring says what the thing does",
}
"""What is not written, and what is instead."""

SMALL: dict[str, str] = {
    "core/policies.py": "names only, so that a command line can offer them and load nothing else",
    "version.py": "read by the build, which must not import the package",
}
"""Modules under 25 lines, and why they stand alone. ``__init__`` files are free."""

TWICE = {"Options": "twistd looks for that name in the module of each plugin"}
"""Class names that are used more than once, and why."""

MODULES = sorted(PACKAGE.rglob("*.py"))
CHECKED = [path for path in MODULES if path.relative_to(PACKAGE).parts[0] not in WAITING]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE if PACKAGE in path.parents else ROOT))


@lru_cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def violations(text: str) -> list[str]:
    """The lines of ``text`` that have one of the words, with the advice."""
    return [
        f"line {number}: {found[0]!r} ({advice})"
        for number, line in enumerate(text.splitlines(), 1)
        for words, advice in WORDS.items()
        if (found := re.search(rf"\b(?:{words})\b", line, re.IGNORECASE)) is not None
    ]


def docstrings() -> Iterator[tuple[str, str]]:
    """Of all that is documented: where it is, and what its docstring says."""
    for path in CHECKED:
        for node in ast.walk(parsed(path)):
            if isinstance(node, Documented) and (text := ast.get_docstring(node)) is not None:
                yield f"{name_of(path)}: {getattr(node, 'name', 'the module')}", text


@pytest.mark.parametrize(
    "text", ["to Whoever asks", "whatever\n", "it begins anew.", "our own id", '"""See the module."""']
)
def test_each_word_is_found(text: str) -> None:
    assert violations(text)


def test_the_words() -> None:
    found = {name_of(path): violations(path.read_text()) for path in (*CHECKED, *DOCUMENTS)}
    assert {name: lines for name, lines in found.items() if lines} == {}


def test_a_docstring_opens_with_what_the_thing_does() -> None:
    assert [place for place, text in docstrings() if text.startswith(":")] == []


def test_a_docstring_says_when_an_error_is_raised() -> None:
    assert [place for place, text in docstrings() if re.search(r":raises [\w., ]+:\s*(:|$)", text, re.MULTILINE)] == []


def test_each_module_has_a_docstring() -> None:
    assert [name_of(path) for path in MODULES if not ast.get_docstring(parsed(path))] == []


def test_no_module_is_too_small_to_stand_alone() -> None:
    modules = {name_of(path): len(path.read_text().splitlines()) for path in MODULES if path.name != "__init__.py"}
    small = {name for name, lines in modules.items() if lines < 25}
    assert small <= set(SMALL), "fold it into its user, or say why it stands alone"


def test_no_class_name_is_used_twice() -> None:
    places: defaultdict[str, list[str]] = defaultdict(list)
    for path in CHECKED:
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(name_of(path))
    assert {name: there for name, there in places.items() if len(there) > 1 and name not in TWICE} == {}


def test_logs_are_named_after_their_modules() -> None:
    # a name of its own goes stale when the module is renamed
    assert [name_of(path) for path in MODULES if "Logger(namespace=" in path.read_text()] == []


def test_each_file_that_a_document_names_exists() -> None:
    places = (PACKAGE, PACKAGE / "node", ROOT)
    missing = [
        f"{name_of(path)}: {name}"
        for path in DOCUMENTS
        for name in re.findall(r"`((?:\w+/)+\w+\.py)`|\]\(\.\./([\w/.]+)\)", path.read_text())
        if not any((base / (name[0] or name[1])).exists() for base in places)
    ]
    assert missing == []
