"""What a node is short of: which errors say so, and when it tries again."""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path

import pytest

from cloudmytask.core.shortages import TRIALS, Shortages, resource_of
from cloudmytask.model.words import Resource
from cloudmytask.store.files import store_failed


@pytest.mark.parametrize(
    ("number", "resource"),
    [
        (errno.ENOSPC, Resource.DISK),
        (errno.EDQUOT, Resource.DISK),
        (errno.EMFILE, Resource.DESCRIPTORS),
        (errno.ENFILE, Resource.DESCRIPTORS),
        (errno.ENOMEM, Resource.MEMORY),
        (errno.EIO, None),
        (errno.EACCES, None),
        (errno.EAGAIN, None),
    ],
)
def test_an_error_says_what_the_node_is_short_of(number: int, resource: Resource | None) -> None:
    error = OSError(number, os.strerror(number))
    assert resource_of(error) is resource
    assert store_failed(Path("x"), error).resource is resource


def test_again_means_processes_when_one_is_started() -> None:
    assert resource_of(BlockingIOError(errno.EAGAIN, "again"), launching=True) is Resource.PROCESSES


def test_a_full_database_is_a_full_disk() -> None:
    database = sqlite3.connect(":memory:")
    database.execute("PRAGMA max_page_count = 2")
    with pytest.raises(sqlite3.OperationalError) as failed:
        database.execute("CREATE TABLE a (b)").execute("INSERT INTO a VALUES (zeroblob(100000))")
    assert store_failed(Path("x"), failed.value).resource is Resource.DISK
    assert store_failed(Path("x"), sqlite3.OperationalError("no such table")).resource is None


def test_a_shortage_is_news_once_and_pauses_grow_with_each_failed_trial() -> None:
    shortages = Shortages()
    assert shortages.may_try(0.0)
    assert shortages.met(Resource.PROCESSES, 0.0, 0.0)
    now = 0.0
    for failures in range(1, 12):
        assert shortages.current == (Resource.PROCESSES,)
        pause = TRIALS.delay(failures, 0.0)
        assert not shortages.may_try(now + pause - 0.001)
        now += pause
        assert shortages.may_try(now)
        shortages.trial(now)
        assert not shortages.may_try(now), "one tries at a time"
        assert not shortages.met(Resource.PROCESSES, now, 0.0), "it is no news"
    assert pause == TRIALS.ceiling
    assert shortages.over(*Resource) == (Resource.PROCESSES,)
    assert shortages.over(*Resource) == ()
    assert shortages.may_try(now)


def test_what_began_before_the_shortage_and_fails_late_does_not_lengthen_the_pause() -> None:
    shortages = Shortages()
    for _ in range(50):
        shortages.met(Resource.DESCRIPTORS, 0.0, 0.0)
    assert shortages.may_try(TRIALS.first)


def test_a_trial_that_nobody_hears_of_is_followed_by_another() -> None:
    shortages = Shortages()
    shortages.met(Resource.DISK, 0.0, 0.0)
    shortages.trial(1.0)
    assert shortages.may_try(1.0 + TRIALS.delay(2, 0.0))


def test_all_that_is_lacking_must_be_worth_a_trial() -> None:
    shortages = Shortages()
    shortages.met(Resource.DISK, 0.0, 0.0)
    shortages.met(Resource.MEMORY, 10.0, 0.0)
    assert shortages.current == (Resource.DISK, Resource.MEMORY)
    assert not shortages.may_try(10.0)
    assert shortages.over(Resource.MEMORY) == (Resource.MEMORY,)
    assert shortages.may_try(10.0)
