"""Removing trees that somebody goes on writing to. The writer has its turn after each step of the removal."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Generator, Iterator
from itertools import count
from pathlib import Path

import pytest

from cloudmytask.store.removal import LONGEST, PATIENCE, SLICE, TreeRemoval, remove_tree


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(20):
        (tree / f"f{number}").touch()
    return tree


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def removal(
    parent: int, write: Callable[[int], object] = lambda _number: None, seconds_per_step: float = 0.0
) -> TreeRemoval:
    """Of the directory ``tree``; ``write`` is called after each step, by its number."""
    moments = count()

    def steps() -> Generator[bool]:
        fresh = count()
        for number, disturbed in enumerate(remove_tree(parent, "tree", lambda: f".gone-{next(fresh)}")):
            write(number)
            yield disturbed

    return TreeRemoval("tree", steps(), lambda: next(moments) * seconds_per_step)


def finish(removal: TreeRemoval) -> int:
    """How many slices it takes."""
    return next(number for number in count(1) if removal.advance())


def test_a_large_tree_is_removed_slice_by_slice(parent: int, tree: Path) -> None:
    slices = finish(removal(parent, seconds_per_step=SLICE / 4))
    assert 4 <= slices <= 8
    assert not tree.exists()


def test_a_tree_that_nobody_writes_to_may_take_longer_than_our_patience(parent: int, tree: Path) -> None:
    assert finish(removal(parent, seconds_per_step=PATIENCE)) > 2
    assert not tree.exists()


def test_entries_that_vanish_meanwhile_are_no_obstacle(parent: int, tree: Path) -> None:
    (tree / "sub").mkdir()

    def take_away(number: int) -> None:
        for file in sorted(tree.glob("*"))[:3] if tree.exists() else []:
            file.rmdir() if file.is_dir() else file.unlink()

    finish(removal(parent, take_away))
    assert list(tree.parent.iterdir()) == []


def test_a_few_late_entries_are_removed_too(parent: int, tree: Path) -> None:
    def write(number: int) -> None:
        if tree.exists() and number < 30:
            (tree / f"late{number}").mkdir()
            (tree / f"late{number}" / "below").touch()

    finish(removal(parent, write))
    assert list(tree.parent.iterdir()) == []


def test_a_writer_who_never_ends_is_given_up_for_refusals(parent: int, tree: Path) -> None:
    with pytest.raises(OSError) as caught:
        finish(removal(parent, lambda number: (tree / f"late{number}").touch()))
    assert caught.value.errno == errno.ENOTEMPTY
    assert tree.exists()


@pytest.mark.parametrize(
    ("undisturbed", "worth"),
    [(0, PATIENCE), (1000, 500 + PATIENCE), (10**9, LONGEST)],
    ids=["at once", "after a while", "never found out"],
)
def test_a_writer_who_never_ends_is_given_up_for_time(undisturbed: int, worth: float) -> None:
    steps = count()

    def endless() -> Generator[bool]:
        for number in steps:
            yield number >= undisturbed

    # the clock is looked at once for each step, and once more for each slice
    moments = (number / 2 for number in count())
    with pytest.raises(OSError, match="somebody goes on writing to tree") as caught:
        finish(TreeRemoval("tree", endless(), lambda: next(moments)))
    assert caught.value.errno == errno.EBUSY
    assert next(steps) / 2 == pytest.approx(worth, abs=2)
